"""Cases of verdicts whose truth is known, judged by the real filters."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

import filters
from filters.judging import judge
from filters.reasoning import take_apart
from filters.tools import Tools
from schemas.sample import SAMPLES, to_json

CASES = Path(__file__).resolve().parents[1] / "data" / "truth"
NEUTRAL = {"family": "f", "anchor": False, "messages": [], "metadata": "{}", "finish_reason": "stop"}
Row = dict[str, Any]


def cases_of(folder: Path) -> dict[str, list[Row]]:
    """The cases of a folder, by the name of their file. Raises SystemExit where there are none."""
    found = {
        path.stem: [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
        for path in sorted(folder.glob("*.jsonl"))
    }
    if not found:
        raise SystemExit(f"{folder}: wanted *.jsonl files of cases, found none")
    return found


def judged(cases: Sequence[Row], tools: Tools) -> list[list[str]]:
    """What the filters say of each case: an outcome for each of its completions, in the order of the cases."""
    said: list[list[str]] = [[] for _ in cases]
    groups: dict[str, list[int]] = {}
    for number, case in enumerate(cases):
        groups.setdefault(to_json([case["filter"], case["params"]]), []).append(number)
    for numbers in groups.values():
        case = cases[numbers[0]]
        rows = [(number, text) for number in numbers for text in completions_of(cases[number])]
        table = _table([_row(cases[number], number, place, text) for place, (number, text) in enumerate(rows)])
        verdicts = judge(filters.build(case["filter"], case["params"], tools), table)
        for (number, _), outcome in zip(rows, verdicts["outcome"].to_pylist(), strict=True):
            said[number].append(outcome)
    return said


def completions_of(case: Row) -> list[str]:
    """The completions of a case, one or several of a prompt."""
    return case["completions"] if "completions" in case else [case["completion"]]


def as_expected(case: Row, said: Sequence[str]) -> bool:
    """Whether the outcomes are those that a case expects."""
    expected = case["expected"]
    if expected.startswith("keep of "):
        kept = [number for number, outcome in enumerate(said) if outcome == "keep"]
        return bool(kept == json.loads(expected.removeprefix("keep of ")))
    return said[0] in expected.split("_or_")


def _row(case: Row, number: int, place: int, text: str) -> Row:
    reasoning, answer = (column[0].as_py() for column in _apart(text))
    reference = case.get("reference")
    return NEUTRAL | {
        "sample_id": f"s{place}",
        "prompt_id": f"p{number}",
        "index": place,
        "completion": text,
        "reasoning": reasoning,
        "answer": answer,
        "reference": None if reference is None else to_json(reference),
        "metadata": to_json(case.get("metadata") or {}),
    }


def _apart(text: str) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    apart = take_apart(pa.chunked_array([[text]], pa.string()))
    return apart.reasoning, apart.answer


def _table(rows: Sequence[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SAMPLES)
