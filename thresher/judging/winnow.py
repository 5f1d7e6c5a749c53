"""Runs a recipe's filters over the pool, a shard at a time, and writes what each said of each sample it saw.

Filters run in the order of the recipe, but neighbours that judge samples by themselves cheapest first (run.filter_order); a
sample that one does not keep is not shown to the next, unless the audit is to see how filters overlap (audit.exhaustive).
Anchors are shown only to the filters that judge a sample by itself. Filters over the whole corpus come last, one pass each.

A verdict is given once: what a filter of the same key said of the same sample is taken from the verdicts that are there, or from
what this process remembers. Only undecided samples are judged anew.
"""

import json
import logging
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from filters.base import SO_FAR, Filter, Role, Scope
from filters.judging import judge, judge_corpus
from filters.similarity import near_duplicate
from schemas.executors import RayExecutorSpec
from schemas.manifest import Entry
from schemas.recipe import FilterSpec
from schemas.sample import VERDICTS, Kind, Outcome
from thresher import ids
from thresher.dedupe import within_run
from thresher.dedupe.released import ASKED, open_index
from thresher.errors import StoreError
from thresher.estimators.diversity import distinct_of
from thresher.executors.executor import Map, map_here
from thresher.judging import filter_sets
from thresher.judging.build import READABLE, Built, blamed_on_recipe, build_filters, opened_tools
from thresher.judging.verdict_cache import earlier_verdicts, judged_once
from thresher.pool import judged as pool
from thresher.pool import rows as shards
from thresher.pool.judged import PromptCount, prompt_count
from thresher.pool.run import Run
from thresher.pool.store import HASHED_BYTES, Store, shard_name

log = logging.getLogger(__name__)


Mask = NDArray[np.bool_]


def winnow_key(built: Sequence[Built], samples: Sequence[str], *, exhaustive: bool = False) -> str:
    """Hash of what verdicts are made from: the filters in order, what they are shown, and the samples' hashes."""
    how = ["exhaustive"] if exhaustive else []
    return ids.digest("verdicts", [[label, made.key, spec.families] for label, spec, made in built], list(samples), *how)


def applicable(samples: pa.Table, spec: FilterSpec, made: Filter) -> Mask:
    """Which samples a filter is there for, whatever became of them before."""
    mask = np.ones(samples.num_rows, bool)
    if spec.families is not None:
        mask &= pc.is_in(samples["family"], pa.array(spec.families, pa.string())).to_numpy(zero_copy_only=False)
    if made.scope is not Scope.SAMPLE:
        mask &= ~samples["anchor"].to_numpy(zero_copy_only=False)
    return mask


def judge_shard(run: Run, shard: int) -> Entry:
    """Write the verdicts on one shard, unless they are there already. Those that an earlier pass gave are taken from there."""
    store = run.store
    entry = store.entry(f"samples/{shard_name(shard)}")
    if entry is None:
        raise StoreError(f"{store.path(f'samples/{shard_name(shard)}')}: not sampled yet; a shard is judged after it is sampled")
    with filter_sets.of_this_process.use(run) as filter_set:
        return _judged_shard(run, shard, entry, filter_set.local)


def _judged_shard(run: Run, shard: int, entry: Entry, local: Sequence[Built]) -> Entry:
    store, exhaustive = run.store, run.recipe.audit.exhaustive
    name, key = f"verdicts/{shard_name(shard)}", winnow_key(local, [entry.sha256], exhaustive=exhaustive)
    if done := store.finished(name, key):
        return done
    samples = store.read_table(f"samples/{shard_name(shard)}", _columns(local))
    tables, facts, alive = _cascade(samples, local, exhaustive=exhaustive, earlier=earlier_verdicts(store, name, entry))
    hits = int((alive & ~samples["anchor"].to_numpy()).sum())
    noted = {"filters": facts, "hits": hits, "samples": entry.sha256}
    if "completion" in samples.column_names:
        noted["distinct"] = distinct_of(samples, alive & ~samples["anchor"].to_numpy())
    return store.write_table(name, pa.concat_tables(tables), key=key, facts=noted)


def unjudged(run: Run, sampled: Iterable[int]) -> tuple[list[int], dict[int, int]]:
    """Which of the sampled shards lack verdicts of these filters on these samples; and the hits of the others, by shard. Up to
    HASHED_BYTES of verdicts are hashed, and a damaged file is moved aside."""
    store, exhaustive = run.store, run.recipe.audit.exhaustive
    with filter_sets.of_this_process.use(run) as filter_set:
        local = filter_set.local
    left, hits, hashed = [], dict[int, int](), 0
    for shard in sampled:
        name, entry = f"verdicts/{shard_name(shard)}", store.entry(f"samples/{shard_name(shard)}")
        key = None if entry is None else winnow_key(local, [entry.sha256], exhaustive=exhaustive)
        done = None if key is None else store.finished(name, key, hashed=hashed < HASHED_BYTES)
        if done is None:
            left.append(shard)
        else:
            hashed += done.bytes
            hits[shard] = int(done.facts["hits"])
    return left, hits


