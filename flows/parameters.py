"""The fields of a run's form in Prefect's UI, and the changes to a recipe that they make."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from prefect import runtime
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer
from pydantic.json_schema import SkipJsonSchema

from filters import trust
from schemas.recipe import Recipe
from thresher.errors import ScheduleError
from thresher.inputs import recipe_file
from thresher.inputs.recipe_file import Loaded
from thresher.inputs.recipe_trust import is_of_hub

DEMO = "data/recipes/demo.yaml"
Empty = SkipJsonSchema[None]
"""None, which the form shows as an empty field and not as a choice of types. It must not be the default in the schema: the form
would send it, and the server would refuse it."""
NO_OVERRIDES: list[str] = []


def _nothing() -> None:
    return None


class Limits(BaseModel):
    """How much of the recipe to do. An empty field leaves the value of the recipe."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    prompts: Annotated[int, Field(ge=1, le=10_000_000)] | Empty = Field(default_factory=_nothing)
    """Take only the first prompts of each set."""
    samples_per_prompt: Annotated[int, Field(ge=1, le=65_536)] | Empty = Field(default_factory=_nothing)
    """Completions to draw for each prompt."""
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | Empty = Field(default_factory=_nothing)
    """Longest completion, in tokens; a longer one is cut off and dropped."""
    target_rows: Annotated[int, Field(ge=1, le=1_000_000_000)] | Empty = Field(default_factory=_nothing)
    """Start no further shard once the run has this many rows that passed every filter."""

    @model_serializer(mode="wrap")
    def _only_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


ALL = Limits()


def check_roots(*places: str) -> None:
    """Raise ScheduleError where the recipe or the folder of runs that a deployment names lies outside the roots of this machine
    (filters.trust), before anything of them is read."""
    for place in places if runtime.deployment.id else ():
        try:
            refused = trust.refused_outside_roots(place)
        except trust.ConfigError as error:
            raise ScheduleError(str(error)) from error
        if refused is not None:
            raise ScheduleError(refused)


def check_places(recipe: Recipe, base: Path) -> None:
    """Raise ScheduleError where a deployment would publish to a folder outside the roots, compare with an index there, or keep
    files there while it compares. `base`: where relative paths of the recipe start."""
    repo = recipe.publish.repo
    if repo is not None and not is_of_hub(repo) and ("::" in repo or trust.local_folder(repo) is not None):
        check_roots(repo)
    released = recipe.dedupe.released if recipe.dedupe is not None else None
    for place in (released.index if released is not None else None, recipe.run.scratch):
        if place is not None:
            check_roots(str(base / place))


def load(recipe: str, overrides: Sequence[str] | None, limits: Limits) -> Loaded:
    """Load a recipe with these changes, limits last. Raises RecipeError."""
    loaded = recipe_file.load(recipe, overrides or ())
    changes = list(_changes(loaded, limits))
    return recipe_file.load(recipe, [*(overrides or ()), *changes]) if changes else loaded


def _changes(loaded: Loaded, limits: Limits) -> Iterator[str]:
    """The limits as overrides, such as sampling.max_tokens=64."""
    for name in ("samples_per_prompt", "max_tokens", "target_rows"):
        if (value := getattr(limits, name)) is not None:
            yield f"sampling.{name}={value}"
    if limits.prompts is not None:
        for number, prompts in enumerate(loaded.recipe.prompts):
            yield f"prompts.{number}.limit={min(limits.prompts, prompts.limit or limits.prompts)}"
