"""Compares the values that a program returned, and evaluates what a test asserts of them: outside of the sandbox, by whitelist.

Nothing here runs code of a model. An expression is a syntax tree of the user's own test in which every call of the program has
been replaced by a name such as `$0`; the values of those names are plain built-in objects that the sandbox's parent made anew.
Work is bounded: steps, powers, repetitions and ranges have limits, so that a test cannot hold up a run.

Equality is strict in type, as a test means it and not as Python grants it: True is not 1, a list is no tuple, text no bytes; an
int equals a float of the same value. Where one of two numbers is a float they are compared with a tolerance.
"""

import ast
import copy
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from filters.sandbox import Other

STEPS = 200_000
"""Nodes of syntax evaluated for one reference, or for one assertion on one program's values."""
LENGTH = 100_000
"""Longest range, repetition or text that an expression may make."""
BITS = 65_536
"""Most bits of an integer that an expression may make."""
SET_PAIRS = 1_000
"""Sets and dicts up to this size are compared with a tolerance; larger ones by hash, exactly."""


class TooMuchError(Exception):
    """An expression that asks for more work than is allowed."""


class NotAllowedError(Exception):
    """An expression outside of the whitelist."""


FAULTS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What evaluating an assertion on unfit values raises; the assertion then does not hold."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far apart two numbers may be of which one is a float, and whether NaN equals NaN."""

    relative: float = 1e-6
    absolute: float = 1e-9
    nan_equal: bool = False


def same(found: Any, wanted: Any, tolerance: Tolerance) -> bool:
    """Equal in value and type, deeply. Takes plain values up to the sandbox's depth; raises nothing."""
    if isinstance(found, Other) or isinstance(wanted, Other):
        return False
    kinds = type(found), type(wanted)
    if bool in kinds:
        return found is wanted
    if kinds[0] in _NUMBERS and kinds[1] in _NUMBERS:
        return _near(found, wanted, tolerance)
    if kinds[0] is not kinds[1]:
        return set(kinds) == {set, frozenset} and _same_set(found, wanted, tolerance)
    if kinds[0] in (list, tuple):
        return len(found) == len(wanted) and all(same(one, other, tolerance) for one, other in zip(found, wanted, strict=True))
    if kinds[0] in (set, frozenset):
        return _same_set(found, wanted, tolerance)
    if kinds[0] is dict:
        return _same_dict(found, wanted, tolerance)
    return bool(found == wanted)


def _near(found: Any, wanted: Any, tolerance: Tolerance) -> bool:
    if type(found) is type(wanted) is int:
        return bool(found == wanted)
    if found == wanted:
        return True
    if complex in (type(found), type(wanted)):
        return bool(abs(found - wanted) <= max(tolerance.relative * abs(wanted), tolerance.absolute))
    if found != found or wanted != wanted:  # noqa: PLR0124 - only NaN differs from itself
        return tolerance.nan_equal and found != found and wanted != wanted  # noqa: PLR0124
    try:
        return math.isclose(found, wanted, rel_tol=tolerance.relative, abs_tol=tolerance.absolute)
    except OverflowError:  # an integer beyond every float
        return False


def _same_set(found: Iterable[Any], wanted: Iterable[Any], tolerance: Tolerance) -> bool:
    ones, others = list(found), list(wanted)
    if len(ones) != len(others):
        return False
    if len(ones) > SET_PAIRS:
        tagged = {(type(one), one) for one in ones}
        return tagged == {(type(other), other) for other in others}
    for one in ones:
        at = next((at for at, other in enumerate(others) if same(one, other, tolerance)), None)
        if at is None:
            return False
        others.pop(at)
    return True


def _same_dict(found: dict[Any, Any], wanted: dict[Any, Any], tolerance: Tolerance) -> bool:
    if len(found) != len(wanted):
        return False
    if not _same_set(found, wanted, tolerance):
        return False
    pairs = wanted.items()
    for key, value in found.items():
        other = wanted[key] if key in wanted else next(v for k, v in pairs if same(key, k, tolerance))
        if not same(value, other, tolerance):
            return False
    return True


def evaluate(node: ast.expr, values: Mapping[str, Any], tolerance: Tolerance, budget: list[int] | None = None) -> Any:
    """The value of an expression. A Constant may hold any value or whitelisted function; `values` are the names.

    Raises one of FAULTS where the values do not fit the expression, TooMuchError and NotAllowedError.
    """
    return _Evaluator(values, tolerance, [STEPS] if budget is None else budget).of(node)


