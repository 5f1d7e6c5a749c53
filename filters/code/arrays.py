"""What a test may do with values of numpy: its own functions and operators, within a limit on the work.

The scalars and arrays are numpy's own, rebuilt outside the sandbox from their type, shape and items. Results are bounded before
they are computed: no array of more than ITEMS items is made.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from filters.code.values import CannotTellError, stayed_inside

ITEMS = 100_000
"""Largest array that an expression may create."""
Numpy = (np.ndarray, np.generic)


class TooLargeError(Exception):
    """An array would have more items than are allowed."""


def computed(operation: Callable[..., Any], *sides: Any, stretched: bool = True) -> Any:
    """Apply an operator or a function to values of which one is numpy's; `stretched`: it stretches them to one shape. Raises as
    numpy does, TooLargeError, and CannotTellError for values that are still in the sandbox."""
    for side in sides:
        if (name := stayed_inside(side)) is not None:
            raise CannotTellError(f"a value of the type {name} cannot leave the sandbox")
    if stretched and math.prod(np.broadcast_shapes(*(np.shape(side) for side in sides))) > ITEMS:
        raise TooLargeError("an array that is too large")
    with np.errstate(all="ignore"):
        return operation(*sides)


def truth(value: Any) -> bool:
    """Whether a value is true. Raises CannotTellError for an array of several items, of which a test must say all or any."""
    if isinstance(value, np.ndarray) and value.size != 1:
        raise CannotTellError("an array is compared as a whole, and neither all nor any of its items are asked for")
    return bool(value)


def literal(value: Any, written: Callable[[Any], str]) -> str:
    """Write a value of numpy as an expression; `written` writes its items. Raises TypeError for other types of items."""
    if value.dtype.kind not in "biufcU":
        raise TypeError(f"an array of {value.dtype} cannot be written into a call")
    if isinstance(value, np.generic):
        return f"__import__('numpy').{type(value).__name__}({written(value.item())})"
    items = written(value.ravel().tolist())
    return f"__import__('numpy').array({items}, dtype={value.dtype.str!r}).reshape({value.shape!r})"


def _of_elements(function: Callable[..., Any], sides: int, *, stretched: bool = True) -> Callable[..., Any]:
    """A function of `sides` values that are stretched to one shape, or of one that it reduces; more arguments are options."""

    def bounded(*arguments: Any, **named: Any) -> Any:
        rest = arguments[sides:]
        return computed(lambda *values: function(*values, *rest, **named), *arguments[:sides], stretched=stretched)

    return bounded


def _of_one_shape(function: Callable[..., Any]) -> Callable[..., Any]:
    """A comparison of numbers within a tolerance. Raises CannotTellError where numpy would stretch an axis or add one: an answer
    of another shape would pass."""

    def bounded(a: Any, b: Any, *options: Any, **named: Any) -> Any:
        close = computed(lambda *values: function(*values, *options, **named), a, b)
        if np.shape(a) != np.shape(b) and np.shape(a) and np.shape(b):
            raise CannotTellError("values of different shapes are compared, which numpy stretches")
        return close

    return bounded


def _made(function: Callable[..., Any], size: Callable[..., int]) -> Callable[..., Any]:
    """A function that makes an array of `size` of its arguments."""

    def bounded(*arguments: Any, **named: Any) -> Any:
        if size(*arguments) > ITEMS:
            raise TooLargeError("an array that is too large")
        return function(*arguments, **named)

    return bounded


def _asserted(function: Callable[..., None]) -> Callable[..., bool]:
    """Whether one of numpy.testing's assertions holds."""

    def holds(actual: Any, desired: Any, *options: Any, **named: Any) -> bool:
        try:
            computed(lambda *values: function(*values, *options, **named), actual, desired, stretched=False)
        except AssertionError:
            return False
        return True

    return functools.wraps(function)(holds)


def _prod(shape: Any, *_: Any) -> int:
    return math.prod(map(int, np.atleast_1d(shape)))


def _arange(*ends: Any) -> int:
    start, stop = (0, ends[0]) if len(ends) == 1 else ends[:2]
    return int(abs((stop - start) / float(ends[2] if len(ends) > 2 else 1))) + 1


_ELEMENTS = (
    "sum prod mean median std var min max all any unique sort ravel cumsum argmax argmin transpose array asarray abs absolute "
    "round isnan isinf isfinite sqrt exp log floor ceil sin cos sign"
)
FUNCTIONS: dict[str, Any] = {
    **{name: _of_elements(getattr(np, name), 1) for name in _ELEMENTS.split()},
    **{name: _of_elements(getattr(np, name), 2) for name in ("equal", "maximum", "minimum")},
    "array_equal": _of_elements(np.array_equal, 2, stretched=False),
    **{name: _of_one_shape(getattr(np, name)) for name in ("allclose", "isclose")},
    **{name: _made(getattr(np, name), _prod) for name in ("zeros", "ones", "full")},
    "arange": _made(np.arange, _arange),
    "linspace": _made(np.linspace, lambda start, stop, num=50, *_: num),
    "eye": _made(np.eye, lambda rows, *_: rows * rows), "identity": _made(np.identity, lambda rows, *_: rows * rows),
    **{name: getattr(np, name) for name in "ndarray generic number integer floating bool_ int32 int64 float32 float64".split()},
    "pi": np.pi, "e": np.e, "inf": np.inf, "nan": np.nan,
}  # fmt: skip
"""What a test may use of numpy."""
TESTING: dict[str, Any] = {
    name: _asserted(getattr(np.testing, name))
    for name in (
        "assert_allclose assert_array_equal assert_equal assert_almost_equal assert_array_almost_equal assert_approx_equal "
        "assert_array_less"
    ).split()
}
"""The assertions of numpy.testing, as functions that tell whether they hold."""
ATTRIBUTES = ("shape", "size", "ndim", "T", "real", "imag")
"""Attributes of arrays and scalars that a test may use outside the sandbox."""
METHODS = tuple("all any sum mean min max tolist item copy flatten ravel reshape round astype prod std var argmax argmin".split())
"""Methods of arrays and scalars that a test may call outside the sandbox."""
