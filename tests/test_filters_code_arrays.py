"""Values of numpy in assertions: as numpy computes them, within a limit on the work."""

import ast
from typing import Any

import numpy as np
import pytest

from filters.code import arrays
from filters.code.arrays import FUNCTIONS, TESTING, TooLargeError, computed, literal, truth
from filters.code.bindings import literal as written
from filters.code.evaluation import evaluate
from filters.code.values import CannotTellError, Tolerance, same
from filters.code.whitelist import NotAllowedError, TooMuchError
from filters.sandbox import Other


def value_of(text: str, **values: Any) -> Any:
    return evaluate(ast.parse(text, mode="eval").body, values, Tolerance())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a + 1", np.array([2, 3, 4])),
        ("-a", np.array([-1, -2, -3])),
        ("a % 2", np.array([1, 0, 1])),
        ("a == [1, 0, 3]", np.array([True, False, True])),
        ("a < 2", np.array([True, False, False])),
        ("a[1:]", np.array([2, 3])),
        ("a.shape", (3,)),
        ("a.sum()", 6),
        ("a.reshape(3, 1).T", np.array([[1, 2, 3]])),
        ("a.tolist()", [1, 2, 3]),
    ],
)
def test_operators_are_numpys(text: str, expected: Any) -> None:
    found = value_of(text, a=np.array([1, 2, 3]))

    assert type(found) is type(expected) or not isinstance(expected, np.ndarray)
    assert np.array_equal(found, expected)


def test_an_array_of_several_items_is_neither_true_nor_false() -> None:
    with pytest.raises(CannotTellError, match="neither all nor any"):
        truth(np.array([True, True]))
    assert truth(np.array([True])) and not truth(np.array(0))


def test_a_list_with_an_array_equals_nothing_that_can_be_told() -> None:
    with pytest.raises(CannotTellError):
        same([np.array([1])], [[1]], Tolerance())


@pytest.mark.parametrize(
    ("value", "expected", "equal"),
    [
        (np.int64(3), 3, True),
        (np.int64(3), 4, False),
        (np.float64(0.1 + 0.2), 0.3, True),
        (np.float32(0.1), 0.1, True),
        (np.float32(0.1), 0.11, False),
        (np.bool_(True), True, True),
        (np.str_("a"), "a", True),
        ((np.int8(1), [np.float16(0.5)]), (1, [0.5]), True),
    ],
)
def test_a_scalar_equals_a_number(value: Any, expected: Any, equal: bool) -> None:
    assert same(value, expected, Tolerance()) is equal


@pytest.mark.parametrize("text", ["a.reshape(-1, 1) + a", "a.reshape(-1, 1) == a", "a.reshape(-1, 1) < a"])
def test_nothing_large_is_made(text: str) -> None:
    with pytest.raises(TooMuchError, match="too large"):
        value_of(text, a=np.zeros(1_000))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("zeros", ((1_000, 1_000),)),
        ("ones", (10**9,)),
        ("arange", (10**9,)),
        ("arange", (0, 1, 1e-9)),
        ("linspace", (0, 1, 10**9)),
        ("eye", (10**6,)),
    ],
)
def test_no_function_makes_a_large_array(name: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TooLargeError):
        FUNCTIONS[name](*arguments)


def test_what_is_still_in_the_sandbox_cannot_be_told() -> None:
    for function in (FUNCTIONS["array_equal"], FUNCTIONS["allclose"], TESTING["assert_array_equal"]):
        with pytest.raises(CannotTellError, match="Decimal"):
            function([Other("Decimal")], [1])


def test_functions_are_numpys() -> None:
    assert FUNCTIONS["array_equal"]([1, 2], [1, 2]) and not FUNCTIONS["array_equal"]([1, 2], [1, 2, 3])
    assert FUNCTIONS["mean"]([1, 3]) == 2
    assert np.array_equal(FUNCTIONS["max"]([[1, 4], [3, 2]], 0), [3, 4])
    assert TESTING["assert_allclose"]([1.0], [1.0 + 1e-9]) and not TESTING["assert_allclose"]([1.0], [1.1])
    assert TESTING["assert_allclose"]([1.0], [1.1], rtol=0.2)
    assert not TESTING["assert_array_equal"]([1, 2], [1, 2, 3])


@pytest.mark.parametrize(
    "value",
    [np.array([[1, 2], [3, 4]]), np.array([0.5, np.inf]), np.array(["a", "bc"]), np.zeros((0, 3)), np.float32(0.5), np.True_],
)
def test_a_value_is_written_into_a_call(value: Any) -> None:
    again = eval(literal(value, written))

    assert type(again) is type(value) and again.dtype == value.dtype and np.array_equal(again, value)


def test_an_array_of_objects_is_not_written() -> None:
    with pytest.raises(TypeError, match="cannot be written"):
        literal(np.array([None]), written)


def test_only_some_attributes_are_used_outside() -> None:
    with pytest.raises(NotAllowedError, match="the attribute ctypes of ndarray"):
        value_of("a.ctypes", a=np.zeros(1))


def test_errors_of_numpy_are_raised() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        computed(np.add, np.zeros(2), np.zeros(3))
    assert arrays.ITEMS == 100_000
