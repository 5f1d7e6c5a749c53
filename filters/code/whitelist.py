"""What an assertion may use outside the sandbox: operators, functions and methods, each with a limit on its work."""

import ast
import copy
import functools
import math
import operator
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from filters.code import arrays
from filters.code.arrays import Numpy
from filters.code.values import Approx, CannotTellError, Tolerance, as_json

STEPS = 200_000
"""Largest number of syntax nodes evaluated for one reference, or for one assertion on the values of one program."""
LENGTH = 100_000
"""Longest range, repetition or text that an expression may create."""
BITS = 65_536
"""Largest integer that an expression may create, in bits."""


class TooMuchError(Exception):
    """An expression needs more work than is allowed."""


class NotAllowedError(Exception):
    """An expression uses something outside the whitelist."""


def unary(op: type[ast.unaryop], value: Any) -> Any:
    """Apply a unary operator to a number or an array."""
    return _UNARY[op](value)


def ordered(op: type[ast.cmpop], left: Any, right: Any) -> Any:
    """Apply a comparison of order, or of arrays: their items are compared then."""
    if isinstance(left, Numpy) or isinstance(right, Numpy):
        return _within(_ORDER[op], left, right)
    return bool(_ORDER[op](left, right))


def _within(operation: Callable[..., Any], *sides: Any) -> Any:
    try:
        return arrays.computed(operation, *sides)
    except arrays.TooLargeError as error:
        raise TooMuchError(str(error)) from error


def binary(op: type[ast.operator], left: Any, right: Any) -> Any:
    """Apply a binary operator. Raises TooMuchError for a result that is too large."""
    if isinstance(left, Numpy) or isinstance(right, Numpy):
        return _within(_BINARY[op], left, right)
    numbers = isinstance(left, int | float | complex) and isinstance(right, int | float | complex)
    if op is ast.Pow and isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > BITS:
        raise TooMuchError("a power that is too large")
    if op is ast.LShift and isinstance(right, int) and right > BITS:
        raise TooMuchError("a shift that is too far")
    if op is ast.Mod and not numbers:
        raise NotAllowedError("formatting with % is not supported in a test")
    if op is ast.Mult and not numbers:
        times, sequence = (left, right) if isinstance(left, int) else (right, left)
        if isinstance(times, int) and times * len(sequence) > LENGTH:
            raise TooMuchError("a repetition that is too long")
    result = _BINARY[op](left, right)
    if isinstance(result, int) and result.bit_length() > BITS:
        raise TooMuchError("a number that is too large")
    return result


def method(value: Any, name: str) -> Callable[..., Any]:
    """Return a whitelisted method of a value. Raises AttributeError if it has none, NotAllowedError for any other."""
    if not hasattr(type(value), name):
        raise AttributeError(f"{type(value).__name__} has no {name}")
    allowed = arrays.METHODS if isinstance(value, Numpy) else _METHODS.get(type(value), ())
    if name not in allowed:
        raise NotAllowedError(f"the method {name} of {type(value).__name__} is not supported in a test")

    def bounded(*arguments: Any, **named: Any) -> Any:
        if name in ("join", "replace"):
            longest = max(
                (len(argument) for argument in arguments if isinstance(argument, str | bytes | list | tuple)), default=0
            )
            if (len(value) + 1) * (longest + 1) > LENGTH * 100:
                raise TooMuchError("a text that is too long")
        return getattr(value, name)(*arguments, **named)

    if isinstance(value, Numpy):
        return lambda *arguments, **named: _within(lambda item: getattr(item, name)(*arguments, **named), value)
    return bounded


def _range(*ends: int) -> range:
    result = range(*ends)
    if len(result) > LENGTH:
        raise TooMuchError("a range that is too long")
    return result


def _small(function: Callable[..., Any], most: int) -> Callable[..., Any]:
    """Limit a function of numbers to integers up to `most` in absolute value."""

    def bounded(*arguments: Any) -> Any:
        if any(isinstance(argument, int) and abs(argument) > most for argument in arguments):
            raise TooMuchError(f"{getattr(function, '__name__', 'a function')} of a number that is too large")
        return function(*arguments)

    return bounded


def _round(value: Any, digits: int | None = None) -> Any:
    if digits is not None and abs(digits) > 400:
        raise TooMuchError("round to too many digits")
    return round(value, digits)


def _power(base: Any, exponent: Any, modulus: int | None = None) -> Any:
    return binary(ast.Pow, base, exponent) if modulus is None else pow(base, exponent, modulus)


def _type(value: Any) -> type:
    return type(value)


def _isinstance(value: Any, kinds: Any) -> bool:
    allowed = kinds if isinstance(kinds, tuple) else (kinds,)
    return isinstance(value, allowed)


