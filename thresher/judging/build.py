"""Builds the filters of a recipe, in the order in which they run."""

import itertools
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

import filters
from filters.base import Filter, FilterError, Role, Scope, verdict_table
from filters.sandbox import Sandbox
from filters.similarity import near_duplicate, near_miss
from filters.supervise import Workers
from filters.tools import Models, Tools
from schemas.recipe import FilterSpec, Recipe
from schemas.sample import Outcome, to_json
from thresher.dedupe.released import open_index, released_filter
from thresher.errors import RecipeError
from thresher.judging.model_engines import ModelEngines

Where = Callable[[tuple[str | int, ...]], str]
"""Names the place of a key in the recipe's file, such as `demo.yaml:12: filters.0` (Loaded.where)."""


def _readable(table: pa.Table) -> pa.Table:
    readable = pc.is_null(table["unreadable"])
    detail = [None if text is None else to_json({"error": text}) for text in table["unreadable"].to_pylist()]
    return verdict_table(
        pc.if_else(readable, Outcome.KEEP.value, Outcome.UNDECIDED.value),
        pc.if_else(readable, "", "unreadable_row"),
        detail=pa.array(detail, pa.string()),
    )


READABLE = Filter("readable", "1", Scope.SAMPLE, Role.QUALITY, _readable, ("unreadable",))
"""The first filter of a run on the user's own samples: rows that could not be read are undecided."""


class Built(NamedTuple):
    """One filter of a recipe, built."""

    label: str
    """The filter's name, numbered when the recipe names it twice."""
    spec: FilterSpec
    filter: Filter


def tools_of(recipe: Recipe, base: Path, models: Models, home: Path | None = None) -> Tools:
    """Make the tools of a recipe's filters, with as many worker processes as it asks for; `home` as in Tools. The caller closes
    them."""
    count = recipe.run.verifier_workers
    return Tools(base, home, Workers(count), Sandbox(count), models)


@contextmanager
def opened_tools(recipe: Recipe, base: Path, home: Path | None = None) -> Iterator[Tools]:
    """Make the tools of a recipe's filters; their worker processes and models end with the context."""
    with ModelEngines() as models, tools_of(recipe, base, models, home) as tools:
        yield tools


def build_filters(
    recipe: Recipe, tools: Tools, *, imported: bool, known: Collection[str] | None = None, where: Where | None = None
) -> list[Built]:
    """Build the filters of a recipe, in the order in which they run.

    Paths among parameters are relative to `tools.base`. `imported`: the samples are the user's own, so unreadable rows are
    possible. `known`: the earlier releases that samples may not repeat, all by default. `where` names places of the recipe in
    errors.

    Raises RecipeError, which names the filter at fault, and when a filter over the corpus comes before another one.
    """
    built = [Built("readable", FilterSpec(name="readable"), READABLE)] if imported else []
    counts: dict[str, int] = {}
    for number, spec in enumerate(recipe.filters):
        with _blamed(where, "filters", number):
            filter_ = filters.build(spec.name, spec.parameters, tools)
            filter_ = filter_ if spec.reads is None else replace(filter_, reads=spec.reads)
        counts[filter_.name] = counts.get(filter_.name, 0) + 1
        label = filter_.name if counts[filter_.name] == 1 else f"{filter_.name}_{counts[filter_.name]}"
        last = built[-1] if built else None
        if last and last.filter.scope is Scope.CORPUS and filter_.scope is not Scope.CORPUS:
            raise RecipeError(
                f"filters: {label} (scope {filter_.scope}) comes after {last.label} (scope corpus); "
                "filters over the whole corpus run last, so put it before"
            )
        built.append(Built(label, spec, filter_))
    built = _with_relations(built, recipe, tools, known, where)
    if recipe.run.filter_order == "written":
        return built
    # A filter over prompts keeps its place: its verdicts depend on the filters before it.
    groups = itertools.groupby(built, key=lambda item: item.filter.scope is Scope.SAMPLE and item.filter is not READABLE)
    cheapest = [sorted(group, key=lambda item: item.filter.cost_us) if alone else list(group) for alone, group in groups]
    return [item for group in cheapest for item in group]


def _with_relations(
    built: list[Built], recipe: Recipe, tools: Tools, known: Collection[str] | None, where: Where | None
) -> list[Built]:
    """Add the filters that find duplicates and near misses: within shards before, over the corpus after the recipe's own filters
    over the corpus."""
    local: list[Filter] = []
    corpus: list[Filter] = []
    dedupe = recipe.dedupe
    if dedupe is not None and dedupe.within_prompt is not None:
        local.append(near_duplicate.within_prompt(dedupe))
    if dedupe is not None and dedupe.semantic is not None:
        local.append(near_duplicate.semantic(dedupe, tools))
    if recipe.near_miss is not None:
        local.append(near_miss.build(recipe.near_miss))
    if dedupe is not None and dedupe.within_run is not None:
        corpus.append(near_duplicate.within_run(dedupe))
    if dedupe is not None and dedupe.released is not None:
        with _blamed(where, "dedupe", "released", "index"):
            base = tools.base or Path()
            open_index(dedupe, base)
            corpus.append(released_filter(dedupe, base, known))
    first = next((number for number, item in enumerate(built) if item.filter.scope is Scope.CORPUS), len(built))
    further = [[Built(item.name, FilterSpec(name=item.name), item) for item in group] for group in (local, corpus)]
    return [*built[:first], *further[0], *built[first:], *further[1]]


@contextmanager
def _blamed(where: Where | None, *key: str | int) -> Iterator[None]:
    """Raise a FilterError as a RecipeError that names the key."""
    try:
        yield
    except FilterError as error:
        raise RecipeError(f"{where(key) if where else key[0]}: {error}") from error


@contextmanager
def blamed_on_recipe() -> Iterator[None]:
    """Raise the FilterError of a filter that breaks its contract as a RecipeError."""
    with _blamed(None, "filters"):
        yield
