"""The audit: a run's numbers, counted anew from its rows, and whether they add up.

`passed` means that every verifier kept the sample: hits, and the duplicates among them. A pass rate is passed / (samples -
undecided); what nobody could judge says nothing of the model. Where drawing stopped because of what was found (target_hits) it is
the mean over prompts of their unbiased estimates (thresher.estimators.pass_rate). Anchors are counted apart and in nothing else.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from filters.base import Role
from schemas.engines import VllmEngine
from schemas.manifest import RunManifest
from schemas.sample import Kind, Outcome
from thresher import ids
from thresher.audit.count_shard import AGAIN, Counts, count_shard
from thresher.audit.evidence import Evidence, alarms, classes_of, correlation
from thresher.errors import AuditError, StoreError
from thresher.estimators.calibration import Calibration, calibrations, merged
from thresher.estimators.diversity import Diversity, diversities
from thresher.estimators.intervals import pass_rate_interval
from thresher.executors.executor import Map, map_here
from thresher.pool import judged as pool
from thresher.pool.run import Run
from thresher.pool.store import HASHED_BYTES, Store, shard_name

PASSED = (Kind.HIT.value, Kind.DUPLICATE.value)
"""Kinds of the samples that every verifier kept."""


@dataclass(frozen=True)
class Shards:
    """How far the run has come."""

    planned: int
    sampled: int
    judged: int


@dataclass(frozen=True)
class FilterCounts:
    """What one filter did with the samples of one family, or of all, that are no anchors: seen = kept + dropped + undecided. The
    most frequent reason comes first."""

    name: str
    seen: int
    kept: int
    dropped: dict[str, int]
    undecided: dict[str, int]


@dataclass(frozen=True)
class FilterStats:
    """What one filter did with samples that are no anchors: seen = kept + dropped + undecided. `seconds` are its own, over all
    processes, for the samples it was asked for."""

    name: str
    version: str
    role: str
    seen: int
    kept: int
    dropped: dict[str, int]
    undecided: dict[str, int]
    seconds: float
    classes: dict[str, int]
    """Its verdicts by class (schemas.sample.CLASSES); of a filter that is no verifier: none."""
    length_correlation: float | None
    """Pearson's r of its score and the characters of the completion; null where it gives no scores."""
    canaries: dict[str, int]
    """Answers known beforehand that were judged along: `asked` and `right`; empty without."""
    benchmarks: dict[str, int]
    """Contaminated samples by benchmark."""
    errors: dict[str, dict[str, int]]
    """By the reason why it could not judge: the errors, as they begin, the most frequent first."""


@dataclass(frozen=True)
class Overlap:
    """Of the samples that two filters both saw: what each of them dropped, and both."""

    filters: tuple[str, str]
    seen: int
    dropped: tuple[int, int]
    both: int


@dataclass(frozen=True)
class FamilyStats:
    """How one family of prompts, or the whole run, came out. `interval` is that of the pass rate, 95 %."""

    family: str
    prompts: int
    samples: int
    passed: int
    undecided: int
    pass_rate: float | None
    interval: tuple[float, float] | None
    hits: int
    anchors: int
    anchors_judged: int
    """Greedy answers that were judged right or wrong."""
    anchors_passed: int
    truncated: int
    ended: int
    """Samples of which it is known how they ended."""
    filters: tuple[FilterCounts, ...]
    """Its funnel: the filters that are there for it, in the order they ran."""


@dataclass(frozen=True)
class Reason:
    """Samples that one filter lost for one reason; `share` of all samples of the run."""

    filter: str
    outcome: str
    """drop or undecided."""
    reason: str
    samples: int
    share: float


@dataclass(frozen=True)
class TemperatureStats:
    """How the samples drawn at one temperature came out."""

    temperature: float
    samples: int
    passed: int
    undecided: int
    pass_rate: float | None
    """Null where several temperatures were drawn until target_hits: shares of such draws are biased."""


@dataclass(frozen=True)
class Tokens:
    """Tokens of prompts and completions, anchors included; `per_hit` is completion tokens per distinct sample kept."""

    prompt: int
    completion: int
    per_hit: float | None


