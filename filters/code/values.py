"""Compares the values that a program returned with the expected ones, as Python does, floats within a tolerance.

A list is not a tuple, text is not bytes, True is 1. An integer on either side is compared exactly, two floats within the
tolerance, which a test may state itself (`pytest.approx`, `math.isclose`, a bound on `abs`). A value that could not leave the
sandbox may be equal or not: CannotTellError, unless its type equals nothing but itself.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from filters.sandbox import Other

SET_PAIRS = 1_000
"""Sets and dicts up to this size are compared with a tolerance; larger ones by hash, exactly."""
_NUMBERS = (bool, int, float, complex)
_PLAIN = (*_NUMBERS, str, bytes, list, tuple, set, frozenset, dict, range)


IDENTITIES = frozenset(
    (
        "object generator coroutine function builtin_function_or_method method type module map filter zip enumerate reversed "
        "list_iterator tuple_iterator set_iterator dict_keyiterator str_ascii_iterator range_iterator list_reverseiterator "
        "ellipsis cell code frame"
    ).split()
)
"""Names of types whose values equal nothing but themselves, whatever a program does: they are compiled in."""


class CannotTellError(Exception):
    """Whether two values are equal is not known, as one of them could not leave the sandbox."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far apart a number may be from an expected float, and whether NaN equals NaN."""

    relative: float = 1e-9
    absolute: float = 1e-12
    nan_equal: bool = False


@dataclass(frozen=True, slots=True)
class Approx:
    """An expected value with the tolerance that the test states for the numbers in it, integers included."""

    value: Any
    tolerance: Tolerance


def same(value: Any, expected: Any, tolerance: Tolerance) -> bool:
    """Whether two plain values are equal, at every depth. Raises CannotTellError."""
    if isinstance(value, Other) or isinstance(expected, Other):
        sides = [side.type_name for side in (value, expected) if isinstance(side, Other)]
        other = expected if isinstance(value, Other) else value
        if sides[0] in IDENTITIES and (other is None or isinstance(other, _PLAIN)):
            return False
        raise CannotTellError(f"a value of the type {' and '.join(sides)} cannot leave the sandbox")
    if isinstance(value, Approx) or isinstance(expected, Approx):
        near, other = (value, expected) if isinstance(value, Approx) else (expected, value)
        return same(_as_floats(_listed(other)), _as_floats(_listed(near.value)), near.tolerance)
    if isinstance(value, np.ndarray) or isinstance(expected, np.ndarray):
        raise CannotTellError("an array is compared as a whole, and neither all nor any of its items are asked for")
    if isinstance(value, np.generic) or isinstance(expected, np.generic):
        return bool(value == expected) or same(_listed(value), _listed(expected), tolerance)
    kinds = type(value), type(expected)
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


def stayed_inside(value: Any) -> str | None:
    """The type of a value that is in `value`, at any depth, and could not leave the sandbox; None if there is none, or only such
    that equal nothing but themselves."""
    if isinstance(value, Other):
        return None if value.type_name in IDENTITIES else value.type_name
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if not isinstance(value, list | tuple | set | frozenset):
        return None
    return next((name for item in value if (name := stayed_inside(item)) is not None), None)


def as_json(value: Any) -> Any:
    """Return the value with its tuples as lists, as JSON would represent it."""
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return {key: as_json(item) for key, item in value.items()} if isinstance(value, dict) else value


def _near(value: Any, expected: Any, tolerance: Tolerance) -> bool:
    if value == expected:
        return True
    if isinstance(value, int) or isinstance(expected, int):
        return False
    if complex in (type(value), type(expected)):
        return bool(abs(value - expected) <= max(tolerance.relative * abs(expected), tolerance.absolute))
    if value != value or expected != expected:  # noqa: PLR0124 - only NaN differs from itself
        return tolerance.nan_equal and value != value and expected != expected  # noqa: PLR0124
    return math.isclose(value, expected, rel_tol=tolerance.relative, abs_tol=tolerance.absolute)


def _listed(value: Any) -> Any:
    """An array as nested lists, a scalar of numpy as a number."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _as_floats(value: Any) -> Any:
    """A value with its integers as floats, which are compared within the tolerance."""
    if isinstance(value, list | tuple):
        return type(value)(_as_floats(item) for item in value)
    if isinstance(value, dict):
        return {key: _as_floats(item) for key, item in value.items()}
    try:
        return float(value) if type(value) is int else value
    except OverflowError:
        return value


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
