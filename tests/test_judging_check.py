"""Verifiers are checked on references whose truth is known."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.runs import run_recipe
from thresher.errors import RecipeError
from thresher.inputs import recipe_file
from thresher.judging.check import check_recipe


@pytest.mark.slow
def test_a_verifier_that_refuses_its_own_references_stops_the_run(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Before anything is sampled, with the prompt and the verdict on its reference; the recipe may leave the check out."""
    path = recipe(filters=[{"name": "exact_answer", "parameters": {"strip": "Paris"}}])

    with pytest.raises(RecipeError) as raised:
        run_recipe(path, tmp_path / "run")

    assert "refuses the reference of capital 'Capital of France?': answer 'Paris': undecided bad_reference" in str(raised.value)
    assert "Spain" not in str(raised.value)
    assert not list((tmp_path / "run").glob("samples/*"))
    assert run_recipe(path, tmp_path / "run", "run.check_golds=0").audit.samples == 16


def test_rows_that_cannot_be_carried_are_shown(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """By family and reason, as a line and as rows of a table."""
    asked = {"role": "user", "content": "Capital of France?"}
    chats = [[asked], [{"role": "user", "content": [{"type": "image"}]}], [{"role": "assistant", "content": "Paris"}]]
    prompts = {"family": "capital", "source": {"kind": "jsonl", "path": "chats.jsonl"}, "messages": "chat"}
    path = recipe(prompts=[prompts])
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps({"chat": chat, "answer": "Paris"}) + "\n" for chat in chats))

    report = check_recipe(recipe_file.load(path, []))

    left_out = [line for line in report.lines() if "left out" in line]
    assert left_out == ["capital: 1 rows left out: an image", "capital: 1 rows left out: no turn of the user"]
    assert report.tables()["refused"] == [
        {"name": "capital", "reason": "an image", "rows": 1},
        {"name": "capital", "reason": "no turn of the user", "rows": 1},
    ]
    assert report.faults == ()


@pytest.mark.slow
@pytest.mark.parametrize("after", [None, "Answer:"])
def test_a_scorer_that_keeps_nonsense_is_refused(recipe: Callable[..., Path], after: str | None) -> None:
    """Also where a marker stands before the answer."""
    prompts = {"family": "backwards", "source": {"kind": "reasoning_gym", "name": "spell_backward", "size": 12, "seed": 1}}
    path = recipe(prompts=[prompts], filters=[{"name": "reasoning_gym", "parameters": {"threshold": 0.1, "after": after}}])

    faults = check_recipe(recipe_file.load(path, [])).faults

    assert any("the scorer of backwards keeps nonsense for" in fault for fault in faults)
