"""Verifiers are checked on references whose truth is known."""

from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.runs import run_recipe
from thresher.errors import RecipeError


def test_a_verifier_that_refuses_its_own_references_stops_the_run(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Before anything is sampled, with the prompt and the verdict on its reference; the recipe may leave the check out."""
    path = recipe(filters=[{"name": "exact_answer", "parameters": {"strip": "Paris"}}])

    with pytest.raises(RecipeError) as raised:
        run_recipe(path, tmp_path / "run")

    assert "refuses the reference of capital 'Capital of France?': answer 'Paris': undecided bad_reference" in str(raised.value)
    assert "Spain" not in str(raised.value)
    assert not list((tmp_path / "run").glob("samples/*"))
    assert run_recipe(path, tmp_path / "run", "run.check_golds=0").audit.samples == 16
