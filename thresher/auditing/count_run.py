"""Counts a run shard by shard and checks that its files agree with each other.

`count` is the independent recount of the pool: it does not use the counts that the steps have noted, but compares them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from thresher.auditing.audit import Audit, Shards
from thresher.auditing.counting.assemble import FACTS, RunCounts, assemble
from thresher.auditing.counting.count_shard import AGAIN, Counts, count_shard
from thresher.errors import StoreError
from thresher.estimators.calibration import calibrations, merged
from thresher.executors.executor import Map, map_here
from thresher.pool import judged as pool
from thresher.pool.model_rows import has_samples
from thresher.pool.run import Run
from thresher.pool.store import HASHED_BYTES, Store, shard_name

BLOCK = 64
"""Most shards that one call of a worker counts."""


@dataclass
class Part:
    """Counts of some shards of a run, which can be summed."""

    counts: Counts
    facts: dict[str, float]
    """Tokens of prompts and completions, and seconds of sampling."""
    filters: dict[str, dict[str, Any]]
    """The filters that judged these shards, by label, with their seconds."""
    calibrated: list[tuple[Any, ...]]
    problems: list[str]
    tokens: Counter[str] = field(default_factory=Counter)
    """Completion tokens by model, by its key, where there are several."""


def count(run: Run, map_shards: Map = map_here) -> Audit:
    """Count a run and list the problems found. An unfinished run is counted as far as it goes. `map_shards` spreads the
    counting over the workers of an executor; only sums are returned. `thresher.auditing.cache.cached_audit` counts once per state
    of the run."""
    store, planned = run.store, pool.shards(run.store)
    sampled, judged, problems = _progress(run, planned)
    problems += _plan_is_intact(store)
    counts, facts = Counts(), dict.fromkeys(FACTS, 0.0)
    filters: dict[str, dict[str, Any]] = {}
    calibrated: list[Any] = []
    tokens = Counter[str]()
    for part in map_shards(count_part, _blocks(run, sampled, judged, one_block=map_shards is map_here)):
        counts.add(part.counts)
        for name in facts:
            facts[name] += part.facts[name]
        calibrated += part.calibrated
        tokens.update(part.tokens)
        problems += part.problems
        problems += _same_filters(store, part.filters, filters)
    complete = _complete(run, planned, sampled, judged)
    if complete:
        problems += _every_filter_ran(run, filters)
    shards = Shards(planned, len(sampled), len(judged))
    found = calibrations(merged(calibrated))
    return assemble(run, RunCounts(shards, complete, counts, facts, filters, found, problems, tokens))


def is_complete(run: Run) -> bool:
    """Whether all shards that the run needs are sampled and judged."""
    planned = pool.shards(run.store)
    sampled, judged, _ = _progress(run, planned)
    return _complete(run, planned, sampled, judged)


def count_part(run: Run, shards: Sequence[tuple[int, bool]]) -> Part:
    """Count some shards, each given with whether it is judged."""
    store = run.store
    part = Part(Counts(), dict.fromkeys(FACTS, 0.0), {}, [], [])
    calibrated: list[Any] = []
    for shard, judged in shards:
        entry = store.entry(f"samples/{shard_name(shard)}")
        if entry is None:
            path = store.path(f"samples/{shard_name(shard)}")
            part.problems.append(f"{path}.json: damaged, it is not an entry of its file; {AGAIN}")
            continue
        for name in part.facts:
            part.facts[name] += entry.facts.get(name) or 0
        calibrated += entry.facts.get("calibration", [])
        part.tokens.update({key: of_model["completion_tokens"] for key, of_model in entry.facts.get("models", {}).items()})
        if not judged:
            continue
        try:
            counts, problems = count_shard(run, shard)
        except StoreError as error:
            part.problems.append(str(error))
            continue
        part.counts.add(counts)
        part.problems += problems
        part.problems += _same_filters(store, _filters_of(store, shard), part.filters)
    part.calibrated = [(*source, *total) for source, total in merged(calibrated).items()]
    return part


# -- inside --------------------------------------------------------------------------------------------------------------


def _blocks(
    run: Run, sampled: Sequence[int], judged: Sequence[int], *, one_block: bool
) -> list[tuple[Run, tuple[tuple[int, bool], ...]]]:
    """The arguments of each call of `count_part`."""
    size = max(1, len(sampled) if one_block else min(BLOCK, -(-len(sampled) // 16)))
    is_judged = set(judged)
    blocks = [sampled[first : first + size] for first in range(0, len(sampled), size)]
    return [(run, tuple((shard, shard in is_judged) for shard in block)) for block in blocks]


def _plan_is_intact(store: Store) -> Iterator[str]:
    entry = store.entry("prompts")
    if entry is None and store.exists("prompts.json"):
        yield f"{store.path('prompts.json')}: damaged, it is not an entry of its file; {AGAIN}"
    elif entry is not None and not store.whole(entry, hashed=entry.bytes <= HASHED_BYTES):
        yield f"{store.path(entry.path)}: damaged, it is not what was written; {AGAIN}"


def _progress(run: Run, planned: int) -> tuple[list[int], list[int], list[str]]:
    """The shards that are sampled, those that are also judged, and what is still missing, in words."""
    store = run.store
    sampled = pool.sampled(store)
    verdict_files = pool.verdict_files(store)
    most = max(verdict_files.values(), default=0)
    judged = [shard for shard in sampled if verdict_files[shard] == most > 0]
    again = f"run `{run.command}` again"
    if not planned:
        return [], [], [f"{store.root}: nothing is planned yet; {again} to complete the run"]
    if len(judged) == planned or (len(judged) == len(sampled) and run.enough):
        return sampled, judged, list(_models_missing(run, sampled, again))
    state = f"{planned} shards planned, {len(sampled)} sampled and {len(judged)} judged"
    return sampled, judged, [f"{store.root}: unfinished: {state}; {again} to complete the run"]


def _complete(run: Run, planned: int, sampled: list[int], judged: list[int]) -> bool:
    every_shard = len(judged) == len(sampled) > 0 and (len(sampled) == planned or run.enough)
    return every_shard and not any(_models_missing(run, sampled, ""))


def _models_missing(run: Run, sampled: Sequence[int], again: str) -> Iterator[str]:
    """Each of several models that lacks samples, in words."""
    if not run.several:
        return
    entries = [entry for shard in sampled if (entry := run.store.entry(f"samples/{shard_name(shard)}"))]
    for one in run.models:
        if lacking := sum(not has_samples(entry, run, one) for entry in entries):
            yield (
                f"{run.root}: unfinished: the model {one.label} lacks samples in {lacking} of {len(entries)} shards; {again} to "
                "complete the run"
            )


def _filters_of(store: Store, shard: int) -> dict[str, dict[str, Any]]:
    entries = pool.verdict_entries(store, shard)
    return {facts["label"]: facts | {"shard": shard} for entry in entries for facts in entry.facts["filters"]}


def _same_filters(store: Store, of_shard: Mapping[str, dict[str, Any]], filters: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Add the seconds of a shard's filters to `filters`, and report filters that differ from those of the shards before."""
    first = not filters
    for label, facts in of_shard.items():
        if first:
            filters[label] = facts | {"seconds": 0.0}
        if label in filters:
            filters[label]["seconds"] += facts["seconds"]
    names = ("label", "key", "families")
    if [[f[name] for name in names] for f in of_shard.values()] != [[f[name] for name in names] for f in filters.values()]:
        shard = next(iter(of_shard.values()))["shard"] if of_shard else 0
        yield (
            f"{store.path('verdicts/' + shard_name(shard))}.parquet: judged by other filters or settings than the shards "
            "before it; run the same command again: it replaces the verdicts of older filters"
        )


def _every_filter_ran(run: Run, filters: Mapping[str, Any]) -> Iterator[str]:
    recipe = run.recipe
    wanted = len(recipe.filters) + (not run.sampled) + (recipe.near_miss is not None)
    if (dedupe := recipe.dedupe) is not None:
        wanted += sum(scope is not None for scope in (dedupe.within_prompt, dedupe.semantic, dedupe.within_run, dedupe.released))
    if len(filters) != wanted:
        yield (
            f"{run.root}: the recipe has {wanted} filters, but there are verdicts of {len(filters)} ({', '.join(filters)}); "
            "run the same command again: it judges by the recipe"
        )
