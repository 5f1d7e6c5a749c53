"""Compares what models do on held-out prompts: one before training, and one per training set.

Intervals are over the held-out prompts, and differences are paired by prompt. No interval covers that another seed
would train another model.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.sample import Kind, Outcome
from thresher.auditing.statistics import of_k
from thresher.pool import judged as pool
from thresher.pool.run import Run
from thresher.study.bootstrap import Estimate, mean_over_prompts

BEFORE, ONE_ANSWER, MANY_ANSWERS, NEAR_MISSES = ("before", "one answer", "many answers", "near misses")
PAIRS = [
    (ONE_ANSWER, BEFORE),
    (MANY_ANSWERS, BEFORE),
    (MANY_ANSWERS, ONE_ANSWER),
    (NEAR_MISSES, BEFORE),
    (NEAR_MISSES, MANY_ANSWERS),
]
"""Arms whose difference is reported: the first minus the second."""

Tally = dict[str, tuple[int, int, int]]
"""By prompt_id: judged draws, draws that passed, and different texts among those."""


@dataclass(frozen=True)
class Arm:
    """A training set, and what the model does on the held-out prompts after training on it."""

    name: str
    rows: int
    steps: int
    pass_at_k: tuple[Estimate, ...]
    """For each of Training.ks."""
    distinct: Estimate
    """Different right texts per prompt."""


@dataclass(frozen=True)
class Difference:
    """The difference between two arms, `of` minus `less`, over the same prompts."""

    of: str
    less: str
    pass_at_k: tuple[Estimate, ...]
    distinct: Estimate


@dataclass(frozen=True)
class Training:
    """All arms and differences; the first arm is the model before training."""

    ks: tuple[int, ...]
    held_out: int
    """Prompts that are held out."""
    trained_on: int
    """Prompts with a right answer to train on."""
    samples: int
    """Samples of each held-out prompt."""
    settings: dict[str, Any]
    """Of the optimiser."""
    arms: tuple[Arm, ...]
    differences: tuple[Difference, ...]
    says: str
    """Whether many answers did better than one, as a sentence."""

    def to_dict(self) -> dict[str, Any]:
        """The results as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Outcomes:
    """What a model did on the held-out prompts after `steps` optimiser steps on `rows` rows."""

    name: str
    rows: int
    steps: int
    tally: Tally


def tally_of(run: Run, held: set[str]) -> Tally:
    """Count the draws at temperature 1 of the held-out prompts of a run."""
    tally: Tally = dict.fromkeys(sorted(held), (0, 0, 0))
    for shard in pool.each_judged(run.store, ["prompt_id", "anchor", "temperature", "answer", "error"]):
        rows = shard.filter(pc.and_(pc.invert(shard["anchor"]), pc.equal(shard["temperature"], 1.0)))
        rows = rows.filter(pc.not_equal(rows["outcome"], Outcome.UNDECIDED.value))
        passed = pc.is_in(rows["kind"], pa.array([Kind.HIT.value, Kind.DUPLICATE.value]))
        table = pa.table({"prompt": rows["prompt_id"], "passed": passed, "text": pc.if_else(passed, rows["answer"], None)})
        aggregates = [("passed", "count"), ("passed", "sum"), ("text", "count_distinct")]
        for row in table.group_by("prompt").aggregate(aggregates).to_pylist():
            if row["prompt"] in tally:
                tally[row["prompt"]] = (row["passed_count"], row["passed_sum"], row["text_count_distinct"])
    return tally


def compared(outcomes: Sequence[Outcomes], *, held: int, trained_on: int, samples: int, settings: dict[str, Any]) -> Training:
    """Compare the models by pass@k, for k = 1, 4, 16, ... up to `samples`, and by different right texts per prompt."""
    ks = tuple(2**power for power in range(samples.bit_length()) if 2**power <= samples)[::2]
    prompts = sorted(outcomes[0].tally)
    pass_at_k = {outcome.name: [_pass_at_k(outcome.tally, prompts, k) for k in ks] for outcome in outcomes}
    distinct = {outcome.name: np.array([float(outcome.tally[prompt][2]) for prompt in prompts]) for outcome in outcomes}
    arms = tuple(
        Arm(
            name=outcome.name,
            rows=outcome.rows,
            steps=outcome.steps,
            pass_at_k=tuple(map(mean_over_prompts, pass_at_k[outcome.name])),
            distinct=mean_over_prompts(distinct[outcome.name]),
        )
        for outcome in outcomes
    )
    differences = tuple(
        Difference(
            of=of,
            less=less,
            pass_at_k=tuple(mean_over_prompts(a - b) for a, b in zip(pass_at_k[of], pass_at_k[less], strict=True)),
            distinct=mean_over_prompts(distinct[of] - distinct[less]),
        )
        for of, less in PAIRS
        if of in distinct
    )
    (many,) = (difference for difference in differences if (difference.of, difference.less) == (MANY_ANSWERS, ONE_ANSWER))
    return Training(ks, held, trained_on, samples, settings, arms, differences, _conclusion(many))


def _pass_at_k(tally: Tally, prompts: Sequence[str], k: int) -> NDArray[np.float64]:
    """pass@k of each prompt (P,), NaN where fewer than k draws were judged."""
    judged, passed = (np.array([tally[prompt][column] for prompt in prompts]) for column in (0, 1))
    rates = np.full(len(prompts), np.nan)
    rates[judged >= k] = of_k(judged[judged >= k], passed[judged >= k], k)
    return rates


def _conclusion(many: Difference) -> str:
    first, distinct = many.pass_at_k[0], many.distinct
    if first.value is None or first.interval is None or distinct.value is None or distinct.interval is None:
        return "There are too few prompts to compare many answers with one."
    low, high = (100 * bound for bound in first.interval)
    points = f"{100 * first.value:+.1f} points of pass@1 ({low:+.1f} to {high:+.1f})"
    texts = (
        f"{distinct.value:+.2f} different right answers per prompt ({distinct.interval[0]:+.2f} to {distinct.interval[1]:+.2f})"
    )
    if low > 0:
        return f"Many answers per prompt did better on held-out prompts than one: {points}; {texts}."
    if high < 0:
        return f"Many answers per prompt did worse on held-out prompts than one: {points}; {texts}."
    return f"Many answers per prompt cannot be distinguished from one by pass@1 on held-out prompts: {points}; {texts}."
