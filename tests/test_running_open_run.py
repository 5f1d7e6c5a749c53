"""A run is opened, found again, or refused because the directory belongs to another one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import known
from helpers.runs import pool_rows, run_recipe
from thresher.errors import RecipeError, SourceError, StoreError
from thresher.inputs import recipe_file
from thresher.pool.store import Store
from thresher.running import steps

Write = Callable[..., Path]


def test_ids_are_the_same_in_every_run_and_others_under_another_salt(recipe: Write, tmp_path: Path) -> None:
    """Identity comes from content; a scheduled run has its own salt."""
    path = recipe()
    for name, salt in (("one", None), ("two", None), ("salted", "night")):
        run_recipe(path, tmp_path / name, salt=salt)
    one, two, salted = ({row["sample_id"] for row in pool_rows(tmp_path / name)} for name in ("one", "two", "salted"))

    assert one == two
    assert not one & salted


def test_another_sampling_in_the_same_directory_is_refused(recipe: Write, tmp_path: Path) -> None:
    """The message says what differs and what to do."""
    path = recipe()
    run_recipe(path, tmp_path / "run")

    with pytest.raises(StoreError, match=r"sampling.max_tokens was 16 and is now 99; choose another directory with --out"):
        steps.begin(recipe_file.load(path, ["sampling.max_tokens=99"]), tmp_path / "run")


def test_changed_prompts_in_the_same_directory_are_refused(recipe: Write, tmp_path: Path) -> None:
    """The prompt file's hash is part of what decides the samples."""
    path = recipe()
    run_recipe(path, tmp_path / "run")
    (tmp_path / "prompts.jsonl").write_text('{"country": "Peru", "answer": "Lima"}\n')

    with pytest.raises(StoreError, match=r"prompts.jsonl was"):
        steps.begin(recipe_file.load(path), tmp_path / "run")


def test_a_corpus_filter_before_another_is_refused(recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could not see what the later one drops."""
    (tmp_path / "over_the_run.py").write_text(
        "from filters.base import Filter, Role, Scope\n"
        "def build(config):\n"
        "    return Filter('over_the_run', '1', Scope.CORPUS, Role.DUPLICATE, lambda batches: [], ('completion',))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    path = recipe(filters=[{"name": "over_the_run:build"}, {"name": "finished"}])

    with pytest.raises(RecipeError, match=r"finished .scope sample. comes after over_the_run"):
        steps.begin(recipe_file.load(path), tmp_path / "run")


def test_no_prompts_is_an_error_before_anything_is_written(recipe: Write, tmp_path: Path) -> None:
    """An empty prompt file is named."""
    path = recipe()
    (tmp_path / "prompts.jsonl").write_text("")

    with pytest.raises(SourceError, match=r"capital.*no rows"):
        steps.begin(recipe_file.load(path), tmp_path / "run")


def test_completions_that_leave_no_room_for_a_prompt_are_refused(recipe: Write, tmp_path: Path) -> None:
    """Before an engine is started, with the line of the recipe."""
    path = recipe(engine={"kind": "vllm", "max_model_len": 16})

    with pytest.raises(RecipeError, match=r"sampling.max_tokens: 16 tokens leave no room for a prompt in the context of 16"):
        steps.begin(recipe_file.load(path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_that_cannot_be_carried_cost_themselves_and_are_noted(recipe: Write, tmp_path: Path) -> None:
    """The run goes through with the others; what was left out is in the entry of its plan."""
    chats: list[Any] = [[{"role": "user", "content": f"Capital of {country}?"}] for country in ("France", "Spain")]
    chats += [[{"role": "user", "content": [{"type": "image"}]}], [{"role": "narrator", "content": "x"}]]
    prompts = {"family": "capital", "source": {"kind": "jsonl", "path": "chats.jsonl"}, "messages": "chat"}
    path = recipe(prompts=[prompts])
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps({"chat": chat, "answer": "Paris"}) + "\n" for chat in chats))

    run_recipe(path, tmp_path / "run")

    assert {row["messages"][0]["content"] for row in pool_rows(tmp_path / "run")} == {"Capital of France?", "Capital of Spain?"}
    facts = known(Store(tmp_path / "run").entry("prompts")).facts
    assert (facts["prompts"], facts["left_out"]) == (2, {"capital": {"an image": 1, "unknown role narrator": 1}})
