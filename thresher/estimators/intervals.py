"""A 95 % interval for a pass rate, from a bootstrap over prompts.

Samples of one prompt resemble each other, so prompts are resampled, not samples: an interval over samples would be far too
narrow (Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). Prompts with the same (decided, passed)
are exchangeable, so resampling them is one multinomial draw over the distinct pairs: exact, and as cheap for a million prompts
as for a hundred. The percentiles are those of the expanded percentile interval, which undoes the bootstrap's narrowness for few
prompts (T. Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician 69, 2015, section 5). Where all
prompts have the same rate, a bootstrap sees no spread, and Wilson's interval with n = number of prompts is used instead (E. B.
Wilson, JASA 22, 1927).

In simulations with six samples of each prompt, rates drawn from Beta(0.5, 1.5) and 1,000 runs each, it covers the true rate in
90 % of runs with 5 prompts, 93 % with 10, 94 % with 15 or 30, and 95 to 96 % from 60 on; plain percentiles cover it in 78 %,
89 %, 92 to 93 % and 95 %. tests/test_estimators_intervals.py repeats this for 15 and 60.

The interval is about further prompts of the same kind. It assumes that the prompts were drawn independently; the pass rate weighs
each prompt by its decided samples.
"""

import math
from collections.abc import Mapping
from statistics import NormalDist

import numpy as np

LEVEL = 0.95
RESAMPLES = 2000
_BLOCK = 50  # Resamples drawn at once, so that memory is 50 x the number of distinct pairs.


def pass_rate_interval(
    prompts: Mapping[tuple[float, float], int], seed: int, *, resamples: int = RESAMPLES
) -> tuple[float, float] | None:
    """Return the interval (low, high) of passed / decided; None where no sample is decided.

    `prompts` counts the prompts by (decided, passed); prompts without decided samples are ignored. Where each prompt's rate is an
    estimate itself, as with target_hits, pass (1, rate).
    """
    cells = np.array(sorted(key for key, count in prompts.items() if key[0] and count), np.float64).reshape(-1, 2)
    if not len(cells):
        return None
    weight = np.array([prompts[decided, passed] for decided, passed in cells.tolist()], np.int64)
    decided, passed, n = cells[:, 0], cells[:, 1], int(weight.sum())
    if np.all(passed * decided[0] == passed[0] * decided):
        return wilson(float(passed[0] / decided[0]), n)
    random = np.random.default_rng(seed)
    rates = []
    for start in range(0, resamples, _BLOCK):
        drawn = random.multinomial(n, weight / n, size=min(_BLOCK, resamples - start))
        rates.append((drawn @ passed) / (drawn @ decided))
    tail = expanded_tail(n)
    low, high = np.quantile(np.concatenate(rates), [tail, 1 - tail])
    return float(low), float(high)


def wilson(rate: float, n: int) -> tuple[float, float]:
    """Return Wilson's score interval of a rate observed in `n` independent trials."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def expanded_tail(n: int) -> float:
    """Return the lower percentile of a bootstrap of `n` units that bounds the interval; `n` is at least 2.

    It is Phi(-sqrt(n / (n - 1)) t), with Student's t at n - 1 degrees of freedom: below 2.5 %, and near it for large n.
    """
    return NormalDist().cdf(-math.sqrt(n / (n - 1)) * student(n - 1))


def student(freedom: int) -> float:
    """Return Student's quantile for LEVEL, by expansion about the normal one (Abramowitz & Stegun 26.7.5).

    It is within 2 % from 3 degrees of freedom on; below that it is so large that the percentile is the extreme one anyway.
    """
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / freedom**power for power, term in enumerate(terms, start=1))
