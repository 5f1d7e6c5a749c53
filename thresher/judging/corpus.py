"""Runs the filters that need every sample of a run, such as duplicates across prompts: one pass each over the sampled shards."""

import json
import logging
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from filters.base import Filter, Scope
from filters.chunks import take
from filters.judging import judge_corpus
from filters.similarity import near_duplicate
from schemas.executors import RayExecutorSpec
from schemas.sample import Outcome
from thresher import ids
from thresher.dedupe import within_run
from thresher.dedupe.released import ASKED, open_index
from thresher.executors.executor import Map, map_here
from thresher.judging.build import Built, blamed_on_recipe, build_filters, opened_tools
from thresher.judging.winnow import applicable, columns_read, winnow_key
from thresher.pool import judged
from thresher.pool.rows import filter_facts, verdict_rows
from thresher.pool.run import Run
from thresher.pool.store import Store

log = logging.getLogger(__name__)


def compare(run: Run, map_parts: Map = map_here, published: Collection[str] = ()) -> int:
    """Run the filters over the whole corpus; return how many there are. `map_parts` spreads a search for duplicates that does not
    fit in memory over workers. `published`: the runs that were released to where this run is to go."""
    compared = _compared_with(run, published)  # before the filter opens the index, so that it knows no less
    with opened_tools(run.recipe, run.base, run.home) as tools:
        built = build_filters(run.recipe, tools, imported=not run.sampled, known=compared)
        corpus = [item for item in built if item.filter.scope is Scope.CORPUS]
        _run_filters(run, corpus, map_parts, compared)
    return len(corpus)


def _run_filters(run: Run, corpus: Sequence[Built], map_parts: Map, compared: Mapping[str, str]) -> None:
    store, dedupe = run.store, run.recipe.dedupe
    judged.drop_corpus(store, keep=len(corpus))
    sampled = judged.sampled(store)
    for number, item in enumerate(corpus):
        hashes = [entry.sha256 for shard in sampled for entry in judged.verdict_entries(store, shard, number)]
        reads_index = item.filter.name == near_duplicate.RELEASED
        key = winnow_key([item], [*hashes, *([ids.digest(compared)] if reads_index else [])])
        entries = [store.finished(judged.corpus_name(number, shard), key) for shard in sampled]
        if all(
            entry is not None and not judged.broken_in(store, judged.corpus_name(number, shard), entry)
            for shard, entry in zip(sampled, entries, strict=True)
        ):
            continue
        judged.drop_corpus(store, keep=number)
        if reads_index:
            store.write_bytes(ASKED, (json.dumps(compared, indent=1) + "\n").encode())
        if item.filter.name == near_duplicate.RUN and dedupe is not None and within_run.needed(store, run.recipe):
            _search_in_files(run, within_run.Pass(store, number, key, dedupe), map_parts)
        else:
            _run_in_memory(store, item, number, key)


def _search_in_files(run: Run, search: within_run.Pass, map_parts: Map) -> None:
    recipe = run.recipe
    scratch = None if recipe.run.scratch is None else run.base / recipe.run.scratch
    if scratch is None and not run.store.local and isinstance(recipe.executor, RayExecutorSpec):
        log.warning("duplicates are searched for on this machine only; set run.scratch to a folder that all machines reach")
        map_parts = map_here
    within_run.through_files(search, int(recipe.run.dedupe_gib * 2**30), map_parts, scratch)


def _compared_with(run: Run, published: Collection[str]) -> dict[str, str]:
    """The releases that the run's samples may not repeat, with the dataset of each: those that its index had before the run
    released itself, and all that were released to where it is to go."""
    spec = run.recipe.dedupe
    if spec is None or spec.released is None:
        return {}
    with blamed_on_recipe():
        index = open_index(spec, run.base).manifest
    releases = index.releases
    before = set(releases[: releases.index(run.key)] if run.key in releases else releases) | (set(published) & set(releases))
    return {name: index.versions.get(name, "") for name in releases if name in before and name != run.key}


def _run_in_memory(store: Store, item: Built, number: int, key: str) -> None:
    """Pass the samples that every filter kept to one filter, shard by shard, and write its verdicts."""
    waiting: deque[tuple[NDArray[np.int64], pa.ChunkedArray, int]] = deque()  # shards that the filter has not answered yet
    columns = columns_read([item])

    def batches() -> Iterator[pa.Table]:
        for samples in judged.each_judged(store, columns):
            kept = pc.equal(samples["outcome"], Outcome.KEEP.value).to_numpy(zero_copy_only=False)
            rows = np.flatnonzero(kept & applicable(samples, item.spec, item.filter))
            table = take(samples, rows)
            waiting.append((rows, table["sample_id"], int((kept & ~samples["anchor"].to_numpy()).sum())))
            yield table

    start = time.perf_counter()
    for shard, verdicts in zip(judged.sampled(store), _judge_corpus(item.filter, batches()), strict=True):
        rows, sample_ids, hits = waiting.popleft()
        hits -= len(rows) - int(pc.sum(pc.equal(verdicts["outcome"], Outcome.KEEP.value)).as_py() or 0)
        seconds = time.perf_counter() - start
        noted = filter_facts(item.label, item.spec, item.filter, seconds=seconds, known=0, exhaustive=False)
        table = verdict_rows(item.label, item.filter, rows, sample_ids, verdicts)
        facts = {"filters": [noted], "hits": hits, **judged.noted_broken(table)}
        store.write_table(judged.corpus_name(number, shard), table, key=key, facts=facts)
        start = time.perf_counter()


def _judge_corpus(filter_: Filter, batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
    with blamed_on_recipe():
        yield from judge_corpus(filter_, batches)
