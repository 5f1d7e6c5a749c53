"""What a run notes of its models, and when another recipe continues it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.several import model_directory, two_models
from thresher.errors import ModelError, RecipeError
from thresher.inputs import recipe_file
from thresher.running.describe_models import by_label, describe, grown, keys_of

Write = Callable[..., Path]
COMMON = {"sampling": {"max_tokens": 16}, "salt": ""}


def decides(*names: str, **changed: Any) -> dict[str, Any]:
    models = {name: {"model": {"name": name}, "engine": {}, "reasoning": None, "tool_parser": None} for name in names}
    return {**COMMON, **changed, "models": models}


def test_one_model_is_noted_as_itself(recipe: Write, tmp_path: Path) -> None:
    model_directory(tmp_path, "first")
    noted = describe(recipe_file.load(recipe(model={"name": "first"})))
    assert noted["name"] == "first"
    assert "models" not in noted
    assert noted["decides"]["model"]["revision"] == noted["revision"]


def test_labels_tell_models_of_one_name_apart(recipe: Write, tmp_path: Path) -> None:
    """By the revision first, then by their number."""
    two_models(recipe, tmp_path)
    served = [
        {"name": "a", "revision": revision, "engine": served_with(body)} for revision, body in (("x", 1), ("y", 1), ("y", 2))
    ]
    noted = describe(recipe_file.load(recipe(models=[{"name": "first"}, *served])))
    assert [model["label"] for model in noted["models"]] == ["first", "a@x", "a@y #3", "a@y #4"]
    assert len({model["key"] for model in noted["models"]}) == 4


def served_with(value: int) -> dict[str, Any]:
    return {"kind": "openai_http", "base_urls": ["http://127.0.0.1:9/v1"], "extra_body": {"truncate": value}}


def test_a_fault_names_the_entry(recipe: Write, tmp_path: Path) -> None:
    path = two_models(recipe, tmp_path, second={"reasoning": "qwen33"})
    with pytest.raises(RecipeError, match=r"recipe.yaml:\d+: models\[1\]\.reasoning: vLLM has no reasoning parser 'qwen33'"):
        describe(recipe_file.load(path))
    path = recipe(models=[{"name": "first"}, {"name": "third"}])
    with pytest.raises(ModelError, match="third"):
        describe(recipe_file.load(path))


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        (decides("a"), decides("a", "b"), True),
        (decides("a", "b"), decides("b", "a"), True),
        (decides("a", "b"), decides("a"), False),
        (decides("a"), decides("b"), False),
        (decides("a"), decides("a", "b", salt="other"), False),
    ],
)
def test_a_run_grows_by_models(theirs: dict[str, Any], ours: dict[str, Any], expected: bool) -> None:
    assert grown(theirs, ours, lambda: keys_of(theirs)) == (expected, "")
    alone = {**COMMON, **decides("a")["models"]["a"]}
    assert grown(alone, decides("a", "b"), set)[0]
    assert not grown(alone, decides("b", "c"), set)[0]
    assert by_label(alone, "a") == decides("a")


def test_a_model_without_samples_may_be_left_out() -> None:
    assert grown(decides("a", "b"), decides("a", "c"), lambda: keys_of(decides("a")))[0]
    assert not grown(decides("a", "b"), decides("c"), lambda: keys_of(decides("a")))[0]
