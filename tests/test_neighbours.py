"""A verdict is a function of its sample, or of the samples of its prompt, alone: whatever is judged with it changes nothing."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import filters
from filters.base import Filter, Scope
from filters.judging import judge
from filters.tools import Tools
from helpers.filter_tables import pool_table
from helpers.truth import CASES, cases_of, completions_of

TEXTS = (
    "Paris", "", "The answer is 42.", "\\boxed{\\frac{1}{2}}", '{"a": 1}', "the same words again and again " * 12,
    "1. The 1st is 1.\n2. The 2nd is 4.", "Der Hund schl\u00e4ft im gro\u00dfen Haus und will nicht hinaus.",
    "```python\ndef add(a, b):\n    return a + b\n```", "Tbe qvick brownfox jumpsover teh lazy dog and thn it slept.", "x" * 400,
)  # fmt: skip
REFERENCES = ("Paris", "42", {"a": 1}, ["assert add(1, 2) == 3"], None)
PARAMETERS: dict[str, dict[str, Any]] = {
    "regex": {"pattern": r"(?P<answer>\\d+)"},
    "instruction": {"checks": {"punctuation:no_comma": {}, "language:response_language": {"language": "en"}}},
    "python": {"build": "filters.answers.exact_answer:build"},
}
OF_MODELS = ("judge", "reward", "coherence_model")
"""They ask a model, whose answers they do not make."""
SLOW = ("math_answer", "code_tests", "reasoning_gym", "majority", "instruction", "coherence", "decontaminate", "python")
"""They take more than milliseconds."""


def rows_of(name: str) -> list[dict[str, Any]]:
    """Samples for a filter: texts of all kinds with references of all kinds, and the cases of the filter."""
    rows = [{"completion": text, "reference": reference} for text in TEXTS for reference in REFERENCES]
    for cases in cases_of(CASES).values():
        for case in cases[:12]:
            if case["filter"] == name and not case["params"]:
                metadata = json.dumps(case.get("metadata") or {})
                rows += [
                    {"completion": text, "reference": case.get("reference"), "metadata": metadata}
                    for text in completions_of(case)
                ]
    return [
        row | {"finish_reason": reason} for row, reason in zip(rows, ("stop", "length", None, "OTHER") * len(rows), strict=False)
    ]


def built(name: str, tmp_path: Path, tools: Tools) -> Filter:
    parameters = PARAMETERS.get(name, {})
    if name == "decontaminate":
        path = tmp_path / "bench.txt"
        path.write_text("the same words again and again the same words again\nParis is the capital of a country in Europe\n")
        parameters = {"benchmarks": [{"name": "b", "path": str(path)}]}
    return filters.build(name, parameters, tools)


def verdicts(filter_: Filter, rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The verdict of each row, of which each is a prompt of its own unless the filter compares the samples of one."""
    table = pool_table(*rows)
    found: pa.Table = judge(filter_, table)
    return [tuple(row[column] for column in ("outcome", "reason", "score", "detail")) for row in found.to_pylist()]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in filters.FILTERS if name not in OF_MODELS],
)
def test_neighbours_change_no_verdict(name: str, tmp_path: Path) -> None:
    """Alone, together, in another order, and repeated."""
    draw = random.Random(12)
    with Tools() as tools:
        filter_ = built(name, tmp_path, tools)
        assert filter_.scope in (Scope.SAMPLE, Scope.PROMPT)
        rows = [
            row | {"prompt_id": f"p{number // (1 if filter_.scope is Scope.SAMPLE else 5)}"}
            for number, row in enumerate(rows_of(name))
        ]
        together = verdicts(filter_, rows)
        groups: dict[str, list[int]] = {}
        for number, row in enumerate(rows):
            groups.setdefault(row["prompt_id"], []).append(number)
        chosen = list(groups.values()) if name not in SLOW else draw.sample(list(groups.values()), min(12, len(groups)))
        for group in chosen:
            assert verdicts(filter_, [rows[number] for number in group]) == [together[number] for number in group]
        order = list(range(len(rows)))
        draw.shuffle(order)
        assert verdicts(filter_, [rows[number] for number in order]) == [together[number] for number in order]
        if filter_.scope is Scope.SAMPLE:
            assert verdicts(filter_, rows + rows) == together + together
