"""Verdicts from what the sandbox returned."""

from typing import Literal

import pytest

from filters.code.outcomes import of_calls, of_pairs, without_absent
from filters.code.reference import read
from filters.code.values import Tolerance
from filters.sandbox import Frame, Other, Ran
from schemas.sample import Verdict

TESTS = read(["assert f(1) == 2", "assert f(2) == 4"])
RIGHT, WRONG = Frame(2), Frame(3)


@pytest.mark.parametrize(
    ("ran", "reason", "score"),
    [
        (Ran("done", (Frame(2), Frame(4))), "", 1.0),
        (Ran("done", (Frame(2), Frame(5))), "wrong_output", 0.5),
        (Ran("timeout", (Frame(3),)), "wrong_output", 0.0),
        (Ran("timeout", (Frame(2),)), "timeout", None),
        (Ran("crash", (Frame(2),)), "crash", None),
        (Ran("tampering", (Frame(3),)), "tampering", None),
        (Ran("error"), "filter_error", None),
        (Ran("done", (Frame(2), Frame(None, ("ValueError", "no")))), "raised", 0.5),
        (Ran("done", (Frame(None, ("NameError", "name 'f' is not defined")),) * 2), "no_entry_point", 0.0),
        (Ran("done", failed=("SyntaxError", "invalid")), "syntax_error", 0.0),
        (Ran("done", failed=("ImportError", "no")), "raised", 0.0),
        (Ran("done", (Frame(Other("generator")), Frame(4))), "wrong_output", 0.5),
        (Ran("done", (Frame(Other("solution.P")), Frame(4))), "unverifiable", None),
        (Ran("done", (Frame(None, ("ModuleNotFoundError", "No module named 'numpy.linalg'")),) * 2), "missing_package", None),
        (Ran("done", failed=("ModuleNotFoundError", "No module named 'numpy'")), "missing_package", None),
    ],
)
def test_a_wrong_value_counts_and_an_unfinished_program_does_not(ran: Ran, reason: str, score: float | None) -> None:
    verdict = of_calls(TESTS, ran, Tolerance())

    assert (verdict.reason, verdict.score) == (reason, score)


def test_a_machine_that_is_to_blame_is_noted_for_the_next_run() -> None:
    kinds: tuple[Literal["timeout"], Literal["crash"]] = ("timeout", "crash")
    for kind in kinds:
        verdict = of_calls(TESTS, Ran(kind, (Frame(2),), broken=True), Tolerance())

        assert (verdict.outcome, verdict.reason, (verdict.detail or {})["broken"]) == ("undecided", kind, True)
        assert "broken" not in (of_calls(TESTS, Ran(kind, (Frame(2),)), Tolerance()).detail or {})


def test_an_expected_exception_matches_by_class() -> None:
    tests = read(["import pytest\nwith pytest.raises(LookupError):\n    f(1)"])

    def reason(kind: str) -> str:
        return of_calls(tests, Ran("done", (Frame(None, (kind, "")),)), Tolerance()).reason

    assert [reason(kind) for kind in ("KeyError", "LookupError", "ValueError", "Own")] == ["", "", "wrong_output", "wrong_output"]


@pytest.mark.parametrize(
    ("expected", "kind", "reason"),
    [
        ("ValueError", "solution.ValueError", "wrong_output"),
        ("LookupError", "solution.KeyError", "wrong_output"),
        ("Exception", "solution.ValueError", ""),
        ("Own", "solution.Own", ""),
        ("Own", "solution.Other", "wrong_output"),
    ],
)
def test_an_exception_of_the_program_matches_by_no_built_in_name(expected: str, kind: str, reason: str) -> None:
    """A class of its own is expected by its name, and by Exception."""
    tests = read([f"import pytest\nwith pytest.raises({expected}):\n    f(1)"])

    assert of_calls(tests, Ran("done", (Frame(None, (kind, "")),)), Tolerance()).reason == reason


@pytest.mark.parametrize(
    ("output", "how", "reason"),
    [
        ("1 \n2\n\n", "lines", ""),
        ("1\n 2", "lines", "wrong_output"),
        ("1 2.0000000001", "tokens", "wrong_output"),
        ("1\n2\n", "exact", "wrong_output"),
    ],
)
def test_standard_output_is_compared_outside(output: str, how: str, reason: str) -> None:
    tests = read({"inputs": [""], "outputs": ["1\n2"]})

    assert of_pairs(tests, [Ran("done", stdout=output)], how, Tolerance()).reason == reason


def test_output_that_was_cut_or_followed_by_an_error_is_wrong() -> None:
    tests = read({"inputs": [""], "outputs": ["1"]})
    runs = [Ran("done", stdout="1", stdout_cut=True), Ran("done", stdout="1", failed=("SystemExit", "1"))]

    assert [of_pairs(tests, [ran], "lines", Tolerance()).reason for ran in runs] == ["wrong_output", "raised"]


@pytest.mark.parametrize(
    ("program", "package"),
    [
        ("try:\n    import numpy as np\nexcept ImportError:\n    np = None", "numpy"),
        ("try: from scipy.special import comb\nexcept Exception: pass", "scipy"),
        ("import os, pandas as pd  # tables", "pandas"),
        ("import os; import sympy.abc", "sympy"),
        ("import turtle", "turtle"),
        ("def f():\n    from tkinter import Tk", "tkinter"),
        ("import os.path, re as r\nfrom math import pi\nfrom . import x\nimport __main__", None),
        ("# import numpy\ntext = 'import numpy'\n>>> import numpy", None),
        ("import the values of a list\nfrom here on count", None),
        ("import\nfrom\nfrom x\nimport ,", None),
    ],
)
def test_a_program_is_not_wrong_where_a_package_that_it_imports_may_be_absent(program: str, package: str | None) -> None:
    for reason in ("raised", "wrong_output", "no_entry_point"):
        drop = Verdict.drop(reason, 0.5)
        wanted = drop if package is None else Verdict.undecided("missing_package", package=package)

        assert without_absent(drop, program) == wanted
    for verdict in (Verdict.keep(1.0), Verdict.drop("syntax_error", 0.0), Verdict.undecided("timeout")):
        assert without_absent(verdict, program) == verdict
