"""Plain numbers and equal texts."""

from decimal import Decimal

import pytest

from filters.maths.plain import number_of, same


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", 42),
        ("$1,234.50$", Decimal("1234.5")),
        ("-.5", Decimal("-0.5")),
        ("42.", 42),
        ("1,23", None),
        ("x", None),
        ("", None),
    ],
)
def test_plain_numbers_are_read(text: str, number: Decimal | None) -> None:
    """With thousands separators or without; other texts are not numbers."""
    assert number_of(text) == number


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        ("42", "42.0", True),
        ("42", "43", False),
        ("1,000", "1000", True),
        ("x", " $x$ ", True),
        ("x", "y", None),
        ("42", "x", None),
    ],
)
def test_what_is_not_plain_is_left_open(gold: str, answer: str, equal: bool | None) -> None:
    """None leaves the decision to the typed comparison."""
    assert same(gold, answer) is equal
