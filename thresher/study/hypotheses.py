"""The five hypotheses of a study, each with a statistic, an interval and a verdict.

A hypothesis is *supported* where its interval lies above 0, *refuted* where it lies below, and otherwise *open*:

    bimodal    At temperature 1 an answer is either similar to the greedy one or very different, seldom in between: of a prompt's
               draws, the shares in the lower and in the upper third of similarity both exceed that in the middle third.
               Statistic: the smaller of the two differences, means over prompts. Supported where both are above 0, refuted where
               either is below it (each by an interval at 97.5 %, because there are two).
    valley     Just above temperature 0, draws that depart from a prompt's greedy answer are near misses more often than at 1,
    narrow     and they are right less often.
               Statistic of both: the difference of shares among departing draws within a prompt, between temperatures up to LOW
               together and 1, over prompts with such draws at both. Prompts weigh n m / (n + m) for n and m such draws (Mantel
               and Haenszel's common risk difference, S. Greenland & J. M. Robins, Biometrics 41, 1985); the interval is
               Student's, by the statistic's variance over prompts. The comparison is within prompts because the prompts that
               depart at low temperature are not those that depart at 1. Valley counts only prompts with a right answer: without
               one, no draw can be near it.
    rewording  A changed prompt moves the greedy answer of those prompts whose answers temperature moves. Statistic: Spearman's
               rank correlation over prompts, with ranks within each family, between the share of changes that move the greedy
               answer and the share of draws that depart from it, mean over temperatures.
    yield      With many draws, temperature 1 yields the most solutions per token. Statistic: solutions per 1,000 tokens at 1
               minus those at another temperature. Supported where 1 beats every other temperature (each at 95 %: to be wrong
               about all, one must be wrong about the nearest), refuted where any other beats 1 (each at a level corrected for
               their number, by Bonferroni).

Every other interval is a bootstrap over prompts with expanded percentiles (thresher.estimators.intervals). With fewer than FEWEST
prompts that contribute to its statistic, a hypothesis stays open.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from thresher.estimators.intervals import student
from thresher.study.bootstrap import Estimate, FamilySample, Interval, percentiles, quotient, spearman
from thresher.study.shard_measures import F64, LONG, THIRDS

FEWEST = 8
"""Fewest prompts for which a hypothesis is supported or refuted."""

Verdict = Literal["supported", "refuted", "open"]


@dataclass(frozen=True)
class Hypothesis:
    """A claim about the prompts of a family, its statistic, and the verdict that follows."""

    name: str
    family: str
    says: str
    """The claim, as a sentence."""
    statistic: str
    """What `value` is, in words."""
    value: float | None
    interval: Interval | None
    level: float
    """Of the interval."""
    verdict: Verdict
    remark: str = ""


def hypotheses(sample: FamilySample) -> list[Hypothesis]:
    """Judge the five hypotheses; rewording is left out where no greedy answer to a changed prompt was drawn."""
    judged = [bimodal(sample), *valley_and_narrow(sample)]
    if sample.measures.changes:
        judged.append(rewording(sample))
    return [*judged, most_yield(sample)]


def bimodal(sample: FamilySample) -> Hypothesis:
    """Judge whether similarity to the greedy answer has two heaps at temperature 1."""
    thirds = sample.measures.thirds[sample.rows, sample.t_1]
    sums = thirds.sum(axis=1)
    counted = sums > 0
    shares = np.where(counted[:, None], thirds / np.maximum(sums, 1)[:, None], 0.0)

    def gap(third: int, level: float) -> Estimate:
        differences = shares[:, third] - shares[:, 1]
        return sample.estimate(lambda weights: quotient(weights @ differences, weights @ counted.astype(float)), level)

    at_95, at_97 = ([gap(third, level) for third in (0, THIRDS - 1)] for level in (0.95, 0.975))
    verdict = _verdict(
        supported=all(estimate.interval is not None and estimate.interval[0] > 0 for estimate in at_95),
        refuted=any(estimate.interval is not None and estimate.interval[1] < 0 for estimate in at_97),
    )
    smaller = min(range(2), key=lambda index: np.inf if (value := at_95[index].value) is None else value)
    prompts = int(counted.sum())
    mixed = int(((thirds[:, 0] >= 1) & (thirds[:, THIRDS - 1] >= 1)).sum())
    return _hypothesis(
        sample,
        "bimodal",
        "At temperature 1 an answer is either similar to the greedy one or very different, seldom in between.",
        "share of a prompt's draws in the lower or the upper third of similarity to the greedy answer, whichever is smaller - "
        "share in the middle third",
        at_95[smaller] if verdict == "supported" else at_97[smaller],
        verdict=verdict,
        level=0.95 if verdict == "supported" else 0.975,
        prompts=prompts,
        remark=f"{prompts} prompts whose greedy answer has {LONG} words or more; {mixed} have draws of both kinds",
    )


def valley_and_narrow(sample: FamilySample) -> list[Hypothesis]:
    """Judge whether draws that depart just above temperature 0 are near misses more often, and right less often, than at 1."""
    low = sample.low
    lows = ", ".join(f"{temperature:g}" for temperature in sample.temperatures[low]) or "no temperature"
    names = ("departed_judged", "departed_near", "departed_passed")
    at_low = {name: sample.counts[name][:, low].sum(axis=1) for name in names}
    at_1 = {name: sample.counts[name][:, sample.t_1] for name in names}
    n, m = at_low["departed_judged"], at_1["departed_judged"]
    shares_at_low = {name: counts / np.maximum(n, 1) for name, counts in at_low.items()}
    shares_at_1 = {name: counts / np.maximum(m, 1) for name, counts in at_1.items()}
    weight = np.where((n > 0) & (m > 0), n * m / np.maximum(n + m, 1), 0.0)

    def judged(name: str, says: str, statistic: str, *, differences: F64, weight: F64) -> Hypothesis:
        estimate = _common_difference(differences, weight)
        counted = weight > 0
        prompts = int(counted.sum())
        remark = (
            f"{prompts} prompts with {int(n[counted].sum())} departing draws judged at {lows} and {int(m[counted].sum())} at 1"
        )
        return _by_interval(sample, name, says, statistic, estimate, prompts=prompts, remark=remark)

    right = sample.counts["passed"].sum(axis=1) > 0
    return [
        judged(
            "valley",
            "Just above temperature 0, draws that depart from a prompt's greedy answer are near misses more often than at 1.",
            f"share of near misses among departing draws at {lows} - the same at 1, within prompts that have a right answer",
            differences=shares_at_low["departed_near"] - shares_at_1["departed_near"],
            weight=weight * right * sample.measures.near_looked,
        ),
        judged(
            "narrow",
            "Just above temperature 0, draws that depart from a prompt's greedy answer are right less often than at 1.",
            f"share of right answers among departing draws at 1 - the same at {lows}, within prompts",
            differences=shares_at_1["departed_passed"] - shares_at_low["departed_passed"],
            weight=weight,
        ),
    ]


def rewording(sample: FamilySample) -> Hypothesis:
    """Judge whether changed prompts move the answers that temperature moves."""
    moved, draws = sample.moved_share(), sample.counts["draws"][:, 1:]
    departed = (sample.counts["departed"][:, 1:] / np.maximum(draws, 1)).mean(axis=1)
    changed = np.flatnonzero(np.isfinite(moved))
    _, family = np.unique(sample.measures.families[sample.rows], return_inverse=True)

    def correlation(rows: NDArray[np.int64]) -> float:
        return spearman(moved[rows], departed[rows], family[rows])

    value = correlation(changed) if len(changed) > 1 else float("nan")
    resampled = np.array([correlation(np.repeat(changed, counts)) for counts in sample.resample_counts(changed)])
    estimate = Estimate(value, percentiles(resampled, len(changed))) if np.isfinite(value) else Estimate(None)
    return _by_interval(
        sample,
        "rewording",
        "A changed prompt moves the greedy answer of those prompts whose answers temperature moves.",
        "Spearman's rank correlation over prompts, within families: changes that move the answer, draws that depart",
        estimate,
        prompts=len(changed),
        remark=f"changes moved {100 * moved[changed].mean():.0f} % of the greedy answers" if len(changed) else "",
    )


def most_yield(sample: FamilySample) -> Hypothesis:
    """Judge whether temperature 1 yields the most solutions per token, with all draws of each prompt."""
    contest = rivals_of(sample, sample.t_1, -1)
    at_1, at_rival = sample.yield_value(sample.t_1, -1), sample.yield_value(contest.rival, -1)
    remark = f"{at_rival:.2f} there, {at_1:.2f} at 1" if np.isfinite(at_rival) else ""
    for word, rivals in (("better than 1", contest.beaten_by), ("worse than 1", contest.beats)):
        if rivals:
            remark += f"; {word}: {', '.join(f'{sample.temperatures[t]:g}' for t in rivals)}"
    nothing_right = not sample.measures.solutions[sample.rows, 1:, -1].any()
    return _hypothesis(
        sample,
        "yield",
        f"At {sample.measures.volumes[-1]} draws of each prompt, temperature 1 yields the most solutions per token.",
        f"solutions per 1,000 {sample.measures.unit} at 1 - the same at {sample.temperatures[contest.rival]:g}",
        Estimate(None) if nothing_right else contest.difference,
        verdict="open" if nothing_right else contest.verdict,
        level=contest.level,
        prompts=len(sample.rows),
        remark=remark,
    )


@dataclass(frozen=True)
class Rivals:
    """How the yield of one temperature compares with that of every other; temperatures are indices."""

    verdict: Verdict
    """Of the claim that it yields more per token than every other one."""
    rival: int
    """The temperature that decides the verdict."""
    difference: Estimate
    """To the rival."""
    level: float
    """Of the difference's interval."""
    beats: list[int]
    beaten_by: list[int]


