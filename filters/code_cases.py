"""Turns the assertions of a test into cases: calls for the sandbox, and what must hold of their values, kept outside of it.

A test is the user's Python text. It is never executed: its syntax tree is walked, with every value that it makes itself known on
the way (assignments of plain values, loops over known values, conditions that are known, functions of the test, `import math`).
In an assertion the largest expressions that call the program (`candidate(1, 2)`, `f(x)[0]`, `Stack().size()`) become call
expressions with the known values written out; the rest becomes a predicate that filters.code_values evaluates on what comes back.

What cannot be turned so is refused with its line and the reason: random numbers, while loops, changes made to an argument,
objects of the program that outlive an expression, and assertions that never call the program. A case may also say that a call
must raise: `with pytest.raises(E)`, or `try: f(x); assert False` with `except E: pass`.
"""

import ast
import builtins
import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from filters.code_values import (
    BUILTINS,
    FAULTS,
    MODULES,
    STEPS,
    TRUSTED,
    NotAllowedError,
    Tolerance,
    TooMuchError,
    evaluate,
    unpacked,
)

TEXT_CHARS = 1_000_000
LITERAL_CHARS = 60_000
"""Longest value that is written into a call or compared with: no value of more than 64 KiB leaves the sandbox."""
CASES = 1_000
DEPTH = 8
"""Functions of the test that call one another."""


class RefusedError(Exception):
    """A test that cannot be turned into cases; the text names the line and the reason."""


@dataclass(frozen=True, slots=True)
class Case:
    """One assertion. `check` must be true of the values of `calls`, which it names `$0`, `$1` and so on (indices into the
    calls of the whole test); or, where `raises` names exceptions, the one call must raise one of them."""

    check: ast.expr
    calls: tuple[int, ...]
    line: int
    raises: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Program:
    """A name that stands for something of the program."""

    name: str


@dataclass(frozen=True, slots=True)
class _Module:
    """A module that the test imports, and what it may use of it."""

    name: str
    contents: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Function:
    """A function that the test defines."""

    node: ast.FunctionDef


@dataclass(frozen=True, slots=True)
class _Later:
    """A value that is known when the program has run: an expression over `$0`, `$1` and so on."""

    node: ast.expr


@dataclass(slots=True)
class Turned:
    """The calls and cases found so far; `entry_points` are the names of the program that the calls use."""

    calls: list[str] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    entry_points: set[str] = field(default_factory=set)


def turn(texts: Sequence[str], entry_points: Sequence[str] = (), setup: str = "") -> Turned:
    """The cases of a test, whose parts are run in order in one namespace.

    `entry_points` are the only names that the program is asked for; with none given, every name that the test calls and does
    not define. A function `check(candidate)` is called with the first entry point unless the test itself calls it, and so is
    every `test_...` without parameters. Raises RefusedError.
    """
    walk = _Walk(tuple(entry_points))
    walk.names.update({name: _Program(name) for name in entry_points})
    for text in (setup, *texts):
        walk.run(_parsed(text))
    walk.run_definitions()
    if not walk.made.cases:
        raise RefusedError("no assertion calls the program")
    return walk.made


def _parsed(text: str) -> list[ast.stmt]:
    if len(text) > TEXT_CHARS:
        raise RefusedError(f"longer than {TEXT_CHARS} characters")
    try:
        return ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise RefusedError(f"line {getattr(error, 'lineno', None) or 1}: not Python: {error}") from error


def known(value: Any) -> ast.expr:
    """A node that stands for a value: any value, or a whitelisted function."""
    return ast.Constant(value)


def literal(value: Any) -> str:
    """A plain value as an expression that means it in any namespace. Raises TypeError for others."""
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
        return f"{{{', '.join(f'{literal(key)}: {literal(held)}' for key, held in value.items())}}}"
    if type(value) is frozenset:
        return f"frozenset({literal(set(value))})"
    if type(value) is range:
        return repr(value)
    raise TypeError(f"a {type(value).__name__} cannot be written into a call")


