"""The form in which answers are compared."""

import pytest

from filters.maths.cleaning import cleaned


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
