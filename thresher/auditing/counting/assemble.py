"""Turns the counts of a run into its audit: rates, intervals, rankings, and remarks in words."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
_KEEP, _DROP, _UNDECIDED, _HIT = Outcome.KEEP.value, Outcome.DROP.value, Outcome.UNDECIDED.value, Kind.HIT.value


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
    by_label = _filter_counts(counts.verdicts)
    filters = tuple(
        _filter_stats(facts, _counts_of(label, by_label), counts.evidence) for label, facts in counted.filters.items()
    )
    problems = [*counted.problems, *_outcomes_add_up(run.root, samples, outcomes), *_verdicts_add_up(run.root, filters)]
    measure = _Measure(_adaptive(manifest), int(ids.digest("interval", manifest.sampling_key), 16))
    total = measure.of("all", _Share(counts.samples, counts.verdicts, counts.prompts), counted.filters)
    reach = {
        label: None if facts["families"] is None else frozenset(facts["families"]) for label, facts in counted.filters.items()
    }
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
            measure.of(family, own, [label for label, judged in reach.items() if judged is None or family in judged])
            for family, own in _by_family(counts).items()
        ),
        total=total,
        diversity=tuple(diversities(counts.diversity, counts.distinct)),
        tokens=_tokens(counted.facts, total.hits),
        seconds=_seconds(manifest, counted.facts["seconds"], filters),
        temperatures=tuple(_temperatures(counts, total, adaptive=measure.adaptive)) if manifest.origin == "sampled" else (),
        starts=len(store.names("starts", ".json")),
        not_sampled=dict(counts.failed.most_common()),
        calibration=tuple(counted.calibration),
        calibration_faults=tuple(_calibration_faults(counted.calibration, manifest)),
        overlaps=tuple(_overlaps(counts)),
        alarms=tuple(alarms(filters, counted.filters)),
        missing=tuple(_missing(counts, total, complete=counted.complete, shards=counted.shards)),
        problems=tuple(problems),
        models=tuple(_models(run, counted, measure)),
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
        if test.explained and not expected and not test.exceeds:
            yield (
                f"calibration: {test.source}: the recipe asks for {test.declared}, so the samples are not draws from the model's "
                "own distribution, whatever the test shows; if that is intended, set sampling.calibration.expect: declared"
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


def _filter_counts(verdicts: Mapping[tuple[str, str, str, str], int]) -> dict[str, FilterCounts]:
    """The verdicts of each filter, by its label."""
    kept, others = Counter[str](), dict[tuple[str, str], dict[str, int]]()
    for (_, label, outcome, reason), number in verdicts.items():
        if outcome == _KEEP:
            kept[label] += number
        else:
            reasons = others.setdefault((label, outcome), {})
            reasons[reason] = reasons.get(reason, 0) + number
    ranked = {key: dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))) for key, reasons in others.items()}
    seen = kept.copy()
    for (label, _), reasons in others.items():
        seen[label] += sum(reasons.values())
    return {
        label: FilterCounts(label, number, kept[label], ranked.get((label, _DROP), {}), ranked.get((label, _UNDECIDED), {}))
        for label, number in seen.items()
    }


def _counts_of(label: str, by_label: Mapping[str, FilterCounts]) -> FilterCounts:
    """Those of one filter, which may have seen nothing."""
    return by_label.get(label) or FilterCounts(label, 0, 0, {}, {})


def _filter_stats(facts: Mapping[str, Any], verdicts: FilterCounts, evidence: Evidence) -> FilterStats:
    name = facts["label"]
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


class _Share(NamedTuple):
    """What was counted of a family or a model: `samples`, `verdicts` and `prompts` as Counts has them."""

    samples: dict[tuple[str, bool, str, str | None, bool | None], int]
    verdicts: dict[tuple[str, str, str, str], int]
    prompts: dict[tuple[str, int, int, float | None], int]


def _by_family(counts: Counts) -> dict[str, _Share]:
    """The samples, verdicts and prompts of each family, in one pass over them all."""
    families = {family: _Share({}, {}, {}) for family in sorted({family for family, *_ in counts.samples})}
    for sample, n in counts.samples.items():
        families[sample[0]].samples[sample] = n
    for verdict, n in counts.verdicts.items():
        if verdict[0] in families:
            families[verdict[0]].verdicts[verdict] = n
    for prompt, n in counts.prompts.items():
        if prompt[0] in families:
            families[prompt[0]].prompts[prompt] = n
    return families


@dataclass(frozen=True)
class _Measure:
    """How the results of a family, of a model or of all are told."""

    adaptive: bool
    """Whether results decided when drawing stopped."""
    seed: int
    """Of the bootstrap."""

    def of(self, name: str, share: _Share, labels: Iterable[str]) -> FamilyStats:
        """The results by the filters that apply."""
        cells = Counter[tuple[float, float]]()
        """Prompts by weight and passed samples; of an adaptive run each prompt has weight 1 and its estimated rate."""
        for (_, decided, passed, rate), n in share.prompts.items():
            cells[(1.0, rate) if self.adaptive and rate is not None else (decided, passed)] += n
        weight = sum(n * w for (w, _), n in cells.items())
        draws, anchors = Counter[str](), Counter[str]()
        for (_, anchor, outcome, kind, truncated), n in share.samples.items():
            told = anchors if anchor else draws
            told["all"] += n
            told["undecided"] += n if outcome == _UNDECIDED else 0
            told["passed"] += n if kind in PASSED else 0
            told["hits"] += n if kind == _HIT else 0
            told["truncated"] += n if truncated else 0
            told["ended"] += n if truncated is not None else 0
        by_label = _filter_counts(share.verdicts)
        return FamilyStats(
            family=name,
            prompts=cells.total(),
            samples=draws["all"],
            passed=draws["passed"],
            undecided=draws["undecided"],
            pass_rate=sum(n * x for (_, x), n in cells.items()) / weight if weight else None,
            interval=pass_rate_interval(cells, self.seed),
            hits=draws["hits"],
            anchors=anchors["all"],
            anchors_judged=anchors["all"] - anchors["undecided"],
            anchors_passed=anchors["passed"],
            truncated=draws["truncated"],
            ended=draws["ended"],
            filters=tuple(_counts_of(label, by_label) for label in labels),
        )


def _models(run: Run, counted: RunCounts, measure: _Measure) -> Iterator[ModelStats]:
    """The results of each model, where there are several."""
    for one in run.models if len(run.models) > 1 else ():
        counts = counted.counts.models.get(one.label, Counts())
        stats = measure.of(one.label, _Share(counts.samples, counts.verdicts, counts.prompts), ())
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
