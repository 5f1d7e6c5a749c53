"""Converts the assertions of a test into cases: calls for the sandbox, and conditions on their values, which stay outside.

A test is the user's Python text. It is never executed. Its syntax tree is walked, and values that the test computes itself are
evaluated on the way: assignments of plain values, loops over known values, known conditions, its functions, `import math`.
In an assertion the largest expressions that call the program (`candidate(1, 2)`, `f(x)[0]`, `Stack().size()`) become calls with
the known values written out. The rest becomes a condition that filters.code.evaluation evaluates on the values that come back.

What a test keeps of the program (`stack = Stack()`, `numbers = f(3)`) stays in the sandbox under a name, as does a list that a
statement gives to the program to change it; `stack.size()` and `next(numbers)` are calls then. Test classes and functions of
unittest and pytest are run as these do, with `setUp` and `parametrize`. Random numbers are drawn while the test is converted,
from a fixed seed. docs/verdicts.md lists the forms and what each costs.

A test that cannot be converted is refused with its line and the reason: while loops, fixtures, mocks, and assertions that never
call the program. A case may also require that a call raises: `with pytest.raises(E)`, or `try: f(x); assert False` with
`except E: pass`.
"""

import ast
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from filters.code.arrays import truth
from filters.code.bindings import Case, Converted, Function, Later, Module, Program, RefusedError, Scope, known, names_in
from filters.code.evaluation import FAULTS, evaluate, unpacked
from filters.code.lowering import Lowering
from filters.code.testing import asserted, methods_of, of_module, parameters_of, refuse_marks
from filters.code.values import CannotTellError, Tolerance, stayed_inside
from filters.code.whitelist import BUILTINS, MODULES, NotAllowedError, TooMuchError, random_numbers

TEXT_CHARS = 1_000_000
CASES = 1_000
DEPTH = 8
"""Deepest nesting of calls among functions of the test."""
_MUTATORS = ("append", "extend", "insert", "remove", "pop", "sort", "reverse", "add", "discard", "update", "clear")
_PROGRAM = ("solution", "candidate", "main")
"""Names of the program's module in tests."""
_RAISES = ("pytest.raises", "raises", "self.assertRaises")


def convert(texts: Sequence[str], entry_points: Sequence[str] = (), setup: str = "") -> Converted:
    """Convert a test, whose parts run in order in one namespace.

    `entry_points` are the only names that may be taken from the program; without them, every name that the test calls and does
    not define. A function `check(candidate)` is called with the first entry point unless the test itself calls it, and so is
    every `test_...` without parameters. Raises RefusedError.
    """
    bodies = [of_module(_parsed(text), _PROGRAM) for text in (setup, *texts)]
    try:
        return _converted(bodies, entry_points)
    except RefusedError:
        # A program may have the name of a built-in function: assert sum(10, 15) == 25
        called = {name for body in bodies for node in body for name in _compared_calls(node)}
        if entry_points or len(called) != 1 or not called <= BUILTINS.keys():
            raise
        return _converted(bodies, tuple(called))


def _converted(bodies: Sequence[Sequence[ast.stmt]], entry_points: Sequence[str]) -> Converted:
    walk = _Walk(tuple(entry_points))
    with random_numbers():
        for body in bodies:
            walk.run(body)
        walk.run_definitions()
    if not walk.scope.converted.cases:
        raise RefusedError("no assertion calls the program")
    return walk.scope.converted


def _compared_calls(node: ast.stmt) -> list[str]:
    """The names of the functions whose value an assertion compares."""
    if not isinstance(node, ast.Assert) or not isinstance(node.test, ast.Compare):
        return []
    side = node.test.left
    return [side.func.id] if isinstance(side, ast.Call) and isinstance(side.func, ast.Name) else ["?"]


def holds(case: Case, values: Mapping[int, Any], tolerance: Tolerance) -> bool:
    """Whether a case holds for the values of its calls (index to value). Raises TooMuchError if deciding it is too expensive, and
    CannotTellError if it depends on a value that could not leave the sandbox."""
    try:
        if truth(evaluate(case.check, {f"${call}": values[call] for call in case.calls}, tolerance)):
            return True
    except NotAllowedError as error:
        raise CannotTellError(str(error)) from error
    except FAULTS:
        pass
    if (name := next(filter(None, (stayed_inside(values[call]) for call in case.calls)), None)) is not None:
        raise CannotTellError(f"a value of the type {name} cannot leave the sandbox")
    return False


def _parsed(text: str) -> list[ast.stmt]:
    if len(text) > TEXT_CHARS:
        raise RefusedError(f"longer than {TEXT_CHARS} characters")
    try:
        return ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise RefusedError(f"line {getattr(error, 'lineno', None) or 1}: not Python: {error}") from error


