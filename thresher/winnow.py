"""Runs a recipe's filters over the pool, a shard at a time, and writes what each said of each sample it saw.

Filters run in the order of the recipe; a sample that one does not keep is not shown to the next. Anchors are shown only to the
filters that judge a sample by itself. Filters over the whole corpus come last, one pass each.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

import filters
from filters.base import Filter, FilterError, Role, Scope, verdict_table
from filters.judging import judge, judge_corpus
from schemas.manifest import Entry
from schemas.recipe import FilterSpec, Recipe
from schemas.sample import VERDICTS, Outcome, to_json
from thresher import ids, pool, shards
from thresher.errors import RecipeError
from thresher.store import Store, shard_name
from thresher.views import PromptCount, prompt_count


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
Mask = NDArray[np.bool_]


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


def applicable(samples: pa.Table, spec: FilterSpec, made: Filter) -> Mask:
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
    entry = store.entry(f"samples/{shard_name(shard)}")
    assert entry is not None, "a shard is winnowed after it is sampled"
    local = _local_filters(store)
    name, key = f"verdicts/{shard_name(shard)}", winnow_key(local, [entry.sha256])
    if done := store.finished(name, key):
        return done
    samples = store.read_table(f"samples/{shard_name(shard)}", _columns(local))
    tables, facts, alive = _cascade(samples, local)
    hits = int((alive & ~samples["anchor"].to_numpy()).sum())
    return store.write_table(name, pa.concat_tables(tables), key=key, facts={"filters": facts, "hits": hits})


def count_prompts(root: str, samples: pa.Table) -> dict[str, PromptCount]:
    """Judge samples (schema SAMPLES, whole prompts) and count each prompt's, by prompt_id; nothing is written."""
    local = _local_filters(Store(root))
    tables, facts, _ = _cascade(samples.select(_columns(local)), local)
    known = pool.filters_in(facts)
    return prompt_count(pool.judged(samples.select(_columns(local)), pa.concat_tables(tables), known))


def _local_filters(store: Store) -> list[Built]:
    manifest = store.manifest()
    assert manifest is not None
    return _built(to_json(manifest.recipe), manifest.origin == "brought")


@lru_cache(maxsize=4)
def _built(recipe: str, brought: bool) -> list[Built]:
    """The filters over samples and prompts: built once, for a filter process is asked for every wave of every prompt."""
    built = built_filters(Recipe.model_validate_json(recipe), brought=brought)
    return [item for item in built if item[2].scope is not Scope.CORPUS]


def _columns(local: Sequence[Built]) -> list[str]:
    always = {"sample_id", "prompt_id", "family", "anchor", "index", "unreadable", "error"}
    return sorted(always.union(*(made.columns for _, _, made in local)))


def _cascade(samples: pa.Table, local: Sequence[Built]) -> tuple[list[pa.Table], list[dict[str, Any]], Mask]:
    """Verdict tables, the facts of each filter, and which samples every filter kept."""
    alive, tables, facts = drawn(samples), [VERDICTS.empty_table()], []
    for label, spec, made in local:
        rows = np.flatnonzero(alive & applicable(samples, spec, made))
        began = time.perf_counter()
        seen = samples.take(pa.array(rows))
        with _named():
            given = judge(made, seen)
        alive[rows] = pc.equal(given["outcome"], Outcome.KEEP.value).to_numpy(zero_copy_only=False)
        tables.append(shards.verdict_rows(label, made, rows, seen["sample_id"], given))
        facts.append(_facts(label, spec, made, time.perf_counter() - began))
    return tables, facts, alive


def drawn(samples: pa.Table) -> Mask:
    """Which samples there are to judge: all but those that the engine could not draw."""
    found: Mask = pc.is_null(samples["error"]).to_numpy()
    return found.copy()


def winnow_corpus(root: str) -> int:
    """Run the filters over the whole corpus, one pass each over the shards that are sampled; returns how many there are."""
    store = Store(root)
    manifest = store.manifest()
    assert manifest is not None
    built = built_filters(Recipe.model_validate(manifest.recipe), brought=manifest.origin == "brought")
    over_all = [item for item in built if item[2].scope is Scope.CORPUS]
    pool.drop_corpus(store, keep=len(over_all))
    sampled = pool.sampled(store)
    for number, item in enumerate(over_all):
        hashes = [entry.sha256 for shard in sampled for entry in pool.verdict_entries(store, shard, number)]
        key = winnow_key([item], hashes)
        names = [pool.corpus_name(number, shard) for shard in sampled]
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
    seen: deque[tuple[NDArray[np.int64], pa.Table, int]] = deque()

    def batches() -> Iterator[pa.Table]:
        for samples in pool.each_judged(store, _columns([item])):
            kept = pc.equal(samples["outcome"], Outcome.KEEP.value).to_numpy(zero_copy_only=False)
            rows = np.flatnonzero(kept & applicable(samples, spec, made))
            seen.append((rows, samples.take(pa.array(rows)), int((kept & ~samples["anchor"].to_numpy()).sum())))
            yield seen[-1][1]

    began = time.perf_counter()
    for shard, given in zip(pool.sampled(store), _judged(made, batches()), strict=True):
        rows, table, hits = seen.popleft()
        hits -= len(rows) - int(pc.sum(pc.equal(given["outcome"], Outcome.KEEP.value)).as_py() or 0)
        facts = {"filters": [_facts(label, spec, made, time.perf_counter() - began)], "hits": hits}
        verdicts = shards.verdict_rows(label, made, rows, table["sample_id"], given)
        store.write_table(pool.corpus_name(number, shard), verdicts, key=key, facts=facts)
        began = time.perf_counter()
