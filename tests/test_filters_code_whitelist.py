"""Operators, functions and methods that assertions may use."""

import ast
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from filters.code.values import CannotTellError
from filters.code.whitelist import BUILTINS, MODULES, NotAllowedError, TooMuchError, binary, method, random_numbers


def test_a_bool_is_a_number_as_in_python() -> None:
    assert BUILTINS["abs"](True) == MODULES["math"]["sqrt"](True) == 1
    assert binary(ast.Add, 1, True) == 2
    assert BUILTINS["isinstance"](True, int)


@pytest.mark.parametrize(
    ("a", "b", "named", "close"),
    [
        ([0.1 + 0.2, 1], [0.3, 1], {}, True),
        ([[1.0]], [[1.1]], {}, False),
        ([[1.0]], [[1.1]], {"atol": 0.2}, True),
        ([1.0, 2.0], 1.0, {}, False),
        (1.0, [[1.0], [1.0]], {}, True),
        ([], [], {}, True),
        (float("nan"), float("nan"), {}, False),
        (float("nan"), float("nan"), {"equal_nan": True}, True),
    ],
)
def test_allclose_is_numpys(a: Any, b: Any, named: dict[str, Any], close: bool) -> None:
    assert bool(MODULES["numpy"]["allclose"](a, b, **named)) is close is bool(np.allclose(a, b, **named))


@pytest.mark.parametrize(
    ("a", "b", "error"),
    [
        ([1, 2], [[1, 1], [2, 2]], CannotTellError),
        ([0.1], [0.1, 0.1], CannotTellError),
        ([1, 2, 3], [[1, 2, 3], [1, 2, 3]], CannotTellError),
        ([], [1.0], CannotTellError),
        ([1, 2], [1, 2, 3], ValueError),
        ([1, [1]], [1, 1], ValueError),
        (1, [1, [1]], ValueError),
    ],
)
def test_allclose_of_other_shapes_is_never_true(a: Any, b: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        MODULES["numpy"]["allclose"](a, b)


def test_random_numbers_are_those_of_the_test() -> None:
    def drawn() -> list[int]:
        with random_numbers():
            return [MODULES["random"]["randint"](0, 9) for _ in range(5)]

    assert drawn() == drawn()


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
