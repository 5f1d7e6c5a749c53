"""Proves that a sampler is ancestral at temperature 1, from the engine's own top-k log-probabilities.

At each generated token the engine says how likely the k likeliest tokens were, before it drew. For an event E about the drawn
token (it is the likeliest; it lies outside the top-k; it is one of the top-k with a probability in a given range) let q be the
predicted probability of E and I its indicator. Under ancestral sampling E[I - q | everything before] = 0 whatever the model and
the prompt, so the sum of I - q over tokens is a martingale with predictable variance, the sum of q (1 - q). Its standardised
value

    z = sum(I - q) / sqrt(sum(q (1 - q)))

is close to a standard normal draw (martingale central limit theorem: P. Hall & C. C. Heyde, Martingale Limit Theory and Its
Application, 1980, chapter 3). docs/calibration.md has the assumptions, the bound and what it catches.

Shapes below: T tokens, k listed tokens each, E = len(EVENTS).
"""

import math
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOP_K = 20
"""Tokens asked for at each position; vLLM's own limit, and that of hosted APIs."""

_EDGES = (0.2, 0.05, 0.01)
EVENTS = ("top1", "p>=0.2", "p>=0.05", "p>=0.01", "p<0.01", "tail")
"""A partition of the draw: the likeliest token; a listed other token, by the probability it had; a token that is not listed."""

STANDARD_ERROR = 0.002
"""Tokens are taken until the share of no event has a larger standard error than this."""
ALARM = 0.005
"""Probability that a sampler without fault exceeds the bound, over all events and sources of a run together (Bonferroni)."""
LEAST_VARIANCE = 25.0
"""An event is tested once sum(q (1 - q)) reaches this; below, its z is too far from normal, and is null. From here on the
skewness that is left, at most 1/5, is allowed for in the bound."""

Sums = NDArray[np.float64]
"""Shape (E, 3): per event the sums of I, q and q (1 - q)."""


def nothing() -> Sums:
    """The sums of no token."""
    return np.zeros((len(EVENTS), 3))


def sums(drawn: NDArray[np.integer[Any]], listed: NDArray[np.integer[Any]], logprobs: NDArray[np.floating[Any]]) -> Sums:
    """Sum indicators, predictions and variances over tokens.

    `drawn` (T,) are the tokens sampled, `listed` (T, k) the engine's likeliest tokens, the likeliest first, `logprobs` (T, k)
    their natural log-probabilities under the model's own distribution. Tokens are compared by identity, never by rank, so ties at
    rank k (common with bfloat16 logits) do no harm. A position with fewer than k listed tokens is padded with token -1, -inf.
    What is listed, and in which order, must not depend on what was drawn.
    """
    if not len(drawn):
        return nothing()
    p = np.exp(np.asarray(logprobs, np.float64))
    hit = np.asarray(listed) == np.asarray(drawn)[:, None]
    q, indicator = np.zeros((len(EVENTS), len(drawn))), np.zeros((len(EVENTS), len(drawn)))
    q[0], indicator[0] = p[:, 0], hit[:, 0]
    bins = np.digitize(p[:, 1:], _EDGES[::-1])  # 0: below the last edge
    for number in range(len(_EDGES) + 1):
        inside = bins == len(_EDGES) - number
        q[1 + number] = np.where(inside, p[:, 1:], 0.0).sum(axis=1)
        indicator[1 + number] = (hit[:, 1:] & inside).sum(axis=1)
    # Float32 leaves this a millionth above or below 0 where there is no tail. Cutting the negative half off would be a bias.
    q[-1], indicator[-1] = 1.0 - p.sum(axis=1), ~hit.any(axis=1)
    variance = np.maximum(q * (1.0 - q), 0.0)
    return np.stack([indicator.sum(axis=1), q.sum(axis=1), variance.sum(axis=1)], axis=1)


