"""Estimates over a study's prompts, each with its interval: a bootstrap over prompts with expanded percentiles
(thresher.estimators.intervals), in which the whole estimate is computed again from each resample of the prompts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from thresher.estimators.intervals import expanded_tail, wilson
from thresher.study.measures import Measures
from thresher.study.shard_measures import COUNTS, F64, I64

LOW = 0.5
"""Temperatures above 0 and up to this one count as *just above 0*."""
RESAMPLES = 2000

Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval over prompts; null where it cannot be computed."""

    value: float | None
    interval: Interval | None = None


def spearman(x: F64, y: F64, groups: I64 | None = None) -> float:
    """Rank correlation of two arrays; equal values share their mean rank. NaN where one of them does not vary.

    With `groups`, ranks are within each group, as shares of its size, so that differences between groups have no influence.
    """
    groups = np.zeros(len(x), np.int64) if groups is None else groups
    x_ranks, y_ranks = np.zeros(len(x)), np.zeros(len(x))
    for group in np.unique(groups):
        members = groups == group
        for values, ranks in ((x, x_ranks), (y, y_ranks)):
            plain = _ranks(values[members])
            ranks[members] = (plain - plain.mean()) / len(plain)
    spread = float(np.sqrt((x_ranks @ x_ranks) * (y_ranks @ y_ranks)))
    return float(x_ranks @ y_ranks) / spread if spread else float("nan")


def mean_over_prompts(values: F64, seed: int = 0) -> Estimate:
    """Mean of one number per prompt (P,), NaN where a prompt has none, with its interval."""
    known = values[np.isfinite(values)]
    if not len(known):
        return Estimate(None)
    weights = np.random.default_rng(seed).multinomial(len(known), np.full(len(known), 1 / len(known)), size=RESAMPLES)
    return Estimate(float(known.mean()), percentiles(weights @ known / len(known), len(known)))


def percentiles(resampled: F64, prompts: int, level: float = 0.95) -> Interval | None:
    """Expanded percentiles of an estimate over its resamples (R,). None with fewer than two prompts, or where more than one
    resample in twenty has no such estimate (NaN)."""
    known = resampled[np.isfinite(resampled)]
    if prompts < 2 or len(known) < 0.95 * len(resampled):
        return None
    tail = expanded_tail(prompts) * (1 - level) / 0.05
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


class FamilySample:
    """The prompts of one family, and the same resamples of them for every estimate.

    P prompts, R resamples; `t` is the index of a temperature, `k` that of a volume (-1: all draws).
    """

    def __init__(self, measures: Measures, family: str, rows: I64, seed: int) -> None:
        self.family, self.rows, self.measures = family, rows, measures
        self.counts = {name: measures.counts[name][rows] for name in COUNTS}
        self.temperatures = np.array(measures.temperatures)
        self.t_1 = int(np.flatnonzero(self.temperatures == 1.0)[0])
        """Index of temperature 1, with which every hypothesis compares."""
        n = len(rows)
        self.weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)
        self.low = (self.temperatures > 0) & (self.temperatures <= LOW)

    def ratio(self, numerator: F64, denominator: F64, *, share: bool = False) -> Estimate:
        """Sum of `numerator` / sum of `denominator`, both over prompts (P,).

        Where all prompts agree, a bootstrap sees no spread: a `share` then has Wilson's interval for as many trials as prompts.
        """
        estimate = self.estimate(lambda weights: quotient(weights @ numerator, weights @ denominator))
        counted = denominator > 0
        trials = int(counted.sum())
        if share and estimate.value is not None and trials > 1 and not np.ptp(numerator[counted] / denominator[counted]):
            return Estimate(estimate.value, wilson(estimate.value, trials))
        return estimate

    def mean(self, values: F64, *, share: bool = False) -> Estimate:
        """Mean over the prompts that have a value; the others are NaN."""
        known = np.isfinite(values)
        return self.ratio(np.where(known, values, 0.0), known.astype(float), share=share)

    def estimate(self, statistic: Callable[[F64], Any], level: float = 0.95) -> Estimate:
        """A statistic of the prompts' weights (P,), or (R, P) for all resamples together, with its interval."""
        value = float(statistic(np.ones(len(self.rows))))
        if not np.isfinite(value):
            return Estimate(None)
        return Estimate(value, percentiles(np.asarray(statistic(self.weights)), len(self.rows), level))

    def solutions(self, t: int, k: int) -> F64:
        """Expected solutions of each prompt (P,)."""
        solutions: F64 = self.measures.solutions[self.rows, t, k]
        return solutions

    def tokens(self, t: int, draws: int) -> F64:
        """Tokens of the first `draws` draws of each prompt (P,), taking each to be of mean length."""
        mean_length = self.counts["tokens"][:, t] / np.maximum(self.counts["draws"][:, t], 1)
        tokens: F64 = mean_length * np.minimum(draws, self.counts["draws"][:, t])
        return tokens

    def weighted_yield(self, weights: F64, t: int, k: int) -> Any:
        """Solutions per 1,000 tokens of the prompts with these weights."""
        tokens = self.tokens(t, self.measures.volumes[k])
        return 1000 * quotient(weights @ self.solutions(t, k), weights @ tokens)

    def yield_estimate(self, t: int, k: int) -> Estimate:
        """Solutions per 1,000 tokens, with their interval."""
        return self.estimate(lambda weights: self.weighted_yield(weights, t, k))

    def yield_value(self, t: int, k: int) -> float:
        """Solutions per 1,000 tokens."""
        return float(self.weighted_yield(np.ones(len(self.rows)), t, k))

    def moved_share(self) -> F64:
        """Share of each prompt's changes that move the greedy answer (P,); NaN without any change."""
        departed = self.measures.changed["departed"][self.rows]
        return np.asarray(quotient(np.nan_to_num(departed).sum(axis=1), np.isfinite(departed).sum(axis=1)))

    def resample_counts(self, prompts: I64) -> Iterator[I64]:
        """How often each of these prompts is in each resample; resamples with fewer than two of them are left out."""
        counts = self.weights[:, prompts].astype(np.int64)
        return iter(counts[counts.sum(axis=1) > 1])


def quotient(numerator: Any, denominator: Any) -> Any:
    """numerator / denominator, NaN where the denominator is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(denominator) != 0, np.divide(numerator, denominator), np.nan)


def _ranks(values: F64) -> F64:
    _, position, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: F64 = (np.cumsum(count) - (count + 1) / 2)[position]
    return ranks