@dataclass(frozen=True)
class Seconds:
    """Wall seconds of sampling, without the start of the engine, and of all filters, over all processes."""

    sampling: float
    filtering: float
    devices: float | None
    """Seconds of sampling times the devices (GPUs) that the model is spread over; null where a server has it."""


@dataclass(frozen=True)
class Audit:
    """The numbers of a run, and its problems, in words."""

    run: str
    name: str
    origin: str
    complete: bool
    shards: Shards
    samples: int
    anchors: int
    outcomes: dict[str, int]
    kinds: dict[str, int]
    filters: tuple[FilterStats, ...]
    reasons: tuple[Reason, ...]
    """Of all filters, the most frequent first."""
    overlaps: tuple[Overlap, ...]
    """With audit.exhaustive: every pair of filters that judge samples by themselves."""
    families: tuple[FamilyStats, ...]
    total: FamilyStats
    diversity: tuple[Diversity, ...]
    """Of each family, and of all where there are several."""
    temperatures: tuple[TemperatureStats, ...]
    tokens: Tokens
    seconds: Seconds
    starts: int
    """Starts of the engine: one, and one more for each time the run was interrupted or the engine died."""
    not_sampled: dict[str, int]
    """Samples that the engine could not draw, by its error; they are undecided."""
    calibration: tuple[Calibration, ...]
    calibration_faults: tuple[str, ...]
    """Where the samples are proved not to be draws from the model's own distribution, in words."""
    alarms: tuple[str, ...]
    """Where a verifier says too little to be trusted, in words."""
    missing: tuple[str, ...]
    """What a reader would look for and not find, in words."""
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The audit as JSON values."""
        found = asdict(self)
        for family in (*found["families"], found["total"]):
            family["interval"] = None if family["interval"] is None else list(family["interval"])
            family["filters"] = list(family["filters"])
        found["calibration"] = [one.to_dict() for one in self.calibration]
        found["overlaps"] = [{key: _listed(value) for key, value in one.items()} for one in found["overlaps"]]
        listed = (
            "filters",
            "reasons",
            "overlaps",
            "families",
            "diversity",
            "temperatures",
            "calibration_faults",
            "alarms",
            "missing",
            "problems",
        )
        return found | {name: list(found[name]) for name in listed}


@dataclass
class Part:
    """What some shards of a run come to."""

    counts: Counts
    facts: dict[str, float]
    """Tokens of prompts and completions, and seconds of sampling."""
    filters: dict[str, dict[str, Any]]
    """The filters that judged them, with their seconds."""
    calibrated: list[tuple[Any, ...]]
    problems: list[str]


BLOCK = 64
"""Shards that are counted in one call, at most."""


def count(run: Run, map_shards: Map = map_here) -> Audit:
    """Count a run, a shard at a time, and list what does not add up. An unfinished run is counted as far as it is. `map_shards`
    spreads the counting over the workers of an executor; each returns sums. `thresher.audit.cache.cached_audit` counts only once.
    """
    store, planned = run.store, pool.shards(run.store)
    sampled, judged, problems = _progress(run, planned)
    problems += _plan_is_whole(store)
    counts, facts = Counts(), dict.fromkeys(_FACTS, 0.0)
    filters: dict[str, dict[str, Any]] = {}
    calibrated: list[Any] = []
    size = max(1, len(sampled) if map_shards is map_here else min(BLOCK, -(-len(sampled) // 16)))
    judged_too = set(judged)
    blocks = [sampled[first : first + size] for first in range(0, len(sampled), size)]
    for part in map_shards(count_part, [(run, tuple((shard, shard in judged_too) for shard in block)) for block in blocks]):
        counts.add(part.counts)
        for name in facts:
            facts[name] += part.facts[name]
        calibrated += part.calibrated
        problems += part.problems
        problems += _same_filters(store, part.filters, filters)
    complete = _complete(run, planned, sampled, judged)
    if complete:
        problems += _whole_cascade(run, filters)
    return _audited(
        run,
        shards=Shards(planned, len(sampled), len(judged)),
        complete=complete,
        counts=counts,
        facts=facts,
        filters=filters,
        calibration=calibrations(merged(calibrated)),
        problems=problems,
    )


def is_complete(run: Run) -> bool:
    """Whether a run is sampled and judged to its end."""
    planned = pool.shards(run.store)
    sampled, judged, _ = _progress(run, planned)
    return _complete(run, planned, sampled, judged)


def check(audit: Audit, *, calibration: bool = False) -> None:
    """Raise AuditError with the problems of an audit, if it has any; with `calibration` also where the samples are not draws from
    the model's own distribution."""
    problems = [*audit.problems, *(audit.calibration_faults if calibration else ())]
    if problems:
        raise AuditError("\n  ".join([f"{audit.run}: the audit found {len(problems)} problem(s):", *problems]))


