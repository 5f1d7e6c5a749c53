"""Turns the counts of a run into its audit: rates, intervals, rankings, and remarks in words."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from filters.base import Role
from schemas.engines import VllmEngine
from schemas.manifest import RunManifest
from schemas.sample import Kind, Outcome
from thresher import ids
from thresher.auditing.audit import (
    PASSED,
    Audit,
    FamilyStats,
    FilterCounts,
    FilterStats,
    ModelStats,
    Overlap,
    Reason,
    Seconds,
    Shards,
    TemperatureStats,
    Tokens,
)
from thresher.auditing.counting.count_shard import Counts
from thresher.auditing.counting.evidence import Evidence, accuracy_required, alarms, canary_kinds, classes_of, correlation
from thresher.estimators.calibration import Calibration
from thresher.estimators.diversity import diversities
from thresher.estimators.intervals import pass_rate_interval
from thresher.pool.run import Run

FACTS = ("prompt_tokens", "completion_tokens", "seconds")
"""Facts of the entries of samples that the audit adds up."""


@dataclass(frozen=True)
class RunCounts:
    """Everything that was counted of a run."""

    shards: Shards
    complete: bool
    counts: Counts
    facts: Mapping[str, float]
    """Sums of FACTS."""
    filters: Mapping[str, Mapping[str, Any]]
    """The recorded facts of each filter by label, in the order the filters ran; `seconds` are summed."""
    calibration: list[Calibration]
    problems: list[str]
    tokens: Mapping[str, int] = field(default_factory=dict)
    """Completion tokens by the key of a model, where there are several."""


def assemble(run: Run, counted: RunCounts) -> Audit:
    """Turn the counts of a run into its audit."""
    store, manifest, counts = run.store, run.manifest, counted.counts
    drawn = Counter[tuple[str, str | None]]()
    for (_, anchor, outcome, kind, _), number in counts.samples.items():
        if not anchor:
            drawn[outcome, kind] += number
    samples = drawn.total()
    outcomes = {o.value: sum(n for (outcome, _), n in drawn.items() if outcome == o.value) for o in Outcome}
    filters = tuple(_filter_stats(facts, counts) for facts in counted.filters.values())
    problems = [*counted.problems, *_outcomes_add_up(run.root, samples, outcomes), *_verdicts_add_up(run.root, filters)]
    total = _family_stats("all", counts, manifest, counted.filters.values())
    families = _by_family(counts)
    reach = [(facts, None if facts["families"] is None else frozenset(facts["families"])) for facts in counted.filters.values()]
    return Audit(
        run=run.root,
        name=manifest.name,
        origin=manifest.origin,
        complete=counted.complete,
        shards=counted.shards,
        samples=samples,
        anchors=total.anchors,
        outcomes=outcomes,
        kinds={k.value: sum(n for (_, kind), n in drawn.items() if kind == k.value) for k in Kind},
        filters=filters,
        reasons=tuple(_ranked_reasons(filters, samples)),
        families=tuple(
            _family_stats(family, own, manifest, [facts for facts, judged in reach if judged is None or family in judged])
            for family, own in families.items()
        ),
        total=total,
        diversity=tuple(diversities(counts.diversity, counts.distinct)),
        tokens=_tokens(counted.facts, total.hits),
        seconds=_seconds(manifest, counted.facts["seconds"], filters),
        temperatures=tuple(_temperatures(counts, total, adaptive=_adaptive(manifest))) if manifest.origin == "sampled" else (),
        starts=len(store.names("starts", ".json")),
        not_sampled=dict(counts.failed.most_common()),
        calibration=tuple(counted.calibration),
        calibration_faults=tuple(_calibration_faults(counted.calibration, manifest)),
        overlaps=tuple(_overlaps(counts)),
        alarms=tuple(alarms(filters, counted.filters)),
        missing=tuple(_missing(counts, total, complete=counted.complete, shards=counted.shards)),
        problems=tuple(problems),
        models=tuple(_models(run, counted)),
    )


# -- checks --------------------------------------------------------------------------------------------------------------


def _outcomes_add_up(root: str, samples: int, outcomes: Mapping[str, int]) -> Iterator[str]:
    if sum(outcomes.values()) != samples:
        yield f"{root}: {samples} samples, but outcomes of {sum(outcomes.values())}: {outcomes}"


def _verdicts_add_up(root: str, filters: Sequence[FilterStats]) -> Iterator[str]:
    for stats in filters:
        judged = stats.kept + sum(stats.dropped.values()) + sum(stats.undecided.values())
        if stats.seen != judged:
            yield (
                f"{root}: {stats.name} saw {stats.seen} samples, but kept, dropped and undecided add up to {judged}: verdicts "
                "with unknown outcomes; remove the folder verdicts and run the same command again"
            )


def _missing(counts: Counts, total: FamilyStats, *, complete: bool, shards: Shards) -> Iterator[str]:
    """Name the figures that the run cannot have, and why."""
    if not complete:
        yield (
            f"The run is unfinished: {shards.judged} of {shards.planned} shards are sampled and judged, and the figures cover "
            "only these."
        )
    if not total.samples:
        yield "There are no samples" + ("." if complete else " yet.")
        return
    if not total.hits:
        yield "Nothing was kept: without hits there are no figures on their diversity."
    if total.pass_rate is None:
        yield "No sample was judged right or wrong, so there are no pass rates."
    if not total.anchors:
        yield "There are no greedy answers (anchors) to compare with."
    bare = sorted(
        {family for family, has_reference in counts.references if not has_reference and not counts.references[family, True]}
    )
    if bare:
        yield f"Families without reference answers: {', '.join(bare)}; filters that need a reference cannot judge them."
    if not counts.likely[True]:
        yield "The samples have no log-probabilities, so there is no surprisal."
    elif counts.likely[False]:
        yield f"{counts.likely[False]} of {total.samples} samples have no log-probabilities; surprisal covers the rest."
    if total.prompts == 1:
        yield "There is only one prompt: an interval over prompts means little."


def _calibration_faults(calibration: list[Calibration], manifest: RunManifest) -> Iterator[str]:
    expected = manifest.origin == "sampled" and manifest.recipe.sampling.calibration.expect == "declared"
    for test in calibration:
        if not test.tokens and test.masked and not expected:
            yield (
                f"calibration: {test.source}: {test.status}, so nothing shows that the samples are draws from the model's own "
                "distribution; if that is intended, set sampling.calibration.expect: declared"
            )
        if test.exceeds and not (test.explained and expected):
            beyond = ", ".join(
                f"{score.event} occurred {score.observed} times, expected {score.expected:.0f}, "
                f"z {score.z:+.1f} (bound {score.bound:.1f})"
                for score in test.exceeds
            )
            advice = (
                f"the recipe asks for {test.declared}; if that is intended, set sampling.calibration.expect: declared"
                if test.explained
                else "the engine or server changes the distribution: check its generation_config and sampling defaults"
            )
            yield f"calibration: {test.source}: not draws from the model's own distribution: {beyond}; {advice}"


# -- filters -------------------------------------------------------------------------------------------------------------


def _filter_counts(facts: Mapping[str, Any], counts: Counts) -> FilterCounts:
    """The verdicts of a filter."""
    name = facts["label"]
    own = [(outcome, reason, number) for (_, label, outcome, reason), number in counts.verdicts.items() if label == name]

    def ranked(wanted: str) -> dict[str, int]:
        numbers: dict[str, int] = {}
        for outcome, reason, number in own:
            if outcome == wanted:
                numbers[reason] = numbers.get(reason, 0) + number
        return dict(sorted(numbers.items(), key=lambda item: (-item[1], item[0])))

    kept = sum(number for outcome, _, number in own if outcome == Outcome.KEEP.value)
    seen = sum(number for _, _, number in own)
    return FilterCounts(name, seen, kept, ranked(Outcome.DROP.value), ranked(Outcome.UNDECIDED.value))


def _filter_stats(facts: Mapping[str, Any], counts: Counts) -> FilterStats:
    name, evidence, verdicts = facts["label"], counts.evidence, _filter_counts(facts, counts)
    is_verifier = facts["role"] == Role.VERIFIER.value
    canaries = {key: number for (label, key), number in sorted(evidence.canaries.items()) if label == name}
    return FilterStats(
        name=name,
        version=facts["version"],
        role=facts["role"],
        seen=verdicts.seen,
        kept=verdicts.kept,
        dropped=verdicts.dropped,
        undecided=verdicts.undecided,
        seconds=round(facts["seconds"], 3),
        classes=classes_of(verdicts.kept, verdicts.dropped, verdicts.undecided) if is_verifier else {},
        length_correlation=correlation(evidence.scores[name]) if name in evidence.scores else None,
        canaries={key: number for key, number in canaries.items() if "." not in key},
        canary_kinds=canary_kinds(canaries, accuracy_required(facts)),
        benchmarks={key: number for (label, key), number in sorted(evidence.benchmarks.items()) if label == name},
        errors=_errors(evidence, name),
        broken=evidence.broken[name],
    )


def _errors(evidence: Evidence, name: str) -> dict[str, dict[str, int]]:
    """A filter's errors by reason."""
    by_reason: dict[str, dict[str, int]] = {}
    for (label, reason, error), number in sorted(evidence.errors.items(), key=lambda item: (-item[1], item[0])):
        if label == name:
            by_reason.setdefault(reason, {})[error] = number
    return by_reason