class _Walk:
    """The walk over one test: names in sight, the steps left, and what has been found."""

    def __init__(self, entry_points: tuple[str, ...]) -> None:
        self.made, self.entry_points = Turned(), entry_points
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.budget = [STEPS]
        self.called: set[str] = set()
        self.depth = 0
        self.line = 1

    def refuse(self, why: str) -> NoReturn:
        raise RefusedError(f"line {self.line}: {why}")

    def run(self, body: Iterable[ast.stmt]) -> None:
        for statement in body:
            self.line = statement.lineno
            try:
                self._statement(statement)
            except TooMuchError as error:
                self.refuse(str(error))
            except NotAllowedError as error:
                self.refuse(str(error))
            except FAULTS as error:
                self.refuse(f"{type(error).__name__}: {str(error)[:200]}")

    def run_definitions(self) -> None:
        """Call what a harness would call: `check`, and every test function, unless the test did it."""
        for name, held in list(self.names.items()):
            if not isinstance(held, _Function) or name in self.called:
                continue
            wanted = len(held.node.args.args)
            if name == "check" and wanted == 1 and self.entry_points:
                self._inline(held, [_Program(self.entry_points[0])])
            elif name.startswith("test") and wanted == 0:
                self._inline(held, [])

    def _statement(self, node: ast.stmt) -> None:
        self.budget[0] -= 1
        if self.budget[0] < 0:
            raise TooMuchError("more steps than are allowed")
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            self.refuse(f"{type(node).__name__} is not supported in a test")
        method(node)

    # Statements

    def _pass(self, node: ast.Pass) -> None:
        pass

    def _import(self, node: ast.Import) -> None:
        for one in node.names:
            self.names[one.asname or one.name] = self._module(one.name)

    def _importfrom(self, node: ast.ImportFrom) -> None:
        for one in node.names:
            if node.module == "typing":
                continue
            if node.module in ("solution", "candidate", "main") and (not self.entry_points or one.name in self.entry_points):
                self.names[one.asname or one.name] = _Program(one.name)
                continue
            held = self._module(node.module or "")
            given = dict(held.contents) if one.name == "*" else {one.asname or one.name: held.contents.get(one.name)}
            if None in given.values():
                self.refuse(f"{one.name} of the module {node.module} is not supported in a test")
            self.names.update(given)

    def _module(self, name: str) -> _Module:
        return _Module(name, MODULES.get(name, {}))  # a use that is not allowed is refused where it stands

    def _functiondef(self, node: ast.FunctionDef) -> None:
        if node.name not in self.entry_points:
            self.names[node.name] = _Function(node)

    def _assign(self, node: ast.Assign) -> None:
        value = self._value(node.value)
        for target in node.targets:
            self._bind(target, value)

    def _annassign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._bind(node.target, self._value(node.value))

    def _augassign(self, node: ast.AugAssign) -> None:
        if not isinstance(node.target, ast.Name):
            self.refuse(f"changing {ast.unparse(node.target)} is not supported in a test")
        read = ast.Name(node.target.id, ast.Load())
        self._bind(node.target, self._value(ast.BinOp(read, node.op, node.value)))

    def _bind(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Tuple | ast.List) and isinstance(value, _Later):
            for at, one in enumerate(target.elts):
                self._bind(one, _Later(ast.Subscript(value.node, ast.Constant(at), ast.Load())))
        elif isinstance(target, ast.Subscript) and not isinstance(value, _Later):
            held = self._known(target.value)
            if type(held) not in (list, dict) or isinstance(target.slice, ast.Slice):
                self.refuse(f"changing {ast.unparse(target)} is not supported in a test")
            held[self._known(target.slice)] = value
        else:
            for name, part in unpacked(target, value).items():
                if name in self.entry_points:
                    self.refuse(f"the test gives the program's name {name} another value")
                self.names[name] = part

    def _for(self, node: ast.For) -> None:
        if node.orelse:
            self.refuse("a loop with else is not supported in a test")
        for item in list(self._known(node.iter)):
            self._bind(node.target, item)
            self.run(node.body)

    def _if(self, node: ast.If) -> None:
        self.run(node.body if self._known(node.test) else node.orelse)

    def _assert(self, node: ast.Assert) -> None:
        check = self._folded(self._lowered(node.test))
        used = tuple(sorted({int(one.id[1:]) for one in ast.walk(check) if isinstance(one, ast.Name) and one.id[0] == "$"}))
        if used:
            self._case(Case(check, used, node.lineno))
        elif not evaluate(check, {}, Tolerance(), self.budget):
            self.refuse("the assertion is false whatever the program does")

    def _folded(self, check: ast.expr) -> ast.expr:
        """A comparison with the sides that are known worked out, so that what cannot be is refused now, not at every sample."""
        if not isinstance(check, ast.Compare):
            return check
        return ast.Compare(self._worked_out(check.left), check.ops, [self._worked_out(one) for one in check.comparators])

    def _worked_out(self, node: ast.expr) -> ast.expr:
        if any(isinstance(one, ast.Name) for one in ast.walk(node)):
            return node
        return known(evaluate(node, {}, Tolerance(), self.budget))

    def _case(self, case: Case) -> None:
        if len(self.made.cases) >= CASES:
            self.refuse(f"more than {CASES} cases")
        self.made.cases.append(case)

    def _expr(self, node: ast.Expr) -> None:
        value = node.value
        if isinstance(value, ast.Constant | ast.Name):
            return
        if isinstance(value, ast.Call):
            held = self.names.get(value.func.id) if isinstance(value.func, ast.Name) else None
            if isinstance(held, _Function) and isinstance(value.func, ast.Name):
                self.called.add(value.func.id)
                if value.keywords:
                    self.refuse("a function of the test that is called with named arguments is not supported")
                self._inline(held, [self._value(one, program=True) for one in value.args])
                return
            if isinstance(value.func, ast.Name) and value.func.id == "print":
                return
            if isinstance(value.func, ast.Attribute) and isinstance(value.func.value, ast.Name):
                if ast.unparse(value.func) == "unittest.main":
                    return
                changed = self.names.get(value.func.value.id)
                if type(changed) in (list, set, dict) and value.func.attr in _CHANGES:
                    getattr(changed, value.func.attr)(*map(self._known, value.args))
                    return
        self.refuse("a statement whose value is not asserted: what it changes cannot be seen from outside")

    def _return(self, node: ast.Return) -> None:
        if node.value is not None and not isinstance(node.value, ast.Constant):
            self.refuse("return of a value is not supported in a test")

    def _with(self, node: ast.With) -> None:
        context = node.items[0].context_expr
        if len(node.items) != 1 or not isinstance(context, ast.Call) or ast.unparse(context.func) not in _RAISES:
            self.refuse("with is supported for pytest.raises only")
        self._raises(node.body, context.args[:1])

    def _try(self, node: ast.Try) -> None:
        fails = node.body[1:2] and isinstance(node.body[1], ast.Assert | ast.Raise)
        plain = len(node.handlers) == 1 and not node.orelse and not node.finalbody
        if not fails or not plain or len(node.body) != 2 or not all(map(_harmless, node.handlers[0].body)):
            self.refuse("try is supported as `try: call; assert False` with one `except E: pass` only")
        kind = node.handlers[0].type
        self._raises(node.body[:1], [] if kind is None else [kind])

    def _raises(self, body: list[ast.stmt], kinds: list[ast.expr]) -> None:
        elements = kinds[0].elts if kinds and isinstance(kinds[0], ast.Tuple) else kinds
        names = tuple(ast.unparse(one).rpartition(".")[2] for one in elements) or ("BaseException",)
        only = body[0] if len(body) == 1 else None
        if not isinstance(only, ast.Expr | ast.Assign):
            self.refuse("an exception is expected of one single call only")
        check = self._lowered(only.value)
        if not isinstance(check, ast.Name) or check.id[0] != "$":
            self.refuse("an exception is expected of something that is no call of the program")
        self._case(Case(check, (int(check.id[1:]),), only.lineno, names))

    def _inline(self, function: _Function, arguments: list[Any]) -> None:
        """Run a function of the test as if its body stood here, with its own names."""
        parameters = [one.arg for one in function.node.args.args]
        if len(parameters) != len(arguments) or self.depth >= DEPTH:
            self.refuse(f"{function.node.name} cannot be called so in a test")
        outer, self.names = self.names, {**self.names, **dict(zip(parameters, arguments, strict=True))}
        self.depth += 1
        self.run(function.node.body)
        self.depth -= 1
        self.names = outer

    # Expressions

    def _value(self, node: ast.expr, program: bool = False) -> Any:
        """What a name is bound to: a known value, or an expression for later."""
        held = self.names.get(node.id) if isinstance(node, ast.Name) else None
        if program and self._is_program(node) and isinstance(node, ast.Name):
            return held if isinstance(held, _Program) else _Program(node.id)
        lowered = self._lowered(node)
        if not any(isinstance(one, ast.Name) and one.id[0] == "$" for one in ast.walk(lowered)):
            return evaluate(lowered, {}, Tolerance(), self.budget)
        return _Later(lowered)

    def _known(self, node: ast.expr) -> Any:
        value = self._value(node)
        if isinstance(value, _Later):
            self.refuse(f"{ast.unparse(node)[:80]} depends on what the program returns")
        return value

    def _is_program(self, node: ast.expr) -> bool:
        """Whether a name is the program's. An unknown name is, where no entry point is given."""
        if not isinstance(node, ast.Name):
            return False
        if node.id in self.names:
            return isinstance(self.names[node.id], _Program)
        return not self.entry_points and node.id not in BUILTINS and not hasattr(builtins, node.id)

    def _lowered(self, node: ast.expr, local: frozenset[str] = frozenset()) -> ast.expr:
        """The expression with known names and calls of the program replaced. `local` names are bound within it."""
        self.budget[0] -= 1
        if self.budget[0] < 0:
            raise TooMuchError("more steps than are allowed")
        if self._calls_program(node, local):
            return self._placed(node, local)
        if isinstance(node, ast.Name):
            return node if node.id in local else self._looked_up(node)
        if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.SetComp | ast.DictComp | ast.Lambda):
            return self._scope(node, local)
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        made = copy.copy(node)
        if isinstance(made, ast.Call) and isinstance(made.func, ast.Attribute) and not self._module_of(made.func):
            made.func = ast.Attribute(self._lowered(made.func.value, local), made.func.attr, ast.Load())
        elif isinstance(made, ast.Call):
            made.func = self._lowered(made.func, local)
            if not isinstance(made.func, ast.Constant) or made.func.value not in TRUSTED:
                self.refuse(f"{ast.unparse(node)[:80]}: neither the program's nor a function that a test may call")
        for name, held in ast.iter_fields(made):
            if isinstance(made, ast.Call) and name == "func":
                continue
            if isinstance(held, list):
                setattr(made, name, [self._part(one, local) for one in held])
            else:
                setattr(made, name, self._part(held, local))
        return made

    def _part(self, held: Any, local: frozenset[str]) -> Any:
        if isinstance(held, ast.expr):
            return self._lowered(held, local)
        if isinstance(held, ast.keyword):
            return ast.keyword(held.arg, self._lowered(held.value, local))
        return held

    def _module_of(self, node: ast.Attribute) -> _Module | None:
        held = self.names.get(node.value.id) if isinstance(node.value, ast.Name) else None
        return held if isinstance(held, _Module) else None

    def _attribute(self, node: ast.Attribute) -> ast.expr:
        module = self._module_of(node)
        if module is None or node.attr not in module.contents:
            self.refuse(f"{ast.unparse(node)[:80]} is not supported in a test")
        return known(module.contents[node.attr])

    def _looked_up(self, node: ast.Name) -> ast.expr:
        held = self.names.get(node.id, BUILTINS.get(node.id, _MISSING))
        if isinstance(held, _Later):
            return held.node
        if held is _MISSING:
            self.refuse(f"the name {node.id} is not known")
        if isinstance(held, _Program | _Function | _Module):
            self.refuse(f"{node.id} is used in another way than by calling it")
        # A copy: what the test changes later must not change what it asserts here.
        return known(copy.deepcopy(held) if isinstance(held, list | dict | set | tuple) else held)

    def _scope(self, node: Any, local: frozenset[str]) -> ast.expr:
        """A comprehension or lambda; a comprehension that calls the program is written out over its known values."""
        if isinstance(node, ast.Lambda):
            inner = local | {one.arg for one in node.args.args}
            return ast.Lambda(node.args, self._lowered(node.body, inner))
        if any(self._calls_program(one, local) for one in ast.walk(node) if isinstance(one, ast.expr)):
            if local:
                self.refuse("a call of the program inside of two comprehensions is not supported")
            return self._written_out(node)
        made: Any = copy.copy(node)
        inner = local
        made.generators = []
        for one in node.generators:
            iterated = self._lowered(one.iter, inner)
            inner = inner | {name.id for name in ast.walk(one.target) if isinstance(name, ast.Name)}
            made.generators.append(ast.comprehension(one.target, iterated, [self._lowered(test, inner) for test in one.ifs], 0))
        for name in ("elt", "key", "value"):
            if hasattr(made, name):
                setattr(made, name, self._lowered(getattr(made, name), inner))
        scoped: ast.expr = made
        return scoped

    def _written_out(self, node: Any) -> ast.expr:
        elements: list[tuple[ast.expr, ...]] = []
        parts = [getattr(node, name) for name in ("elt", "key", "value") if hasattr(node, name)]

        def each(generators: Sequence[ast.comprehension]) -> None:
            if not generators:
                elements.append(tuple(self._lowered(one) for one in parts))
                return
            outer = self.names
            for item in list(self._known(generators[0].iter)):
                self.names = {**outer, **unpacked(generators[0].target, item)}
                if all(self._known(test) for test in generators[0].ifs):
                    each(generators[1:])
            self.names = outer

        each(node.generators)
        if isinstance(node, ast.DictComp):
            return ast.Dict([one[0] for one in elements], [one[1] for one in elements])
        only = [one[0] for one in elements]
        return ast.Set(only) if isinstance(node, ast.SetComp) and only else ast.List(only, ast.Load())

    def _calls_program(self, node: ast.expr, local: frozenset[str]) -> bool:
        """Whether the expression is a call of the program, or follows from one: `f(x)`, `f(x)[0]`, `Stack().size()`."""
        inner, called = node, False
        while isinstance(inner, ast.Call | ast.Attribute | ast.Subscript):
            called |= isinstance(inner, ast.Call)
            inner = inner.func if isinstance(inner, ast.Call) else inner.value
        return called and isinstance(inner, ast.Name) and inner.id not in local and self._is_program(inner)

    def _placed(self, node: ast.expr, local: frozenset[str]) -> ast.expr:
        """The name that stands for a call's value; the call goes to the sandbox."""
        if local & {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}:
            self.refuse("a call of the program that depends on a lambda's parameter is not supported")
        text = ast.unparse(ast.fix_missing_locations(self._inlined(node, frozenset())))
        if len(text) > LITERAL_CHARS:
            self.refuse("a call that is too long")
        self.made.calls.append(text)
        return ast.Name(f"${len(self.made.calls) - 1}", ast.Load())

    def _inlined(self, node: Any, local: frozenset[str]) -> Any:
        """The call as the sandbox gets it: known names and values written out, names of the program as they are."""
        if isinstance(node, ast.expr) and not self._mentions_program(node) and not isinstance(node, ast.Lambda | ast.Starred):
            free = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
            if not free & local and not (
                isinstance(node, ast.Name) and callable(BUILTINS.get(node.id)) and node.id not in self.names
            ):
                return ast.parse(literal(self._known(node)), mode="eval").body
        if isinstance(node, ast.Name):
            held = self.names.get(node.id)
            if isinstance(held, _Program):
                self.made.entry_points.add(held.name)
                return ast.Name(held.name, ast.Load())
            if isinstance(held, _Later):
                self.refuse(f"{node.id} is a value of the program that is given back to it")
            if node.id not in local and node.id not in BUILTINS:
                self.made.entry_points.add(node.id)
            return node
        if isinstance(node, ast.Lambda):
            local = local | {one.arg for one in node.args.args}
            return ast.Lambda(node.args, self._inlined(node.body, local))
        if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.SetComp | ast.DictComp):
            self.refuse("a comprehension over the program within its own call is not supported")
        made = copy.copy(node)
        for name, held in ast.iter_fields(made):
            if isinstance(held, list):
                setattr(made, name, [self._inlined(one, local) if isinstance(one, ast.AST) else one for one in held])
            elif isinstance(held, ast.expr):
                setattr(made, name, self._inlined(held, local))
        return made

    def _mentions_program(self, node: ast.expr) -> bool:
        return any(self._is_program(one) for one in ast.walk(node) if isinstance(one, ast.Name))


def _harmless(node: ast.stmt) -> bool:
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Assert | ast.Expr) and isinstance(node, ast.Expr | ast.Assert)
        and isinstance(node.test if isinstance(node, ast.Assert) else node.value, ast.Constant))  # fmt: skip


def holds(case: Case, values: Mapping[int, Any], tolerance: Tolerance) -> bool:
    """Whether a case holds of the values of its calls (index to value). Raises TooMuchError where that cannot be said."""
    try:
        return bool(evaluate(case.check, {f"${at}": values[at] for at in case.calls}, tolerance))
    except (*FAULTS, NotAllowedError):
        return False


_CHANGES = ("append", "extend", "insert", "remove", "pop", "sort", "reverse", "add", "discard", "update", "clear")
_RAISES = ("pytest.raises", "raises", "self.assertRaises")
_MISSING = object()