class _Walk:
    """Walks the statements of one test. A method per kind of statement, named after its node."""

    def __init__(self, entry_points: tuple[str, ...]) -> None:
        self.scope = Scope(entry_points)
        self.lowering = Lowering(self.scope)
        self.called: set[str] = set()
        self.depth = 0
        self.unless: list[ast.expr] = []
        """Conditions on the program's values: an assertion below them holds if one of these does."""

    def run(self, body: Iterable[ast.stmt]) -> None:
        """Walk statements in order. Raises RefusedError at the line of the first that is not supported."""
        for statement in body:
            self.scope.line = statement.lineno
            try:
                self._statement(statement)
            except (TooMuchError, NotAllowedError) as error:
                self.scope.refuse(str(error))
            except FAULTS as error:
                self.scope.refuse(f"{type(error).__name__}: {str(error)[:200]}")

    def run_definitions(self) -> None:
        """Call what a test harness would call: `check` and every test function, unless the test did it."""
        for name, function in list(self.scope.names.items()):
            if not isinstance(function, Function) or name in self.called:
                continue
            parameters = len(function.node.args.args)
            if name == "check" and parameters == 1 and self.scope.entry_points:
                self._inline(function, [Program(self.scope.entry_points[0])])
            elif name.startswith("test"):
                refuse_marks(function.node, self.scope.refuse)
                for arguments in parameters_of(function.node, self.lowering.known_value):
                    if len(arguments) == parameters:
                        self._inline(function, arguments)

    def _statement(self, node: ast.stmt) -> None:
        self.scope.spend()
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            self.scope.refuse(f"{type(node).__name__} is not supported in a test")
        method(node)

    def _pass(self, node: ast.Pass) -> None:
        pass

    def _import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.scope.names[alias.asname or alias.name] = self._module(alias.name)

    def _importfrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if node.module == "typing":
                continue
            of_program = node.module in _PROGRAM
            if of_program and (not self.scope.entry_points or alias.name in self.scope.entry_points):
                self.scope.names[alias.asname or alias.name] = Program(alias.name)
                continue
            module = self._module(node.module or "")
            if alias.name == "*":
                self.scope.names.update(module.contents)
            elif alias.name in module.contents:
                self.scope.names[alias.asname or alias.name] = module.contents[alias.name]
            else:  # a use of it is refused where it occurs, unless the sandbox uses it
                self.scope.names[alias.asname or alias.name] = Module(f"{module.name}:{alias.name}", {})

    def _module(self, name: str) -> Module:
        return Module(name, MODULES.get(name, {}))  # so is a use of what it does not have

    def _functiondef(self, node: ast.FunctionDef) -> None:
        if node.name not in self.scope.entry_points:
            self.scope.names[node.name] = Function(node)

    def _classdef(self, node: ast.ClassDef) -> None:
        for body in methods_of(node, self.scope.refuse):
            outer, self.scope.names = self.scope.names, dict(self.scope.names)
            self.run(body)
            self.scope.names = outer

    def _assign(self, node: ast.Assign) -> None:
        value = self.lowering.value(node.value)
        if isinstance(value, Later) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            value = self.lowering.hold(value)
        for target in node.targets:
            self._bind(target, value)

    def _annassign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._bind(node.target, self.lowering.value(node.value))

    def _augassign(self, node: ast.AugAssign) -> None:
        if not isinstance(node.target, ast.Name):
            self.scope.refuse(f"changing {ast.unparse(node.target)} is not supported in a test")
        current = ast.Name(node.target.id, ast.Load())
        self._bind(node.target, self.lowering.value(ast.BinOp(current, node.op, node.value)))

    def _bind(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Tuple | ast.List) and isinstance(value, Later):
            for index, element in enumerate(target.elts):
                self._bind(element, Later(ast.Subscript(value.node, ast.Constant(index), ast.Load())))
        elif isinstance(target, ast.Subscript) and not isinstance(value, Later):
            container = self.lowering.known_value(target.value)
            if type(container) not in (list, dict) or isinstance(target.slice, ast.Slice):
                self.scope.refuse(f"changing {ast.unparse(target)} is not supported in a test")
            container[self.lowering.known_value(target.slice)] = value
        else:
            for name, part in unpacked(target, value).items():
                if name in self.scope.entry_points:
                    self.scope.refuse(f"the test gives the program's name {name} another value")
                self.scope.names[name] = part

    def _for(self, node: ast.For) -> None:
        if node.orelse:
            self.scope.refuse("a loop with else is not supported in a test")
        for item in list(self.lowering.known_value(node.iter)):
            self._bind(node.target, item)
            self.run(node.body)

    def _if(self, node: ast.If) -> None:
        value = self.lowering.value(node.test)
        if not isinstance(value, Later):
            self.run(node.body if value else node.orelse)
            return
        for body, holds_not in ((node.body, ast.UnaryOp(ast.Not(), value.node)), (node.orelse, value.node)):
            self.unless.append(holds_not)
            self.run(body)
            self.unless.pop()

    def _assert(self, node: ast.Assert) -> None:
        check = self._folded(self.lowering.lowered(node.test))
        if self.unless:
            check = ast.BoolOp(ast.Or(), [*self.unless, check])
        used = tuple(sorted({int(name.id[1:]) for name in names_in(check) if name.id[0] == "$"}))
        if used:
            self._case(Case(check, used, node.lineno))
        elif not truth(evaluate(check, {}, Tolerance(), self.scope.budget)):
            self.scope.refuse("the assertion is false whatever the program does")

    def _folded(self, check: ast.expr) -> ast.expr:
        """Evaluate the known sides of a comparison, so that an invalid one is refused now and not for every sample."""
        if not isinstance(check, ast.Compare):
            return check
        return ast.Compare(self._evaluated(check.left), check.ops, [self._evaluated(side) for side in check.comparators])

    def _evaluated(self, node: ast.expr) -> ast.expr:
        return node if names_in(node) else known(evaluate(node, {}, Tolerance(), self.scope.budget))

    def _case(self, case: Case) -> None:
        if len(self.scope.converted.cases) >= CASES:
            self.scope.refuse(f"more than {CASES} cases")
        self.scope.converted.cases.append(case)

    def _expr(self, node: ast.Expr) -> None:
        value = node.value
        if isinstance(value, ast.Call) and (statement := asserted(value)) is not None:
            self._statement(ast.copy_location(statement, node))
            return
        if isinstance(value, ast.Call) and self.lowering.is_inside(value):
            for argument in value.args:
                if isinstance(argument, ast.Name):
                    self.lowering.hold_known(argument.id)
            self.lowering.lowered(value)
            return
        if isinstance(value, ast.Constant | ast.Name) or (isinstance(value, ast.Call) and self._called(value)):
            return
        self.scope.refuse("a statement whose value is not asserted: what it changes cannot be seen from outside")

    def _called(self, call: ast.Call) -> bool:
        """Run a call that is a statement. Returns False if it is not supported."""
        if isinstance(call.func, ast.Name):
            function = self.scope.names.get(call.func.id)
            if not isinstance(function, Function):
                return call.func.id == "print"
            self.called.add(call.func.id)
            if call.keywords:
                self.scope.refuse("a function of the test that is called with named arguments is not supported")
            self._inline(function, [self.lowering.value(argument, program=True) for argument in call.args])
            return True
        if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
            if ast.unparse(call.func) == "unittest.main":
                return True
            container = self.scope.names.get(call.func.value.id)
            if type(container) in (list, set, dict) and call.func.attr in _MUTATORS:
                getattr(container, call.func.attr)(*map(self.lowering.known_value, call.args))
                return True
        return False

    def _return(self, node: ast.Return) -> None:
        if node.value is not None and not isinstance(node.value, ast.Constant):
            self.scope.refuse("return of a value is not supported in a test")

    def _with(self, node: ast.With) -> None:
        context = node.items[0].context_expr
        if len(node.items) != 1 or not isinstance(context, ast.Call) or ast.unparse(context.func) not in _RAISES:
            self.scope.refuse("with is supported for pytest.raises only")
        self._raises(node.body, context.args[:1])

    def _try(self, node: ast.Try) -> None:
        fails = node.body[1:2] and isinstance(node.body[1], ast.Assert | ast.Raise)
        plain = len(node.handlers) == 1 and not node.orelse and not node.finalbody
        if not fails or not plain or len(node.body) != 2 or not all(map(_does_nothing, node.handlers[0].body)):
            self.scope.refuse("try is supported as `try: call; assert False` with one `except E: pass` only")
        kind = node.handlers[0].type
        self._raises(node.body[:1], [] if kind is None else [kind])

    def _raises(self, body: list[ast.stmt], kinds: list[ast.expr]) -> None:
        elements = kinds[0].elts if kinds and isinstance(kinds[0], ast.Tuple) else kinds
        names = tuple(ast.unparse(element).rpartition(".")[2] for element in elements) or ("BaseException",)
        if self.unless:
            self.scope.refuse("an exception is expected only if the program returns something")
        statement = body[0] if len(body) == 1 else None
        if not isinstance(statement, ast.Expr | ast.Assign):
            self.scope.refuse("an exception is expected of one single call only")
        check = self.lowering.lowered(statement.value)
        if not isinstance(check, ast.Name) or check.id[0] != "$":
            self.scope.refuse("an exception is expected of something that is no call of the program")
        self._case(Case(check, (int(check.id[1:]),), statement.lineno, names))

    def _inline(self, function: Function, arguments: list[Any]) -> None:
        """Walk the body of a function of the test, with its own names."""
        parameters = [argument.arg for argument in function.node.args.args]
        if len(parameters) != len(arguments) or self.depth >= DEPTH:
            self.scope.refuse(f"{function.node.name} cannot be called so in a test")
        outer, self.scope.names = self.scope.names, {**self.scope.names, **dict(zip(parameters, arguments, strict=True))}
        self.depth += 1
        self.run(function.node.body)
        self.depth -= 1
        self.scope.names = outer


def _does_nothing(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assert):
        return isinstance(node.test, ast.Constant)
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
