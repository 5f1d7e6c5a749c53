"""The final comparison in a worker, on pairs of every kind."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.maths.cleaning import same
from filters.maths.expressions import values
from filters.maths.extraction import final_answer
from filters.maths.guard import refusal
from filters.maths.tokens import UnknownError
from filters.maths.verify import OPEN, verified, why_unfit

PAIRS = [json.loads(line) for line in (Path(__file__).parent / "data" / "math_pairs.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("kind", sorted({pair["kind"] for pair in PAIRS}))
def test_every_pair_is_decided_correctly(kind: str) -> None:
    """By the function of the worker; the fast path agrees where it decides."""
    for pair in PAIRS:
        if pair["kind"] == kind:
            expected = {True: "equal", False: "different", None: OPEN}[pair["equal"]]
            assert verified(pair["gold"], pair["answer"]) == expected, pair
            assert same(pair["gold"], pair["answer"]) in (None, pair["equal"]), pair


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6))
def test_fractions_are_exact(above: int, below: int) -> None:
    """As LaTeX, as text, and one off."""
    assert verified(f"{above}/{below}", f"\\frac{{{above}}}{{{below}}}") == "equal"
    assert verified(f"{above}/{below}", f"\\frac{{{above + 1}}}{{{below}}}") == "different"


@given(st.text(max_size=200))
def test_any_text_is_read_and_compared_without_an_error(text: str) -> None:
    """Extraction, guard, fast path and expressions; a text equals itself."""
    answer = final_answer(text).answer
    assert answer is None or answer.strip() == answer
    refusal(text)
    assert same(text, text) is True
    with contextlib.suppress(UnknownError, ZeroDivisionError, ValueError, OverflowError, IndexError):
        values(text)


@pytest.mark.parametrize(
    ("gold", "why"),
    [
        ("42", None),
        ("\\frac{1}{2}", None),
        ("Paris", None),
        ("?!", "neither a number"),
        ("9^{9^{9^{9}}}", "a tower of powers"),
    ],
)
def test_a_reference_must_be_readable_and_cheap(gold: str, why: str | None) -> None:
    reason = why_unfit(gold)

    assert reason is None if why is None else why in str(reason)


def test_a_refused_side_is_named() -> None:
    assert verified("5", "1000000!") == "the answer: a factorial of a large number"
    assert verified("1000000!", "5") == "the reference: a factorial of a large number"