def _ranked_reasons(filters: Sequence[FilterStats], samples: int) -> list[Reason]:
    """The reasons of all filters, the most frequent first. near_miss only classifies samples that a verifier dropped, so it is
    left out."""
    reasons = [
        Reason(stats.name, outcome, reason, number, number / samples)
        for stats in filters
        if stats.role != Role.NEAR_MISS.value
        for outcome, numbers in ((Outcome.DROP.value, stats.dropped), (Outcome.UNDECIDED.value, stats.undecided))
        for reason, number in numbers.items()
    ]
    return sorted(reasons, key=lambda reason: (-reason.samples, reason.filter, reason.reason))


def _overlaps(counts: Counts) -> Iterator[Overlap]:
    sums = counts.evidence.overlaps
    for first, second in dict.fromkeys(key[:2] for key in sums):
        seen, by_first, by_second, both = (sums[first, second, name] for name in ("seen", "first", "second", "both"))
        yield Overlap((first, second), seen, (by_first, by_second), both)


# -- families, temperatures, cost ----------------------------------------------------------------------------------------


def _adaptive(manifest: RunManifest) -> bool:
    """Whether results decided when drawing stopped, which biases shares of all draws."""
    return manifest.origin == "sampled" and manifest.recipe.sampling.target_hits is not None