def from_flat(
    flat: tuple[Sequence[int], Sequence[float], Sequence[int]], k: int = TOP_K
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The arguments of `sums` from vLLM's FlatLogprobs: its token_ids, logprobs and start_indices, with `k` log-probabilities
    asked for.

    A position holds the drawn token and then the k likeliest, so that a drawn token among those stands there twice. What was once
    a dict has it only once, in front; that is read as well. Equally likely tokens are put in the order of their ids: were the
    drawn one first, the likeliest token would be drawn too often.
    """
    tokens, logprobs = np.asarray(flat[0], np.int64), np.asarray(flat[1], np.float64)
    starts = np.asarray(flat[2], np.int64)
    counts = np.diff(starts, append=len(tokens))
    if not len(starts):
        return tokens[:0], np.full((0, k), -1), np.full((0, k), -np.inf)
    if counts.min() < 1:
        raise ValueError(f"position {int(counts.argmin())} has no log-probability")
    at = starts[:, None] + np.arange(k + 1)
    absent = np.arange(k + 1) >= counts[:, None]
    at[absent] = 0
    listed, found = np.where(absent, -1, tokens[at]), np.where(absent, -np.inf, logprobs[at])
    drawn = listed[:, 0].copy()
    twice = (listed[:, 1:] == drawn[:, None]).any(axis=1) | (counts > k)
    listed[twice, 0], found[twice, 0] = -1, -np.inf
    order = np.lexsort((listed, listed < 0, -found), axis=1)[:, :k]
    return drawn, np.take_along_axis(listed, order, axis=1), np.take_along_axis(found, order, axis=1)


@dataclass(frozen=True)
class Score:
    """One event of one source: how often it came, how often it should have, and the standardised difference."""

    event: str
    observed: int
    expected: float
    variance: float
    z: float | None
    """Null where `variance` is below LEAST_VARIANCE."""
    bound: float | None = None
    """|z| above this is no chance: the bound of the run, and what the skewness of this event may add to it."""


@dataclass(frozen=True)
class Calibration:
    """The test of one source of samples: an engine's start or a server, and the sampling parameters it was given."""

    source: str
    declared: str
    """What the recipe itself changed of the distribution, in words; empty where it asked for ancestral sampling."""
    tokens: int
    scores: tuple[Score, ...]
    bound: float
    """What |z| of any event of the run may reach, were all of them normal; each score has its own, a little above."""

    @property
    def exceeds(self) -> tuple[Score, ...]:
        """The scores beyond the bound: proof that these samples are no draws from the model's own distribution."""
        return tuple(s for s in self.scores if s.z is not None and s.bound is not None and abs(s.z) > s.bound)

    def to_dict(self) -> dict[str, Any]:
        found = asdict(self) | {"scores": [asdict(score) for score in self.scores]}
        return found | {"exceeds": [score.event for score in self.exceeds]}


def calibrations(by_source: Mapping[tuple[str, str], tuple[int, Sums]]) -> list[Calibration]:
    """Test every source of a run. Keys are (source, declared), values its tokens and sums; the bound is for all together."""
    tested = sum(int((found[:, 2] >= LEAST_VARIANCE).sum()) for _, found in by_source.values())
    limit = bound(tested)
    return [
        Calibration(source, declared, tokens, tuple(_scores(found, limit)), limit)
        for (source, declared), (tokens, found) in sorted(by_source.items())
    ]


def bound(tests: int) -> float:
    """The |z| that any of `tests` normal z-scores exceeds with probability ALARM at most: Bonferroni, two-sided."""
    return NormalDist().inv_cdf(1 - ALARM / (2 * max(1, tests)))


def _scores(found: Sums, limit: float) -> Iterable[Score]:
    for event, (observed, expected, variance) in zip(EVENTS, found.tolist(), strict=True):
        z = own = None
        if variance >= LEAST_VARIANCE:
            # The third cumulant is sum(q (1 - q) (1 - 2 q)), so the skewness is at most 1 / sqrt(variance), that of a Poisson
            # count; and a quantile moves by skewness * (quantile^2 - 1) / 6 (Cornish and Fisher).
            skewness = 1 / math.sqrt(variance)
            z, own = round((observed - expected) * skewness, 3), round(limit + skewness * (limit**2 - 1) / 6, 3)
        yield Score(event, round(observed), round(expected, 3), round(variance, 3), z, own)


class Quota:
    """Says which requests are to be calibrated: the first ones of each source, until every event's share is known to
    STANDARD_ERROR. Thread-safe.

    A request is chosen before it is drawn and counts whatever comes of it, so the choice cannot bias the test. What was asked for
    and is not back yet is guessed at `guess` tokens of variance 1/4 each, so that few more are asked for than needed.
    """

    def __init__(self, standard_error: float = STANDARD_ERROR) -> None:
        self._wanted = standard_error
        self._lock = threading.Lock()
        self._variance: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(len(EVENTS)))
        self._tokens: dict[str, int] = defaultdict(int)
        self._out: dict[str, int] = defaultdict(int)

    def take(self, source: str, guess: int) -> bool:
        """Whether the next request to `source`, of about `guess` tokens, is to be calibrated; if so, call `back` with what came
        of it."""
        with self._lock:
            if not self._wanted:
                return False
            tokens = self._tokens[source]
            coming = tokens + self._out[source]
            variance = float(self._variance[source].max()) / tokens if tokens else 0.25
            if coming and math.sqrt(variance / coming) <= self._wanted:
                return False
            self._out[source] += guess
            return True

    def back(self, source: str, guess: int, tokens: int, found: Sums | None) -> None:
        """Count in what a calibrated request brought; None where it brought nothing."""
        with self._lock:
            self._out[source] -= guess
            if found is not None:
                self._tokens[source] += tokens
                self._variance[source] += found[:, 2]


def merged(parts: Iterable[Sequence[Any]]) -> dict[tuple[str, str], tuple[int, Sums]]:
    """Add up (source, declared, tokens, sums) by source and declared."""
    total: dict[tuple[str, str], tuple[int, Sums]] = {}
    for source, declared, tokens, found in parts:
        before = total.get((source, declared), (0, nothing()))
        total[source, declared] = (before[0] + int(tokens), before[1] + np.asarray(found, np.float64))
    return total
