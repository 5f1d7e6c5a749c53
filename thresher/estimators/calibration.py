"""Tests that a sampler is ancestral at temperature 1, from the engine's own top-k log-probabilities.

At each generated token the engine reports the probabilities of the k likeliest tokens, from before the draw. For an event E
about the drawn token (it is the likeliest; it is outside the top-k; it is one of the top-k with a probability in a given range)
let q be the predicted probability of E and I its indicator. Under ancestral sampling E[I - q | everything before] = 0 whatever
the model and the prompt, so the sum of I - q over tokens is a martingale with predictable variance, the sum of q (1 - q). Its
standardised value

    z = sum(I - q) / sqrt(sum(q (1 - q)))

is close to a standard normal draw (martingale central limit theorem: P. Hall & C. C. Heyde, Martingale Limit Theory and Its
Application, 1980, chapter 3). docs/calibration.md has the assumptions, the bound, and which faults it detects.

Shapes below: T tokens, k listed tokens each, E = len(EVENTS).
"""

import math
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

TOP_K = 20
"""Log-probabilities requested per position; the limit of vLLM and of hosted APIs."""

_EDGES = (0.2, 0.05, 0.01)
EVENTS = ("top1", "p>=0.2", "p>=0.05", "p>=0.01", "p<0.01", "tail")
"""A partition of the draw: the likeliest token; another listed token, by its probability; a token that is not listed."""

STANDARD_ERROR = 0.002
"""Tokens are collected until no event's share has a larger standard error than this."""
ALARM = 0.005
"""Probability that a faultless sampler exceeds the bound, over all events and sources of a run together (Bonferroni)."""
LEAST_VARIANCE = 25.0
"""An event is tested once sum(q (1 - q)) reaches this; below it, z is too far from normal, and is null. The remaining skewness,
at most 1/5, is allowed for in the bound."""

FORCING = ("structured output", "thinking_tokens")
"""First words of what a recipe declares that forces tokens."""

Sums = NDArray[np.float64]
"""Shape (E, 3): per event the sums of I, q and q (1 - q)."""


def empty_sums() -> Sums:
    """Return the sums over no tokens."""
    return np.zeros((len(EVENTS), 3))


def sums(drawn: NDArray[np.integer[Any]], listed: NDArray[np.integer[Any]], logprobs: NDArray[np.floating[Any]]) -> Sums:
    """Sum indicators, predictions and variances over tokens.

    `drawn` (T,) are the sampled tokens, `listed` (T, k) the engine's likeliest tokens, the likeliest first, `logprobs` (T, k)
    their natural log-probabilities under the model's own distribution. Tokens are compared by id, never by rank, so ties at
    rank k (common with bfloat16 logits) do no harm. A position with fewer than k listed tokens is padded with token -1, -inf.
    The listed tokens and their order must not depend on the drawn token.
    """
    if not len(drawn):
        return empty_sums()
    p = np.exp(np.asarray(logprobs, np.float64))
    hit = np.asarray(listed) == np.asarray(drawn)[:, None]
    q, indicator = np.zeros((len(EVENTS), len(drawn))), np.zeros((len(EVENTS), len(drawn)))
    q[0], indicator[0] = p[:, 0], hit[:, 0]
    bins = np.digitize(p[:, 1:], _EDGES[::-1])  # 0: below the last edge
    for number in range(len(_EDGES) + 1):
        inside = bins == len(_EDGES) - number
        q[1 + number] = np.where(inside, p[:, 1:], 0.0).sum(axis=1)
        indicator[1 + number] = (hit[:, 1:] & inside).sum(axis=1)
    # Without a tail, float32 leaves this a millionth above or below 0. Clipping the negative half would be a bias.
    q[-1], indicator[-1] = 1.0 - p.sum(axis=1), ~hit.any(axis=1)
    variance = np.maximum(q * (1.0 - q), 0.0)
    return np.stack([indicator.sum(axis=1), q.sum(axis=1), variance.sum(axis=1)], axis=1)