_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Invert: operator.inv}
_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}  # fmt: skip
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Mod: operator.mod,
    ast.FloorDiv: operator.floordiv, ast.Pow: operator.pow, ast.LShift: operator.lshift, ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_, ast.BitOr: operator.or_, ast.BitXor: operator.xor,
}  # fmt: skip
_TEXT = (
    "join split lower upper strip lstrip rstrip replace count startswith endswith index find title capitalize swapcase isdigit "
    "isalpha isalnum isupper islower isspace splitlines rsplit"
).split()
_METHODS: dict[type, tuple[str, ...]] = {
    str: (*_TEXT, "encode"), bytes: (*_TEXT, "decode", "hex"), list: ("count", "index", "copy"), tuple: ("count", "index"),
    dict: ("get", "keys", "values", "items", "copy"),
    set: ("union", "intersection", "difference", "issubset", "issuperset", "isdisjoint", "symmetric_difference", "copy"),
    frozenset: ("union", "intersection", "difference", "issubset", "issuperset", "isdisjoint"),
    float: ("is_integer",), int: ("bit_length",),
}  # fmt: skip
METHODS = frozenset(name for names in _METHODS.values() for name in names)
"""Names of methods that are evaluated outside the sandbox, on plain values."""


def _sorted(items: Any, **named: Any) -> list[Any]:
    """`sorted`. Raises CannotTellError for sets among the items, because `<` does not order sets fully."""
    items = list(items)
    if any(isinstance(item, set | frozenset) for item in items) and "key" not in named:
        raise CannotTellError("sets are sorted, which have no order")
    return sorted(items, **named)


BUILTINS: dict[str, Any] = {
    "abs": abs, "round": _round, "pow": _power, "range": _range, "isinstance": _isinstance,
    "divmod": divmod, "len": len, "sum": sum, "min": min, "max": max, "all": all, "any": any, "sorted": _sorted,
    "reversed": lambda items: list(reversed(items)),
    "zip": lambda *columns, strict=False: list(zip(*columns, strict=strict)),
    "enumerate": lambda items, start=0: list(enumerate(items, start)),
    "map": lambda function, *columns: [function(*row) for row in zip(*columns, strict=False)],
    "filter": lambda function, items: [item for item in items if (function(item) if function else item)],
    "ord": ord, "chr": chr, "bin": bin, "hex": hex, "repr": repr, "type": _type,
    "int": int, "float": float, "str": str, "bool": bool, "list": list, "tuple": tuple, "set": set, "frozenset": frozenset,
    "dict": dict, "complex": complex, "bytes": lambda value=b"": bytes(value if not isinstance(value, int) else []),
}  # fmt: skip
"""Built-in functions that a test may call on the program's values."""
_MATH = (
    "isclose fabs floor ceil sqrt log log2 log10 exp sin cos tan asin acos atan atan2 hypot degrees radians isnan isinf isfinite "
    "trunc gcd prod dist copysign fmod pow isqrt fsum"
).split()
_random = random.Random(0)


_drawing = threading.Lock()


@contextmanager
def random_numbers() -> Iterator[None]:
    """Random numbers for one test, which are a function of the test."""
    with _drawing:
        _random.seed(0)
        yield


def _choices(population: Any, weights: Any = None, *, k: int = 1) -> list[Any]:
    if k > LENGTH:
        raise TooMuchError("too many choices")
    return _random.choices(population, weights, k=k)


def approx(expected: Any, rel: float | None = None, abs: float | None = None, nan_ok: bool = False) -> Approx:  # noqa: A002
    """`pytest.approx`: within 1e-6 of the expected value or 1e-12, or within `rel` or `abs`."""
    relative = (0.0 if abs is not None else 1e-6) if rel is None else rel
    return Approx(expected, Tolerance(float(relative), 1e-12 if abs is None else float(abs), nan_ok))


def _limited(value: Any) -> Any:
    """A function of numpy that says TooMuchError for what is too large; classes and numbers as they are."""
    return functools.partial(_within_function, value) if callable(value) and not isinstance(value, type) else value


def _within_function(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    try:
        return function(*arguments, **named)
    except arrays.TooLargeError as error:
        raise TooMuchError(str(error)) from error


MODULES: dict[str, dict[str, Any]] = {
    "math": {
        **{name: getattr(math, name) for name in (*_MATH, "pi", "e", "inf", "nan", "tau")},
        **{name: _small(getattr(math, name), 2_000) for name in ("factorial", "comb", "perm")},
    },
    "copy": {"deepcopy": copy.deepcopy, "copy": copy.copy},
    "pytest": {"approx": approx},
    "numpy": {name: _limited(value) for name, value in arrays.FUNCTIONS.items()},
    "numpy.testing": {name: _limited(value) for name, value in arrays.TESTING.items()},
    "random": {
        "choices": _choices,
        **{name: getattr(_random, name) for name in "randint random uniform choice sample randrange gauss seed".split()},
    },
    "string": {
        "ascii_lowercase": "abcdefghijklmnopqrstuvwxyz", "ascii_uppercase": "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "digits": "0123456789",
    },
}  # fmt: skip
"""Modules that a test may import, and what it may use of each."""


TRUSTED = frozenset((as_json, *(value for names in (BUILTINS, *MODULES.values()) for value in names.values() if callable(value))))
"""Every function that an assertion may call outside the sandbox."""
