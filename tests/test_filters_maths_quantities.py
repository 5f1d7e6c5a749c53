"""Units."""

from fractions import Fraction

import pytest

from filters.maths.quantities import UNITS, split_unit, unit_of


@pytest.mark.parametrize(
    ("text", "amount", "scale"),
    [
        ("5 km", "5", Fraction(1000)),
        ("5cm", "5", Fraction(1, 100)),
        ("$5", "5", Fraction(1)),
        ("50%", "50", Fraction(1, 100)),
        ("3 m/s", "3", Fraction(1)),
        ("2 square feet", "2", UNITS["ft"].scale ** 2),
    ],
)
def test_a_quantity_is_an_amount_and_a_unit(text: str, amount: str, scale: Fraction) -> None:
    """The scale is in base units."""
    rest, unit = split_unit(text)
    assert unit is not None

    assert (rest, unit.scale) == (amount, scale)


def test_compound_units_multiply() -> None:
    """A litre is a cubic decimetre; speeds are lengths by times."""
    assert unit_of("dm^3", attached=False) == UNITS["L"]
    assert unit_of("mi/h", attached=False) == UNITS["mph"]


def test_unknown_words_are_dimensions_of_their_own() -> None:
    """In singular and plural; some words are never units."""
    assert unit_of("apples", attached=False) == unit_of("apple", attached=False)
    assert unit_of("and", attached=False) is None
    assert unit_of("m", attached=True) is None
