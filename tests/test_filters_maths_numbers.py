"""Numbers as people write them."""

from fractions import Fraction

import pytest

from filters.maths.numbers import based, has_value, quantity, right_side, value_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234,567", Fraction(1234567)),
        ("1 234", Fraction(1234)),
        ("1_000", Fraction(1000)),
        ("2 1/2", Fraction(5, 2)),
        ("2\\frac{1}{2}", Fraction(5, 2)),
        ("0.1\\overline{6}", Fraction(1, 6)),
        ("0.333...", Fraction(1, 3)),
        ("1.5e3", Fraction(1500)),
    ],
)
def test_numbers_have_the_value_that_is_meant(text: str, value: Fraction) -> None:
    """Separators, mixed numbers, repeating decimals and exponents."""
    values = value_of(text)
    assert values is not None

    assert abs(values[0] - value_of(f"{value.numerator}/{value.denominator}")[0]) < 1e-40  # type: ignore[index]


def test_numbers_of_other_bases_name_them() -> None:
    """Digits beyond the base are no number."""
    assert based("1010_2") == (10, "1010")
    assert based("0x1F") == (31, "1f")
    assert based("12_2") is None
    assert based("12") is None


def test_assignments_have_the_value_of_their_right_side() -> None:
    """Equations have not."""
    assert [right_side(text) for text in ("x = 5", "f(2) = 5", "2x = 6", "x <= 5")] == ["5", "5", "2x = 6", "x <= 5"]
    assert has_value("x = 5 cm")
    assert not has_value("many")


def test_a_unit_is_not_a_variable() -> None:
    """One letter attached to a number is a variable."""
    separated, attached = quantity("5 m"), quantity("5m")
    assert separated is not None
    assert attached is not None

    assert separated[1] is not None
    assert attached[1] is None