def whole(logprobs: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Positions (T,) whose list (T, k) is whole: k finite log-probabilities, or all of the probability. On a server, a neighbour
    that asks for chosen tokens only takes the list from everybody's positions of that step (vLLM 0.32, V1 runner), whatever is
    drawn there, so leaving these positions out is no bias."""
    finite: NDArray[np.bool_] = np.isfinite(logprobs).all(axis=1)
    complete: NDArray[np.bool_] = np.exp(np.asarray(logprobs, np.float64)).sum(axis=1) > 1 - 1e-3
    return finite | complete


def from_flat(
    flat: tuple[Sequence[int], Sequence[float], Sequence[int]], k: int = TOP_K
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Convert vLLM's FlatLogprobs (token_ids, logprobs and start_indices) to the arguments of `sums`; `k` log-probabilities were
    requested.

    A position holds the drawn token and then the k likeliest, so a drawn token that is one of them occurs twice. Positions
    converted from a dict have it only once, in front; they are read as well. Equally likely tokens are sorted by id: if the drawn
    one came first, the likeliest token would seem to be drawn too often.
    """
    tokens, logprobs = np.asarray(flat[0], np.int64), np.asarray(flat[1], np.float64)
    starts = np.asarray(flat[2], np.int64)
    counts = np.diff(starts, append=len(tokens))
    if not len(starts):
        return tokens[:0], np.full((0, k), -1), np.full((0, k), -np.inf)
    if counts.min() < 1:
        raise ValueError(f"position {int(counts.argmin())} has no log-probability")
    if (counts == k + 1).all():
        listed, values = tokens.reshape(-1, k + 1), logprobs.reshape(-1, k + 1)
        return listed[:, 0].copy(), *_ranked(listed[:, 1:], values[:, 1:])
    index = starts[:, None] + np.arange(k + 1)
    absent = np.arange(k + 1) >= counts[:, None]
    index[absent] = 0
    listed, values = np.where(absent, -1, tokens[index]), np.where(absent, -np.inf, logprobs[index])
    drawn = listed[:, 0].copy()
    repeated = (listed[:, 1:] == drawn[:, None]).any(axis=1) | (counts > k)
    listed[repeated, 0], values[repeated, 0] = -1, -np.inf
    order = np.lexsort((listed, listed < 0, -values), axis=1)[:, :k]
    return drawn, np.take_along_axis(listed, order, axis=1), np.take_along_axis(values, order, axis=1)


def _ranked(listed: NDArray[np.int64], logprobs: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Lists (T, k) that the engine ranked, with equally likely tokens sorted by id. Only the positions that have such are sorted:
    it costs ten times as much as the rest."""
    rows = np.flatnonzero((logprobs[:, 1:] >= logprobs[:, :-1]).any(axis=1))
    if not len(rows):
        return listed, logprobs
    listed, logprobs = listed.copy(), logprobs.copy()
    order = np.lexsort((listed[rows], -logprobs[rows]), axis=1)
    listed[rows] = np.take_along_axis(listed[rows], order, axis=1)
    logprobs[rows] = np.take_along_axis(logprobs[rows], order, axis=1)
    return listed, logprobs


@dataclass(frozen=True)
class Score:
    """One event of one source: how often it occurred, how often it should have, and the standardised difference."""

    event: str
    observed: int
    expected: float
    variance: float
    z: float | None
    """Null where `variance` is below LEAST_VARIANCE."""
    bound: float | None = None
    """The bound of the run plus an allowance for this event's skewness; a larger |z| is a fault."""


@dataclass(frozen=True)
class Calibration:
    """The test of one source of samples: a start of an engine, or a server, with its sampling parameters."""

    source: str
    declared: str
    """How the recipe itself changes the distribution, in words; empty for ancestral sampling."""
    tokens: int
    scores: tuple[Score, ...]
    bound: float
    """The bound of |z| over all events of the run, if all were normal; each score has its own, slightly above."""
    masked: int = 0
    """Tokens that were left out: the recipe lets the engine force them, or it did not list their likeliest alternatives."""

    @property
    def tested(self) -> bool:
        """Whether any event was tested. A source that was not is no evidence for or against its sampler."""
        return any(score.z is not None for score in self.scores)

    @property
    def status(self) -> str:
        """How much of the source was tested, in words."""
        why = f"may be forced by {self.forced_by}" if self.forced_by else "the engine did not list whole"
        if not self.tokens and self.masked:
            return f"not tested: masked: all tokens {why}"
        left_out = f"; masked: {self.masked} tokens that {why}" if self.masked else ""
        return ("tested" if self.tested else "not tested: too few tokens") + left_out

    @property
    def forced_by(self) -> str:
        """What the recipe declares that forces tokens, in words."""
        return " and ".join(words for words in self.declared.split(", ") if words.startswith(FORCING))

    @property
    def explained(self) -> bool:
        """Whether what the recipe declares explains a difference: forced tokens are left out, an effort changes the prompt."""
        return any(not words.startswith((*FORCING, "reasoning_effort")) for words in filter(None, self.declared.split(", ")))

    @property
    def exceeds(self) -> tuple[Score, ...]:
        """The scores beyond their bound, which show that the samples are not draws from the model's own distribution."""
        return tuple(s for s in self.scores if s.z is not None and s.bound is not None and abs(s.z) > s.bound)

    def to_dict(self) -> dict[str, Any]:
        """Return the test as JSON values."""
        values = asdict(self) | {"scores": [asdict(score) for score in self.scores]}
        return values | {"exceeds": [score.event for score in self.exceeds], "status": self.status}


class Total(NamedTuple):
    """What was calibrated of a source: tokens, their sums, and how many tokens were left out."""

    tokens: int
    sums: Sums
    masked: int = 0


def calibrations(by_source: Mapping[tuple[str, str], Total | tuple[int, Sums]]) -> list[Calibration]:
    """Test every source of a run. Keys are (source, declared); the bound covers all together."""
    totals = {key: Total(*total) for key, total in sorted(by_source.items(), key=lambda item: item[0])}
    limit = bound(sum(int((total.sums[:, 2] >= LEAST_VARIANCE).sum()) for total in totals.values()))
    return [
        Calibration(source, declared, total.tokens, tuple(_scores(total.sums, limit)), limit, total.masked)
        for (source, declared), total in totals.items()
    ]


def bound(tests: int) -> float:
    """Return the |z| that any of `tests` normal z-scores exceeds with probability ALARM at most: Bonferroni, two-sided."""
    return NormalDist().inv_cdf(1 - ALARM / (2 * max(1, tests)))


def _scores(event_sums: Sums, limit: float) -> Iterable[Score]:
    for event, (observed, expected, variance) in zip(EVENTS, event_sums.tolist(), strict=True):
        z = event_bound = None
        if variance >= LEAST_VARIANCE:
            # The third cumulant is sum(q (1 - q) (1 - 2 q)), so the skewness is at most 1 / sqrt(variance), that of a Poisson
            # count; and a quantile moves by skewness * (quantile^2 - 1) / 6 (Cornish and Fisher).
            skewness = 1 / math.sqrt(variance)
            z = round((observed - expected) * skewness, 3)
            event_bound = round(limit + skewness * (limit**2 - 1) / 6, 3)
        yield Score(event, round(observed), round(expected, 3), round(variance, 3), z, event_bound)


class Quota:
    """Decides which requests are calibrated: the first ones of each source, until every event's share has at most the wanted
    standard error. Thread-safe.

    A request is chosen before it is drawn and counts whatever its result, so the choice cannot bias the test. A request in flight
    counts as `expected_tokens` tokens of variance 1/4 each, so that few more are calibrated than needed.
    """

    def __init__(self, standard_error: float = STANDARD_ERROR) -> None:
        self._standard_error = standard_error
        self._lock = threading.Lock()
        self._variance: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(len(EVENTS)))
        self._tokens: dict[str, int] = defaultdict(int)
        self._in_flight: dict[str, int] = defaultdict(int)

    @property
    def off(self) -> bool:
        """Whether the test is turned off."""
        return not self._standard_error

    def take(self, source: str, expected_tokens: int) -> bool:
        """Return whether to calibrate the next request to `source`, of about `expected_tokens` tokens. If so, the caller must
        call `settle` with its result."""
        with self._lock:
            if not self._standard_error:
                return False
            tokens = self._tokens[source]
            total = tokens + self._in_flight[source]
            variance = float(self._variance[source].max()) / tokens if tokens else 0.25
            if total and math.sqrt(variance / total) <= self._standard_error:
                return False
            self._in_flight[source] += expected_tokens
            return True

    def settle(self, source: str, expected_tokens: int, tokens: int, event_sums: Sums | None) -> None:
        """Count the result of a calibrated request; `event_sums` is None for a request that failed."""
        with self._lock:
            self._in_flight[source] -= expected_tokens
            if event_sums is not None:
                self._tokens[source] += tokens
                self._variance[source] += event_sums[:, 2]


def merged(parts: Iterable[Sequence[Any]]) -> dict[tuple[str, str], Total]:
    """Add up (source, declared, tokens, sums, and masked tokens if there are any) by source and declared."""
    totals: dict[tuple[str, str], Total] = {}
    for source, declared, tokens, part_sums, *masked in parts:
        total = totals.get((source, declared), Total(0, empty_sums()))
        event_sums = total.sums + np.asarray(part_sums, np.float64)
        totals[source, declared] = Total(total.tokens + int(tokens), event_sums, total.masked + sum(map(int, masked)))
    return totals
