"""The five hypotheses of a study, each with a statistic, an interval and a verdict, and the setting that follows.

Each is *supported* where its interval lies on its side of nought, *refuted* where it lies on the other, else *open*:

    bimodal    at temperature 1 an answer is either like the greedy one or quite another, seldom in between: of a prompt's draws,
               the shares in the lower and in the upper third of similarity are both above that in the middle third. Statistic:
               the smaller of the two differences, means over prompts; supported where both are above nought, refuted where either
               is below it (each by an interval at 97.5 %, for there are two).
    valley     just above temperature 0 what departs from a prompt's greedy answer is a near miss more often than at 1.
    narrow     and it is right less often.
               Statistic of both: the difference of shares among departing draws within a prompt, at temperatures up to LOW
               together and at 1, over prompts with such draws at both; prompts weigh by n m / (n + m) for n and m such draws
               (Mantel and Haenszel's common risk difference, S. Greenland & J. M. Robins, Biometrics 41, 1985), with Student's
               interval by its variance over prompts. Within prompts, because those that depart at low temperature are not those
               that depart at 1. Valley is of prompts with a right answer, for without one there is nothing to be near to.
    rewording  a changed prompt moves the greedy answer where temperature does. Statistic: Spearman's rank correlation over
               prompts, with ranks within each family, of (changes that move the greedy answer) with (draws that depart from it,
               mean over temperatures).
    yield      in volume, temperature 1 yields most solutions per token. Statistic: solutions per 1,000 tokens at 1 - the same at
               another temperature; supported where 1 beats every other one (each at 95 %: to be wrong of all, one must be wrong
               of the nearest), refuted where any other one beats it (each at a level corrected for their number, by Bonferroni).

Every other interval is a bootstrap over prompts with expanded percentiles (thresher.estimators.intervals): the prompts are drawn again,
and all of a figure is computed anew. Nothing is judged with fewer than FEWEST prompts that have a say in it."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from thresher.estimators.intervals import student
from thresher.study.bootstrap import Figure, Interval, Look, percentiles, quotient, spearman
from thresher.study.measures import F64, LONG, THIRDS

WORTH = 0.1
"""Share of solutions that a doubled volume must add to be recommended."""
FEWEST = 8
"""Prompts below which no hypothesis is judged."""

Verdict = Literal["supported", "refuted", "open"]


@dataclass(frozen=True)
class Hypothesis:
    """A sentence, its statistic over the prompts of a family, and what follows."""

    name: str
    family: str
    says: str
    statistic: str
    value: float | None
    interval: Interval | None
    level: float
    """Of the interval."""
    verdict: Verdict
    remark: str = ""


def hypotheses(look: Look) -> list[Hypothesis]:
    found = [bimodal(look), *valley(look)]
    if look.found.changes:
        found.append(rewording(look))
    return [*found, most_yield(look)]


def bimodal(look: Look) -> Hypothesis:
    says = "At temperature 1 an answer is either like the greedy one or quite another, seldom in between."
    statistic = "share of a prompt's draws in the lower or the upper third of similarity to the greedy answer, whichever is "
    statistic += "smaller - share in the middle third"
    thirds = look.found.thirds[look.rows, look.one]
    sums = thirds.sum(axis=1)
    told = sums > 0
    shares = np.where(told[:, None], thirds / np.maximum(sums, 1)[:, None], 0.0)
    gaps = [lambda w, k=k: quotient(w @ (shares[:, k] - shares[:, 1]), w @ told.astype(float)) for k in (0, THIRDS - 1)]
    plain, careful = ([look.figure(gap, level) for gap in gaps] for level in (0.95, 0.975))
    verdict = _verdict(
        supported=all(one.interval is not None and one.interval[0] > 0 for one in plain),
        refuted=any(one.interval is not None and one.interval[1] < 0 for one in careful),
    )
    smaller = min(range(2), key=lambda at: np.inf if (value := plain[at].value) is None else value)
    shown, level = (plain[smaller], 0.95) if verdict == "supported" else (careful[smaller], 0.975)
    mixed = int(((thirds[:, 0] >= 1) & (thirds[:, THIRDS - 1] >= 1)).sum())
    remark = f"of {int(told.sum())} prompts, whose greedy answer has {LONG} words or more; {mixed} have draws of both kinds"
    prompts = int(told.sum())
    return _hypothesis(look, "bimodal", says, statistic, shown, verdict=verdict, level=level, prompts=prompts, remark=remark)


def valley(look: Look) -> list[Hypothesis]:
    c, low, one = look.counts, look.low, look.one
    lows = ", ".join(f"{t:g}" for t in look.temperatures[low]) or "no temperature"
    cold = {name: c[name][:, low].sum(axis=1) for name in ("departed_judged", "departed_near", "departed_passed")}
    warm = {name: c[name][:, one] for name in cold}
    n, m = cold["departed_judged"], warm["departed_judged"]
    weight = np.where((n > 0) & (m > 0), n * m / np.maximum(n + m, 1), 0.0)
    known = c["passed"].sum(axis=1) > 0

    def judged(name: str, says: str, statistic: str, *, of: str, weight: F64, sign: int) -> Hypothesis:
        figure = _common(sign * (cold[of] / np.maximum(n, 1) - warm[of] / np.maximum(m, 1)), weight)
        prompts, there = int((weight > 0).sum()), weight > 0
        remark = (
            f"{prompts} prompts with {int(n[there].sum())} departing draws that were judged at {lows}, and "
            f"{int(m[there].sum())} at 1"
        )
        return _judged(look, name, says, statistic, figure, prompts=prompts, remark=remark)

    looked = weight * known * look.found.near_looked
    return [
        judged(
            "valley",
            "Just above temperature 0 what departs from a prompt's greedy answer is a near miss more often than at 1.",
            f"near misses among departing draws at {lows} - the same at 1, within prompts that have a right answer",
            of="departed_near",
            weight=looked,
            sign=1,
        ),
        judged(
            "narrow",
            "Just above temperature 0 what departs from a prompt's greedy answer is right less often than at 1.",
            f"right ones among departing draws at 1 - the same at {lows}, within prompts",
            of="departed_passed",
            weight=weight,
            sign=-1,
        ),
    ]


def rewording(look: Look) -> Hypothesis:
    moved, draws = look.moved(), look.counts["draws"][:, 1:]
    warm = (look.counts["departed"][:, 1:] / np.maximum(draws, 1)).mean(axis=1)
    there = np.flatnonzero(np.isfinite(moved))
    _, family = np.unique(look.found.families[look.rows], return_inverse=True)
    value = spearman(moved[there], warm[there], family[there]) if len(there) > 1 else float("nan")
    drawn = np.array(
        [spearman(moved[rows], warm[rows], family[rows]) for rows in (np.repeat(there, w) for w in look.resampled(there))]
    )
    figure = Figure(value, percentiles(drawn, len(there))) if np.isfinite(value) else Figure(None)
    remark = f"changes moved {100 * moved[there].mean():.0f} % of the greedy answers" if len(there) else ""
    return _judged(
        look,
        "rewording",
        "A changed prompt moves the greedy answer of the prompts whose answers temperature moves.",
        "Spearman's rank correlation over prompts, within families: changes that move the answer, draws that depart",
        figure,
        prompts=len(there),
        remark=remark,
    )


def most_yield(look: Look) -> Hypothesis:
    verdict, shown, level, beats, beaten_by = rivals(look, look.one, -1)
    others = [at for at in range(1, len(look.temperatures)) if at != look.one]
    rates = {at: look.rate(at, -1) for at in others}
    says = f"At {look.found.volumes[-1]} draws of each prompt, temperature 1 yields the most solutions per token."
    rival = max(beaten_by or others, key=lambda at: rates[at])
    statistic = f"solutions per 1,000 {look.found.unit} at 1 - the same at {look.temperatures[rival]:g}"
    remark = f"{rates[rival]:.2f} there, {look.rate(look.one, -1):.2f} at 1" if np.isfinite(rates[rival]) else ""
    for word, some in (("better than 1", beaten_by), ("worse than 1", beats)):
        if some:
            remark += f"; {word}: {', '.join(f'{look.temperatures[at]:g}' for at in some)}"
    right = int((look.solutions(look.one, -1) + sum(look.solutions(at, -1) for at in others) > 0).sum())
    if not right:
        shown, verdict = Figure(None), "open"
    prompts = len(look.rows)
    return _hypothesis(look, "yield", says, statistic, shown, verdict=verdict, level=level, prompts=prompts, remark=remark)


def rivals(look: Look, one: int, place: int) -> tuple[Verdict, Figure, float, list[int], list[int]]:
    """Whether a temperature yields more per token than every other one, among so many draws: the verdict; the difference to
    the rival that decides it, and the level of its interval; whom it beats, and who beats it."""
    others = [at for at in range(1, len(look.temperatures)) if at != one]
    strict = 1 - 0.05 / len(others)

    def apart(at: int, level: float) -> Figure:
        return look.figure(lambda w: look.per(w, one, place) - look.per(w, at, place), level)

    plain, careful = ({at: apart(at, level) for at in others} for level in (0.95, strict))
    beats = [at for at, figure in plain.items() if figure.interval is not None and figure.interval[0] > 0]
    beaten_by = [at for at, figure in careful.items() if figure.interval is not None and figure.interval[1] < 0]
    rates = {at: look.rate(at, place) for at in others}
    rival = max(beaten_by or others, key=lambda at: rates[at])
    verdict = _verdict(supported=len(beats) == len(others), refuted=bool(beaten_by))
    figure, level = (plain[rival], 0.95) if verdict == "supported" else (careful[rival], strict)
    return verdict, figure, level, beats, beaten_by


def recommended(look: Look) -> tuple[dict[str, Any], str]:
    """Temperature 1, unless another one beats it by the interval of its yield at all draws; and the volume beyond which twice as
    many draws at it bring less than a tenth more. Nothing where no draw passed."""
    if not look.found.solutions[look.rows, 1:].any():
        return {}, "nothing passed, so no setting can be told from another"
    volumes, most = look.found.volumes, len(look.found.volumes) - 1
    *_, beaten_by = rivals(look, look.one, most)
    at = max(beaten_by, key=lambda one: look.rate(one, most)) if beaten_by else look.one
    place = _enough(look, at)
    heat, draws = float(look.temperatures[at]), volumes[place]
    settings: dict[str, Any] = {"sampling.temperature": heat, "sampling.samples_per_prompt": draws}
    if heat != 1:
        settings["sampling.calibration.expect"] = "declared"
    reason = (
        f"of the temperatures that yield more solutions per token than 1, {heat:g} yields most"
        if beaten_by
        else "no other temperature yields more solutions per token by its interval"
    )
    if place == most:
        return settings, f"{reason}; the last half of the {draws} draws still brought a tenth more solutions: take more"
    reason += f"; {2 * draws} draws of a prompt have less than a tenth more solutions than {draws}"
    *_, better = rivals(look, at, place)
    if better:
        best = max(better, key=lambda one: look.rate(one, place))
        rates = f"{look.rate(best, place):.2f} per 1,000 {look.found.unit}, {look.rate(at, place):.2f} at {heat:g}"
        reason += f". At {draws} draws {look.temperatures[best]:g} yields more per token ({rates})"
    return settings, reason


def _enough(look: Look, at: int) -> int:
    """The smallest volume whose double brings less than a tenth more solutions; the largest where none does."""
    volumes, each = look.found.volumes, [float(look.solutions(at, place).sum()) for place in range(len(look.found.volumes))]
    for place, draws in enumerate(volumes):
        if 2 * draws in volumes and each[volumes.index(2 * draws)] < (1 + WORTH) * each[place]:
            return place
    return len(volumes) - 1


# -- inside --------------------------------------------------------------------------------------------------------------


def _common(apart: F64, weight: F64) -> Figure:
    """The weighted mean of the prompts' differences (P,), of those that have a weight, and its interval: Student's, with the
    variance of a ratio over prompts. A bootstrap is wrong here too often: the weights are uneven, and the differences skewed."""
    there = weight > 0
    d, w, prompts = apart[there], weight[there], int(there.sum())
    if not prompts:
        return Figure(None)
    value = float(w @ d / w.sum())
    if prompts < 2:
        return Figure(value)
    spread = math.sqrt(prompts / (prompts - 1) * float(((w * (d - value)) ** 2).sum())) / float(w.sum())
    half = student(prompts - 1) * spread
    return Figure(value, (value - half, value + half))


def _judged(look: Look, name: str, says: str, statistic: str, figure: Figure, *, prompts: int, remark: str) -> Hypothesis:
    interval = figure.interval
    verdict = _verdict(supported=interval is not None and interval[0] > 0, refuted=interval is not None and interval[1] < 0)
    return _hypothesis(look, name, says, statistic, figure, verdict=verdict, level=0.95, prompts=prompts, remark=remark)


def _hypothesis(
    look: Look, name: str, says: str, statistic: str, figure: Figure, *, verdict: Verdict, level: float, prompts: int, remark: str
) -> Hypothesis:
    if figure.interval is None or prompts < FEWEST:
        verdict = "open"
        remark = "; ".join(filter(None, [remark, f"too little to judge (wanted {FEWEST} prompts)"]))
    return Hypothesis(name, look.family, says, statistic, figure.value, figure.interval, level, verdict, remark)


def _verdict(*, supported: bool, refuted: bool) -> Verdict:
    return "refuted" if refuted else "supported" if supported else "open"
