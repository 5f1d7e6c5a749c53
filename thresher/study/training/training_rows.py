"""The rows that a study trains on: right answers and preference pairs of the prompts that are not held out."""

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.dataset import PreferenceSpec
from schemas.sample import Kind, Prompt
from thresher import ids
from thresher.dataset.messages import decoded
from thresher.dataset.preference_views import preference
from thresher.dataset.views import prompt_and_completion
from thresher.pool import judged as pool
from thresher.pool.run import Run
from thresher.study.shard_measures import solution_of

Rows = list[dict[str, Any]]


def held_out(prompts: Iterable[Prompt]) -> set[str]:
    """Ids of the prompts that are held out: of each family, the half with the smallest hashes."""
    order = sorted(prompts, key=lambda prompt: (prompt.family, ids.digest("held out", prompt.prompt_id)))
    families = (list(members) for _, members in groupby(order, key=lambda prompt: prompt.family))
    return {prompt.prompt_id for family in families for prompt in family[: len(family) // 2]}


def training_rows(draws: Run, held: set[str]) -> tuple[Rows, Rows]:
    """Return right answers, one per solution, and preference pairs, from draws at temperature 1.

    The chosen answer of a pair is the right answer nearest to the near miss, drawn at any temperature.
    """
    answers: Rows = []
    pairs: Rows = []
    for whole in pool.each_judged(draws.store):
        read = pc.fill_null(whole["answer"], "")
        text = read.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
        numbered = whole.append_column("solution", pa.array(solution_of(whole, text)))
        shard = numbered.filter(pc.invert(pc.is_in(numbered["prompt_id"], pa.array(sorted(held), pa.string()))))
        answers += _right_answers(shard, draws.prompt_format)
        near = pc.and_(_drawn_at_1(shard), pc.equal(shard["kind"], Kind.NEAR_MISS.value))
        halves = shard.filter(pc.or_(near, pc.equal(shard["kind"], Kind.HIT.value)))
        pairs += decoded(preference(halves, draws.prompt_format, PreferenceSpec()).select(["prompt", "chosen", "rejected"]))
    return answers, pairs


def first_answers(answers: Rows) -> Rows:
    """One right answer per prompt, the first by sample_id; the last prompt comes first."""
    latest_first = sorted(answers, key=lambda row: row["sample_id"], reverse=True)
    return list({row["prompt_id"]: row for row in latest_first}.values())


def _right_answers(shard: pa.Table, prompt_format: str) -> Rows:
    """Of the right answers that are duplicates of each other, the first by sample_id, with prompt and completion to train on."""
    right = shard.filter(pc.and_(_drawn_at_1(shard), pc.is_in(shard["kind"], pa.array([Kind.HIT.value, Kind.DUPLICATE.value]))))
    right = right.sort_by("sample_id")
    table = right.select(["sample_id", "prompt_id", "solution"])
    for name, column in prompt_and_completion(right, prompt_format).items():
        table = table.append_column(name, column)
    solutions = {(row["prompt_id"], row["solution"]): row for row in reversed(decoded(table))}
    return [{name: value for name, value in row.items() if name != "solution"} for row in reversed(solutions.values())]


def _drawn_at_1(shard: pa.Table) -> Any:
    return pc.and_(pc.invert(shard["anchor"]), pc.equal(shard["temperature"], 1.0))
