"""Compares the values that a program returned with the expected ones, strictly by type.

Equality is stricter than Python's: True is not 1, a list is not a tuple, text is not bytes. An int equals a float of the same
value. If one of two numbers is a float, they are compared with a tolerance.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from filters.sandbox import Other

SET_PAIRS = 1_000
"""Sets and dicts up to this size are compared with a tolerance; larger ones by hash, exactly."""
_NUMBERS = (int, float, complex)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far apart two numbers may be if one is a float, and whether NaN equals NaN."""

    relative: float = 1e-6
    absolute: float = 1e-9
    nan_equal: bool = False


def same(value: Any, expected: Any, tolerance: Tolerance) -> bool:
    """Whether two plain values are equal in value and type, at every depth. Raises nothing."""
    if isinstance(value, Other) or isinstance(expected, Other):
        return False
    kinds = type(value), type(expected)
    if bool in kinds:
        return value is expected
    if kinds[0] in _NUMBERS and kinds[1] in _NUMBERS:
        return _near(value, expected, tolerance)
    if kinds[0] is not kinds[1]:
        return set(kinds) == {set, frozenset} and _same_set(value, expected, tolerance)
    if kinds[0] in (list, tuple):
        return len(value) == len(expected) and all(same(a, b, tolerance) for a, b in zip(value, expected, strict=True))
    if kinds[0] in (set, frozenset):
        return _same_set(value, expected, tolerance)
    if kinds[0] is dict:
        return _same_dict(value, expected, tolerance)
    return bool(value == expected)


def as_json(value: Any) -> Any:
    """Return the value with its tuples as lists, as JSON would represent it."""
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return {key: as_json(item) for key, item in value.items()} if isinstance(value, dict) else value


def _near(value: Any, expected: Any, tolerance: Tolerance) -> bool:
    if type(value) is type(expected) is int:
        return bool(value == expected)
    if value == expected:
        return True
    if complex in (type(value), type(expected)):
        return bool(abs(value - expected) <= max(tolerance.relative * abs(expected), tolerance.absolute))
    if value != value or expected != expected:  # noqa: PLR0124 - only NaN differs from itself
        return tolerance.nan_equal and value != value and expected != expected  # noqa: PLR0124
    try:
        return math.isclose(value, expected, rel_tol=tolerance.relative, abs_tol=tolerance.absolute)
    except OverflowError:  # an integer larger than every float
        return False


def _same_set(values: Iterable[Any], expected: Iterable[Any], tolerance: Tolerance) -> bool:
    items, unmatched = list(values), list(expected)
    if len(items) != len(unmatched):
        return False
    if len(items) > SET_PAIRS:
        return {(type(item), item) for item in items} == {(type(item), item) for item in unmatched}
    for item in items:
        match = next((index for index, candidate in enumerate(unmatched) if same(item, candidate, tolerance)), None)
        if match is None:
            return False
        unmatched.pop(match)
    return True


def _same_dict(values: dict[Any, Any], expected: dict[Any, Any], tolerance: Tolerance) -> bool:
    if len(values) != len(expected):
        return False
    if not _same_set(values, expected, tolerance):
        return False
    pairs = expected.items()
    for key, value in values.items():
        counterpart = expected[key] if key in expected else next(v for k, v in pairs if same(key, k, tolerance))
        if not same(value, counterpart, tolerance):
            return False
    return True