class _Evaluator:
    """One evaluation: the names in sight, and the steps that are left (a list of one number, shared with inner scopes)."""

    def __init__(self, values: Mapping[str, Any], tolerance: Tolerance, budget: list[int]) -> None:
        self.values, self.tolerance, self.budget = values, tolerance, budget

    def of(self, node: ast.expr) -> Any:
        self.budget[0] -= 1
        if self.budget[0] < 0:
            raise TooMuchError("more steps than are allowed")
        if type(node) is ast.Constant:
            return node.value
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            raise NotAllowedError(f"{type(node).__name__} is not supported in a test")
        return method(node)

    def _name(self, node: ast.Name) -> Any:
        if node.id in self.values:
            return self.values[node.id]
        raise NotAllowedError(f"the name {node.id} is not known")

    def _tuple(self, node: ast.Tuple) -> Any:
        return tuple(self._items(node.elts))

    def _list(self, node: ast.List) -> Any:
        return self._items(node.elts)

    def _set(self, node: ast.Set) -> Any:
        return set(self._items(node.elts))

    def _items(self, nodes: Iterable[ast.expr]) -> list[Any]:
        made: list[Any] = []
        for node in nodes:
            made.extend(self.of(node.value) if isinstance(node, ast.Starred) else [self.of(node)])
        return made

    def _dict(self, node: ast.Dict) -> Any:
        made: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            made.update(self.of(value) if key is None else {self.of(key): self.of(value)})
        return made

    def _boolop(self, node: ast.BoolOp) -> Any:
        stop = isinstance(node.op, ast.Or)
        value: Any = None
        for one in node.values:
            value = self.of(one)
            if _truth(value) is stop:
                break
        return value

    def _unaryop(self, node: ast.UnaryOp) -> Any:
        value = self.of(node.operand)
        if isinstance(node.op, ast.Not):
            return not _truth(value)
        return _UNARY[type(node.op)](_number(value))

    def _binop(self, node: ast.BinOp) -> Any:
        left, right = self.of(node.left), self.of(node.right)
        return _binary(type(node.op), left, right)

    def _ifexp(self, node: ast.IfExp) -> Any:
        return self.of(node.body if _truth(self.of(node.test)) else node.orelse)

    def _compare(self, node: ast.Compare) -> Any:
        left = self.of(node.left)
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            right = self.of(right_node)
            if not self._holds(type(op), left, right):
                return False
            left = right
        return True

    def _holds(self, op: type[ast.cmpop], left: Any, right: Any) -> bool:
        if op in (ast.Is, ast.IsNot):
            if not any(one is None or isinstance(one, bool | type) for one in (left, right)):
                raise NotAllowedError("`is` compares identity; only None, True, False and types have one here")
            return (left is right) is (op is ast.Is)
        if isinstance(left, Other) or isinstance(right, Other):
            return False  # `!=` too: nothing is known of such a value
        if op in (ast.Eq, ast.NotEq):
            return same(left, right, self.tolerance) is (op is ast.Eq)
        if op in (ast.In, ast.NotIn):
            text = isinstance(right, str | bytes)
            inside = left in right if text else any(same(left, one, self.tolerance) for one in right)
            return inside is (op is ast.In)
        if isinstance(left, bool) or isinstance(right, bool):
            raise TypeError("a truth value is no number")
        return bool(_ORDER[op](left, right))

    def _subscript(self, node: ast.Subscript) -> Any:
        held = self.of(node.value)
        if not isinstance(held, str | bytes | list | tuple | dict | range):
            raise TypeError("not a value that can be indexed")
        if isinstance(node.slice, ast.Slice):
            ends = (node.slice.lower, node.slice.upper, node.slice.step)
            return held[slice(*(None if end is None else self.of(end) for end in ends))]
        return held[self.of(node.slice)]

    def _joinedstr(self, node: ast.JoinedStr) -> str:
        parts = [self.of(one.value if isinstance(one, ast.FormattedValue) else one) for one in node.values]
        if any(isinstance(one, ast.FormattedValue) and (one.format_spec or one.conversion != -1) for one in node.values):
            raise NotAllowedError("a format in an f-string is not supported in a test")
        return "".join(map(str, parts))

    def _call(self, node: ast.Call) -> Any:
        arguments = self._items(node.args)
        named: dict[str, Any] = {}
        for one in node.keywords:
            named.update(self.of(one.value) if one.arg is None else {one.arg: self.of(one.value)})
        if isinstance(node.func, ast.Attribute):
            held = self.of(node.func.value)
            return _method(held, node.func.attr)(*arguments, **named)
        function = self.of(node.func)
        if function not in TRUSTED and not isinstance(function, _Lambda):
            raise NotAllowedError("only whitelisted functions are called outside of the sandbox")
        return function(*arguments, **named)

    def _lambda(self, node: ast.Lambda) -> Any:
        names = [one.arg for one in node.args.args]
        if len(names) != len(ast.unparse(node.args).split(",")) or node.args.defaults or node.args.vararg or node.args.kwarg:
            raise NotAllowedError("a lambda with more than plain parameters is not supported in a test")
        return _Lambda(lambda *given: self._within(dict(zip(names, given, strict=True))).of(node.body))

    def _within(self, names: Mapping[str, Any]) -> "_Evaluator":
        return _Evaluator({**self.values, **names}, self.tolerance, self.budget)

    def _listcomp(self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp) -> list[Any]:
        return [inner.of(node.elt) for inner in self._rows(node.generators)]

    _generatorexp = _listcomp

    def _setcomp(self, node: ast.SetComp) -> Any:
        return set(self._listcomp(node))

    def _dictcomp(self, node: ast.DictComp) -> Any:
        return {inner.of(node.key): inner.of(node.value) for inner in self._rows(node.generators)}

    def _rows(self, generators: list[ast.comprehension]) -> Iterable["_Evaluator"]:
        first, *rest = generators
        for item in self.of(first.iter):
            self.budget[0] -= 1
            inner = self._within(unpacked(first.target, item))
            if all(_truth(inner.of(test)) for test in first.ifs):
                yield from inner._rows(rest) if rest else [inner]


