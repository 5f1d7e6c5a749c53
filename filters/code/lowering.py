"""Lowers the expressions of a test: calls of the program go to the sandbox, known values are computed."""

import ast
import copy
from collections.abc import Sequence
from typing import Any

from filters.code.arrays import ATTRIBUTES
from filters.code.bindings import Function, Held, Later, Module, Program, Scope, known, literal, names_in
from filters.code.evaluation import evaluate, unpacked
from filters.code.values import Tolerance
from filters.code.whitelist import BUILTINS, METHODS, MODULES, TRUSTED

LITERAL_CHARS = 60_000
"""Longest text of a value in a call or a comparison: no value of more than 64 KiB leaves the sandbox."""
_MISSING = object()
_INSIDE = frozenset("next iter list tuple set frozenset sorted dict len sum min max str repr int float".split())
"""Built-in functions that are applied to what the program returns inside the sandbox: generators and objects cannot leave it, and
what these functions return is no more to be believed than what the program does. Not all, any and bool: a program that replaces
them would guess right."""
_FUNCTIONS = _INSIDE | {name for name, value in BUILTINS.items() if callable(value)}
_COMPREHENSIONS = (ast.ListComp, ast.GeneratorExp, ast.SetComp, ast.DictComp)


class Lowering:
    """Lowers expressions in a scope; calls of the program are added to what the scope has collected."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def value(self, node: ast.expr, program: bool = False) -> Any:
        """Return what a name is bound to: a known value, or an expression for Later. `program` allows a name of the program."""
        if program and isinstance(node, ast.Name) and self.scope.is_program(node):
            bound = self.scope.names.get(node.id)
            return bound if isinstance(bound, Program) else Program(node.id)
        if self._is_made_inside(node):
            return self._given(node)
        lowered = self.lowered(node)
        if not any(name.id[0] == "$" for name in names_in(lowered)):
            return evaluate(lowered, {}, Tolerance(), self.scope.budget)
        return Later(lowered)

    def known_value(self, node: ast.expr) -> Any:
        """Return a value that does not depend on the program; refuses the test if it does."""
        value = self.value(node)
        if isinstance(value, Later):
            self.scope.refuse(f"{ast.unparse(node)[:80]} depends on what the program returns")
        return value

    def lowered(self, node: ast.expr, local: frozenset[str] = frozenset()) -> ast.expr:
        """Replace known names and calls of the program in an expression. `local` names are bound inside it."""
        self.scope.spend()
        if self.is_inside(node, local):
            return self._call(node, local)
        if (body := self._function_body(node, local)) is not None:
            return body
        if isinstance(node, ast.Name):
            return node if node.id in local else self._looked_up(node)
        if isinstance(node, (*_COMPREHENSIONS, ast.Lambda)):
            return self._nested(node, local)
        if isinstance(node, ast.Attribute):
            return self._attribute(node, local)
        lowered = copy.copy(node)
        if isinstance(lowered, ast.Call) and isinstance(lowered.func, ast.Attribute) and not self._module_of(lowered.func):
            lowered.func = ast.Attribute(self.lowered(lowered.func.value, local), lowered.func.attr, ast.Load())
        elif isinstance(lowered, ast.Call):
            lowered.func = self.lowered(lowered.func, local)
            if not isinstance(lowered.func, ast.Constant) or lowered.func.value not in TRUSTED:
                self.scope.refuse(f"{ast.unparse(node)[:80]}: neither the program's nor a function that a test may call")
        for name, child in ast.iter_fields(lowered):
            if isinstance(lowered, ast.Call) and name == "func":
                continue
            if isinstance(child, list):
                setattr(lowered, name, [self._part(item, local) for item in child])
            else:
                setattr(lowered, name, self._part(child, local))
        return lowered

    def _part(self, child: Any, local: frozenset[str]) -> Any:
        if isinstance(child, ast.expr):
            return self.lowered(child, local)
        if isinstance(child, ast.keyword):
            return ast.keyword(child.arg, self.lowered(child.value, local))
        return child

    def _module_of(self, node: ast.Attribute) -> Module | None:
        bound = self.scope.names.get(node.value.id) if isinstance(node.value, ast.Name) else None
        if isinstance(node.value, ast.Attribute) and (outer := self._module_of(node.value)) is not None:
            name = f"{outer.name}.{node.value.attr}"
            return Module(name, MODULES[name]) if name in MODULES else None
        return bound if isinstance(bound, Module) else None

    def _attribute(self, node: ast.Attribute, local: frozenset[str]) -> ast.expr:
        module = self._module_of(node)
        if module is None and node.attr in ATTRIBUTES:
            return ast.Attribute(self.lowered(node.value, local), node.attr, ast.Load())
        if module is None or node.attr not in module.contents:
            self.scope.refuse(f"{ast.unparse(node)[:80]} is not supported in a test")
        return known(module.contents[node.attr])

    def _looked_up(self, node: ast.Name) -> ast.expr:
        bound = self.scope.names.get(node.id, BUILTINS.get(node.id, _MISSING))
        if isinstance(bound, Held) and bound.changes:
            return self._call(node, frozenset())
        if isinstance(bound, Later):
            return bound.node
        if bound is _MISSING:
            self.scope.refuse(f"the name {node.id} is not known")
        if isinstance(bound, Program | Function | Module):
            self.scope.refuse(f"{node.id} is used in another way than by calling it")
        # A copy: what the test changes later must not change what it asserts here.
        return known(copy.deepcopy(bound) if isinstance(bound, list | dict | set | tuple) else bound)

    def _nested(self, node: Any, local: frozenset[str]) -> ast.expr:
        """Lower a comprehension or lambda. A comprehension that calls the program is expanded over its known values."""
        if isinstance(node, ast.Lambda):
            inner = local | {argument.arg for argument in node.args.args}
            return ast.Lambda(node.args, self.lowered(node.body, inner))
        if any(self._calls_program(part, local) for part in ast.walk(node) if isinstance(part, ast.expr)):
            if local:
                self.scope.refuse("a call of the program inside of two comprehensions is not supported")
            return self._expanded(node)
        lowered: Any = copy.copy(node)
        inner = local
        lowered.generators = []
        for generator in node.generators:
            iterated = self.lowered(generator.iter, inner)
            inner = inner | {name.id for name in names_in(generator.target)}
            conditions = [self.lowered(test, inner) for test in generator.ifs]
            lowered.generators.append(ast.comprehension(generator.target, iterated, conditions, 0))
        for name in ("elt", "key", "value"):
            if hasattr(lowered, name):
                setattr(lowered, name, self.lowered(getattr(lowered, name), inner))
        nested: ast.expr = lowered
        return nested

    def _expanded(self, node: Any) -> ast.expr:
        elements: list[tuple[ast.expr, ...]] = []
        parts = [getattr(node, name) for name in ("elt", "key", "value") if hasattr(node, name)]

        def each(generators: Sequence[ast.comprehension]) -> None:
            if not generators:
                elements.append(tuple(self.lowered(part) for part in parts))
                return
            outer = self.scope.names
            for item in list(self.known_value(generators[0].iter)):
                self.scope.names = {**outer, **unpacked(generators[0].target, item)}
                if all(self.known_value(test) for test in generators[0].ifs):
                    each(generators[1:])
            self.scope.names = outer

        each(node.generators)
        if isinstance(node, ast.DictComp):
            return ast.Dict([key for key, _ in elements], [value for _, value in elements])
        items = [element[0] for element in elements]
        return ast.Set(items) if isinstance(node, ast.SetComp) and items else ast.List(items, ast.Load())

    def is_inside(self, node: ast.expr, local: frozenset[str] = frozenset()) -> bool:
        """Whether an expression is evaluated in the sandbox: a call of the program, or one of _INSIDE on such a value."""
        if self._calls_program(node, local):
            return True
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.keywords or len(node.args) != 1:
            return False
        name, argument = node.func.id, node.args[0]
        if name not in _INSIDE or name in local or name in self.scope.names:
            return False
        held = self._bound(argument) if isinstance(argument, ast.Name) and argument.id not in local else None
        is_held = isinstance(held, Held) and not held.changes and not held.given  # what is of the test is computed outside
        return is_held or self.is_inside(argument, local)

    def hold(self, value: Later) -> Later:
        """Keep the value of a call of the program in the sandbox, under a name."""
        if type(value) is not Later or not isinstance(value.node, ast.Name):
            return value
        number, calls = int(value.node.id[1:]), self.scope.converted.calls
        name = f"_object_{number}"
        calls[number] = f"({name} := {calls[number]})"
        return Held(value.node, name)

    def _given(self, node: ast.expr) -> Later:
        """Make a value with a package, in the sandbox, where the program's calls take it."""
        name = f"_object_{len(self.scope.converted.calls)}"
        value = self._call(node, frozenset())
        self.scope.converted.calls[-1] = f"({name} := {self.scope.converted.calls[-1]})"
        return Held(value, name, given=True)

    def _is_made_inside(self, node: ast.expr) -> bool:
        """Whether an expression is made with a package of which only the sandbox has a use: `pd.DataFrame({"a": [1]})["a"]`."""
        bound = self._bound(_root(node))
        return isinstance(bound, Module) and bound.is_inside and not isinstance(node, ast.Name)

    def hold_known(self, name: str) -> None:
        """Give a list, set or dict of the test to the sandbox, where the program may change it."""
        bound = self.scope.names.get(name)
        if type(bound) in (list, dict, set):
            calls = self.scope.converted.calls
            calls.append(f"(_object_{len(calls)} := {literal(bound)})")
            self.scope.names[name] = Held(ast.Name(f"${len(calls) - 1}", ast.Load()), f"_object_{len(calls) - 1}", changes=True)

    def _bound(self, node: ast.expr) -> Any:
        return self.scope.names.get(node.id) if isinstance(node, ast.Name) else None

    def _function_body(self, node: ast.expr, local: frozenset[str]) -> ast.expr | None:
        """The value of a function of the test that only returns, for the arguments of a call; None for any other expression."""
        function = self._bound(node.func) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None
        if not isinstance(node, ast.Call) or not isinstance(function, Function) or node.keywords or local:
            return None
        parameters = [argument.arg for argument in function.node.args.args]
        if len(parameters) != len(node.args):
            self.scope.refuse(f"{function.node.name} cannot be called so in a test")
        outer = self.scope.names
        self.scope.names = {**outer, **dict(zip(parameters, [self.value(argument) for argument in node.args], strict=True))}
        try:
            return self._returned(function.node.body, function.node.name)
        finally:
            self.scope.names = outer

    def _returned(self, body: Sequence[ast.stmt], name: str) -> ast.expr:
        """What a body of returns and conditions returns."""
        for position, statement in enumerate(body):
            if isinstance(statement, ast.Return):
                return known(None) if statement.value is None else self.lowered(statement.value)
            if isinstance(statement, ast.If):
                test = self.value(statement.test)
                rest = [*statement.orelse, *body[position + 1 :]]
                if not isinstance(test, Later):
                    return self._returned([*statement.body, *body[position + 1 :]] if test else rest, name)
                return ast.IfExp(test.node, self._returned(statement.body, name), self._returned(rest, name))
            if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                self.scope.refuse(f"{name} is used as a value, and does more than return one")
        return known(None)

    def _calls_program(self, node: ast.expr, local: frozenset[str]) -> bool:
        """Whether the expression is a call of the program, or is derived from one: `f(x)`, `f(x)[0]`, `Stack().size()`, and of a
        held object `stack.size()` and `stack.top`."""
        inner, last = _root(node), _first(node)
        if not isinstance(inner, ast.Name) or inner.id in local:
            return False
        if isinstance(held := self._bound(inner), Held):
            if held.given:
                return False
            if isinstance(last, ast.Subscript):  # of an object; items of a list leave the sandbox with it
                return any(part.attr not in METHODS for part in _chain(node) if isinstance(part, ast.Attribute))
            called = [part.func for part in _chain(node) if isinstance(part, ast.Call)]
            return isinstance(last, ast.Attribute) and (held.changes or last.attr not in METHODS or last not in called)
        return any(isinstance(part, ast.Call) for part in _chain(node)) and self.scope.is_program(inner)

    def _call(self, node: ast.expr, local: frozenset[str]) -> ast.expr:
        """Add a call for the sandbox. Returns the name of its value."""
        if local & {name.id for name in names_in(node)}:
            self.scope.refuse("a call of the program that depends on a lambda's parameter is not supported")
        for part in _chain(node):
            if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and not self._is_made_inside(node):
                self._refuse_given(part)
        text = ast.unparse(ast.fix_missing_locations(self._inlined(node, frozenset())))
        if len(text) > LITERAL_CHARS:
            self.scope.refuse("a call that is too long")
        calls = self.scope.converted.calls
        calls.append(text)
        return ast.Name(f"${len(calls) - 1}", ast.Load())

    def _refuse_given(self, call: ast.Call) -> None:
        """Refuse a value of a package as an argument of what the program returned, which may call anything equal to it."""
        for name in (name for argument in (*call.args, *call.keywords) for name in names_in(argument)):
            bound = self._bound(name)
            if (isinstance(bound, Held) and bound.given) or (isinstance(bound, Module) and bound.is_inside):
                self.scope.refuse(f"{name.id} is given to what the program returned, which cannot be asked about it")

    def _inlined(self, node: Any, local: frozenset[str]) -> Any:
        """Write known names and values into a call for the sandbox. Names of the program stay as they are."""
        if isinstance(node, ast.expr) and self._is_known(node, local):
            return ast.parse(literal(self.known_value(node)), mode="eval").body
        if isinstance(node, ast.Name):
            return self._inlined_name(node, local)
        if isinstance(node, ast.Lambda):
            local = local | {argument.arg for argument in node.args.args}
            return ast.Lambda(node.args, self._inlined(node.body, local))
        if isinstance(node, _COMPREHENSIONS):
            self.scope.refuse("a comprehension over the program within its own call is not supported")
        inlined = copy.copy(node)
        for name, child in ast.iter_fields(inlined):
            if isinstance(child, list):
                setattr(inlined, name, [self._inlined(item, local) if isinstance(item, ast.AST) else item for item in child])
            elif isinstance(child, ast.expr):
                setattr(inlined, name, self._inlined(child, local))
        return inlined

    def _is_known(self, node: ast.expr, local: frozenset[str]) -> bool:
        """Whether an expression in a call is a known value, which can be written out."""
        if isinstance(node, ast.Lambda | ast.Starred | ast.Slice) or self.scope.mentions_program(node):
            return False
        bound = [self._bound(name) for name in names_in(node) if name.id not in local]
        if any(isinstance(value, Later) or (isinstance(value, Module) and value.is_inside) for value in bound):
            return False
        is_builtin = isinstance(node, ast.Name) and node.id not in self.scope.names and node.id in _FUNCTIONS
        return not is_builtin and not local & {name.id for name in names_in(node)}

    def _inlined_name(self, node: ast.Name, local: frozenset[str]) -> ast.expr:
        bound, used = self.scope.names.get(node.id), self.scope.converted.entry_points
        if isinstance(bound, Program):
            used.add(bound.name)
            return ast.Name(bound.name, ast.Load())
        if isinstance(bound, Module) and bound.is_inside and node.id not in local:
            return bound.imported
        if isinstance(bound, Held):
            return ast.Name(bound.name, ast.Load())
        if isinstance(bound, Later):
            self.scope.refuse(f"{node.id} is a value of the program that is given back to it")
        if node.id not in local and node.id not in _FUNCTIONS:
            used.add(node.id)
        return node


def _chain(node: ast.expr) -> list[ast.Call | ast.Attribute | ast.Subscript]:
    """The calls, attributes and items that an expression takes of its root, the last one first."""
    parts: list[ast.Call | ast.Attribute | ast.Subscript] = []
    while isinstance(node, ast.Call | ast.Attribute | ast.Subscript):
        parts.append(node)
        node = node.func if isinstance(node, ast.Call) else node.value
    return parts


def _first(node: ast.expr) -> ast.Attribute | ast.Subscript | None:
    """The attribute or item that an expression takes of its root first, or of what a call of the root returns."""
    return next((part for part in reversed(_chain(node)) if not isinstance(part, ast.Call)), None)


def _root(node: ast.expr) -> ast.expr:
    parts = _chain(node)
    if not parts:
        return node
    return parts[-1].func if isinstance(parts[-1], ast.Call) else parts[-1].value
