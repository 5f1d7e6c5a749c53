"""Assertions are evaluated by whitelist, within limits."""

import ast
from typing import Any

import pytest

from filters.code.bindings import known
from filters.code.evaluation import evaluate, unpacked
from filters.code.values import Tolerance
from filters.code.whitelist import BUILTINS, NotAllowedError, TooMuchError


class Known(ast.NodeTransformer):
    """Replaces the names of whitelisted functions by the functions."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return known(BUILTINS[node.id]) if node.id in BUILTINS else node


def value_of(text: str, **values: Any) -> Any:
    return evaluate(Known().visit(ast.parse(text, mode="eval").body), values, Tolerance())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x[0] + x[-1]", 4),
        ("sorted(x, key=lambda item: -item)[:2]", [3, 2]),
        ("{item: item ** 2 for item in x if item > 1}", {2: 4, 3: 9}),
        ("f'{x[0]} and {x[1]}'", "1 and 2"),
        ("1 < len(x) <= 3 and 2 in x", True),
        ("x is None or not x", False),
        ("[*x, *range(2)]", [1, 2, 3, 0, 1]),
        ("'a-b'.replace('-', '+')", "a+b"),
        ("max(x) if x else 0", 3),
    ],
)
def test_expressions_have_their_value(text: str, value: Any) -> None:
    assert value_of(text, x=[1, 2, 3]) == value


@pytest.mark.parametrize(
    "text", ["x.__class__", "x.append(1)", "open", "'%s' % x", "f'{x!r}'", "(lambda *a: a)(1)", "x is x", "(y := 1)"]
)
def test_other_expressions_are_not_allowed(text: str) -> None:
    with pytest.raises(NotAllowedError):
        value_of(text, x=[1])


@pytest.mark.parametrize(
    "text", ["10 ** 10 ** 6", "1 << 10 ** 6", "'a' * 10 ** 6", "range(10 ** 6)", "[0 for a in range(60000) for b in range(9)]"]
)
def test_work_is_limited(text: str) -> None:
    with pytest.raises(TooMuchError):
        value_of(text)


def test_targets_bind_their_parts() -> None:
    target = ast.parse("[a, (b, c)] = 0").body[0].targets[0]  # type: ignore[attr-defined]

    assert unpacked(target, [1, (2, 3)]) == {"a": 1, "b": 2, "c": 3}
    with pytest.raises(ValueError, match=r"shorter|longer"):
        unpacked(target, [1])
