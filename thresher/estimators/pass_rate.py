"""How many samples a prompt gets, and its pass rate although the number of samples depended on them.

Samples of a prompt are drawn in waves of a fixed schedule: 16, 24, 36, ... in total, each 1.5 times the one before, up to the
maximum. After each wave a prompt stops when it has `target_hits` distinct hits, or when it is hopeless: nothing passed, and the
probability that its pass rate is above `give_up_below` is below 5 % (Jeffreys prior Beta(1/2, 1/2)).

Stopping at success makes the plain share of passes too high. Let T be the draw that brought the last wanted hit. Every order of
the T - 1 draws before it would also have led there, because hits only grow. So given T the first draw passed with probability
passed(T - 1) / (T - 1), and the mean of that over all runs is exactly the pass rate. Where every hit is distinct this is
Haldane's estimator (r - 1) / (T - 1) (J. B. S. Haldane, On a Method of Estimating Frequencies, Biometrika 33, 1945); repeats may
pass as well, hence passed(T - 1). A prompt that never reaches its target has passed / drawn. A prompt that survived a check for
hopelessness can only show orders in which at least one of the first h draws passed, so its share is divided by the probability
of that among all orders (the path counting of M. A. Girshick, F. Mosteller & L. J. Savage, Annals of Mathematical Statistics 17,
1946).

The estimate is exact as long as a further sample never turns an earlier hit into something else, and no sample is undecided.
Undecided samples are left out, and then h is approximate.
"""

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from schemas.sampling import Sampling

GROWTH = 1.5
"""Each wave multiplies the samples of a prompt by this, so at most half as many again as needed are drawn."""
DOUBT = 0.05
"""A prompt is given up when the probability that its pass rate is high enough is below this."""


def schedule(sampling: Sampling) -> tuple[int, ...]:
    """Return the samples of a prompt after each wave, ascending; one number without an adaptive budget."""
    totals = [sampling.samples_per_prompt]
    while sampling.target_hits is not None and totals[-1] < sampling.most:
        totals.append(min(sampling.most, max(totals[-1] + 1, math.floor(GROWTH * totals[-1]))))
    return tuple(totals)


def next_total(sampling: Sampling, drawn: int, decided: int, passed: int, hits: int) -> int | None:
    """Return the samples of a prompt after its next wave, None where it stops. `decided` samples were judged right or wrong."""
    further = next((total for total in schedule(sampling) if total > drawn), None)
    if sampling.target_hits is None or hits >= sampling.target_hits:
        return None
    return None if hopeless(sampling, decided, passed) else further


def hopeless(sampling: Sampling, decided: int, passed: int) -> bool:
    """Return whether a prompt without a pass is given up after this many judged draws."""
    return sampling.give_up_below is not None and passed == 0 and decided >= _patience(sampling.give_up_below)


def pass_rate(sampling: Sampling, passed: NDArray[np.bool_], hit: NDArray[np.bool_]) -> float | None:
    """Estimate a prompt's pass rate without bias, from its judged draws (n,) in order: whether each passed, and whether it was a
    distinct hit. None without judged draws."""
    n = len(passed)
    if not n:
        return None
    if sampling.target_hits is None:
        return float(passed.mean())
    reached = np.flatnonzero(np.cumsum(hit) >= sampling.target_hits)
    before = int(reached[0]) if len(reached) else n
    if not before:  # The first draw was enough.
        return 1.0
    share = int(passed[:before].sum()) / before
    checked = _first_check(sampling, before if len(reached) else n - 1)
    if checked is None or not share:
        return share
    return share / (1.0 - _none_among(before, round(share * before), checked))


# -- inside --------------------------------------------------------------------------------------------------------------


def _first_check(sampling: Sampling, before: int) -> int | None:
    """The first number of draws at which a prompt without a pass would have been given up, if it is at most `before`."""
    if sampling.give_up_below is None:
        return None
    patience = _patience(sampling.give_up_below)
    return next((total for total in schedule(sampling) if patience <= total <= before), None)


def _none_among(n: int, passed: int, first: int) -> float:
    """Probability that none of `passed` passes, in random order among `n` draws, is among the first `first`."""
    return math.prod((n - first - i) / (n - i) for i in range(passed)) if passed <= n - first else 0.0


@cache
def _patience(rate: float) -> int:
    """Fewest draws without a pass after which the pass rate is above `rate` with a probability below DOUBT: the upper tail of
    Beta(1/2, n + 1/2) at `rate`."""
    low, high = 0, 1
    while _tail(rate, high) >= DOUBT:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _tail(rate, middle) < DOUBT else (middle, high)
    return high


def _tail(rate: float, n: int) -> float:
    """P(p > rate) for p ~ Beta(1/2, n + 1/2). With p = sin^2 t the density is proportional to cos^(2n) t, without a pole."""
    start = math.asin(math.sqrt(rate))
    return _integral(start, n) / _integral(0.0, n)


def _integral(start: float, n: int) -> float:
    """Integral of cos^(2n) from `start` to pi/2, by the trapezium rule on a grid that is fine where it matters."""
    width = min(math.pi / 2, start + 12 / math.sqrt(2 * n + 1))
    grid = np.linspace(start, width, 4001)
    return float(np.trapezoid(np.cos(grid) ** (2 * n), grid))


def expected_draws(sampling: Sampling, rates: Sequence[float]) -> float:
    """Return the mean number of draws of prompts with these pass rates, assuming that every pass is a distinct hit."""
    totals, target = schedule(sampling), sampling.target_hits
    if target is None:
        return float(totals[0])
    checked = _first_check(sampling, totals[-1])
    mean = 0.0
    for rate in rates:
        expected = float(totals[0])
        for total, further in pairwise(totals):
            alive = _fewer_than(target, total, rate)
            if checked is not None and checked <= total:  # Minus those that were given up then.
                alive -= (1 - rate) ** checked * _fewer_than(target, total - checked, rate)
            expected += alive * (further - total)
        mean += expected / len(rates)
    return mean


def _fewer_than(hits: int, n: int, rate: float) -> float:
    """P(Binomial(n, rate) < hits)."""
    if rate <= 0:
        return 1.0
    if rate >= 1:
        return 1.0 if n < hits else 0.0
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(rate) + (n - k) * math.log1p(-rate)
        for k in range(min(hits, n + 1))
    ]
    return min(1.0, math.fsum(map(math.exp, logs)))
