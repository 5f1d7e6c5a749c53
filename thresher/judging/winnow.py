"""Runs a recipe's filters over the pool, a shard at a time, and writes the verdict of each filter on each sample it judged.

Filters run in the order of the recipe; neighbours that judge samples one by one run cheapest first (run.filter_order). A sample
that a filter does not keep is not passed to the next, unless the audit is to see how filters overlap (audit.exhaustive). Anchors
are passed only to filters that judge samples one by one. Filters over the whole corpus come last (thresher.judging.corpus).

A verdict is given once: verdicts of a filter with the same key on the same sample are taken from an earlier pass, or from the
memory of this process. Only undecided samples are judged again: all of them in a pass with other filters, and on every run those
that are undecided because something was broken.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from filters.base import SO_FAR, Filter, Role, Scope
from filters.chunks import take
from filters.judging import COMPARED, judge
from schemas.manifest import Entry
from schemas.recipe import FilterSpec
from schemas.sample import VERDICTS, Kind, Outcome
from thresher import ids
from thresher.errors import StoreError
from thresher.estimators.diversity import distinct_of
from thresher.judging import filter_sets
from thresher.judging.build import READABLE, Built, blamed_on_recipe
from thresher.judging.verdict_cache import earlier_verdicts, judged_once
from thresher.pool import judged as pool
from thresher.pool.prompt_counts import PromptCount, prompt_count
from thresher.pool.rows import filter_facts, verdict_rows
from thresher.pool.run import Run
from thresher.pool.store import HASHED_BYTES, shard_name

Mask = NDArray[np.bool_]
_ALWAYS_READ = {"sample_id", "prompt_id", "family", "anchor", "index", "unreadable", "error"}


def winnow_key(built: Sequence[Built], samples: Sequence[str], *, exhaustive: bool = False) -> str:
    """Hash of everything that verdicts are made from: the filters in order, which samples they see, the samples' hashes."""
    mode = ["exhaustive"] if exhaustive else []
    filters = [[item.label, item.filter.key, item.spec.families] for item in built]
    return ids.digest("verdicts", filters, list(samples), *mode)


def applicable(samples: pa.Table, spec: FilterSpec, filter_: Filter) -> Mask:
    """Which samples (n,) a filter applies to: those of its families, without anchors where it compares samples."""
    mask = np.ones(samples.num_rows, bool)
    if spec.families is not None:
        mask &= pc.is_in(samples["family"], pa.array(spec.families, pa.string())).to_numpy(zero_copy_only=False)
    if filter_.scope is not Scope.SAMPLE:
        mask &= ~samples["anchor"].to_numpy(zero_copy_only=False)
    return mask


def judge_shard(run: Run, shard: int) -> Entry:
    """Write the verdicts on one shard, unless they are written already and nothing was broken. Raises StoreError where it is not
    sampled yet."""
    store, name = run.store, f"samples/{shard_name(shard)}"
    samples = store.entry(name)
    if samples is None:
        raise StoreError(f"{store.path(name)}.parquet: not sampled yet; run `{run.command}` again to complete the run")
    with filter_sets.of_this_process.use(run) as filter_set:
        return _judge_shard(run, shard, samples, filter_set.local)


def _judge_shard(run: Run, shard: int, entry: Entry, built: Sequence[Built]) -> Entry:
    store, exhaustive = run.store, run.recipe.audit.exhaustive
    name, key = f"verdicts/{shard_name(shard)}", winnow_key(built, [entry.sha256], exhaustive=exhaustive)
    finished = store.finished(name, key)
    if finished is not None and not pool.broken_in(store, name, finished):
        return finished
    samples = store.read_table(f"samples/{shard_name(shard)}", columns_read(built))
    earlier = earlier_verdicts(store, name, entry, key)
    tables, facts, kept = cascade(samples, built, exhaustive=exhaustive, earlier=earlier)
    hits, verdicts = kept & ~samples["anchor"].to_numpy(), pa.concat_tables(tables)
    if finished is not None and pool.same_verdicts(store, name, verdicts):
        return finished  # what was made from these verdicts need not be made again for another wording of an error
    noted = {
        "filters": facts,
        "hits": int(hits.sum()),
        "samples": entry.sha256,
        **pool.noted_broken(verdicts),
    }
    if "answer" in samples.column_names:
        noted["distinct"] = distinct_of(pool.as_read(samples), hits)
        noted["hit_bytes"] = pc.sum(pc.binary_length(samples["answer"].filter(pa.array(hits)))).as_py() or 0
    return store.write_table(name, verdicts, key=key, facts=noted)


@dataclass(frozen=True)
class Unjudged:
    """What is left to judge of a run, from one look at each entry."""

    shards: list[int]
    """Those that lack verdicts of the recipe's filters or have broken ones."""
    hits: dict[int, int]
    """The hits of the others, by shard."""
    broken: int
    """Verdicts that are asked for again, because something was broken."""