def _by_family(counts: Counts) -> dict[str, Counts]:
    """The samples, verdicts and prompts of each family, in one pass over them all."""
    families = {family: Counts() for family in sorted({family for family, *_ in counts.samples})}
    for sample, n in counts.samples.items():
        families[sample[0]].samples[sample] = n
    for verdict, n in counts.verdicts.items():
        if verdict[0] in families:
            families[verdict[0]].verdicts[verdict] = n
    for prompt, n in counts.prompts.items():
        if prompt[0] in families:
            families[prompt[0]].prompts[prompt] = n
    return families


def _family_stats(name: str, counts: Counts, manifest: RunManifest, filters: Iterable[Mapping[str, Any]]) -> FamilyStats:
    """The results of a family, or of all, by the filters that apply to it."""
    drawn = {key: n for key, n in counts.samples.items() if not key[1]}
    anchors = {key: n for key, n in counts.samples.items() if key[1]}
    adaptive = _adaptive(manifest)
    cells = Counter[tuple[float, float]]()
    """Prompts by weight and passed samples; of an adaptive run each prompt has weight 1 and its estimated rate."""
    for (_, decided, passed, rate), n in counts.prompts.items():
        cells[(1.0, rate) if adaptive and rate is not None else (decided, passed)] += n
    weight = sum(n * w for (w, _), n in cells.items())
    return FamilyStats(
        family=name,
        prompts=cells.total(),
        samples=sum(drawn.values()),
        passed=sum(n for key, n in drawn.items() if key[3] in PASSED),
        undecided=sum(n for key, n in drawn.items() if key[2] == Outcome.UNDECIDED.value),
        pass_rate=sum(n * x for (_, x), n in cells.items()) / weight if weight else None,
        interval=pass_rate_interval(cells, int(ids.digest("interval", manifest.sampling_key), 16)),
        hits=sum(n for key, n in drawn.items() if key[3] == Kind.HIT.value),
        anchors=sum(anchors.values()),
        anchors_judged=sum(n for key, n in anchors.items() if key[2] != Outcome.UNDECIDED.value),
        anchors_passed=sum(n for key, n in anchors.items() if key[3] in PASSED),
        truncated=sum(n for key, n in drawn.items() if key[4]),
        ended=sum(n for key, n in drawn.items() if key[4] is not None),
        filters=tuple(_filter_counts(facts, counts) for facts in filters),
    )


