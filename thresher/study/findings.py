"""What a study finds: a row per temperature, three hypotheses with a statistic, an interval and a verdict, and a setting to use.

The hypotheses, each *supported* where its interval lies on its side of nought, *refuted* where it lies on the other, else *open*:

    bimodal    at temperature 1 an answer is either like the greedy one or quite another: of the draws, the share in the middle
               third of similarity is below both outer thirds. Statistic: the smaller outer third - the middle third.
    valley     just above temperature 0 what departs from the greedy answer is a near miss more often than at 1. Statistic: near
               misses among departing draws at temperatures up to LOW - the same at 1.
    narrow     and it is right less often. Statistic: right ones among departing draws at 1 - the same at temperatures up to LOW.
    rewording  a changed prompt moves the greedy answer where temperature does. Statistic: Spearman's rank correlation over
               prompts of (changes that move the greedy answer) with (draws that depart from it, mean over temperatures).
    yield      in volume, temperature 1 yields most solutions per token. Statistic: solutions per 1,000 tokens at 1 - the most at
               any other temperature; it is supported where 1 beats every other one, refuted where any other one beats it, each
               by its own interval at a level corrected for their number (Bonferroni).

Every interval is a bootstrap over prompts with expanded percentiles (thresher.audit.interval): the prompts are drawn again, and
all of a figure is computed anew. Temperatures are compared on the same prompts, so their differences are those of pairs."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from thresher.audit.interval import expanded_tail
from thresher.study.measures import COUNTS, F64, I64, THIRDS, Measures

LOW = 0.5
"""Temperatures up to this one are *just above nought*."""
RESAMPLES = 2000
WORTH = 0.1
"""Share of solutions that a doubled volume must add to be recommended."""
FEWEST = 8
"""Prompts below which no hypothesis is judged."""

Interval = tuple[float, float]
Verdict = Literal["supported", "refuted", "open"]


@dataclass(frozen=True)
class Figure:
    """A figure and its 95 % interval over prompts; null where there is nothing to tell it from."""

    value: float | None
    interval: Interval | None = None


@dataclass(frozen=True)
class AtTemperature:
    """What was drawn of a family at one temperature; 0 is the greedy answer."""

    family: str
    temperature: float
    prompts: int
    draws: int
    judged: Figure
    """Draws that could be judged."""
    failure: Figure
    """Judged draws that did not pass."""
    near_misses: Figure
    """Near misses among the draws that failed."""
    departed: Figure
    """Draws whose text is not the greedy answer's: 1 - agreement with the anchor."""
    right_where_departed: Figure
    solutions: Figure
    """Distinct solutions per 1,000 tokens (or characters), of all draws."""
    entropy: Figure
    """Of the answers of a prompt, nats."""
    surprisal: Figure
    """Nats per token under the model's own distribution, whatever the temperature."""
    truncated: Figure
    incoherent: Figure
    """Draws in which the filter `coherence` finds a fault."""
    length: Figure
    """Tokens (or characters) of a completion."""


@dataclass(frozen=True)
class AtVolume:
    """Of a family, at one temperature, among the first `draws` draws of each prompt."""

    family: str
    temperature: float
    draws: int
    pass_at_k: Figure
    solutions: Figure
    """Per 1,000 tokens."""
    per_prompt: Figure
    """Solutions of a prompt."""


@dataclass(frozen=True)
class Change:
    """What one change of the prompts did to the greedy answers of a family."""

    family: str
    change: str
    prompts: int
    departed: Figure
    similarity: Figure
    """To the greedy answer to the prompt as it stands, 0 to 1: 1 - edits / words of the longer."""
    passed: Figure
    passed_before: Figure
    """The same prompts' greedy answers, as the prompts stand."""
    known: Figure
    """Of the answers that departed, those that were drawn at temperature 1."""


@dataclass(frozen=True)
class Hypothesis:
    """A sentence, its statistic over the prompts of a family, and what follows."""

    name: str
    family: str
    says: str
    statistic: str
    value: float | None
    interval: Interval | None
    verdict: Verdict
    remark: str = ""


