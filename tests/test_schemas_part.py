"""What holds for every part of a recipe."""

from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from schemas.part import Part
from schemas.recipe import Recipe


def parts(of: type[Part] = Part) -> Iterator[type[Part]]:
    for part in of.__subclasses__():
        if part.__module__.startswith("schemas."):
            yield part
            yield from parts(part)


@pytest.mark.parametrize("part", sorted(set(parts()), key=str), ids=str)
def test_every_key_of_a_recipe_is_described(part: type[Part]) -> None:
    """`kind` names the part itself."""
    undescribed = [name for name, field in part.model_fields.items() if name != "kind" and not field.description]

    assert undescribed == []
    assert part.__doc__


def test_parts_are_frozen_and_know_their_keys() -> None:
    recipe = Recipe(name="small")
    with pytest.raises(ValidationError, match="frozen"):
        recipe.name = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Recipe.model_validate({"name": "small", "nmae": "x"})
