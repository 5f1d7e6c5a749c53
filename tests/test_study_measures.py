"""The measures of a small study, against a loop over plain rows."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.studies import DRAWS, run_small_study, small_study
from thresher.pool import judged as pool
from thresher.pool.run import Run, open_run
from thresher.study.measures import measure
from thresher.study.prompt_variants import VARIANT
from thresher.study.shard_measures import COUNTS

Cell = tuple[str, float]
"""A prompt at a temperature."""


def words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.lower())


def edits(left: str, right: str) -> int:
    """Levenshtein's distance over words and signs, by its table."""
    row = list(range(len(words(right)) + 1))
    for i, a in enumerate(words(left), start=1):
        row, before = [i], row
        for j, b in enumerate(words(right), start=1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
    return row[-1]


def longer(left: str, right: str) -> int:
    return max(len(words(left)), len(words(right)))


def is_near_anchor(anchor: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    """The rule of near_miss with common words 0: at most three edits, or a tenth of the words, from a hit of the prompt."""
    hits = [row["completion"] for row in rows if row["prompt_id"] == anchor["prompt_id"] and row["kind"] == "hit"]
    return any(edits(anchor["completion"], hit) <= max(3, 0.1 * longer(anchor["completion"], hit)) for hit in hits)


def counted(draws: Run) -> tuple[dict[str, Counter[Cell]], dict[Cell, set[str]]]:
    """By a loop: sums of each of COUNTS by cell, and the solutions of each cell."""
    sums: dict[str, Counter[Cell]] = {name: Counter() for name in COUNTS}
    solutions: dict[Cell, set[str]] = defaultdict(set)
    departing: dict[Cell, Counter[str]] = defaultdict(Counter)
    for shard in pool.each_judged(draws.store):
        rows = shard.to_pylist()
        greedy = {row["prompt_id"]: row["completion"] for row in rows if row["anchor"]}
        texts = {row["sample_id"]: row["completion"] for row in rows}
        for row in rows:
            cell, text, anchor_text = (
                (row["prompt_id"], 0.0 if row["anchor"] else row["temperature"]),
                row["completion"],
                greedy[row["prompt_id"]],
            )
            departed, passed, judged = text != anchor_text, row["kind"] in {"hit", "duplicate"}, row["outcome"] != "undecided"
            near = row["kind"] == "near_miss" or (row["anchor"] and row["kind"] == "miss" and is_near_anchor(row, rows))
            values = {"draws": 1, "judged": judged, "passed": passed, "near": near, "departed": departed,
                "departed_judged": departed and judged, "departed_passed": departed and passed,
                "departed_near": departed and near, "truncated": row["finish_reason"] == "length", "tokens": len(text),
                "alike": 1 - edits(text, anchor_text) / longer(text, anchor_text), "compared": 1}  # fmt: skip
            for name, value in values.items():
                sums[name][cell] += value
            if passed:
                solutions[cell].add(texts[row["nearest"]] if row["kind"] == "duplicate" else text)
            departing[cell][text] += departed
    for cell, times in departing.items():
        sums["again"][cell] = sum(count for count in times.values() if count > 1)
    return sums, solutions


@pytest.mark.slow
def test_measures_equal_those_of_a_loop(recipe: Callable[..., Path]) -> None:
    path = small_study(recipe)
    assert run_small_study(path, "--samples", str(DRAWS)) == 0
    draws, variants = (open_run(path.parent / "study" / name) for name in ("draws", "variants"))

    measures = measure(draws, variants)

    sums, solutions = counted(draws)
    for row, prompt in enumerate(measures.prompts):
        for t, temperature in enumerate(measures.temperatures):
            for name in set(COUNTS) - {"incoherent", "nats", "counted_nats"}:
                wanted = sums[name][prompt, temperature]
                assert measures.counts[name][row, t] == pytest.approx(wanted), (name, prompt, temperature)
            assert measures.solutions[row, t, -1] == pytest.approx(len(solutions[prompt, temperature]))
    assert measures.counts["near"].sum() > 0
    assert np.isfinite(measures.changed["departed"]).all()
    assert 0 < measures.changed["departed"].mean() < 1
    for shard in pool.each_judged(variants.store):
        assert all(row["anchor"] and VARIANT in row["metadata"] for row in shard.to_pylist())
