"""The form in which answers are compared."""

from decimal import Decimal

import pytest

from filters.maths.cleaning import cleaned, number_of, same


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("$42$", "42"),
        ("\\boxed{42}", "42"),
        ("42.", "42"),
        ("\\dfrac{1}{2}", "\\frac{1}{2}"),
        ("x\u00b2 \u2264 3", "x^{2} <= 3"),
        ("\\text{5 cm}", "5 cm"),
        ("1{,}000", "1,000"),
        ("2\u00bd", "2 1\u20442"),
        ("90^\\circ", "90\u00b0"),
        ("\\left( 1, 2 \\right)", "( 1, 2 )"),
        ("\\$5", "$ 5"),
    ],
)
def test_layout_is_removed_and_like_signs_become_one(text: str, form: str) -> None:
    """Cleaning its own result changes nothing."""
    assert cleaned(text).replace("/", "\u2044") == form.replace("/", "\u2044")
    assert cleaned(cleaned(text)) == cleaned(text)


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