@dataclass(frozen=True)
class Study:
    """All of it."""

    prompts: int
    unit: str
    temperatures: tuple[AtTemperature, ...]
    volumes: tuple[AtVolume, ...]
    changes: tuple[Change, ...]
    equivalent: tuple[tuple[str, Figure], ...]
    """By family: the temperature at which draws depart as often as greedy answers to changed prompts do."""
    hypotheses: tuple[Hypothesis, ...]
    recommended: Mapping[str, Any]
    """Settings of the recipe, as `--set` takes them."""
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def findings(found: Measures, seed: int = 0) -> Study:
    """Work out everything, for each family and, where there are several, for all."""
    families = sorted(set(found.families.tolist()))
    groups = [(family, np.flatnonzero(found.families == family)) for family in families]
    if len(groups) > 1:
        groups.append(("all", np.arange(len(found.prompts))))
    looks = [_Look(found, family, rows, seed) for family, rows in groups]
    whole = looks[-1]
    recommended, reason = whole.recommended()
    return Study(
        prompts=len(found.prompts),
        unit=found.unit,
        temperatures=tuple(one for look in looks for one in look.temperatures()),
        volumes=tuple(one for look in looks for one in look.volumes()),
        changes=tuple(one for look in looks for one in look.changes()),
        equivalent=tuple((look.family, look.equivalent()) for look in looks) if found.changes else (),
        hypotheses=tuple(one for look in looks[::-1] for one in look.hypotheses()),
        recommended=recommended,
        reason=reason,
    )


def spearman(x: F64, y: F64) -> float:
    """Rank correlation of two rows of numbers, equal ones sharing their mean rank; NaN where one of them does not vary."""
    a, b = _ranks(x), _ranks(y)
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / spread if spread else float("nan")


def over_prompts(values: F64, seed: int = 0) -> Figure:
    """The mean of one number per prompt (P,), NaN where a prompt has none, and its interval."""
    there = values[np.isfinite(values)]
    if not len(there):
        return Figure(None)
    weights = np.random.default_rng(seed).multinomial(len(there), np.full(len(there), 1 / len(there)), size=RESAMPLES)
    return Figure(float(there.mean()), percentiles(weights @ there / len(there), len(there)))


def percentiles(drawn: F64, prompts: int, level: float = 0.95) -> Interval | None:
    """Expanded percentiles of a figure over the resamples (R,) of some prompts; null where there are too few to resample."""
    drawn = drawn[np.isfinite(drawn)]
    if prompts < 2 or len(drawn) < RESAMPLES // 2:
        return None
    tail = expanded_tail(prompts) * (1 - level) / 0.05
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


# -- inside --------------------------------------------------------------------------------------------------------------


def _ranks(values: F64) -> F64:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    found: F64 = (np.cumsum(count) - (count + 1) / 2)[place]
    return found


