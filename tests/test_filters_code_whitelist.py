"""Operators, functions and methods that assertions may use."""

import ast
from collections.abc import Callable
from functools import partial

import pytest

from filters.code.whitelist import BUILTINS, MODULES, NotAllowedError, TooMuchError, binary, method


def test_a_bool_is_no_number() -> None:
    for function in (BUILTINS["abs"], MODULES["math"]["sqrt"]):
        with pytest.raises(TypeError, match="a truth value is no number"):
            function(True)
    with pytest.raises(TypeError, match="a truth value is no number"):
        binary(ast.Add, 1, True)
    assert not BUILTINS["isinstance"](True, int)


def test_results_are_limited() -> None:
    calls: tuple[Callable[[], object], ...] = (
        lambda: BUILTINS["pow"](10, 10**6),
        partial(MODULES["math"]["factorial"], 2_001),
        lambda: BUILTINS["round"](1.5, 401),
        lambda: method("a" * 10_000, "replace")("a", "b" * 10_000),
    )
    for call in calls:
        with pytest.raises(TooMuchError):
            call()


def test_methods_of_other_types_are_not_allowed() -> None:
    assert method([1, 1], "count")(1) == 2
    for value, name in (([], "sort"), ("", "format"), (object(), "__init__")):
        with pytest.raises(NotAllowedError, match=f"the method {name} of {type(value).__name__}"):
            method(value, name)
