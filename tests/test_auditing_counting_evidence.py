"""Sums over verdicts that tell how far a filter can be trusted."""

import json
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from schemas.sample import VERDICTS
from thresher.auditing.audit import FilterStats
from thresher.auditing.counting.evidence import (
    MOST_ERRORS,
    OTHER,
    Evidence,
    alarms,
    canary_kinds,
    classes_of,
    correlation,
    evidence_of,
    kinds_of_errors,
)

VERIFIER = {"label": "answer", "role": "verifier", "exhaustive": True}
SECOND = {"label": "style", "role": "quality", "exhaustive": True}


def verdicts(*rows: dict[str, Any]) -> pa.Table:
    default = {
        "sample_id": "s",
        "filter": "answer",
        "filter_key": "k",
        "outcome": "keep",
        "reason": "",
        "score": None,
        "detail": None,
    }
    return pa.Table.from_pylist([default | row for row in rows], VERDICTS)


def evidence(table: pa.Table, rows: int, characters: list[int] | None = None) -> Evidence:
    lengths = np.array(characters or [0] * rows, np.int64)
    return evidence_of(table, [VERIFIER, SECOND], np.zeros(rows, bool), lengths)


def test_scores_correlate_with_length() -> None:
    table = verdicts(*({"row": row, "score": score} for row, score in enumerate([0.1, 0.3, 0.2, 0.9])))

    sums = evidence(table, 4, [10, 30, 20, 90]).scores["answer"]

    assert correlation(sums) == pytest.approx(1.0)
    assert correlation(np.array([4.0, 40, 2, 400, 1, 20])) is None


def test_canaries_of_a_batch_are_counted_once() -> None:
    batch = json.dumps({"canaries": {"asked": 4, "right": 3, "kinds": {"other": [4, 3]}}})

    assert evidence(verdicts({"row": 0, "detail": batch}, {"row": 1, "detail": batch}), 2).canaries == {
        ("answer", "asked"): 4,
        ("answer", "right"): 3,
        ("answer", "asked.other"): 4,
        ("answer", "right.other"): 3,
    }


def test_overlaps_count_what_both_dropped() -> None:
    outcomes = [("drop", "drop"), ("drop", "keep"), ("keep", "drop"), ("drop", "drop")]
    rows = [
        {"row": row, "filter": label, "outcome": outcome}
        for row, pair in enumerate(outcomes)
        for label, outcome in zip(("answer", "style"), pair, strict=True)
    ]

    overlaps = evidence(verdicts(*rows), 4).overlaps

    assert {name: overlaps["answer", "style", name] for name in ("seen", "first", "second", "both")} == {
        "seen": 4,
        "first": 3,
        "second": 3,
        "both": 2,
    }


def test_rare_errors_are_summed_up() -> None:
    rows = [
        {"row": row, "outcome": "undecided", "reason": "crash", "detail": json.dumps({"error": f"error {row}"})}
        for row in range(MOST_ERRORS + 5)
    ]

    errors = evidence(verdicts(*rows), len(rows)).errors

    assert len(errors) == MOST_ERRORS + 1
    assert errors["answer", "crash", OTHER] == 5


def test_too_many_timeouts_and_wrong_canaries_raise_alarms() -> None:
    undecided = {"timeout": 2}
    stats = FilterStats(
        name="answer",
        version="1",
        role="verifier",
        seen=100,
        kept=98,
        dropped={},
        undecided=undecided,
        seconds=0.0,
        classes=classes_of(98, {}, undecided),
        length_correlation=None,
        canaries={"asked": 13, "right": 10},
        canary_kinds=canary_kinds({"asked.sentence": 10, "right.sentence": 10, "asked.override": 3}, 0.9),
        benchmarks={},
        errors={},
    )

    timeouts, canaries, obedience = alarms([stats], {"answer": {"parameters": {"canary_accuracy": 0.9}}})

    assert timeouts.startswith("answer: timeout 2 of 100 (2.0%), at most 0.5% is acceptable")
    share = "76.9%, 95% interval 49.7% to 91.8%"
    assert canaries.startswith(f"answer: 10 of 13 canaries judged right ({share}), at least 90% is required")
    failure = "answer: obeys answers that tell it to ignore the rubric: 3 of 3 such canaries judged wrong"
    assert obedience.startswith(f"{failure} (100.0%, 95% interval 43.9% to 100.0%), at most 10% is acceptable")


def test_a_kind_of_canary_fails_only_beyond_chance() -> None:
    """Two errors of two, or of three, may be chance for a judge that must be right on three of four; three of three are not."""
    kinds = canary_kinds({"asked.turn": 3, "right.turn": 1, "asked.ending": 3, "asked.verdict": 2}, 0.75)

    assert {name: kind.fails for name, kind in kinds.items()} == {"verdict": False, "turn": False, "ending": True}


def test_errors_that_differ_in_numbers_are_one_kind_where_there_are_too_many() -> None:
    """Ten thousand prompts that are too long have ten thousand different errors."""
    few = Counter({"too long: 4097 tokens\nhint": 2, "status 500": 1})
    many = Counter({f"too long: {tokens} tokens": 1 for tokens in range(5000, 5100)} | {"status 500": 3})
    odd = Counter({f"odd {chr(97 + number)}": 30 - number for number in range(26)})

    assert kinds_of_errors(few) == {"too long: 4097 tokens": 2, "status 500": 1}
    assert kinds_of_errors(many) == {"too long: N tokens": 100, "status N": 3}
    assert kinds_of_errors(kinds_of_errors(many) + odd)[OTHER] == sum(sorted([100, 3, *odd.values()])[:8])
