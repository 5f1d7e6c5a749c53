"""Comparison by kind. tests/data/math_pairs.jsonl has further pairs of every kind."""

import json
from pathlib import Path

import pytest

from filters.maths.typed import compare, readable

PAIRS = [json.loads(line) for line in (Path(__file__).parent / "data" / "math_pairs.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("kind", sorted({pair["kind"] for pair in PAIRS}))
def test_pairs_are_compared_or_left_open(kind: str) -> None:
    """math-verify decides what is left open."""
    for pair in PAIRS:
        if pair["kind"] == kind:
            assert compare(pair["gold"], pair["answer"]) in (None, pair["equal"]), pair


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        ("(B)", "B) twelve", True),
        ("noon", "12:00", True),
        ("1/2/2024", "2/1/2024", False),
        ("3:4", "6:8", True),
        ("0x1F", "31", True),
        ("1010_2", "1010", True),
        ("{1, 2}", "2, 1", None),
        ("1, 2", "2, 1", True),
        ("(1, 2)", "(2, 1)", False),
        ("5 m", "500 cm", True),
        ("5 m", "5", True),
        ("5 m", "5 kg", False),
        ("180^\\circ", "\\pi", True),
        ("2x + y = 1", "4x + 2y = 2", True),
        ("x = 5", "y = 5", False),
        ("no solution", "\\emptyset", True),
        ("apple", "7", False),
    ],
)
def test_each_kind_has_its_rule(gold: str, answer: str, equal: bool | None) -> None:
    """None where no rule applies."""
    assert compare(gold, answer) is equal


@pytest.mark.parametrize(
    ("text", "can_be_read"),
    [("B", True), ("May 3", True), ("3:4", True), ("(0, 1]", True), ("1, 2", True), ("?!", False), ("\\foo{", False)],
)
def test_a_reference_must_be_readable(text: str, can_be_read: bool) -> None:
    """A text that no rule reads could match nothing."""
    assert readable(text) is can_be_read
