"""The filters of a recipe: built, or refused with the line at fault."""

from collections.abc import Callable
from pathlib import Path

import pytest

from thresher.errors import RecipeError
from thresher.inputs import recipe_file
from thresher.running import steps


def test_an_unknown_filter_names_its_line_and_the_nearest(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """The filter list is checked before anything is sampled."""
    path = recipe(filters=[{"name": "finished"}, {"name": "exact_anser"}])

    with pytest.raises(
        RecipeError, match=r"recipe.yaml:\d+: filters\[1\]: no filter is called 'exact_anser'; did you mean exact_answer"
    ):
        steps.begin(recipe_file.load(path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_family_that_no_prompt_set_has_is_refused(recipe: Callable[..., Path]) -> None:
    """A filter limited to a misspelt family would silently judge nothing."""
    with pytest.raises(RecipeError, match="names the family capitl"):
        recipe_file.load(recipe(filters=[{"name": "finished", "families": ["capitl"]}]))
