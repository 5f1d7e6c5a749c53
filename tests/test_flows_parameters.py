"""The form of a run in Prefect's UI."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows.parameters import ALL, Limits, load
from flows.pipeline import pipeline
from thresher.errors import RecipeError

Write = Callable[..., Path]


def test_limits_change_the_recipe_after_the_overrides(recipe: Write) -> None:
    """Prompts: the fewer of the set's own limit and this one."""
    path = str(recipe())
    assert load(path, None, ALL).recipe == load(path, [], ALL).recipe
    limits = Limits(prompts=2, samples_per_prompt=3, max_tokens=8, target_rows=5)
    found = load(path, ["sampling.max_tokens=12", "prompts.0.limit=3"], limits).recipe
    sampling = found.sampling
    assert (found.prompts[0].limit, sampling.samples_per_prompt, sampling.max_tokens, sampling.target_rows) == (2, 3, 8, 5)
    assert load(path, ["prompts.0.limit=1"], Limits(prompts=2)).recipe.prompts[0].limit == 1
    with pytest.raises(RecipeError, match="max_tokens"):
        load(path, ["sampling.max_tokens=0"], limits)


@pytest.mark.parametrize("wrong", [{"prompts": 0}, {"max_tokens": 0}, {"samples_per_prompt": 10**6}, {"rows": 1}])
def test_limits_out_of_bounds_are_refused(wrong: dict[str, Any]) -> None:
    """And unknown ones."""
    with pytest.raises(ValidationError):
        Limits(**wrong)


def test_the_form_describes_every_parameter_and_gives_each_one_type() -> None:
    """What Prefect sends to its UI. Nothing is required."""
    from prefect.utilities.callables import parameter_schema

    schema = parameter_schema(pipeline).model_dump_for_openapi()
    fields = schema["properties"] | schema["definitions"]["Limits"]["properties"]
    assert list(schema["properties"]) == ["recipe", "overrides", "limits", "out", "salt"]
    assert [name for name, field in fields.items() if not field.get("description")] == []
    assert [name for name, field in fields.items() if "anyOf" in field] == []
    assert schema.get("required", []) == []
    assert [name for name, field in fields.items() if "default" in field and field["default"] is None] == []
    assert fields["limits"]["default"] == {}
    assert schema["properties"]["recipe"]["default"] == "data/recipes/demo.yaml"
