"""The tables of a study: a row for each temperature, each volume, and each change of the prompts."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from thresher.study.bootstrap import Estimate, FamilySample, quotient
from thresher.study.shard_measures import F64


@dataclass(frozen=True)
class AtTemperature:
    """The draws of a family at one temperature; 0 is the greedy answer."""

    family: str
    temperature: float
    prompts: int
    draws: int
    judged: Estimate
    """Share of the draws that could be judged."""
    failure: Estimate
    """Share of the judged draws that did not pass."""
    near_misses: Estimate
    """Share of near misses among the draws that failed; null where the recipe does not look for them."""
    departed: Estimate
    """Share of the draws whose text differs from the greedy answer: 1 - agreement with the anchor."""
    similarity: Estimate
    """Of the draws to the greedy answer, from 0 to 1: 1 - edits / words of the longer text; mean."""
    again: Estimate
    """Share of the departing draws whose text occurs more than once among the draws."""
    right_where_departed: Estimate
    """Share of the departing judged draws that passed."""
    solutions: Estimate
    """Distinct solutions per 1,000 tokens (or characters) of all draws; null at temperature 0, which has one draw."""
    entropy: Estimate
    """Entropy of a prompt's answers in nats, mean over prompts."""
    surprisal: Estimate
    """Nats per token under the model's own distribution, whatever the temperature."""
    truncated: Estimate
    """Share of the draws that were cut at the token limit."""
    incoherent: Estimate
    """Share of the draws that the filter `coherence` drops."""
    length: Estimate
    """Tokens (or characters) per completion."""


@dataclass(frozen=True)
class AtVolume:
    """The first `draws` draws of each prompt of a family, at one temperature."""

    family: str
    temperature: float
    draws: int
    prompts: int
    """Prompts with at least `draws` judged draws; pass@k is over these."""
    pass_at_k: Estimate
    """Null where `prompts` is fewer than half of the family."""
    solutions: Estimate
    """Per 1,000 tokens."""
    per_prompt: Estimate
    """Solutions per prompt."""


@dataclass(frozen=True)
class Change:
    """The effect of one change of the prompts on the greedy answers of a family."""

    family: str
    change: str
    prompts: int
    departed: Estimate
    """Share of the greedy answers that the change moved."""
    similarity: Estimate
    """Similarity to the greedy answer to the original prompt, from 0 to 1: 1 - edits / words of the longer text; mean."""
    passed: Estimate
    """Share of the greedy answers that are right after the change."""
    passed_before: Estimate
    """Share of the same prompts' greedy answers that are right before the change."""
    known: Estimate
    """Share of the moved greedy answers that were also drawn at temperature 1; compare it with `again` at 1."""


@dataclass(frozen=True)
class Equivalent:
    """The temperature at which draws depart as often as changes of the prompt move the greedy answer."""

    family: str
    moved: Estimate
    """Share of a prompt's changes that move its greedy answer, mean over prompts."""
    temperature: Estimate
    beyond: bool
    """Whether even the hottest draws depart less often: `temperature` is then the highest one drawn, a lower bound."""


def at_temperatures(sample: FamilySample) -> list[AtTemperature]:
    """A row per temperature."""
    rows = []
    for t, temperature in enumerate(sample.temperatures.tolist()):
        counts = {name: values[:, t] for name, values in sample.counts.items()}
        failed = counts["judged"] - counts["passed"]
        rows.append(
            AtTemperature(
                family=sample.family,
                temperature=temperature,
                prompts=len(sample.rows),
                draws=int(counts["draws"].sum()),
                judged=sample.ratio(counts["judged"], counts["draws"], share=True),
                failure=sample.ratio(failed, counts["judged"], share=True),
                near_misses=sample.ratio(counts["near"], failed, share=True) if sample.measures.near_looked else Estimate(None),
                departed=sample.ratio(counts["departed"], counts["draws"], share=True),
                similarity=sample.ratio(counts["alike"], counts["compared"], share=True),
                again=sample.ratio(counts["again"], counts["departed"], share=True),
                right_where_departed=sample.ratio(counts["departed_passed"], counts["departed_judged"], share=True),
                solutions=sample.yield_estimate(t, -1) if temperature and sample.counts["passed"].any() else Estimate(None),
                entropy=sample.mean(sample.measures.entropy[sample.rows, t]),
                surprisal=sample.ratio(counts["nats"], counts["counted_nats"]),
                truncated=sample.ratio(counts["truncated"], counts["draws"], share=True),
                incoherent=sample.ratio(counts["incoherent"], counts["draws"], share=True),
                length=sample.ratio(counts["tokens"], counts["draws"]),
            )
        )
    return rows


