"""The tables of a study: what was drawn at each temperature, at each volume, and after each change of the prompts."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thresher.study.bootstrap import Figure, Look, quotient
from thresher.study.measures import F64


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
    """Near misses among the draws that failed; null where the recipe looks for none."""
    departed: Figure
    """Draws whose text is not the greedy answer's: 1 - agreement with the anchor."""
    similarity: Figure
    """Of the draws to the greedy answer, 0 to 1: 1 - edits / words of the longer."""
    again: Figure
    """Departing draws whose text came more than once among the draws."""
    right_where_departed: Figure
    solutions: Figure
    """Distinct solutions per 1,000 tokens (or characters), of all draws; null at 0, where there is one draw."""
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
    prompts: int
    """Of which so many draws were judged: those that pass@k is of."""
    pass_at_k: Figure
    """Null where these are fewer than half."""
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
    """Of the answers that departed, those that were drawn at temperature 1; to be compared with `again` there."""


@dataclass(frozen=True)
class Equivalent:
    """The temperature at which draws depart as often as greedy answers to changed prompts do."""

    family: str
    moved: Figure
    """Share of the changes of a prompt that move its greedy answer."""
    temperature: Figure
    beyond: bool
    """Whether even the hottest draws depart less often: `temperature` is that one then, and the true one is higher."""


def at_temperatures(look: Look) -> list[AtTemperature]:
    found, c = [], look.counts
    for at, temperature in enumerate(look.temperatures.tolist()):
        here = {name: values[:, at] for name, values in c.items()}
        failed = here["judged"] - here["passed"]
        found.append(
            AtTemperature(
                family=look.family,
                temperature=temperature,
                prompts=len(look.rows),
                draws=int(here["draws"].sum()),
                judged=look.ratio(here["judged"], here["draws"], share=True),
                failure=look.ratio(failed, here["judged"], share=True),
                near_misses=look.ratio(here["near"], failed, share=True) if look.found.near_looked else Figure(None),
                departed=look.ratio(here["departed"], here["draws"], share=True),
                similarity=look.ratio(here["alike"], here["compared"], share=True),
                again=look.ratio(here["again"], here["departed"], share=True),
                right_where_departed=look.ratio(here["departed_passed"], here["departed_judged"], share=True),
                solutions=look.per_token(at, -1) if temperature and look.counts["passed"].any() else Figure(None),
                entropy=look.mean(look.found.entropy[look.rows, at]),
                surprisal=look.ratio(here["nats"], here["counted_nats"]),
                truncated=look.ratio(here["truncated"], here["draws"], share=True),
                incoherent=look.ratio(here["incoherent"], here["draws"], share=True),
                length=look.ratio(here["tokens"], here["draws"]),
            )
        )
    return found


def at_volumes(look: Look) -> list[AtVolume]:
    found = []
    for at, temperature in enumerate(look.temperatures.tolist()):
        for place, draws in enumerate(look.found.volumes):
            if temperature == 0 and draws > 1:
                continue
            passes = look.found.pass_at_k[look.rows, at, place]
            prompts = int(np.isfinite(passes).sum())
            passed = bool(look.counts["passed"].any())
            found.append(
                AtVolume(
                    look.family,
                    temperature,
                    draws,
                    prompts,
                    look.mean(passes, share=True) if 2 * prompts >= len(look.rows) else Figure(None),
                    look.per_token(at, place) if passed else Figure(None),
                    look.mean(look.solutions(at, place)) if passed else Figure(None),
                )
            )
    return found


def changes(look: Look) -> list[Change]:
    found, greedy = [], {name: look.counts[name][:, 0] for name in ("judged", "passed")}
    for at, name in enumerate(look.found.changes):
        here = {key: values[look.rows, at] for key, values in look.found.changed.items()}
        there = np.isfinite(here["departed"])
        if not there.any():
            continue
        moved, both = np.nan_to_num(here["departed"]), there * np.nan_to_num(here["judged"]) * (greedy["judged"] > 0)
        found.append(
            Change(
                look.family,
                name,
                int(there.sum()),
                departed=look.mean(here["departed"], share=True),
                similarity=look.mean(here["similarity"], share=True),
                passed=look.ratio(np.nan_to_num(here["passed"]) * both, both, share=True),
                passed_before=look.ratio(greedy["passed"] * both, both, share=True),
                known=look.ratio(moved * np.nan_to_num(here["known"]), moved, share=True),
            )
        )
    return found


def equivalent(look: Look) -> Equivalent:
    """Where the curve of departures over temperatures, made to rise, crosses that of changed prompts; means over prompts."""
    moved = look.moved()
    warm = look.counts["departed"] / np.maximum(look.counts["draws"], 1)
    tried = np.isfinite(moved)

    def both(weights: F64) -> tuple[F64, F64]:
        rows = np.atleast_2d(weights) * tried
        curves = np.maximum.accumulate(quotient(rows @ warm, rows.sum(axis=1, keepdims=True)), axis=1)
        return curves, quotient(rows @ np.nan_to_num(moved), rows.sum(axis=1))

    def crossing(weights: F64) -> Any:
        curves, wanted = both(weights)
        found = np.array([_crossing(curve, one, look.temperatures) for curve, one in zip(curves, wanted, strict=True)])
        return found if weights.ndim == 2 else found[0]

    curves, wanted = both(np.ones(len(look.rows)))
    beyond = bool(np.isfinite(wanted[0]) and wanted[0] > curves[0, -1])
    return Equivalent(look.family, look.mean(moved, share=True), look.figure(crossing), beyond)


# -- inside --------------------------------------------------------------------------------------------------------------


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