def count_prompts(run: Run, samples: pa.Table) -> dict[str, PromptCount]:
    """Judge samples (schema SAMPLES, whole prompts) and count each prompt's, by prompt_id; nothing is written."""
    with filter_sets.of_this_process.use(run) as filter_set:
        seen = samples.select(_columns(filter_set.local))
        tables, facts, _ = _cascade(seen, filter_set.local)
    return prompt_count(pool.judged(seen, pa.concat_tables(tables), pool.filters_in(facts)))


def _columns(local: Sequence[Built]) -> list[str]:
    asked = {"sample_id", "prompt_id", "family", "anchor", "index", "unreadable", "error"}.union(
        *(m.columns for _, _, m in local)
    )
    return sorted((asked | {"reference"} if "answer" in asked else asked) - set(SO_FAR))


def _cascade(
    samples: pa.Table, local: Sequence[Built], *, exhaustive: bool = False, earlier: pa.Table | None = None
) -> tuple[list[pa.Table], list[dict[str, Any]], Mask]:
    """Verdict tables, the facts of each filter, and which samples every filter kept."""
    alive, tables, facts = drawn(samples), [VERDICTS.empty_table()], []
    everything = alive.copy()
    so_far = SoFar(samples, alive)
    for label, spec, made in local:
        wide = exhaustive and made.scope is Scope.SAMPLE and made is not READABLE
        if made.role is Role.NEAR_MISS:
            rows = so_far.passed_or_missed()
        else:
            rows = np.flatnonzero((everything if wide else alive) & applicable(samples, spec, made))
        began = time.perf_counter()
        seen = samples.take(pa.array(rows))
        with blamed_on_recipe():
            given, known = (
                so_far.judged(made, rows, seen) if set(made.columns) & set(SO_FAR) else judged_once(made, seen, earlier)
            )
        so_far.add(made, rows, given)
        if made.role is Role.NEAR_MISS:
            missed = so_far.missed[rows]
            rows, seen, given = rows[missed], seen.filter(pa.array(missed)), given.filter(pa.array(missed))
        else:
            alive[rows] &= pc.equal(given["outcome"], Outcome.KEEP.value).to_numpy(zero_copy_only=False)
        if made is READABLE:
            everything = alive.copy()
        tables.append(shards.verdict_rows(label, made, rows, seen["sample_id"], given))
        seconds = time.perf_counter() - began
        facts.append(shards.filter_facts(label, spec, made, seconds=seconds, known=known, exhaustive=wide))
    return tables, facts, alive


class SoFar:
    """What the filters that ran say of the samples of a shard: the columns of filters.base.SO_FAR, for those that tell duplicates
    and near misses."""

    def __init__(self, samples: pa.Table, alive: Mask) -> None:
        self._samples = samples
        rows = samples.num_rows
        self._open = alive.copy()
        self._repeats, self.missed, self._verified = np.zeros(rows, bool), np.zeros(rows, bool), np.zeros(rows, bool)
        self._scores, self._draws = np.full(rows, np.nan), np.ones(rows, np.int64)

    def add(self, made: Filter, rows: NDArray[np.int64], given: pa.Table) -> None:
        """Note what a filter said of the samples at `rows`."""
        if made.role is Role.NEAR_MISS:
            return
        kept = pc.equal(given["outcome"], Outcome.KEEP.value).to_numpy(zero_copy_only=False)
        dropped = pc.equal(given["outcome"], Outcome.DROP.value).to_numpy(zero_copy_only=False) & self._open[rows]
        if made.role is Role.DUPLICATE:
            self._repeats[rows[dropped]] = True
            self._draws[rows[kept]] = pool.multiplicities(given["detail"].filter(pa.array(kept)), self._draws[rows[kept]])
        else:
            scored = pc.is_valid(given["score"]).to_numpy(zero_copy_only=False)
            self._scores[rows[scored]] = given["score"].drop_null().to_numpy()
        if made.role is Role.VERIFIER:
            self.missed[rows[dropped]] = True
            self._verified[rows[kept]] = True
        self._open[rows[~kept]] = False

    def passed_or_missed(self) -> NDArray[np.int64]:
        """Rows of hits, of misses but for anchors, and of anchors that passed."""
        drawn = ~self._samples["anchor"].to_numpy(zero_copy_only=False)
        return np.flatnonzero(self._open | (self.missed & drawn))

    def judged(self, made: Filter, rows: NDArray[np.int64], seen: pa.Table) -> tuple[pa.Table, int]:
        """Verdicts of a filter that asks for the verdicts so far; they are never known beforehand."""
        kinds = np.where(self.missed[rows], Kind.MISS.value, np.where(self._repeats[rows], Kind.DUPLICATE.value, Kind.HIT.value))
        columns = {
            "kind": pa.array(kinds, pa.string()),
            "score": pa.array(self._scores[rows], mask=np.isnan(self._scores[rows])),
            "multiplicity": pa.array(self._draws[rows]),
        }
        if "answer" in made.columns:
            columns["answer"] = pc.if_else(pa.array(self._verified[rows]), seen["reference"], pa.scalar(None, pa.string()))
        for name in set(columns) & set(made.columns):
            seen = seen.append_column(name, columns[name])
        return judge(made, seen), 0