@dataclass(frozen=True, slots=True)
class _Lambda:
    """A function that the test itself writes."""

    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


def unpacked(target: ast.expr, value: Any) -> dict[str, Any]:
    """The names that a target of a loop or an assignment binds. Raises TypeError or ValueError where the value does not fit."""
    if isinstance(target, ast.Name):
        return {target.id: value}
    if isinstance(target, ast.Tuple | ast.List) and not any(isinstance(one, ast.Starred) for one in target.elts):
        made: dict[str, Any] = {}
        for one, part in zip(target.elts, value, strict=True):
            made |= unpacked(one, part)
        return made
    raise NotAllowedError(f"assigning to {ast.unparse(target)} is not supported in a test")


def _truth(value: Any) -> bool:
    if isinstance(value, Other):
        raise TypeError("a value that does not cross the wall is neither true nor false")
    return bool(value)


def _number(value: Any) -> Any:
    """The value, which must not be a truth value: a program that says True where a number is asked is wrong."""
    if isinstance(value, bool):
        raise TypeError("a truth value is no number")
    return value


def _binary(op: type[ast.operator], left: Any, right: Any) -> Any:
    _number(left), _number(right)
    numbers = isinstance(left, int | float | complex) and isinstance(right, int | float | complex)
    if op is ast.Pow and isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > BITS:
        raise TooMuchError("a power that is too large")
    if op is ast.LShift and isinstance(right, int) and right > BITS:
        raise TooMuchError("a shift that is too far")
    if op is ast.Mod and not numbers:
        raise NotAllowedError("formatting with % is not supported in a test")
    if op is ast.Mult and not numbers:
        times, held = (left, right) if isinstance(left, int) else (right, left)
        if isinstance(times, int) and times * len(held) > LENGTH:
            raise TooMuchError("a repetition that is too long")
    made = _BINARY[op](left, right)
    if isinstance(made, int) and made.bit_length() > BITS:
        raise TooMuchError("a number that is too large")
    return made