def rivals_of(sample: FamilySample, t: int, k: int) -> Rivals:
    """Compare solutions per token at temperature `t` with every other temperature, at volume `k`."""
    others = [other for other in range(1, len(sample.temperatures)) if other != t]
    corrected = 1 - 0.05 / len(others)

    def difference(other: int, level: float) -> Estimate:
        return sample.estimate(lambda w: sample.weighted_yield(w, t, k) - sample.weighted_yield(w, other, k), level)

    at_95, at_corrected = ({other: difference(other, level) for other in others} for level in (0.95, corrected))
    beats = [other for other, estimate in at_95.items() if estimate.interval is not None and estimate.interval[0] > 0]
    beaten_by = [other for other, estimate in at_corrected.items() if estimate.interval is not None and estimate.interval[1] < 0]
    rival = max(beaten_by or others, key=lambda other: sample.yield_value(other, k))
    verdict = _verdict(supported=len(beats) == len(others), refuted=bool(beaten_by))
    estimate, level = (at_95[rival], 0.95) if verdict == "supported" else (at_corrected[rival], corrected)
    return Rivals(verdict, rival, estimate, level, beats, beaten_by)


def _common_difference(differences: F64, weight: F64) -> Estimate:
    """The weighted mean of differences (P,), over the prompts that have a weight, with Student's interval by the variance of a
    ratio over prompts. A bootstrap would be wrong here too often: the weights are uneven, and the differences skewed."""
    counted = weight > 0
    d, w, prompts = differences[counted], weight[counted], int(counted.sum())
    if not prompts:
        return Estimate(None)
    value = float(w @ d / w.sum())
    if prompts < 2:
        return Estimate(value)
    standard_error = math.sqrt(prompts / (prompts - 1) * float(((w * (d - value)) ** 2).sum())) / float(w.sum())
    half = student(prompts - 1) * standard_error
    return Estimate(value, (value - half, value + half))


def _by_interval(
    sample: FamilySample, name: str, says: str, statistic: str, estimate: Estimate, *, prompts: int, remark: str
) -> Hypothesis:
    interval = estimate.interval
    verdict = _verdict(supported=interval is not None and interval[0] > 0, refuted=interval is not None and interval[1] < 0)
    return _hypothesis(sample, name, says, statistic, estimate, verdict=verdict, level=0.95, prompts=prompts, remark=remark)


def _hypothesis(
    sample: FamilySample,
    name: str,
    says: str,
    statistic: str,
    estimate: Estimate,
    *,
    verdict: Verdict,
    level: float,
    prompts: int,
    remark: str,
) -> Hypothesis:
    if estimate.interval is None or prompts < FEWEST:
        verdict = "open"
        remark = "; ".join(filter(None, [remark, f"too little to judge (wanted {FEWEST} prompts)"]))
    return Hypothesis(name, sample.family, says, statistic, estimate.value, estimate.interval, level, verdict, remark)


def _verdict(*, supported: bool, refuted: bool) -> Verdict:
    return "refuted" if refuted else "supported" if supported else "open"
