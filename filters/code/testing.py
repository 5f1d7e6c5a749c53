"""Tests as unittest and pytest run them, as plain statements: assertions, methods of test classes, parameters."""

import ast
import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, NoReturn

from filters.code.arrays import TESTING

_COMPARED: dict[str, type[ast.cmpop]] = {
    "assertEqual": ast.Eq, "assertEquals": ast.Eq, "assertNotEqual": ast.NotEq, "assertIs": ast.Is, "assertIsNot": ast.IsNot,
    "assertIn": ast.In, "assertNotIn": ast.NotIn, "assertGreater": ast.Gt, "assertGreaterEqual": ast.GtE, "assertLess": ast.Lt,
    "assertLessEqual": ast.LtE, "assertListEqual": ast.Eq, "assertTupleEqual": ast.Eq, "assertSetEqual": ast.Eq,
    "assertDictEqual": ast.Eq, "assertMultiLineEqual": ast.Eq, "assertSequenceEqual": ast.Eq,
}  # fmt: skip
_PLACES = 7
"""Decimal places of assertAlmostEqual."""


def of_module(body: list[ast.stmt], names: Sequence[str]) -> list[ast.stmt]:
    """A test in which `solution.f` is `f`, where it imports the program's module under one of these names."""
    modules = {
        alias.asname or alias.name for node in body if isinstance(node, ast.Import) for alias in node.names if alias.name in names
    }
    if not modules:
        return body
    kept = [node for node in body if not (isinstance(node, ast.Import) and all(alias.name in names for alias in node.names))]
    return [_OfModule(modules).visit(node) for node in kept]


def asserted(call: ast.Call) -> ast.stmt | None:
    """The statement that a method of a TestCase stands for: `self.assertEqual(f(1), 2)` is `assert f(1) == 2`. An assertion of
    numpy.testing is a condition too. None for any other call."""
    if ast.unparse(call.func).rpartition(".")[2] in TESTING:
        return _located(ast.Assert(call), call)
    if not isinstance(call.func, ast.Attribute) or not isinstance(call.func.value, ast.Name) or call.func.value.id != "self":
        return None
    name, arguments = call.func.attr, call.args
    if name in ("assertTrue", "assertFalse") and arguments:
        test = arguments[0] if name == "assertTrue" else ast.UnaryOp(ast.Not(), arguments[0])
    elif name in ("assertIsNone", "assertIsNotNone") and arguments:
        test = ast.Compare(arguments[0], [ast.Is() if name == "assertIsNone" else ast.IsNot()], [ast.Constant(None)])
    elif name in _COMPARED and len(arguments) >= 2:
        test = ast.Compare(arguments[0], [_COMPARED[name]()], [arguments[1]])
    elif name == "assertIsInstance" and len(arguments) >= 2:
        test = ast.Call(ast.Name("isinstance", ast.Load()), arguments[:2], [])
    elif name == "assertCountEqual" and len(arguments) >= 2:
        test = ast.Compare(_sorted(arguments[0]), [ast.Eq()], [_sorted(arguments[1])])
    elif name == "assertAlmostEqual" and len(arguments) >= 2:
        test = _almost(arguments, {keyword.arg: keyword.value for keyword in call.keywords})
    elif name == "assertRaises" and len(arguments) >= 2:
        body = ast.Expr(ast.Call(arguments[1], arguments[2:], call.keywords))
        context = ast.Call(call.func, arguments[:1], [])
        return _located(ast.With([ast.withitem(context)], [body]), call)
    else:
        return None
    return _located(ast.Assert(test), call)


