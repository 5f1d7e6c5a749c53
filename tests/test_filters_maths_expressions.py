"""Values of expressions."""

import pytest

from filters.maths.expressions import equal_values, values
from filters.maths.tokens import UnknownError


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        ("\\frac12 + \\frac{1}{3}", "5/6", True),
        ("(x+1)^2", "x^2+2x+1", True),
        ("(x+1)^2", "x^2+x+1", False),
        ("\\sqrt[3]{-8}", "-2", True),
        ("\\sin^{-1}(1)", "\\pi/2", True),
        ("\\log_2 8", "3", True),
        ("\\log 8", "3", False),
        ("5!", "120", True),
        ("--3", "3", True),
        ("2^{-1}", "0.5", True),
        ("|-3|", "3", True),
        ("e^{i\\pi}", "-1", True),
    ],
)
def test_expressions_are_equal_by_value(first: str, second: str, equal: bool) -> None:
    """Expressions in variables are compared at several points."""
    assert equal_values(values(first), values(second)) is equal


@pytest.mark.parametrize("text", ["", "2 3", "1 +", "(1", "x'", "\\foo{1}", "(-1)!", "2^{2^{2^{40}}}", "1^\\circ"])
def test_unknown_syntax_has_no_value(text: str) -> None:
    """The parser raises and does not guess."""
    with pytest.raises(UnknownError):
        values(text)


def test_division_by_zero_has_no_value() -> None:
    """In a fraction and in a power."""
    for text in ("1/0", "0^{-1}", "\\ln 0"):
        with pytest.raises(ZeroDivisionError):
            values(text)
