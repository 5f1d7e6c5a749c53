"""Runs a recipe's filters over the pool, a shard at a time, and writes what each said of each sample it saw.

Filters run in the order of the recipe; a sample that one does not keep is not shown to the next. Anchors are shown only to the
filters that judge a sample by itself. Filters over the whole corpus come last, one pass each.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import filters
from filters.base import Filter, FilterError, Role, Scope, verdict_table
from filters.judging import judge, judge_corpus
from schemas.manifest import Entry
from schemas.recipe import FilterSpec, Recipe
from schemas.sample import VERDICTS, Outcome, to_json
from thresher import ids, pool, shards
from thresher.errors import RecipeError
from thresher.store import Store, shard_name


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


def built_filters(recipe: Recipe, *, brought: bool) -> list[Built]:
    """(label, spec, filter) in order; a label is the filter's name, numbered when it stands there twice. Raises FilterError,
    and RecipeError when a filter over the corpus comes before one over a sample or a prompt."""
    built: list[Built] = [("readable", FilterSpec(name="readable"), READABLE)] if brought else []
    names: dict[str, int] = {}
    for spec in recipe.filters:
        made = filters.build(spec.name, spec.parameters)
        names[made.name] = names.get(made.name, 0) + 1
        label = made.name if names[made.name] == 1 else f"{made.name}_{names[made.name]}"
        last = built[-1] if built else None
        if last and last[2].scope is Scope.CORPUS and made.scope is not Scope.CORPUS:
            raise RecipeError(
                f"filters: {label} (scope {made.scope}) stands after {last[0]} (scope corpus); "
                "filters over the whole corpus run last, so put it before"
            )
        built.append((label, spec, made))
    return built


def winnow_key(built: Sequence[Built], samples: Sequence[str]) -> str:
    """Hash of what verdicts are made from: the filters in order, and the samples' hashes."""
    return ids.digest("verdicts", [[label, made.key, spec.families] for label, spec, made in built], list(samples))


def _facts(label: str, spec: FilterSpec, made: Filter, seconds: float) -> dict[str, Any]:
    return {
        "label": label,
        "name": made.name,
        "version": made.version,
        "key": made.key,
        "scope": made.scope.value,
        "role": made.role.value,
        "parameters": made.parameters,
        "families": spec.families,
        "seconds": round(seconds, 6),
    }


def applicable(samples: pa.Table, spec: FilterSpec, made: Filter) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which samples a filter is there for, whatever became of them before."""
    mask = np.ones(samples.num_rows, bool)
    if spec.families is not None:
        mask &= pc.is_in(samples["family"], pa.array(spec.families, pa.string())).to_numpy(zero_copy_only=False)
    if made.scope is not Scope.SAMPLE:
        mask &= ~samples["anchor"].to_numpy(zero_copy_only=False)
    return mask


def winnow_shard(root: str, shard: int) -> Entry:
    """Write the verdicts on one shard, unless they are there already."""
    store = Store(root)
    manifest = store.manifest()
    entry = store.entry(f"samples/{shard_name(shard)}")
    assert manifest is not None and entry is not None, "a shard is winnowed after it is sampled"
    built = built_filters(Recipe.model_validate(manifest.recipe), brought=manifest.origin == "brought")
    local = [item for item in built if item[2].scope is not Scope.CORPUS]
    name, key = f"verdicts/{shard_name(shard)}", winnow_key(local, [entry.sha256])
    if done := store.finished(name, key):
        return done
    wanted = {"sample_id", "prompt_id", "family", "anchor", "index"}.union(*(made.columns for _, _, made in local))
    samples = store.read_table(f"samples/{shard_name(shard)}", sorted(wanted))
    alive, tables, facts = np.ones(samples.num_rows, bool), [VERDICTS.empty_table()], []
    for label, spec, made in local:
        rows = np.flatnonzero(alive & applicable(samples, spec, made))
        began = time.perf_counter()
        seen = samples.take(pa.array(rows))
        with _named():
            given = judge(made, seen)
        alive[rows] = pc.equal(given["outcome"], Outcome.KEEP.value).to_numpy(zero_copy_only=False)
        tables.append(shards.verdict_rows(label, made, rows, seen["sample_id"], given))
        facts.append(_facts(label, spec, made, time.perf_counter() - began))
    return store.write_table(name, pa.concat_tables(tables), key=key, facts={"filters": facts})


def winnow_corpus(root: str) -> int:
    """Run the filters over the whole corpus, one pass each; returns how many there are."""
    store = Store(root)
    manifest = store.manifest()
    assert manifest is not None
    built = built_filters(Recipe.model_validate(manifest.recipe), brought=manifest.origin == "brought")
    over_all = [item for item in built if item[2].scope is Scope.CORPUS]
    pool.drop_corpus(store, keep=len(over_all))
    count = pool.shards(store)
    for number, item in enumerate(over_all):
        hashes = [entry.sha256 for shard in range(count) for entry in pool.verdict_entries(store, shard, number)]
        key = winnow_key([item], hashes)
        names = [pool.corpus_name(number, shard) for shard in range(count)]
        if all(store.finished(name, key) for name in names):
            continue
        pool.drop_corpus(store, keep=number)
        _one_pass(store, item, number, key)
    return len(over_all)


@contextmanager
def _named() -> Iterator[None]:
    """A filter that breaks its contract is the recipe's fault: it names the filter."""
    try:
        yield
    except FilterError as error:
        raise RecipeError(f"filters: {error}") from error


def _judged(made: Filter, batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
    with _named():
        yield from judge_corpus(made, batches)


def _one_pass(store: Store, item: Built, number: int, key: str) -> None:
    label, spec, made = item
    seen: deque[tuple[np.ndarray[Any, np.dtype[np.int64]], pa.Table]] = deque()

    def batches() -> Iterator[pa.Table]:
        columns = sorted({"sample_id", "prompt_id", "family", "anchor", "index", *made.columns})
        for samples in pool.each_judged(store, columns):
            kept = pc.equal(samples["outcome"], Outcome.KEEP.value).to_numpy(zero_copy_only=False)
            rows = np.flatnonzero(kept & applicable(samples, spec, made))
            seen.append((rows, samples.take(pa.array(rows))))
            yield seen[-1][1]

    began = time.perf_counter()
    for shard, given in enumerate(_judged(made, batches())):
        rows, table = seen.popleft()
        facts = {"filters": [_facts(label, spec, made, time.perf_counter() - began)]}
        verdicts = shards.verdict_rows(label, made, rows, table["sample_id"], given)
        store.write_table(pool.corpus_name(number, shard), verdicts, key=key, facts=facts)
        began = time.perf_counter()