def _models(run: Run, counted: RunCounts) -> Iterator[ModelStats]:
    """The results of each model, where there are several."""
    for one in run.models if len(run.models) > 1 else ():
        stats = _family_stats(one.label, counted.counts.models.get(one.label, Counts()), run.manifest, ())
        tokens = counted.tokens.get(one.model_key, 0)
        yield ModelStats(
            model=one.label,
            prompts=stats.prompts,
            samples=stats.samples,
            passed=stats.passed,
            undecided=stats.undecided,
            pass_rate=stats.pass_rate,
            interval=stats.interval,
            hits=stats.hits,
            completion_tokens=tokens,
            hits_per_1000_tokens=1000 * stats.hits / tokens if tokens else None,
        )


def _temperatures(counts: Counts, total: FamilyStats, *, adaptive: bool) -> Iterator[TemperatureStats]:
    temperatures = sorted({temperature for temperature, _, _ in counts.temperatures if temperature is not None})
    for temperature in temperatures:
        drawn = {key: n for key, n in counts.temperatures.items() if key[0] == temperature}
        samples, passed = sum(drawn.values()), sum(n for key, n in drawn.items() if key[2] in PASSED)
        undecided = sum(n for key, n in drawn.items() if key[1] == Outcome.UNDECIDED.value)
        rate = passed / (samples - undecided) if samples > undecided else None
        if adaptive:
            rate = total.pass_rate if len(temperatures) == 1 else None
        yield TemperatureStats(temperature, samples, passed, undecided, rate)


def _tokens(facts: Mapping[str, float], hits: int) -> Tokens:
    completion = int(facts["completion_tokens"])
    return Tokens(int(facts["prompt_tokens"]), completion, completion / hits if hits and completion else None)


def _seconds(manifest: RunManifest, sampling: float, filters: Sequence[FilterStats]) -> Seconds:
    engines = [recipe.engine for recipe in manifest.recipe.of_each_model()]
    sizes = {engine.devices if isinstance(engine, VllmEngine) else 0 for engine in engines}
    devices = None
    if manifest.origin == "sampled" and len(sizes) == 1 and 0 not in sizes:  # seconds of several models are not told apart
        devices = round(sampling * sizes.pop(), 3)
    return Seconds(round(sampling, 3), round(sum(stats.seconds for stats in filters), 3), devices)