def at_volumes(sample: FamilySample) -> list[AtVolume]:
    """A row per temperature and volume; temperature 0 has one draw."""
    rows = []
    passed = bool(sample.counts["passed"].any())
    for t, temperature in enumerate(sample.temperatures.tolist()):
        for k, draws in enumerate(sample.measures.volumes):
            if temperature == 0 and draws > 1:
                continue
            rates = sample.measures.pass_at_k[sample.rows, t, k]
            prompts = int(np.isfinite(rates).sum())
            rows.append(
                AtVolume(
                    family=sample.family,
                    temperature=temperature,
                    draws=draws,
                    prompts=prompts,
                    pass_at_k=sample.mean(rates, share=True) if 2 * prompts >= len(sample.rows) else Estimate(None),
                    solutions=sample.yield_estimate(t, k) if passed else Estimate(None),
                    per_prompt=sample.mean(sample.solutions(t, k)) if passed else Estimate(None),
                )
            )
    return rows


def changes(sample: FamilySample) -> list[Change]:
    """A row per change of the prompts."""
    rows, greedy = [], {name: sample.counts[name][:, 0] for name in ("judged", "passed")}
    for column, name in enumerate(sample.measures.changes):
        measures = {key: values[sample.rows, column] for key, values in sample.measures.changed.items()}
        changed = np.isfinite(measures["departed"])
        if not changed.any():
            continue
        moved, known = np.nan_to_num(measures["departed"]), np.nan_to_num(measures["known"])
        both_judged = changed * np.nan_to_num(measures["judged"]) * (greedy["judged"] > 0)
        rows.append(
            Change(
                family=sample.family,
                change=name,
                prompts=int(changed.sum()),
                departed=sample.mean(measures["departed"], share=True),
                similarity=sample.mean(measures["similarity"], share=True),
                passed=sample.ratio(np.nan_to_num(measures["passed"]) * both_judged, both_judged, share=True),
                passed_before=sample.ratio(greedy["passed"] * both_judged, both_judged, share=True),
                known=sample.ratio(moved * known, moved, share=True),
            )
        )
    return rows


def equivalent(sample: FamilySample) -> Equivalent:
    """Find where departures, as a curve over temperatures that is made to rise, reach those by changed prompts; both are means
    over prompts."""
    moved = sample.moved_share()
    departed = sample.counts["departed"] / np.maximum(sample.counts["draws"], 1)
    changed = np.isfinite(moved)

    def curves_and_targets(weights: F64) -> tuple[F64, F64]:
        used = np.atleast_2d(weights) * changed
        curves = np.maximum.accumulate(quotient(used @ departed, used.sum(axis=1, keepdims=True)), axis=1)
        return curves, quotient(used @ np.nan_to_num(moved), used.sum(axis=1))

    def crossings(weights: F64) -> Any:
        pairs = zip(*curves_and_targets(weights), strict=True)
        temperatures = np.array([_crossing(curve, target, sample.temperatures) for curve, target in pairs])
        return temperatures if weights.ndim == 2 else temperatures[0]

    curves, targets = curves_and_targets(np.ones(len(sample.rows)))
    beyond = bool(np.isfinite(targets[0]) and targets[0] > curves[0, -1])
    return Equivalent(sample.family, sample.mean(moved, share=True), sample.estimate(crossings), beyond)


def _crossing(curve: F64, target: float, temperatures: F64) -> float:
    """The temperature at which a rising curve reaches `target`, by linear interpolation; the last temperature if none."""
    if not np.isfinite(target) or not np.isfinite(curve).all():
        return float("nan")
    above = int(np.searchsorted(curve, target))
    if above == 0:
        return float(temperatures[0])
    if above == len(curve):
        return float(temperatures[-1])
    fraction = (target - curve[above - 1]) / (curve[above] - curve[above - 1])
    return float(temperatures[above - 1] + fraction * (temperatures[above] - temperatures[above - 1]))
