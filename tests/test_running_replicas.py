"""The number of engine replicas that a run wants."""

from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.runs import run_recipe
from thresher.errors import StoreError
from thresher.inputs import recipe_file
from thresher.pool.run import open_run
from thresher.running import steps
from thresher.running.replicas import replicas_wanted, scale


def test_only_a_run_on_a_cluster_is_scaled(recipe: Callable[..., Path], tmp_path: Path) -> None:
    run_recipe(recipe(), tmp_path / "run")

    with pytest.raises(StoreError, match=r"executor.kind is local: one engine, in its process"):
        scale(open_run(tmp_path / "run"), 2)
    assert not (tmp_path / "run" / "replicas.json").exists()


def test_a_run_on_a_cluster_wants_the_last_number_it_was_given(recipe: Callable[..., Path], tmp_path: Path) -> None:
    run = steps.begin(recipe_file.load(recipe(executor={"kind": "ray"})), tmp_path / "run").run
    assert replicas_wanted(run.store) is None

    scale(run, 2)
    scale(run, 3)

    assert replicas_wanted(run.store) == 3
