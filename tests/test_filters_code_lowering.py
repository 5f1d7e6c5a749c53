"""Calls of the program go to the sandbox; known values are computed."""

import ast

import pytest

from filters.code.bindings import Later, RefusedError, Scope
from filters.code.lowering import Lowering


def lowering(**names: object) -> Lowering:
    scope = Scope(("f",))
    scope.names.update(names)
    return Lowering(scope)


def parsed(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("f(n + 1)", ["f(3)"]),
        ("f(1)[0] + f(2)", ["f(1)[0]", "f(2)"]),
        ("f().size(n)", ["f().size(2)"]),
        ("f([n] * 2, key=n)", ["f([2, 2], key=2)"]),
        ("[f(x) for x in range(2)]", ["f(0)", "f(1)"]),
        ("sorted(f(n), key=lambda x: -x)", ["f(2)"]),
    ],
)
def test_calls_are_complete(text: str, calls: list[str]) -> None:
    lowered = lowering(n=2)

    assert isinstance(lowered.value(parsed(text)), Later)
    assert lowered.scope.converted.calls == calls


def test_known_values_are_computed() -> None:
    assert lowering(n=2).value(parsed("[n * x for x in range(3)]")) == [0, 2, 4]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("m", "the name m is not known"),
        ("f", "f is used in another way than by calling it"),
        ("g(1)", "the name g is not known"),
        ("sorted([1], key=lambda x: [f(y) for y in range(2)])", "inside of two comprehensions"),
        ("sorted([1], key=lambda x: f(x))", "depends on a lambda's parameter"),
        ("f([f(x) for x in range(2)])", "a comprehension over the program within its own call"),
    ],
)
def test_other_uses_are_refused(text: str, why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        lowering().value(parsed(text))