def _method(held: Any, name: str) -> Callable[..., Any]:
    if name not in _METHODS.get(type(held), ()):
        raise NotAllowedError(f"the method {name} of {type(held).__name__} is not supported in a test")

    def bounded(*arguments: Any, **named: Any) -> Any:
        if name in ("join", "replace"):
            longest = max((len(one) for one in arguments if isinstance(one, str | bytes | list | tuple)), default=0)
            if (len(held) + 1) * (longest + 1) > LENGTH * 100:
                raise TooMuchError("a text that is too long")
        return getattr(held, name)(*arguments, **named)

    return bounded


def _range(*ends: int) -> range:
    made = range(*ends)
    if len(made) > LENGTH:
        raise TooMuchError("a range that is too long")
    return made


def _small(function: Callable[..., Any], most: int) -> Callable[..., Any]:
    """A function of numbers, of which none may be greater than `most` and none a truth value."""

    def bounded(*arguments: Any) -> Any:
        if any(isinstance(one, int) and abs(one) > most for one in arguments):
            raise TooMuchError(f"{getattr(function, '__name__', 'a function')} of a number that is too large")
        return function(*map(_number, arguments))

    return bounded


def _of_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments, **named: function(*map(_number, arguments), **named)


def _round(value: Any, digits: int | None = None) -> Any:
    if digits is not None and abs(digits) > 400:
        raise TooMuchError("round to too many digits")
    return round(_number(value), digits)


def _power(base: Any, exponent: Any, modulus: int | None = None) -> Any:
    return _binary(ast.Pow, base, exponent) if modulus is None else pow(base, exponent, modulus)


def _type(value: Any) -> type:
    return type(value)


def _isinstance(value: Any, kinds: Any) -> bool:
    wanted = kinds if isinstance(kinds, tuple) else (kinds,)
    return type(value) in wanted  # True is no int, as in `same`


_NUMBERS = (int, float, complex)
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Invert: operator.inv}
_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
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
BUILTINS: dict[str, Any] = {
    "abs": _of_numbers(abs), "round": _round, "pow": _power, "range": _range, "isinstance": _isinstance,
    "divmod": _of_numbers(divmod), "len": len, "sum": sum, "min": min, "max": max, "all": all, "any": any, "sorted": sorted,
    "reversed": lambda one: list(reversed(one)),
    "zip": lambda *ones, strict=False: list(zip(*ones, strict=strict)),
    "enumerate": lambda one, start=0: list(enumerate(one, start)),
    "map": lambda function, *ones: [function(*row) for row in zip(*ones, strict=False)],
    "filter": lambda function, one: [item for item in one if (function(item) if function else item)],
    "ord": ord, "chr": chr, "bin": bin, "hex": hex, "repr": repr, "type": _type,
    "int": int, "float": float, "str": str, "bool": bool, "list": list, "tuple": tuple, "set": set, "frozenset": frozenset,
    "dict": dict, "complex": complex, "bytes": lambda one=b"": bytes(one if not isinstance(one, int) else []),
}  # fmt: skip
"""The built-in functions that a test may call on the program's values."""
_MATH = (
    "isclose fabs floor ceil sqrt log log2 log10 exp sin cos tan asin acos atan atan2 hypot degrees radians isnan isinf isfinite "
    "trunc gcd prod dist copysign fmod pow isqrt fsum"
).split()
MODULES: dict[str, dict[str, Any]] = {
    "math": {
        **{name: getattr(math, name) if name in ("prod", "fsum", "dist") else _of_numbers(getattr(math, name)) for name in _MATH},
        **{name: getattr(math, name) for name in ("pi", "e", "inf", "nan", "tau")},
        **{name: _small(getattr(math, name), 2_000) for name in ("factorial", "comb", "perm")},
    },
    "copy": {"deepcopy": copy.deepcopy, "copy": copy.copy},
    "string": {
        "ascii_lowercase": "abcdefghijklmnopqrstuvwxyz", "ascii_uppercase": "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "digits": "0123456789",
    },
}  # fmt: skip
"""The modules that a test may import, and what it may use of them."""


def as_json(value: Any) -> Any:
    """The value with its tuples as lists: what JSON would make of it."""
    if isinstance(value, list | tuple):
        return [as_json(one) for one in value]
    return {key: as_json(held) for key, held in value.items()} if isinstance(value, dict) else value


TRUSTED = frozenset((as_json, *(one for names in (BUILTINS, *MODULES.values()) for one in names.values() if callable(one))))
"""Every function that an assertion may call outside of the sandbox."""
