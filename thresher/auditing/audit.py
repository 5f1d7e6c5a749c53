"""The result of an audit: the numbers of a run, and the problems found while counting.

A sample passed when every verifier kept it: hits, and the duplicates among them. A pass rate is passed / (samples - undecided),
because an undecided sample gives no evidence about the model. Where the results decided when drawing stopped (target_hits), the
pass rate is the mean over prompts of unbiased estimates (thresher.estimators.pass_rate). Anchors are counted separately and in
nothing else.
"""

from dataclasses import asdict, dataclass
from typing import Any

from schemas.sample import Kind
from thresher.errors import AuditError
from thresher.estimators.calibration import Calibration
from thresher.estimators.diversity import Diversity

PASSED = (Kind.HIT.value, Kind.DUPLICATE.value)
"""Kinds of the samples that every verifier kept."""


@dataclass(frozen=True)
class Shards:
    """Number of shards that are planned, sampled, and judged."""

    planned: int
    sampled: int
    judged: int


@dataclass(frozen=True)
class FilterCounts:
    """Verdicts of one filter on the samples of one family, or of the whole run, without anchors: seen = kept + dropped +
    undecided. The most frequent reason is first."""

    name: str
    seen: int
    kept: int
    dropped: dict[str, int]
    undecided: dict[str, int]


@dataclass(frozen=True)
class CanaryKind:
    """How a judge did on one kind of canary (filters.models.canaries.KINDS)."""

    failure: str
    """What a judge does that fails on this kind."""
    asked: int
    right: int
    """How many of them it judged right."""
    failure_interval: tuple[float, float]
    """95 % interval of the share that it judged wrong (Wilson)."""
    fails: bool
    """Whether it is right on less than the required share, beyond chance (filters.models.canaries.failed)."""

    def __str__(self) -> str:
        wrong, (low, high) = self.asked - self.right, self.failure_interval
        share = f"{wrong / self.asked:.1%}, 95% interval {low:.1%} to {high:.1%}"
        return f"{self.failure}: {wrong} of {self.asked} such canaries judged wrong ({share})"


@dataclass(frozen=True)
class FilterStats:
    """Everything the audit knows about one filter. Counts are of samples without anchors: seen = kept + dropped + undecided."""

    name: str
    version: str
    role: str
    seen: int
    kept: int
    dropped: dict[str, int]
    undecided: dict[str, int]
    seconds: float
    """Time spent in this filter, summed over all processes."""
    classes: dict[str, int]
    """Verdicts by class (schemas.sample.CLASSES); empty for a filter that is not a verifier."""
    length_correlation: float | None
    """Pearson's r of the score and the length of the completion in characters; null for a filter without scores."""
    canaries: dict[str, int]
    """Answers of known truth that were mixed in: how many were `asked` and how many judged `right`. Empty without canaries."""
    canary_kinds: dict[str, CanaryKind]
    """The same for each kind of canary."""
    benchmarks: dict[str, int]
    """Contaminated samples by benchmark."""
    errors: dict[str, dict[str, int]]
    """For each reason why the filter was undecided: the first characters of each error, the most frequent first."""
    broken: int = 0
    """Samples that are undecided because something other than the sample was broken: the next run asks the filter again."""


@dataclass(frozen=True)
class Overlap:
    """Among the samples that two filters both saw: how many each dropped, and how many both dropped."""

    filters: tuple[str, str]
    seen: int
    dropped: tuple[int, int]
    both: int


@dataclass(frozen=True)
class FamilyStats:
    """Results of one family of prompts, or of the whole run."""

    family: str
    prompts: int
    samples: int
    passed: int
    undecided: int
    pass_rate: float | None
    interval: tuple[float, float] | None
    """95 % interval of the pass rate, over prompts."""
    hits: int
    anchors: int
    anchors_judged: int
    """Anchors that were judged right or wrong."""
    anchors_passed: int
    truncated: int
    ended: int
    """Samples with a known finish reason."""
    filters: tuple[FilterCounts, ...]
    """The filters that apply to this family, in the order they ran."""