class _Look:
    """One family's prompts, and the same resamples of them for every figure."""

    def __init__(self, found: Measures, family: str, rows: I64, seed: int) -> None:
        self.family, self._rows, self._found = family, rows, found
        self._counts = {name: found.counts[name][rows] for name in COUNTS}
        self._temperatures = np.array(found.temperatures)
        self._one = int(np.flatnonzero(self._temperatures == 1.0)[0])
        n = len(rows)
        self._weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)
        self._low = (self._temperatures > 0) & (self._temperatures <= LOW)

    # -- figures

    def _ratio(self, above: F64, below: F64) -> Figure:
        """Sum of `above` / sum of `below`, over prompts (P,)."""
        return self._figure(lambda weights: _quotient(weights @ above, weights @ below))

    def _mean(self, values: F64) -> Figure:
        """Mean over the prompts that have a value."""
        there = np.isfinite(values)
        return self._ratio(np.where(there, values, 0.0), there.astype(float))

    def _figure(self, of: Callable[[F64], Any]) -> Figure:
        """A figure of the prompts, from their weights (P,) or (R, P)."""
        value = float(of(np.ones(len(self._rows))))
        if not np.isfinite(value):
            return Figure(None)
        return Figure(value, percentiles(np.asarray(of(self._weights)), len(self._rows)))

    # -- tables

    def temperatures(self) -> list[AtTemperature]:
        found, c = [], self._counts
        for at, temperature in enumerate(self._temperatures.tolist()):
            here = {name: values[:, at] for name, values in c.items()}
            failed = here["judged"] - here["passed"]
            found.append(
                AtTemperature(
                    family=self.family,
                    temperature=temperature,
                    prompts=len(self._rows),
                    draws=int(here["draws"].sum()),
                    judged=self._ratio(here["judged"], here["draws"]),
                    failure=self._ratio(failed, here["judged"]),
                    near_misses=self._ratio(here["near"], failed),
                    departed=self._ratio(here["departed"], here["draws"]),
                    right_where_departed=self._ratio(here["departed_passed"], here["departed_judged"]),
                    solutions=self._ratio(1000 * self._solutions(at, -1), here["tokens"]),
                    entropy=self._mean(self._found.entropy[self._rows, at]),
                    surprisal=self._ratio(here["nats"], here["counted_nats"]),
                    truncated=self._ratio(here["truncated"], here["draws"]),
                    incoherent=self._ratio(here["incoherent"], here["draws"]),
                    length=self._ratio(here["tokens"], here["draws"]),
                )
            )
        return found

    def volumes(self) -> list[AtVolume]:
        found = []
        for at, temperature in enumerate(self._temperatures.tolist()):
            for place, draws in enumerate(self._found.volumes):
                if temperature == 0 and draws > 1:
                    continue
                solutions = self._solutions(at, place)
                found.append(
                    AtVolume(
                        self.family,
                        temperature,
                        draws,
                        self._mean(self._found.pass_at_k[self._rows, at, place]),
                        self._ratio(1000 * solutions, self._tokens(at, draws)),
                        self._mean(solutions),
                    )
                )
        return found

    def changes(self) -> list[Change]:
        found, greedy = [], {name: self._counts[name][:, 0] for name in ("judged", "passed")}
        for at, name in enumerate(self._found.changes):
            here = {key: values[self._rows, at] for key, values in self._found.changed.items()}
            there = np.isfinite(here["departed"])
            if not there.any():
                continue
            moved, both = np.nan_to_num(here["departed"]), there * np.nan_to_num(here["judged"]) * (greedy["judged"] > 0)
            found.append(
                Change(
                    self.family,
                    name,
                    int(there.sum()),
                    departed=self._mean(here["departed"]),
                    similarity=self._mean(here["similarity"]),
                    passed=self._ratio(np.nan_to_num(here["passed"]) * both, both),
                    passed_before=self._ratio(greedy["passed"] * both, both),
                    known=self._ratio(moved * np.nan_to_num(here["known"]), moved),
                )
            )
        return found

    def equivalent(self) -> Figure:
        """Where the curve of departures over temperatures, made to rise, crosses that of changed prompts."""
        moved = np.nan_to_num(self._found.changed["departed"][self._rows]).sum(axis=1)
        tried = np.isfinite(self._found.changed["departed"][self._rows]).sum(axis=1).astype(float)
        departed, draws = self._counts["departed"], self._counts["draws"]

        def crossing(weights: F64) -> Any:
            rows = np.atleast_2d(weights)
            wanted = _quotient(rows @ moved, rows @ tried)
            curves = np.maximum.accumulate(_quotient(rows @ departed, rows @ draws), axis=1)
            found = np.array([_crossing(curve, one, self._temperatures) for curve, one in zip(curves, wanted, strict=True)])
            return found if weights.ndim == 2 else found[0]

        return self._figure(crossing)

    # -- hypotheses

    def hypotheses(self) -> list[Hypothesis]:
        found = [self._bimodal(), *self._valley()]
        if self._found.changes:
            found.append(self._rewording())
        return [*found, self._yield()]

    def _bimodal(self) -> Hypothesis:
        says = "At temperature 1 an answer is either like the greedy one or quite another, seldom in between."
        statistic = "share in the smaller outer third of similarity to the greedy answer - share in the middle third"
        thirds = self._found.thirds[self._rows, self._one]
        told = thirds.sum(axis=1) > 0

        def gap(weights: F64) -> Any:
            sums = weights @ thirds
            shares = _quotient(sums, sums.sum(axis=-1, keepdims=True))
            return np.minimum(shares[..., 0], shares[..., THIRDS - 1]) - shares[..., 1]

        remark = f"of {int(told.sum())} prompts, whose greedy answer has 4 words or more"
        return self._judged("bimodal", says, statistic, self._figure(gap), prompts=int(told.sum()), remark=remark)

    def _valley(self) -> list[Hypothesis]:
        c, low, one = self._counts, self._low, self._one
        lows = ", ".join(f"{t:g}" for t in self._temperatures[low])
        sums = {name: c[name][:, low].sum(axis=1) for name in ("departed_judged", "departed_near", "departed_passed")}
        few = int(sums["departed_judged"].sum())
        remark = f"{few} draws departed at {lows or 'no temperature'}, {int(c['departed_judged'][:, one].sum())} at 1"

        def share(weights: F64, name: str) -> Any:
            at_one = _quotient(weights @ c[name][:, one], weights @ c["departed_judged"][:, one])
            return _quotient(weights @ sums[name], weights @ sums["departed_judged"]) - at_one

        return [
            self._judged(
                "valley",
                "Just above temperature 0 what departs from the greedy answer is a near miss more often than at 1.",
                f"near misses among departing draws at {lows} - the same at 1",
                self._figure(lambda weights: share(weights, "departed_near")),
                prompts=len(self._rows) if few else 0,
                remark=remark,
            ),
            self._judged(
                "narrow",
                "Just above temperature 0 what departs from the greedy answer is right less often than at 1.",
                f"right ones among departing draws at 1 - the same at {lows}",
                self._figure(lambda weights: -share(weights, "departed_passed")),
                prompts=len(self._rows) if few else 0,
                remark=remark,
            ),
        ]

    def _rewording(self) -> Hypothesis:
        departed = self._found.changed["departed"][self._rows]
        tried = np.isfinite(departed).sum(axis=1)
        moved = np.nan_to_num(departed).sum(axis=1) / np.maximum(tried, 1)
        draws = self._counts["draws"][:, 1:]
        warm = (self._counts["departed"][:, 1:] / np.maximum(draws, 1)).mean(axis=1)
        there = np.flatnonzero(tried > 0)
        value = spearman(moved[there], warm[there]) if len(there) > 1 else float("nan")
        drawn = []
        for weights in self._weights[:, there].astype(int):
            rows = np.repeat(there, weights)
            drawn.append(spearman(moved[rows], warm[rows]) if len(rows) > 1 else float("nan"))
        figure = Figure(value, percentiles(np.array(drawn), len(there))) if np.isfinite(value) else Figure(None)
        remark = f"changes moved {100 * moved[there].mean():.0f} % of the greedy answers" if len(there) else ""
        return self._judged(
            "rewording",
            "A changed prompt moves the greedy answer of the prompts whose answers temperature moves.",
            "Spearman's rank correlation over prompts: changes that move the answer, draws that depart",
            figure,
            prompts=len(there),
            remark=remark,
        )

    def _yield(self) -> Hypothesis:
        others = [at for at in range(1, len(self._temperatures)) if at != self._one]
        level = 1 - 0.05 / len(others)

        def per_token(weights: F64, at: int) -> Any:
            return 1000 * _quotient(weights @ self._solutions(at, -1), weights @ self._counts["tokens"][:, at])

        ones = per_token(self._weights, self._one)
        here = per_token(np.ones(len(self._rows)), self._one)
        rates = {at: float(per_token(np.ones(len(self._rows)), at)) for at in others}
        intervals = {at: percentiles(ones - per_token(self._weights, at), len(self._rows), level) for at in others}
        says = f"At {self._found.volumes[-1]} draws of each prompt, temperature 1 yields the most solutions per token."
        statistic = f"solutions per 1,000 {self._found.unit} at 1 - the most at another temperature"
        best = max(others, key=lambda at: rates[at])
        value = float(here) - rates[best]
        beaten_by = [at for at in others if (one := intervals[at]) is not None and one[1] < 0]
        beats = [at for at in others if (one := intervals[at]) is not None and one[0] > 0]
        verdict: Verdict = "refuted" if beaten_by else "supported" if len(beats) == len(others) else "open"
        if len(self._rows) < FEWEST or not self._solutions(self._one, -1).any():
            verdict = "open"
        remark = f"most at {self._temperatures[best]:g} ({rates[best]:.2f} against {here:.2f} at 1)"
        if beaten_by:
            remark += f"; better than 1: {', '.join(f'{self._temperatures[at]:g}' for at in beaten_by)}"
        if beats:
            remark += f"; worse than 1: {', '.join(f'{self._temperatures[at]:g}' for at in beats)}"
        return Hypothesis("yield", self.family, says, statistic, value, intervals[best], verdict, remark)

    def recommended(self) -> tuple[dict[str, Any], str]:
        """Temperature 1, unless another yields more by its interval; and the volume beyond which twice as many draws bring less
        than a tenth more. Nothing where no draw passed."""
        if not self._found.solutions[self._rows].any():
            return {}, "nothing passed, so no setting can be told from another"
        found = self._yield()
        rates = {
            at: float(_quotient(self._solutions(at, -1).sum(), self._counts["tokens"][:, at].sum()))
            for at in range(1, len(self._temperatures))
        }
        at = max(rates, key=lambda one: rates[one]) if found.verdict == "refuted" else self._one
        volumes = self._found.volumes
        each = [float(self._solutions(at, place).sum()) for place in range(len(volumes))]
        doubled = [place for place in range(1, len(volumes)) if each[place] < (1 + WORTH) * each[place - 1]]
        enough = volumes[doubled[0] - 1] if doubled else volumes[-1]
        reason = (
            f"temperature {self._temperatures[at]:g} yields most solutions per token of those tried"
            if at != self._one
            else "no other temperature yields more solutions per token by its interval"
        )
        reason += (
            f"; {volumes[doubled[0]]} draws of a prompt have less than a tenth more solutions than {enough}"
            if doubled
            else f"; at {enough} draws of a prompt the last ones still brought a tenth more solutions: take more"
        )
        return {"sampling.temperature": float(self._temperatures[at]), "sampling.samples_per_prompt": enough}, reason

    # -- sums

    def _solutions(self, at: int, place: int) -> F64:
        found: F64 = self._found.solutions[self._rows, at, place]
        return found

    def _tokens(self, at: int, draws: int) -> F64:
        """Tokens of the first `draws` draws, as long as the mean one (P,)."""
        each = self._counts["tokens"][:, at] / np.maximum(self._counts["draws"][:, at], 1)
        found: F64 = each * np.minimum(draws, self._counts["draws"][:, at])
        return found

    def _judged(self, name: str, says: str, statistic: str, figure: Figure, *, prompts: int, remark: str) -> Hypothesis:
        interval = figure.interval
        verdict: Verdict = "open"
        if interval is None or prompts < FEWEST:
            remark = "; ".join(filter(None, [remark, f"too little to judge (wanted {FEWEST} prompts)"]))
        elif interval[0] > 0:
            verdict = "supported"
        elif interval[1] < 0:
            verdict = "refuted"
        return Hypothesis(name, self.family, says, statistic, figure.value, interval, verdict, remark)


def _quotient(above: Any, below: Any) -> Any:
    """above / below, NaN where there is nothing below."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(below) != 0, np.divide(above, below), np.nan)


def _crossing(curve: NDArray[np.float64], wanted: float, temperatures: F64) -> float:
    """The temperature at which a curve that never falls reaches a value, in between by a straight line; the last one where it
    never does."""
    if not np.isfinite(wanted) or not np.isfinite(curve).all():
        return float("nan")
    at = int(np.searchsorted(curve, wanted))
    if at == 0:
        return float(temperatures[0])
    if at == len(curve):
        return float(temperatures[-1])
    step = curve[at] - curve[at - 1]
    return float(temperatures[at - 1] + (wanted - curve[at - 1]) / step * (temperatures[at] - temperatures[at - 1]))
