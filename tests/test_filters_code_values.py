"""Equality of values."""

import math
from typing import Any

import pytest

from filters.code.values import Approx, CannotTellError, Tolerance, as_json, same
from filters.sandbox import Other


@pytest.mark.parametrize(
    ("value", "expected", "equal"),
    [
        (1, 1.0, True),
        (1, True, True),
        (2, True, False),
        (3.0, 3, True),
        (3.0000000001, 3, False),
        (3, 3.0000000001, False),
        (10**18 + 1, 1e18, False),
        (1e18 + 1000, 10**18, False),
        (0.3 + 1e-7, 0.3, False),
        (0.3 + 1e-11, 0.3, True),
        (1e-13, 0.0, True),
        (3, Approx(3.0000001, Tolerance(1e-6)), True),
        ([1.1, 2], Approx([1, 2], Tolerance(0.2)), True),
        ([1.5, 2], Approx([1, 2], Tolerance(0.2)), False),
        (0.1 + 0.2, 0.3, True),
        (10**400, 1.0, False),
        (1 + 1e-12j, 1.0, True),
        (1 + 1e-12j, 1, False),
        ([1, (2,)], [1, (2,)], True),
        ([1], (1,), False),
        ({1, 2}, frozenset({2, 1}), True),
        ({0.1 + 0.2}, {0.3}, True),
        ({1, 2}, {1, 3}, False),
        ({"a": [1.0]}, {"a": [1]}, True),
        ({0.1 + 0.2: 1}, {0.3: 1}, True),
        ({"a": 1}, {"b": 1}, False),
        ("a", b"a", False),
        (1000001, Approx(1000000, Tolerance(1e-6)), True),
        (Other("generator"), [1], False),
    ],
)
def test_equality_is_pythons_and_tolerant_of_expected_floats(value: Any, expected: Any, equal: bool) -> None:
    assert same(value, expected, Tolerance()) is equal


def test_nan_equals_nan_if_asked() -> None:
    assert not same(math.nan, math.nan, Tolerance())
    assert same([math.nan], [math.nan], Tolerance(nan_equal=True))
    assert not same(math.nan, 1.0, Tolerance(nan_equal=True))


def test_large_sets_are_compared_exactly() -> None:
    """A pairwise comparison would be quadratic."""
    floats = {number / 10 for number in range(2_000)}

    assert same(floats, set(floats), Tolerance())
    assert not same(floats, {number / 10 + 1e-12 for number in range(2_000)}, Tolerance())


def test_json_has_no_tuples() -> None:
    assert as_json({"a": (1, [(2,)])}) == {"a": [1, [[2]]]}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(Other("solution.P"), 1), (Other("generator"), Other("generator")), ([Other("x")], [1]), (Other("type"), int)],
)
def test_a_value_that_stayed_inside_is_not_known_to_differ(value: Any, expected: Any) -> None:
    with pytest.raises(CannotTellError, match="cannot leave the sandbox"):
        same(value, expected, Tolerance())