@dataclass(frozen=True)
class ModelStats:
    """Results of one of several models."""

    model: str
    """Its name, with what tells it from the others."""
    prompts: int
    samples: int
    passed: int
    undecided: int
    pass_rate: float | None
    interval: tuple[float, float] | None
    """95 % interval of the pass rate, over prompts."""
    hits: int
    completion_tokens: int
    """Anchors included."""
    hits_per_1000_tokens: float | None


@dataclass(frozen=True)
class Reason:
    """Samples that one filter lost for one reason; `share` is relative to all samples of the run."""

    filter: str
    outcome: str
    """drop or undecided."""
    reason: str
    samples: int
    share: float


@dataclass(frozen=True)
class TemperatureStats:
    """Results of the samples that were drawn at one temperature."""

    temperature: float
    samples: int
    passed: int
    undecided: int
    pass_rate: float | None
    """Null if several temperatures were drawn until target_hits: shares of such draws are biased."""


@dataclass(frozen=True)
class Tokens:
    """Tokens of prompts and completions, anchors included; `per_hit` is completion tokens per hit."""

    prompt: int
    completion: int
    per_hit: float | None


@dataclass(frozen=True)
class Seconds:
    """Wall-clock seconds of sampling without starting the engine, and seconds of all filters summed over all processes."""

    sampling: float
    filtering: float
    devices: float | None
    """Seconds of sampling times the number of devices (GPUs) that hold the model; null if a server holds it."""


@dataclass(frozen=True)
class Audit:
    """The numbers of a run and its problems."""

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
    """Reasons of all filters, the most frequent first."""
    overlaps: tuple[Overlap, ...]
    """With audit.exhaustive: every pair of filters that judge samples one by one."""
    families: tuple[FamilyStats, ...]
    total: FamilyStats
    diversity: tuple[Diversity, ...]
    """Diversity of each family, followed by that of the whole run if it has several families."""
    temperatures: tuple[TemperatureStats, ...]
    tokens: Tokens
    seconds: Seconds
    starts: int
    """Number of engine starts: more than 1 if the run was interrupted or the engine died."""
    not_sampled: dict[str, int]
    """Samples that the engine could not draw, by its error; they are undecided."""
    calibration: tuple[Calibration, ...]
    calibration_faults: tuple[str, ...]
    """Sources whose samples are not draws from the model's own distribution, in words."""
    alarms: tuple[str, ...]
    """Verifiers with too little evidence to be trusted, in words."""
    missing: tuple[str, ...]
    """Figures that a reader expects but this run does not have, in words."""
    problems: tuple[str, ...]
    models: tuple[ModelStats, ...] = ()
    """The models of a run that draws from several."""

    @property
    def broken(self) -> int:
        """Verdicts that are undecided because something other than the sample was broken."""
        return sum(stats.broken for stats in self.filters)

    def to_dict(self) -> dict[str, Any]:
        """Return the audit as JSON values."""
        document = asdict(self)
        for family in (*document["families"], document["total"]):
            family["interval"] = None if family["interval"] is None else list(family["interval"])
            family["filters"] = list(family["filters"])
        for model in document["models"]:
            model["interval"] = None if model["interval"] is None else list(model["interval"])
        document["calibration"] = [calibration.to_dict() for calibration in self.calibration]
        document["overlaps"] = [{key: _as_list(value) for key, value in overlap.items()} for overlap in document["overlaps"]]
        return {name: _as_list(value) for name, value in document.items()}


def check(audit: Audit, *, calibration: bool = False) -> None:
    """Raise AuditError with the problems of an audit, if it has any; with `calibration`, also if the samples are not draws from
    the model's own distribution."""
    problems = [*audit.problems, *(audit.calibration_faults if calibration else ())]
    if problems:
        raise AuditError("\n  ".join([f"{audit.run}: the audit found {len(problems)} problem(s):", *problems]))


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
