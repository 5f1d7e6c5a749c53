"""Evaluates what a test asserts of a program's values: outside the sandbox, by whitelist.

No code of a model runs here. An expression is a syntax tree of the user's own test in which every call of the program has been
replaced by a name such as `$0`. The values of these names are plain built-in objects and arrays, rebuilt outside the sandbox. The
work is bounded: steps, powers, repetitions and ranges have limits, so that a test cannot stall a run.
"""

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from filters.code.arrays import ATTRIBUTES, Numpy, truth
from filters.code.values import CannotTellError, Tolerance, same, stayed_inside
from filters.code.whitelist import STEPS, TRUSTED, NotAllowedError, TooMuchError, binary, method, ordered, unary
from filters.sandbox import Other

FAULTS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What evaluating an assertion on unsuitable values raises; the assertion then does not hold."""


def evaluate(node: ast.expr, values: Mapping[str, Any], tolerance: Tolerance, budget: list[int] | None = None) -> Any:
    """Return the value of an expression. A Constant may hold any value or whitelisted function; `values` are the names.

    Raises one of FAULTS if the values do not suit the expression, TooMuchError and NotAllowedError.
    """
    return _Evaluator(values, tolerance, [STEPS] if budget is None else budget).of(node)


class _Evaluator:
    """One evaluation: the names in scope, and the steps left (a list of one number, shared with inner scopes)."""

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
        return set(map(_hashed, self._items(node.elts)))

    def _items(self, nodes: Iterable[ast.expr]) -> list[Any]:
        items: list[Any] = []
        for node in nodes:
            items.extend(self.of(node.value) if isinstance(node, ast.Starred) else [self.of(node)])
        return items

    def _dict(self, node: ast.Dict) -> Any:
        items: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            items.update(self.of(value) if key is None else {_hashed(self.of(key)): self.of(value)})
        return items

    def _boolop(self, node: ast.BoolOp) -> Any:
        stop = isinstance(node.op, ast.Or)
        value: Any = None
        for operand in node.values:
            value = self.of(operand)
            if _truth(value) is stop:
                break
        return value

    def _unaryop(self, node: ast.UnaryOp) -> Any:
        value = self.of(node.operand)
        if isinstance(node.op, ast.Not):
            return not _truth(value)
        return unary(type(node.op), value)

    def _binop(self, node: ast.BinOp) -> Any:
        left, right = self.of(node.left), self.of(node.right)
        return binary(type(node.op), left, right)

    def _ifexp(self, node: ast.IfExp) -> Any:
        return self.of(node.body if _truth(self.of(node.test)) else node.orelse)

    def _compare(self, node: ast.Compare) -> Any:
        left = self.of(node.left)
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            right = self.of(right_node)
            held = self._holds(type(op), left, right)
            if len(node.ops) == 1:
                return held
            if not _truth(held):
                return False
            left = right
        return True

    def _holds(self, op: type[ast.cmpop], left: Any, right: Any) -> Any:
        if op in (ast.Is, ast.IsNot):
            if any(isinstance(a, Other) and b is not None and not isinstance(b, bool) for a, b in ((left, right), (right, left))):
                raise CannotTellError("a value that cannot leave the sandbox has no identity here")
            if not any(side is None or isinstance(side, bool | type) for side in (left, right)):
                raise NotAllowedError("`is` compares identity; only None, True, False and types have one here")
            return (left is right) is (op is ast.Is)
        if op in (ast.Eq, ast.NotEq):
            if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
                return ordered(op, left, right)
            return same(left, right, self.tolerance) is (op is ast.Eq)
        if op in (ast.In, ast.NotIn):
            is_text = isinstance(right, str | bytes)
            inside = left in right if is_text else any(same(left, item, self.tolerance) for item in right)
            return inside is (op is ast.In)
        if isinstance(left, Other) or isinstance(right, Other):
            raise CannotTellError("a value that cannot leave the sandbox is compared")
        return ordered(op, left, right)

    def _subscript(self, node: ast.Subscript) -> Any:
        container = _left(self.of(node.value))
        if not isinstance(container, str | bytes | list | tuple | dict | range | np.ndarray):
            raise TypeError("not a value that can be indexed")
        if isinstance(node.slice, ast.Slice):
            ends = (node.slice.lower, node.slice.upper, node.slice.step)
            return container[slice(*(None if end is None else self.of(end) for end in ends))]
        return container[self.of(node.slice)]

    def _attribute(self, node: ast.Attribute) -> Any:
        value = _left(self.of(node.value))
        if not isinstance(value, Numpy) or node.attr not in ATTRIBUTES:
            raise NotAllowedError(f"the attribute {node.attr} of {type(value).__name__} is not supported in a test")
        return getattr(value, node.attr)

    def _joinedstr(self, node: ast.JoinedStr) -> str:
        parts = [self.of(part.value if isinstance(part, ast.FormattedValue) else part) for part in node.values]
        if any(isinstance(part, ast.FormattedValue) and (part.format_spec or part.conversion != -1) for part in node.values):
            raise NotAllowedError("a format in an f-string is not supported in a test")
        return "".join(map(str, parts))

    def _call(self, node: ast.Call) -> Any:
        arguments = self._items(node.args)
        named: dict[str, Any] = {}
        for keyword in node.keywords:
            named.update(self.of(keyword.value) if keyword.arg is None else {keyword.arg: self.of(keyword.value)})
        if isinstance(node.func, ast.Attribute):
            owner = _left(self.of(node.func.value))
            return method(owner, node.func.attr)(*arguments, **named)
        for argument in (*arguments, *named.values()):
            _left(argument)
        function = self.of(node.func)
        if function not in TRUSTED and not isinstance(function, _Lambda):
            raise NotAllowedError("only whitelisted functions are called outside the sandbox")
        return function(*arguments, **named)

    def _lambda(self, node: ast.Lambda) -> Any:
        names = [argument.arg for argument in node.args.args]
        if len(names) != len(ast.unparse(node.args).split(",")) or node.args.defaults or node.args.vararg or node.args.kwarg:
            raise NotAllowedError("a lambda with more than plain parameters is not supported in a test")
        return _Lambda(lambda *arguments: self._within(dict(zip(names, arguments, strict=True))).of(node.body))

    def _within(self, names: Mapping[str, Any]) -> "_Evaluator":
        return _Evaluator({**self.values, **names}, self.tolerance, self.budget)

    def _listcomp(self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp) -> list[Any]:
        return [inner.of(node.elt) for inner in self._rows(node.generators)]

    _generatorexp = _listcomp

    def _setcomp(self, node: ast.SetComp) -> Any:
        return set(map(_hashed, self._listcomp(node)))

    def _dictcomp(self, node: ast.DictComp) -> Any:
        return {_hashed(inner.of(node.key)): inner.of(node.value) for inner in self._rows(node.generators)}

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
    """Return the names that the target of a loop or assignment binds. Raises TypeError or ValueError for an unsuitable value."""
    if isinstance(target, ast.Name):
        return {target.id: value}
    if isinstance(target, ast.Tuple | ast.List) and not any(isinstance(element, ast.Starred) for element in target.elts):
        names: dict[str, Any] = {}
        for element, part in zip(target.elts, value, strict=True):
            names |= unpacked(element, part)
        return names
    raise NotAllowedError(f"assigning to {ast.unparse(target)} is not supported in a test")


def _truth(value: Any) -> bool:
    return truth(_left(value))


def _hashed(value: Any) -> Any:
    """A value that may be a key. Raises CannotTellError for one that holds what is not known to equal another."""
    if isinstance(value, Other | tuple | frozenset) and (name := stayed_inside(value)) is not None:
        raise CannotTellError(f"a value of the type {name} cannot leave the sandbox")
    return value


def _left(value: Any) -> Any:
    """A value that left the sandbox. Raises CannotTellError for another."""
    if isinstance(value, Other):
        raise CannotTellError(f"a value of the type {value.type_name} cannot leave the sandbox")
    return value