def drawn(samples: pa.Table) -> Mask:
    """Which samples there are to judge: all but those that the engine could not draw."""
    found: Mask = pc.is_null(samples["error"]).to_numpy()
    return found.copy()


def compare(run: Run, map_parts: Map = map_here, published: Collection[str] = ()) -> int:
    """Run the filters over the whole corpus, one pass each over the sampled shards; returns how many filters there are.
    `map_parts` spreads the search for duplicates that do not fit in memory over workers. `published`: the runs that were released
    to where this run is to go."""
    compared = _compared_with(run, published)  # before the filter opens the index, so that it knows no less
    with opened_tools(run.recipe, run.base) as tools:
        built = build_filters(run.recipe, tools, imported=not run.sampled, known=compared)
        corpus = [item for item in built if item.filter.scope is Scope.CORPUS]
        _run_over_corpus(run, corpus, map_parts, compared)
    return len(corpus)


def _run_over_corpus(run: Run, corpus: Sequence[Built], map_parts: Map, compared: Mapping[str, str]) -> None:
    store, recipe = run.store, run.recipe
    pool.drop_corpus(store, keep=len(corpus))
    sampled = pool.sampled(store)
    for number, item in enumerate(corpus):
        hashes = [entry.sha256 for shard in sampled for entry in pool.verdict_entries(store, shard, number)]
        of_index = item.filter.name == near_duplicate.RELEASED
        key = winnow_key([item], [*hashes, *([ids.digest(compared)] if of_index else [])])
        names = [pool.corpus_name(number, shard) for shard in sampled]
        if all(store.finished(name, key) for name in names):
            continue
        pool.drop_corpus(store, keep=number)
        if of_index:
            store.write_bytes(ASKED, (json.dumps(compared, indent=1) + "\n").encode())
        if item.filter.name == near_duplicate.RUN and recipe.dedupe is not None and within_run.needed(store, recipe):
            _through_files(run, within_run.Pass(store, number, key, recipe.dedupe), map_parts)
        else:
            _one_pass(store, item, number, key)


def _through_files(run: Run, part: within_run.Pass, map_parts: Map) -> None:
    recipe = run.recipe
    scratch = None if recipe.run.scratch is None else run.base / recipe.run.scratch
    if scratch is None and not run.store.local and isinstance(recipe.executor, RayExecutorSpec):
        log.warning("duplicates are searched for on this machine only; set run.scratch to a folder that all machines reach")
        map_parts = map_here
    within_run.through_files(part, int(recipe.run.dedupe_gib * 2**30), map_parts, scratch)


def _compared_with(run: Run, published: Collection[str]) -> dict[str, str]:
    """The releases that the run's samples may not repeat, with the dataset of each: those that its index had before the run
    released itself, and all that were released to where it is to go."""
    spec = run.recipe.dedupe
    if spec is None or spec.released is None:
        return {}
    with blamed_on_recipe():
        index = open_index(spec, run.base).manifest
    released = index.releases
    before = set(released[: released.index(run.key)] if run.key in released else released) | (set(published) & set(released))
    return {name: index.versions.get(name, "") for name in released if name in before and name != run.key}


def _judged(made: Filter, batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
    with blamed_on_recipe():
        yield from judge_corpus(made, batches)


def _one_pass(store: Store, item: Built, number: int, key: str) -> None:
    label, spec, made = item
    seen: deque[tuple[NDArray[np.int64], pa.ChunkedArray, int]] = deque()

    def batches() -> Iterator[pa.Table]:
        for samples in pool.each_judged(store, _columns([item])):
            kept = pc.equal(samples["outcome"], Outcome.KEEP.value).to_numpy(zero_copy_only=False)
            rows = np.flatnonzero(kept & applicable(samples, spec, made))
            table = samples.take(pa.array(rows))
            seen.append((rows, table["sample_id"], int((kept & ~samples["anchor"].to_numpy()).sum())))
            yield table

    began = time.perf_counter()
    for shard, given in zip(pool.sampled(store), _judged(made, batches()), strict=True):
        rows, names, hits = seen.popleft()
        hits -= len(rows) - int(pc.sum(pc.equal(given["outcome"], Outcome.KEEP.value)).as_py() or 0)
        noted = shards.filter_facts(label, spec, made, seconds=time.perf_counter() - began, known=0, exhaustive=False)
        facts = {"filters": [noted], "hits": hits}
        verdicts = shards.verdict_rows(label, made, rows, names, given)
        store.write_table(pool.corpus_name(number, shard), verdicts, key=key, facts=facts)
        began = time.perf_counter()