def methods_of(node: ast.ClassDef, refuse: Callable[[str], NoReturn]) -> Iterator[list[ast.stmt]]:
    """The statements of each test of a class, those of its setUp first; in the order of names, as unittest runs them, if it is a
    TestCase. Refuses what changes whether or on what a test runs: decorators, and preparations of the whole class."""
    refuse_marks(node, refuse)
    if not any(ast.unparse(base).endswith("TestCase") for base in node.bases) and not node.name.startswith("Test"):
        refuse(f"the class {node.name} of the test is not supported")
    methods = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
    prepared = [copy.deepcopy(part) for name in ("setUp", "setup_method") if name in methods for part in methods[name].body]
    if not methods.keys().isdisjoint(("setUpClass", "setup_class", "asyncSetUp")):
        refuse(f"the class {node.name} of the test prepares the whole class, which is not supported")
    in_order = sorted(methods.items()) if node.bases else methods.items()
    for name, method in in_order:
        if name.startswith("test"):
            refuse_marks(method, refuse)
            if len(method.args.args) != 1:
                refuse(f"{name}: parameters and fixtures of a method are not supported")
            yield [_OfSelf().visit(copy.deepcopy(part)) for part in (*prepared, *method.body)]


def refuse_marks(node: ast.ClassDef | ast.FunctionDef, refuse: Callable[[str], NoReturn]) -> None:
    """Refuse decorators other than parametrize, and marks on a row of it: the test may be skipped or expected to fail."""
    for decorator in node.decorator_list:
        name = ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)
        marked = any(isinstance(part, ast.keyword) and part.arg == "marks" for part in ast.walk(decorator))
        if marked or not name.endswith("parametrize"):
            refuse(f"{node.name}: the decorator {name}{' with marks' if marked else ''} is not supported")


def parameters_of(node: ast.FunctionDef, known: Callable[[ast.expr], Any]) -> list[list[Any]]:
    """The arguments of each run of a test function, from its `pytest.mark.parametrize`; one run without any if it has none.
    `known` returns the value of an expression."""
    names = [argument.arg for argument in node.args.args]
    rows: list[list[dict[str, Any]]] = []
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith("parametrize") and len(decorator.args) >= 2:
            said = known(decorator.args[0])
            given = [part.strip() for part in said.split(",")] if isinstance(said, str) else list(said)
            values = [_plain_parameter(value) for value in _elements(decorator.args[1])]
            runs = [known(value) for value in values] if values else list(known(decorator.args[1]))
            rows.append([dict(zip(given, run if len(given) > 1 else (run,), strict=True)) for run in runs])
    runs = [{name: value for part in parts for name, value in part.items()} for parts in product(*rows)]
    return [[run[name] for name in names] for run in runs if all(name in run for name in names)]


# -- inside ------------------------------------------------------------------------------------------------------------------


class _OfModule(ast.NodeTransformer):
    def __init__(self, modules: set[str]) -> None:
        self.modules = modules

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id in self.modules:
            return ast.copy_location(ast.Name(node.attr, node.ctx), node)
        return self.generic_visit(node)


class _OfSelf(ast.NodeTransformer):
    """`self.x` is a name of the test; methods that assert stay."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id == "self" and not node.attr.startswith("assert"):
            return ast.copy_location(ast.Name(f"self_{node.attr}", node.ctx), node)
        return self.generic_visit(node)


def _elements(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.List | ast.Tuple) else []


def _plain_parameter(node: ast.expr) -> ast.expr:
    """The values of `pytest.param(1, 2, id="...")` as a tuple."""
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("param"):
        return ast.Tuple(node.args, ast.Load()) if len(node.args) > 1 else node.args[0]
    return node


def _sorted(node: ast.expr) -> ast.expr:
    return ast.Call(ast.Name("sorted", ast.Load()), [node], [])


def _almost(arguments: Sequence[ast.expr], named: dict[str | None, ast.expr]) -> ast.expr:
    difference = ast.Call(ast.Name("abs", ast.Load()), [ast.BinOp(arguments[0], ast.Sub(), arguments[1])], [])
    if "delta" in named:
        return ast.Compare(difference, [ast.LtE()], [named["delta"]])
    places = arguments[2] if len(arguments) > 2 else named.get("places", ast.Constant(_PLACES))
    rounded = ast.Call(ast.Name("round", ast.Load()), [difference, places], [])
    return ast.Compare(rounded, [ast.Eq()], [ast.Constant(0)])


def _located(statement: ast.stmt, call: ast.Call) -> ast.stmt:
    return ast.fix_missing_locations(ast.copy_location(statement, call))