# -- inside --------------------------------------------------------------------------------------------------------------


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _plan_is_whole(store: Store) -> Iterator[str]:
    entry = store.entry("prompts")
    if entry is None and store.exists("prompts.json"):
        yield f"{store.path('prompts.json')}: damaged, it is no entry of its file; {AGAIN}"
    elif entry is not None and not store.whole(entry, hashed=entry.bytes <= HASHED_BYTES):
        yield f"{store.path(entry.path)}: damaged, it is not what was written; {AGAIN}"


def _progress(run: Run, planned: int) -> tuple[list[int], list[int], list[str]]:
    """Shards that are sampled, those that are judged too, and what is missing."""
    store = run.store
    sampled = pool.sampled(store)
    given = pool.verdict_files(store)
    files = max(given.values(), default=0)
    judged = [shard for shard in sampled if given[shard] == files > 0]
    again = f"run `{run.command}` again"
    if not planned:
        return [], [], [f"{store.root}: nothing is planned yet; {again} to complete the run"]
    if len(judged) == planned or (len(judged) == len(sampled) and pool.enough(run)):
        return sampled, judged, []
    short = f"{planned} shards planned, {len(sampled)} sampled and {len(judged)} judged"
    return sampled, judged, [f"{store.root}: unfinished: {short}; {again} to complete the run"]


def _complete(run: Run, planned: int, sampled: list[int], judged: list[int]) -> bool:
    return len(judged) == len(sampled) > 0 and (len(sampled) == planned or pool.enough(run))


_FACTS = ("prompt_tokens", "completion_tokens", "seconds")


def count_part(run: Run, shards: Sequence[tuple[int, bool]]) -> Part:
    """Count some shards, each with whether it is judged."""
    store = run.store
    part = Part(Counts(), dict.fromkeys(_FACTS, 0.0), {}, [], [])
    calibrated: list[Any] = []
    for shard, judged in shards:
        entry = store.entry(f"samples/{shard_name(shard)}")
        if entry is None:
            part.problems.append(
                f"{store.path(f'samples/{shard_name(shard)}')}.json: damaged, it is no entry of its file; {AGAIN}"
            )
        for name in part.facts:
            part.facts[name] += (entry.facts.get(name) or 0) if entry else 0
        calibrated += entry.facts.get("calibration", []) if entry else []
        if not judged or entry is None:
            continue
        try:
            found, wrong = count_shard(run, shard)
        except StoreError as error:
            part.problems.append(str(error))
            continue
        part.counts.add(found)
        part.problems += wrong
        part.problems += _same_filters(store, _filters_of(store, shard), part.filters)
    part.calibrated = [(*source, tokens, sums) for source, (tokens, sums) in merged(calibrated).items()]
    return part


def _filters_of(store: Store, shard: int) -> dict[str, dict[str, Any]]:
    entries = pool.verdict_entries(store, shard)
    return {facts["label"]: facts | {"shard": shard} for entry in entries for facts in entry.facts["filters"]}


