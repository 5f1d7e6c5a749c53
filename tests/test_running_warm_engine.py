"""Starts of a run's engine."""

from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.lora import write_adapter
from thresher.errors import ModelError
from thresher.inputs import recipe_file
from thresher.running import steps
from thresher.running.progress import Progress
from thresher.running.warm_engine import note_start, warm


def test_no_start_of_an_engine_has_the_seed_of_another(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """They are numbered in the run directory; another salt has others."""
    path = recipe()
    begun = steps.begin(recipe_file.load(path), tmp_path / "run")
    salted = steps.begin(recipe_file.load(path), tmp_path / "salted", salt="night")
    again = steps.begin(recipe_file.load(path), tmp_path / "again")
    starts = [note_start(begun.run), note_start(begun.run), note_start(salted.run)]

    assert [number for number, _ in starts] == [1, 2, 1]
    assert len({seed for _, seed in starts}) == 3
    assert note_start(again.run) == starts[0]


def test_a_machine_with_another_version_of_the_adapter_is_refused(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Before its engine is started."""
    write_adapter(tmp_path / "tuned")
    begun = steps.begin(recipe_file.load(recipe(engine={"kind": "vllm"}, model={"adapter": "tuned"})), tmp_path / "run")
    write_adapter(tmp_path / "tuned", seed=1)

    with (
        pytest.raises(ModelError, match=r"model.adapter 'tuned': .* has \w+, the run was started with \w+"),
        warm(begun.run, Progress()),
    ):
        pass
