"""Figures of a study's prompts, each with its interval: a bootstrap over prompts with expanded percentiles
(thresher.estimators.intervals), in which all of a figure is computed anew from the prompts that were drawn."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from thresher.estimators.intervals import expanded_tail, wilson
from thresher.study.measures import COUNTS, F64, I64, Measures

LOW = 0.5
"""Temperatures up to this one are *just above nought*."""
RESAMPLES = 2000

Interval = tuple[float, float]


@dataclass(frozen=True)
class Figure:
    """A figure and its 95 % interval over prompts; null where there is nothing to tell it from."""

    value: float | None
    interval: Interval | None = None


def spearman(x: F64, y: F64, groups: I64 | None = None) -> float:
    """Rank correlation of two rows of numbers, equal ones sharing their mean rank; NaN where one of them does not vary. With
    `groups` ranks are within each, as shares of its size, so that what differs between groups says nothing."""
    groups = np.zeros(len(x), np.int64) if groups is None else groups
    a, b = np.zeros(len(x)), np.zeros(len(x))
    for one in np.unique(groups):
        mine = groups == one
        for values, ranks in ((x, a), (y, b)):
            found = _ranks(values[mine])
            ranks[mine] = (found - found.mean()) / len(found)
    spread = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / spread if spread else float("nan")


def over_prompts(values: F64, seed: int = 0) -> Figure:
    """The mean of one share per prompt (P,), NaN where a prompt has none, and its interval."""
    there = values[np.isfinite(values)]
    if not len(there):
        return Figure(None)
    weights = np.random.default_rng(seed).multinomial(len(there), np.full(len(there), 1 / len(there)), size=RESAMPLES)
    return Figure(float(there.mean()), percentiles(weights @ there / len(there), len(there)))


def percentiles(drawn: F64, prompts: int, level: float = 0.95) -> Interval | None:
    """Expanded percentiles of a figure over the resamples (R,) of some prompts; null where there are too few to resample, or
    where one resample in twenty has no such figure."""
    there = drawn[np.isfinite(drawn)]
    if prompts < 2 or len(there) < 0.95 * len(drawn):
        return None
    tail = expanded_tail(prompts) * (1 - level) / 0.05
    low, high = np.quantile(there, [tail, 1 - tail])
    return float(low), float(high)


class Look:
    """One family's prompts, and the same resamples of them for every figure."""

    def __init__(self, found: Measures, family: str, rows: I64, seed: int) -> None:
        self.family, self.rows, self.found = family, rows, found
        self.counts = {name: found.counts[name][rows] for name in COUNTS}
        self.temperatures = np.array(found.temperatures)
        self.one = int(np.flatnonzero(self.temperatures == 1.0)[0])
        n = len(rows)
        self.weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)
        self.low = (self.temperatures > 0) & (self.temperatures <= LOW)

    def ratio(self, above: F64, below: F64, *, share: bool = False) -> Figure:
        """Sum of `above` / sum of `below`, over prompts (P,). Of a `share` in which all prompts agree the bootstrap knows no
        spread: Wilson's interval of as many trials as there are prompts stands in."""
        found = self.figure(lambda weights: quotient(weights @ above, weights @ below))
        there = int((below > 0).sum())
        if share and found.value is not None and there > 1 and not np.ptp(above[below > 0] / below[below > 0]):
            return Figure(found.value, wilson(found.value, there))
        return found

    def mean(self, values: F64, *, share: bool = False) -> Figure:
        """Mean over the prompts that have a value."""
        there = np.isfinite(values)
        return self.ratio(np.where(there, values, 0.0), there.astype(float), share=share)

    def figure(self, of: Callable[[F64], Any], level: float = 0.95) -> Figure:
        """A figure of the prompts, from their weights (P,) or (R, P)."""
        value = float(of(np.ones(len(self.rows))))
        if not np.isfinite(value):
            return Figure(None)
        return Figure(value, percentiles(np.asarray(of(self.weights)), len(self.rows), level))

    def solutions(self, at: int, place: int) -> F64:
        found: F64 = self.found.solutions[self.rows, at, place]
        return found

    def tokens(self, at: int, draws: int) -> F64:
        """Tokens of the first `draws` draws, as long as the mean one (P,)."""
        each = self.counts["tokens"][:, at] / np.maximum(self.counts["draws"][:, at], 1)
        found: F64 = each * np.minimum(draws, self.counts["draws"][:, at])
        return found

    def per(self, weights: F64, at: int, place: int) -> Any:
        """Solutions per 1,000 tokens of the prompts with these weights."""
        tokens = self.tokens(at, self.found.volumes[place])
        return 1000 * quotient(weights @ self.solutions(at, place), weights @ tokens)

    def per_token(self, at: int, place: int) -> Figure:
        return self.figure(lambda weights: self.per(weights, at, place))

    def rate(self, at: int, place: int) -> float:
        return float(self.per(np.ones(len(self.rows)), at, place))

    def moved(self) -> F64:
        """Of each prompt, the share of its changes that move the greedy answer (P,); NaN without any."""
        departed = self.found.changed["departed"][self.rows]
        return np.asarray(quotient(np.nan_to_num(departed).sum(axis=1), np.isfinite(departed).sum(axis=1)))

    def resampled(self, there: I64) -> Iterator[I64]:
        """How often each of some prompts is in each resample, where two or more are."""
        times = self.weights[:, there].astype(np.int64)
        return iter(times[times.sum(axis=1) > 1])


def quotient(above: Any, below: Any) -> Any:
    """above / below, NaN where there is nothing below."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(below) != 0, np.divide(above, below), np.nan)


# -- inside --------------------------------------------------------------------------------------------------------------


def _ranks(values: F64) -> F64:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    found: F64 = (np.cumsum(count) - (count + 1) / 2)[place]
    return found
