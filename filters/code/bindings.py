"""What the names of a test are bound to, and the calls and cases collected from it."""

import ast
import builtins
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from filters.code import arrays
from filters.code.whitelist import BUILTINS, STEPS, TooMuchError

INSIDE = frozenset("pandas scipy sympy networkx sklearn sortedcontainers".split())
"""Packages with which a test makes arguments of the program's calls, inside the sandbox: their values cannot leave it."""


class RefusedError(Exception):
    """A test cannot be converted into cases; the message names the line and the reason."""


@dataclass(frozen=True, slots=True)
class Case:
    """One assertion.

    `calls` are indices into the calls of the whole test. `check` must hold for their values, which it names `$0`, `$1` and so on.
    If `raises` names exceptions, the single call must raise one of them instead.
    """

    check: ast.expr
    calls: tuple[int, ...]
    line: int
    raises: tuple[str, ...] = ()


@dataclass(slots=True)
class Converted:
    """The calls and cases of a test; `entry_points` are the names of the program that the calls use."""

    calls: list[str] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    entry_points: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Program:
    """A name bound to an object of the program."""

    name: str


@dataclass(frozen=True, slots=True)
class Module:
    """A module that the test imports, and the part of it that the test may use. `MODULE:NAME` is a name of a module of which only
    the sandbox has a use: INSIDE."""

    name: str
    contents: Mapping[str, Any]

    @property
    def is_inside(self) -> bool:
        """Whether the sandbox alone uses it, to make arguments of calls."""
        return self.name.partition(":")[0].partition(".")[0] in INSIDE

    @property
    def imported(self) -> ast.expr:
        """The expression that imports it in the sandbox."""
        module, _, name = self.name.partition(":")
        path = [*module.split(".")[1:], *([name] if name else [])]
        return ast.parse(".".join([f"__import__({module!r})", *path]), mode="eval").body


@dataclass(frozen=True, slots=True)
class Function:
    """A function that the test defines."""

    node: ast.FunctionDef


@dataclass(frozen=True, slots=True)
class Later:
    """A value that is known once the program has run: an expression over `$0`, `$1` and so on."""

    node: ast.expr


@dataclass(frozen=True, slots=True)
class Held(Later):
    """An object that stays in the sandbox under a name, so that the test can use it again: an instance, a generator, a list that
    the program changes. If `changes`, its value is asked for anew each time. `given`: made by the test, for the program."""

    name: str
    changes: bool = False
    given: bool = False


class Scope:
    """The state of the conversion of one test: names in scope, steps left, the current line, and the result so far."""

    def __init__(self, entry_points: tuple[str, ...]) -> None:
        self.converted, self.entry_points = Converted(), entry_points
        self.names: dict[str, Any] = {"__name__": "__main__", **{name: Program(name) for name in entry_points}}
        self.budget = [STEPS]
        self.line = 1

    def refuse(self, why: str) -> NoReturn:
        """Raise RefusedError at the current line."""
        raise RefusedError(f"line {self.line}: {why}")

    def spend(self) -> None:
        """Count one step. Raises TooMuchError when none are left."""
        self.budget[0] -= 1
        if self.budget[0] < 0:
            raise TooMuchError("more steps than are allowed")

    def is_program(self, node: ast.expr) -> bool:
        """Whether an expression is a name of the program. Without entry points, every unknown name is."""
        if not isinstance(node, ast.Name):
            return False
        if node.id in self.names:
            return isinstance(self.names[node.id], Program)
        return not self.entry_points and node.id not in BUILTINS and not hasattr(builtins, node.id)

    def mentions_program(self, node: ast.AST) -> bool:
        """Whether an expression uses a name of the program anywhere."""
        return any(self.is_program(name) for name in names_in(node))


def names_in(node: ast.AST) -> list[ast.Name]:
    """Return all names in a syntax tree."""
    return [part for part in ast.walk(node) if isinstance(part, ast.Name)]


def known(value: Any) -> ast.expr:
    """Return a node for a known value: any value, or a whitelisted function."""
    return ast.Constant(value)


def literal(value: Any) -> str:
    """Write a plain value as an expression that has this value in any namespace. Raises TypeError for other types."""
    if value is None or type(value) in (bool, int, str, bytes):
        return repr(value)
    if type(value) is float:
        return repr(value) if math.isfinite(value) else {math.inf: "1e999", -math.inf: "-1e999"}.get(value, "(1e999-1e999)")
    if type(value) is complex:
        return repr(value)
    if type(value) is list:
        return f"[{', '.join(map(literal, value))}]"
    if type(value) is tuple:
        return f"({', '.join(map(literal, value))}{',' if len(value) == 1 else ''})"
    if type(value) is set:
        return f"{{{', '.join(sorted(map(literal, value)))}}}" if value else "{*()}"
    if type(value) is dict:
        return f"{{{', '.join(f'{literal(key)}: {literal(item)}' for key, item in value.items())}}}"
    if type(value) is frozenset:
        return f"frozenset({literal(set(value))})"
    if type(value) is range:
        return repr(value)
    if isinstance(value, arrays.Numpy):
        return arrays.literal(value, literal)
    raise TypeError(f"a {type(value).__name__} cannot be written into a call")
