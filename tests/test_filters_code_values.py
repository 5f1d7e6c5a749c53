"""Equality of values, strict by type."""

import math
from typing import Any

import pytest

from filters.code.values import Tolerance, as_json, same
from filters.sandbox import Other


@pytest.mark.parametrize(
    ("value", "expected", "equal"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0.1 + 0.2, 0.3, True),
        (10**400, 1.0, False),
        (1 + 1e-9j, 1, True),
        ([1, (2,)], [1, (2,)], True),
        ([1], (1,), False),
        ({1, 2}, frozenset({2, 1}), True),
        ({0.1 + 0.2}, {0.3}, True),
        ({1, 2}, {1, 3}, False),
        ({"a": [1.0]}, {"a": [1]}, True),
        ({0.1 + 0.2: 1}, {0.3: 1}, True),
        ({"a": 1}, {"b": 1}, False),
        ("a", b"a", False),
        (Other("f"), Other("f"), False),
    ],
)
def test_equality_is_strict_in_type_and_tolerant_in_floats(value: Any, expected: Any, equal: bool) -> None:
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
