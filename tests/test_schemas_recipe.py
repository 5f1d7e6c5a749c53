"""A recipe is refused when its names contradict each other."""

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.recipe import Recipe


def prompts(*families: str) -> list[dict[str, Any]]:
    return [{"family": family, "source": {"kind": "jsonl", "path": "x.jsonl"}} for family in families]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": prompts("a", "b", "a")}, "two sets are named a"),
        ({"prompts": prompts("all")}, "the name of all families together"),
        ({"prompts": prompts("a"), "filters": [{"name": "regex", "families": ["b"]}]}, "regex names the family b"),
        ({"name": "no name at all!"}, "String should match pattern"),
        ({"filterz": []}, "Extra inputs are not permitted"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate({"name": "small"} | changes)


def test_a_recipe_without_prompts_may_name_families_of_imported_samples() -> None:
    recipe = Recipe.model_validate({"name": "small", "filters": [{"name": "regex", "families": ["b"]}]})

    assert recipe.filters[0].families == ("b",)


def test_a_recipe_survives_json() -> None:
    recipe = Recipe.model_validate({"name": "small", "prompts": prompts("a"), "engine": {"kind": "replay", "path": "x"}})

    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