def unjudged(run: Run, sampled: Iterable[int]) -> Unjudged:
    """Return what is left to judge of sampled shards. Hashes up to HASHED_BYTES of verdicts; a damaged file is moved aside."""
    store, exhaustive = run.store, run.recipe.audit.exhaustive
    with filter_sets.of_this_process.use(run) as filter_set:
        built = filter_set.local
    missing, hits, broken, hashed = [], dict[int, int](), 0, 0
    for shard in sampled:
        samples = store.entry(f"samples/{shard_name(shard)}")
        verdicts, again = None, 0
        if samples is not None:
            key = winnow_key(built, [samples.sha256], exhaustive=exhaustive)
            verdicts = store.finished(name := f"verdicts/{shard_name(shard)}", key, hashed=hashed < HASHED_BYTES)
            again = 0 if verdicts is None else pool.broken_in(store, name, verdicts)
        if verdicts is None or again:
            missing.append(shard)
            broken += again
        else:
            hashed += verdicts.bytes
            hits[shard] = int(verdicts.facts["hits"])
    return Unjudged(missing, hits, broken)


def count_prompts(run: Run, samples: pa.Table) -> dict[str, PromptCount]:
    """Judge samples (schema SAMPLES, whole prompts) and count those of each prompt, by prompt_id. Nothing is written."""
    with filter_sets.of_this_process.use(run) as filter_set:
        samples = samples.select(columns_read(filter_set.local))
        tables, facts, _ = cascade(samples, filter_set.local)
    return prompt_count(pool.judged(samples, pa.concat_tables(tables), pool.filters_in(facts)))


def cascade(
    samples: pa.Table, built: Sequence[Built], *, exhaustive: bool = False, earlier: pa.Table | None = None
) -> tuple[list[pa.Table], list[dict[str, Any]], Mask]:
    """Pass samples through filters. Returns the verdicts of each filter (schema VERDICTS, after an empty table), its facts, and
    which samples every filter kept (n,). `earlier` are verdicts that need not be given again."""
    kept = pc.is_null(samples["error"]).to_numpy().copy()  # what the engine could not draw is judged by no filter
    readable = kept.copy()
    tables, facts = [VERDICTS.empty_table()], list[dict[str, Any]]()
    for item in built:
        filter_, wide = item.filter, exhaustive and item.filter.scope is Scope.SAMPLE and item.filter is not READABLE
        start = time.perf_counter()
        candidates = (readable if wide else kept) & applicable(samples, item.spec, filter_)
        rows, verdicts, reused = _ask(samples, item, candidates, tables=tables, facts=facts, earlier=earlier)
        if filter_.role is not Role.NEAR_MISS:
            kept[rows] &= pc.equal(verdicts["outcome"], Outcome.KEEP.value).to_numpy(zero_copy_only=False)
        if filter_ is READABLE:
            readable = kept.copy()
        tables.append(verdict_rows(item.label, filter_, rows, samples["sample_id"].take(pa.array(rows)), verdicts))
        seconds = time.perf_counter() - start
        facts.append(filter_facts(item.label, item.spec, filter_, seconds=seconds, known=reused, exhaustive=wide))
    return tables, facts, kept


def _ask(
    samples: pa.Table,
    item: Built,
    candidates: Mask,
    *,
    tables: Sequence[pa.Table],
    facts: Sequence[dict[str, Any]],
    earlier: pa.Table | None,
) -> tuple[NDArray[np.int64], pa.Table, int]:
    """The rows that a filter gives verdicts on, its verdicts, and how many of those were reused. A filter that reads what became
    of the samples so far (SO_FAR) is given those columns; its verdicts are never reused."""
    filter_ = item.filter
    if not set(filter_.columns) & set(SO_FAR) and filter_.role is not Role.NEAR_MISS:
        rows = np.flatnonzero(candidates)
        with blamed_on_recipe():
            verdicts, reused = judged_once(filter_, take(samples, rows), earlier)
        return rows, verdicts, reused
    so_far = pool.judged(samples, pa.concat_tables(tables), pool.filters_in(facts))
    missed = pc.fill_null(pc.equal(so_far["kind"], Kind.MISS.value), False).to_numpy()
    if filter_.role is Role.NEAR_MISS:  # compares what missed with what passed; greedy answers only serve to compare with
        passed = pc.fill_null(pc.equal(so_far["kind"], Kind.HIT.value), False).to_numpy()
        candidates = passed | (missed & ~samples["anchor"].to_numpy(zero_copy_only=False))
    rows = np.flatnonzero(candidates)
    with blamed_on_recipe():
        verdicts = judge(filter_, take(so_far, rows))
    if filter_.role is Role.NEAR_MISS:
        rows, verdicts = rows[missed[rows]], verdicts.filter(pa.array(missed[rows]))
    return rows, verdicts, 0


def columns_read(built: Sequence[Built]) -> list[str]:
    """The pool's columns that filters read."""
    names = _ALWAYS_READ.union(*(item.filter.read_columns for item in built))
    names |= {"tool_calls" for item in built if item.filter.role in COMPARED}
    return sorted((names | {"reference"} if "accepted" in names else names) - set(SO_FAR))