def _same_filters(store: Store, mine: Mapping[str, dict[str, Any]], filters: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Add up the seconds of filters, and compare them with those of the shards before."""
    first = not filters
    for label, facts in mine.items():
        if first:
            filters[label] = facts | {"seconds": 0.0}
        if label in filters:
            filters[label]["seconds"] += facts["seconds"]
    alike = ("label", "key", "families")
    if [[f[name] for name in alike] for f in mine.values()] != [[f[name] for name in alike] for f in filters.values()]:
        shard = next(iter(mine.values()))["shard"] if mine else 0
        yield (
            f"{store.path('verdicts/' + shard_name(shard))}.parquet: judged by other filters or settings than the shards "
            "before it; run the same command again: it judges anew what older filters judged"
        )


def _whole_cascade(run: Run, filters: Mapping[str, Any]) -> Iterator[str]:
    recipe = run.recipe
    wanted = len(recipe.filters) + (not run.sampled) + (recipe.near_miss is not None)
    if (dedupe := recipe.dedupe) is not None:
        wanted += sum(scope is not None for scope in (dedupe.within_prompt, dedupe.semantic, dedupe.within_run, dedupe.released))
    if len(filters) != wanted:
        yield (
            f"{run.root}: the recipe has {wanted} filters, the verdicts are of {len(filters)} ({', '.join(filters)}); "
            "run the same command again: it judges by the recipe"
        )


def _audited(
    run: Run,
    *,
    shards: Shards,
    complete: bool,
    counts: Counts,
    facts: Mapping[str, float],
    filters: Mapping[str, Mapping[str, Any]],
    calibration: list[Calibration],
    problems: list[str],
) -> Audit:
    store, manifest = run.store, run.manifest
    drawn = Counter[tuple[str, str | None]]()
    for (_, anchor, outcome, kind, _), count in counts.samples.items():
        if not anchor:
            drawn[outcome, kind] += count
    samples = drawn.total()
    outcomes = {o.value: sum(n for (outcome, _), n in drawn.items() if outcome == o.value) for o in Outcome}
    if sum(outcomes.values()) != samples:
        problems.append(f"{store.root}: {samples} samples, but outcomes of {sum(outcomes.values())}: {outcomes}")
    stats = tuple(_filter(facts, counts) for facts in filters.values())
    problems += _sums(store, stats)
    total = _family("all", counts, manifest, None, filters)
    families = sorted({family for family, *_ in counts.samples})
    tokens = int(facts["completion_tokens"])
    return Audit(
        run=store.root,
        name=manifest.name,
        origin=manifest.origin,
        complete=complete,
        shards=shards,
        samples=samples,
        anchors=total.anchors,
        outcomes=outcomes,
        kinds={k.value: sum(n for (_, kind), n in drawn.items() if kind == k.value) for k in Kind},
        filters=stats,
        reasons=tuple(_reasons(stats, samples)),
        families=tuple(_family(family, counts, manifest, family, filters) for family in families),
        total=total,
        diversity=tuple(diversities(counts.diversity, counts.distinct)),
        tokens=Tokens(int(facts["prompt_tokens"]), tokens, tokens / total.hits if total.hits and tokens else None),
        seconds=_seconds(manifest, facts["seconds"], stats),
        temperatures=tuple(_temperatures(counts, total, adaptive=_adaptive(manifest))) if manifest.origin == "sampled" else (),
        starts=len(store.names("starts", ".json")),
        not_sampled=dict(counts.failed.most_common()),
        calibration=tuple(calibration),
        calibration_faults=tuple(_faults(calibration, manifest)),
        overlaps=tuple(_overlaps(counts)),
        alarms=tuple(alarms(stats, filters)),
        missing=tuple(_missing(counts, total, complete=complete, shards=shards)),
        problems=tuple(problems),
    )


def _missing(counts: Counts, total: FamilyStats, *, complete: bool, shards: Shards) -> Iterator[str]:
    """What there is nothing to say of, in words."""
    if not complete:
        yield (
            f"The run is unfinished: {shards.judged} of {shards.planned} shards are sampled and judged, and what follows is of "
            "those."
        )
    if not total.samples:
        yield "There are no samples" + ("." if complete else " yet.")
        return
    if not total.hits:
        yield "Nothing was kept: there are no hits, and so no diversity of them."
    if total.pass_rate is None:
        yield "No sample was judged right or wrong, so there are no pass rates."
    if not total.anchors:
        yield "There are no greedy answers (anchors) to compare with."
    bare = sorted({family for family, there in counts.references if not there and not counts.references[family, True]})
    if bare:
        yield f"Families without reference answers: {', '.join(bare)}; filters that compare with one cannot judge them."
    if not counts.likely[True]:
        yield "The samples have no log-probabilities, so there is no surprisal."
    elif counts.likely[False]:
        yield f"{counts.likely[False]} of {total.samples} samples have no log-probabilities; surprisal is of the others."
    if total.prompts == 1:
        yield "There is one prompt: an interval over prompts says little."


def _seconds(manifest: RunManifest, sampling: float, stats: tuple[FilterStats, ...]) -> Seconds:
    engine = manifest.recipe.engine
    devices = None
    if manifest.origin == "sampled" and isinstance(engine, VllmEngine):
        devices = round(sampling * engine.tensor_parallel_size, 3)
    return Seconds(round(sampling, 3), round(sum(one.seconds for one in stats), 3), devices)


def _adaptive(manifest: RunManifest) -> bool:
    """Whether drawing stopped because of what was found, so that shares of all draws are biased."""
    return manifest.origin == "sampled" and manifest.recipe.sampling.target_hits is not None


def _temperatures(counts: Counts, total: FamilyStats, *, adaptive: bool) -> Iterator[TemperatureStats]:
    there = sorted({one for one, _, _ in counts.temperatures if one is not None})
    for temperature in there:
        mine = {key: n for key, n in counts.temperatures.items() if key[0] == temperature}
        samples, passed = sum(mine.values()), sum(n for key, n in mine.items() if key[2] in PASSED)
        undecided = sum(n for key, n in mine.items() if key[1] == Outcome.UNDECIDED.value)
        rate = passed / (samples - undecided) if samples > undecided else None
        if adaptive:
            rate = total.pass_rate if len(there) == 1 else None
        yield TemperatureStats(temperature, samples, passed, undecided, rate)


def _faults(calibration: list[Calibration], manifest: RunManifest) -> Iterator[str]:
    meant = manifest.origin == "sampled" and manifest.recipe.sampling.calibration.expect == "declared"
    for one in calibration:
        if one.exceeds and not (one.declared and meant):
            beyond = ", ".join(
                f"{score.event} came {score.observed} times, expected {score.expected:.0f}, "
                f"z {score.z:+.1f} (bound {score.bound:.1f})"
                for score in one.exceeds
            )
            why = (
                f"the recipe asks for {one.declared}; if that is meant, set sampling.calibration.expect: declared"
                if one.declared
                else "the engine or server changes the distribution: look for its generation_config and sampling defaults"
            )
            yield f"calibration: {one.source}: not draws from the model's own distribution: {beyond}; {why}"


def _said(facts: Mapping[str, Any], counts: Counts, only: str | None) -> FilterCounts:
    """What one filter said, of one family or of all."""
    found: dict[str, Counter[str]] = {outcome.value: Counter() for outcome in Outcome}
    seen = 0
    for (family, label, outcome, reason), count in counts.verdicts.items():
        if label == facts["label"] and only in (None, family):
            seen += count
            found.setdefault(outcome, Counter())[reason] += count

    def ranked(outcome: Outcome) -> dict[str, int]:
        return dict(sorted(found[outcome.value].items(), key=lambda item: (-item[1], item[0])))

    kept = found[Outcome.KEEP.value].total()
    return FilterCounts(facts["label"], seen, kept, ranked(Outcome.DROP), ranked(Outcome.UNDECIDED))


def _filter(facts: Mapping[str, Any], counts: Counts) -> FilterStats:
    mine, evidence, said = facts["label"], counts.evidence, _said(facts, counts, None)
    return FilterStats(
        name=mine,
        version=facts["version"],
        role=facts["role"],
        seen=said.seen,
        kept=said.kept,
        dropped=said.dropped,
        undecided=said.undecided,
        seconds=round(facts["seconds"], 3),
        classes=classes_of(said.kept, said.dropped, said.undecided) if facts["role"] == Role.VERIFIER.value else {},
        length_correlation=correlation(evidence.scores[mine]) if mine in evidence.scores else None,
        canaries={name: count for (label, name), count in sorted(evidence.canaries.items()) if label == mine},
        benchmarks={name: count for (label, name), count in sorted(evidence.benchmarks.items()) if label == mine},
        errors=_errors(evidence, mine),
    )


def _errors(evidence: Evidence, mine: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (label, reason, error), count in sorted(evidence.errors.items(), key=lambda item: (-item[1], item[0])):
        if label == mine:
            found.setdefault(reason, {})[error] = count
    return found


def _reasons(filters: Sequence[FilterStats], samples: int) -> list[Reason]:
    """Every filter's reasons, the most frequent first. near_miss tells of samples that a verifier lost, and is left out."""
    found = [
        Reason(one.name, outcome, reason, count, count / samples)
        for one in filters
        if one.role != Role.NEAR_MISS.value
        for outcome, reasons in ((Outcome.DROP.value, one.dropped), (Outcome.UNDECIDED.value, one.undecided))
        for reason, count in reasons.items()
    ]
    return sorted(found, key=lambda one: (-one.samples, one.filter, one.reason))


def _overlaps(counts: Counts) -> Iterator[Overlap]:
    found = counts.evidence.overlaps
    for one, other in dict.fromkeys(key[:2] for key in found):
        seen, first, second, both = (found[one, other, name] for name in ("seen", "first", "second", "both"))
        yield Overlap((one, other), seen, (first, second), both)


def _sums(store: Store, filters: tuple[FilterStats, ...]) -> Iterator[str]:
    for one in filters:
        said = one.kept + sum(one.dropped.values()) + sum(one.undecided.values())
        if one.seen != said:
            yield (
                f"{store.root}: {one.name} saw {one.seen} samples, but kept, dropped and undecided add up to {said}: some "
                "verdicts have another outcome; remove the folder verdicts and run the same command again"
            )


def _family(
    name: str, counts: Counts, manifest: RunManifest, only: str | None, filters: Mapping[str, Mapping[str, Any]]
) -> FamilyStats:
    mine = {key: n for key, n in counts.samples.items() if only in (None, key[0])}
    drawn = {key: n for key, n in mine.items() if not key[1]}
    adaptive = _adaptive(manifest)
    cells = Counter[tuple[float, float]]()
    for (family, decided, passed, rate), n in counts.prompts.items():
        if only in (None, family):
            cells[(1.0, rate) if adaptive and rate is not None else (decided, passed)] += n
    samples, passed = sum(drawn.values()), sum(n for key, n in drawn.items() if key[3] in PASSED)
    undecided = sum(n for key, n in drawn.items() if key[2] == Outcome.UNDECIDED.value)
    seed = int(ids.digest("interval", manifest.sampling_key), 16)
    return FamilyStats(
        family=name,
        prompts=cells.total(),
        samples=samples,
        passed=passed,
        undecided=undecided,
        pass_rate=sum(n * x for (_, x), n in cells.items()) / judged
        if (judged := sum(n * w for (w, _), n in cells.items()))
        else None,
        interval=pass_rate_interval(cells, seed),
        hits=sum(n for key, n in drawn.items() if key[3] == Kind.HIT.value),
        anchors=sum(mine.values()) - samples,
        anchors_judged=sum(n for key, n in mine.items() if key[1] and key[2] != Outcome.UNDECIDED.value),
        anchors_passed=sum(n for key, n in mine.items() if key[1] and key[3] in PASSED),
        truncated=sum(n for key, n in drawn.items() if key[4]),
        ended=sum(n for key, n in drawn.items() if key[4] is not None),
        filters=tuple(
            _said(facts, counts, only) for facts in filters.values() if only is None or only in (facts["families"] or (only,))
        ),
    )
