"""Builds the filters of a recipe, in the order in which they run."""

import itertools
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

import filters
from filters import near_duplicate, near_miss
from filters.base import Filter, FilterError, Role, Scope, verdict_table
from schemas.recipe import FilterSpec, Recipe
from schemas.sample import Outcome, to_json
from thresher.dedupe.released import open_index, released_filter
from thresher.errors import RecipeError
from thresher.inputs.recipe_file import Loaded
from thresher.judging import model_engines


def _readable(table: pa.Table) -> pa.Table:
    read = pc.is_null(table["unreadable"])
    detail = [None if text is None else to_json({"error": text}) for text in table["unreadable"].to_pylist()]
    return verdict_table(
        pc.if_else(read, Outcome.KEEP.value, Outcome.UNDECIDED.value),
        pc.if_else(read, "", "unreadable_row"),
        detail=pa.array(detail, pa.string()),
    )


READABLE = Filter("readable", "1", Scope.SAMPLE, Role.QUALITY, _readable, ("unreadable",))
"""Stands first in runs of samples that were brought along: rows that could not be read are undecided."""


Built = tuple[str, FilterSpec, Filter]


def built_filters(recipe: Recipe, base: Path, *, brought: bool, known: Collection[str] | None = None) -> list[Built]:
    """(label, spec, filter) in the order they run; a label is the filter's name, numbered when it stands there twice. Paths among
    parameters are relative to `base`; `known` are the releases that samples may repeat, all by default. Raises FilterError, and
    RecipeError when a filter over the corpus comes before one over a sample or a prompt."""
    model_engines.ready()
    built: list[Built] = [("readable", FilterSpec(name="readable"), READABLE)] if brought else []
    names: dict[str, int] = {}
    for spec in recipe.filters:
        made = filters.build(spec.name, spec.parameters, base)
        names[made.name] = names.get(made.name, 0) + 1
        label = made.name if names[made.name] == 1 else f"{made.name}_{names[made.name]}"
        last = built[-1] if built else None
        if last and last[2].scope is Scope.CORPUS and made.scope is not Scope.CORPUS:
            raise RecipeError(
                f"filters: {label} (scope {made.scope}) stands after {last[0]} (scope corpus); "
                "filters over the whole corpus run last, so put it before"
            )
        built.append((label, spec, made))
    built = _with_relations(built, recipe, base, known)
    if recipe.run.filter_order == "written":
        return built
    # Filters over prompts stay where they stand: what they say depends on what came before them.
    neighbours = itertools.groupby(built, key=lambda item: item[2].scope is Scope.SAMPLE and item[2] is not READABLE)
    cheapest = [sorted(run, key=lambda item: item[2].cost_us) if alone else list(run) for alone, run in neighbours]
    return [item for run in cheapest for item in run]


def _with_relations(built: list[Built], recipe: Recipe, base: Path, known: Collection[str] | None) -> list[Built]:
    """The filters, and those that tell duplicates and near misses after them."""
    local: list[Filter] = []
    over_all: list[Filter] = []
    if recipe.dedupe is not None and recipe.dedupe.within_prompt is not None:
        local.append(near_duplicate.within_prompt(recipe.dedupe))
    if recipe.dedupe is not None and recipe.dedupe.semantic is not None:
        local.append(near_duplicate.semantic(recipe.dedupe, base))
    if recipe.near_miss is not None:
        local.append(near_miss.build(recipe.near_miss))
    if recipe.dedupe is not None and recipe.dedupe.within_run is not None:
        over_all.append(near_duplicate.within_run(recipe.dedupe))
    if recipe.dedupe is not None and recipe.dedupe.released is not None:
        with _named():
            over_all.append(released_filter(recipe.dedupe, base, known))
    first = next((at for at, item in enumerate(built) if item[2].scope is Scope.CORPUS), len(built))
    further = [[(made.name, FilterSpec(name=made.name), made) for made in some] for some in (local, over_all)]
    return [*built[:first], *further[0], *built[first:], *further[1]]


@contextmanager
def _named() -> Iterator[None]:
    """A filter that breaks its contract is the recipe's fault: it names the filter."""
    try:
        yield
    except FilterError as error:
        raise RecipeError(f"filters: {error}") from error


def build_filters(loaded: Loaded) -> list[tuple[FilterSpec, Filter]]:
    """Build the recipe's filters in order. Raises RecipeError that names the line of the filter at fault."""
    built = []
    for number, spec in enumerate(loaded.recipe.filters):
        try:
            built.append((spec, filters.build(spec.name, spec.parameters, loaded.base)))
        except FilterError as error:
            raise RecipeError(f"{loaded.where(('filters', number))}: {error}") from error
    dedupe = loaded.recipe.dedupe
    if dedupe is not None and dedupe.released is not None:
        try:
            open_index(dedupe, loaded.base)
        except FilterError as error:
            raise RecipeError(f"{loaded.where(('dedupe', 'released', 'index'))}: {error}") from error
    return built
