"""Tests become cases: known values are written into calls, and what cannot be converted is refused."""

import pytest

from filters.code.bindings import RefusedError
from filters.code.cases import convert, holds
from filters.code.values import Tolerance


def test_known_values_are_written_into_the_calls() -> None:
    """Loops and assignments of the test are walked, so that each call is complete."""
    converted = convert(["n = 2\nfor x in [1, n]:\n    assert f(x, [n] * 2) == x"])
    assert converted.calls == ["f(1, [2, 2])", "f(2, [2, 2])"]
    assert converted.entry_points == {"f"}


def test_a_case_holds_for_values_and_not_for_faults() -> None:
    """An assertion that raises on a value does not hold."""
    [case] = convert(["assert f(1) < 3"]).cases

    assert holds(case, {0: 2}, Tolerance())
    assert not holds(case, {0: 4}, Tolerance())
    assert not holds(case, {0: None}, Tolerance())


def test_a_call_that_must_raise_is_a_case() -> None:
    converted = convert(["import pytest\nwith pytest.raises((KeyError, ValueError)):\n    f(1)"])

    assert converted.calls == ["f(1)"]
    assert converted.cases[0].raises == ("KeyError", "ValueError")


def test_functions_of_the_test_are_walked() -> None:
    """`check` gets the first entry point, unless the test calls it itself; test functions are called once."""
    harness = "def check(candidate):\n    assert candidate(1) == 2\ndef test_more():\n    assert f(2) == 4"

    assert convert([harness], ["f"]).calls == ["f(1)", "f(2)"]
    assert convert([f"{harness}\ncheck(f)"], ["f"]).calls == ["f(1)", "f(2)"]


@pytest.mark.parametrize(
    ("test", "why"),
    [
        ("x = 1", "no assertion calls the program"),
        ("for x in f(1):\n    assert f(x)", "line 1: f\\(1\\) depends on what the program returns"),
        ("f = 3\nassert f(1)", "the test gives the program's name f another value"),
        ("x" * 1_000_001, "longer than 1000000 characters"),
    ],
)
def test_what_cannot_be_converted_is_refused(test: str, why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        convert([test], ["f"])
