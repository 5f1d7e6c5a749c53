# ruff: noqa: E501 - a program stays in one line
"""code_tests: every form of reference, what a test may assert, and the reason of each failure."""

import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import pytest

import filters
from filters.base import FilterError
from filters.code.text import fenced
from filters.judging import judge
from filters.sandbox import Job, Ran, Sandbox
from filters.tools import Tools
from helpers.code_samples import DOUBLE, HUMANEVAL, MBPP
from schemas.sample import Outcome, Verdict, to_json

TOOLS = Tools()


@pytest.fixture(scope="module", autouse=True)
def _closed_at_the_end() -> Iterator[None]:
    with TOOLS:
        yield


def judged(reference: Any, *completions: str, **parameters: Any) -> list[Verdict]:
    """The verdicts on completions, which all have one reference."""
    table = pa.table({"completion": list(completions), "reference": [to_json(reference)] * len(completions)})
    return list(filters.build("code_tests", parameters, TOOLS).judge(table))


def results(reference: Any, *completions: str, **parameters: Any) -> list[str]:
    return [verdict.reason or verdict.outcome.value for verdict in judged(reference, *completions, **parameters)]


@pytest.mark.parametrize(
    ("reference", "right", "wrong"),
    [
        (["assert f(2) == 4", "assert f('a') == 'aa'"], DOUBLE, "def f(x): return x + x if x == 2 else x"),
        (["assert f(2) == 4\nassert f(3) == 6"], DOUBLE, "def f(x): return x + 2"),
        ({"tests": "x = 3\nassert f(x) == 2 * x", "entry_point": "f"}, DOUBLE, "def f(x): return x"),
        ({"tests": ["assert f(1) == 2", "assert g(1) == 0"], "entry_point": ["f", "g"]}, DOUBLE + "def g(x): return 0", DOUBLE),
        (MBPP, MBPP["code"], "def area(r): return 3 * r ** 2"),
        (HUMANEVAL, "def total(numbers):\n    return sum(numbers)", "def total(numbers):\n    return len(numbers) + 1"),
        ({"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}, "print(sum(map(int, input().split())))", "print(3)"),
        ([{"stdin": "2\n", "stdout": "4"}, {"stdin": "5", "stdout": "10"}], "print(2 * int(input()))", "print(2 + int(input()))"),
        ({"input_output": '{"inputs": ["2"], "outputs": ["4"]}'}, "print(2 * int(input()))", "print(5)"),
        ({"input_output": {"fn_name": "f", "inputs": [[2], [3]], "outputs": [4, 6]}}, DOUBLE, "def f(x): return x * x"),
        ({"fn_name": "f", "inputs": [[[1, 2]]], "outputs": [[[2, 4]]]}, "def f(x): return [2 * y for y in x]", "def f(x): return 4"),
        (
            {"public_tests": {"input": ["1\n"], "output": ["2\n"]}, "private_tests": {"input": ["2\n"], "output": ["4\n"]}},
            "print(2 * int(input()))",
            "print(2)",
        ),
    ],
)  # fmt: skip
def test_every_form_of_reference_separates_right_from_wrong(reference: Any, right: str, wrong: str) -> None:
    """Asserts, MBPP, HumanEval, standard input and output, APPS and CodeContests."""
    verdicts = judged(reference, fenced(right), fenced(wrong))
    assert [verdict.outcome for verdict in verdicts] == [Outcome.KEEP, Outcome.DROP], verdicts
    assert verdicts[0].score == 1.0


@pytest.mark.parametrize("reference", [MBPP, HUMANEVAL, {"inputs": ["2"], "outputs": ["4"], "solution": "print(4)"}])
def test_the_solution_of_a_reference_passes_and_a_wrong_one_fails(reference: Any) -> None:
    """`thresher check` tries both on every prompt."""
    built = filters.build("code_tests", {}, TOOLS)
    assert built.gold is not None
    assert built.wrong is not None
    gold, wrong = built.gold(reference), built.wrong(reference)
    assert gold is not None
    assert wrong is not None
    assert [verdict.outcome for verdict in judged(reference, gold, wrong)] == [Outcome.KEEP, Outcome.DROP]


def test_a_sample_without_a_reference_is_undecided() -> None:
    table = pa.table({"completion": [fenced(DOUBLE)], "reference": pa.array([None], pa.string())})
    [reason] = judge(filters.build("code_tests", {}, TOOLS), table)["reason"].to_pylist()
    assert reason == "no_reference"


@pytest.mark.parametrize(
    ("test", "right", "wrong"),
    [
        ("assert sorted(f(3)) == [0, 1, 2]", "def f(n): return {0, 1, 2}", "def f(n): return [0, 1]"),
        ("assert f(3) in (4, 5)", "def f(n): return 5", "def f(n): return 6"),
        ("assert not f(3)", "def f(n): return False", "def f(n): return True"),
        ("assert f(3) is None", "def f(n): return None", "def f(n): return 0"),
        ("assert f(1) == f(2) - 1", "def f(n): return n", "def f(n): return 2 * n"),
        ("assert len(f(3)) == 3 and f(3)[0] == 'a'", "def f(n): return 'abc'", "def f(n): return 'bbc'"),
        ("assert [f(x) for x in range(3)] == [0, 2, 4]", "def f(n): return 2 * n", "def f(n): return n"),
        ("for x, y in [(1, 2), (2, 4)]:\n    assert f(x) == y", "def f(n): return 2 * n", "def f(n): return 2"),
        ("def test_f():\n    assert f(1) == 2", "def f(n): return 2 * n", "def f(n): return n"),
        ("def check(candidate):\n    assert candidate(1) == 2\ncheck(f)", "def f(n): return 2 * n", "def f(n): return n"),
        ("import math\nassert math.isclose(f(1), math.pi)", "def f(n): return 3.14159265358979", "def f(n): return 3"),
        ("assert abs(f(1) - 0.3) < 1e-6", "def f(n): return 0.1 + 0.2", "def f(n): return True"),
        ("assert f(1).next().value == 2", "class N:\n    value = 2\n    def next(self): return self\ndef f(n): return N()",
         "class N:\n    value = 3\n    def next(self): return self\ndef f(n): return N()"),
        ("import pytest\nwith pytest.raises(ValueError):\n    f(1)", "def f(n): raise ValueError", "def f(n): return 1"),
        ("try:\n    f(1)\n    assert False\nexcept ValueError:\n    pass", "def f(n): raise ValueError", "def f(n): 1 / 0"),
        ("result = f(2)\nassert result == 4\nassert result % 2 == 0", "def f(n): return 4", "def f(n): return 3"),
        ("assert set(f(1)) == {1, 2}", "def f(n): return [2, 1, 1]", "def f(n): return [2]"),
        ("assert f([1, 2], k=3) == {'a': (1, 2)}", "def f(a, k): return {'a': (1, 2)}", "def f(a, k): return {'a': [1, 2]}"),
    ],
)  # fmt: skip
def test_assertions_of_many_shapes(test: str, right: str, wrong: str) -> None:
    """Each becomes calls, whose values are compared outside the sandbox."""
    assert [verdict.outcome for verdict in judged({"tests": [test], "entry_point": "f"}, fenced(right), fenced(wrong))] == [
        Outcome.KEEP,
        Outcome.DROP,
    ]


@pytest.mark.parametrize(
    ("expected", "returned", "right"),
    [
        ("4", "4.0", True),
        ("4", "True", False),
        ("1", "True", True),
        ("True", "1", True),
        ("0", "False", True),
        ("0.3", "0.1 + 0.2", True),
        ("0.3", "0.30001", False),
        ("[1, 2]", "(1, 2)", False),
        ("(1, 2)", "[1, 2]", False),
        ("'4'", "4", False),
        ("{1, 2}", "{2, 1}", True),
        ("{'a': 1.0}", "{'a': 1.0 + 1e-12}", True),
        ("float('inf')", "float('inf')", True),
        ("float('inf')", "1e308", False),
        ("None", "None", True),
        ("b'x'", "b'x'", True),
        ("'x'", "b'x'", False),
        ("10 ** 30", "10 ** 30", True),
        ("10 ** 30", "10 ** 30 + 1", False),
        ("1 + 2j", "1 + 2j", True),
    ],
)
def test_values_are_equal_by_type_and_within_the_tolerance(expected: str, returned: str, right: bool) -> None:
    """True is not 1 and a tuple is not a list. A float may differ by rounding, an integer may not."""
    [verdict] = judged([f"assert f(1) == {expected}"], fenced(f"def f(x): return {returned}"))
    assert (verdict.outcome is Outcome.KEEP) == right, verdict


@pytest.mark.parametrize(
    "completion",
    [
        "    return sum(numbers)\n",
        "```python\n    return sum(numbers)\n```",
        fenced("def total(numbers):\n    return sum(numbers)"),
        fenced(HUMANEVAL["prompt"] + HUMANEVAL["canonical_solution"]),
    ],
)
def test_a_body_continues_the_prompt_and_a_whole_function_replaces_it(completion: str) -> None:
    """Base models continue HumanEval's prompt; chat models write the function."""
    assert results(HUMANEVAL, completion) == ["keep"]


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("I do not know.", "unparsed"),
        (fenced("def f(x) return 2"), "syntax_error"),
        (fenced("def g(x): return 2 * x"), "no_entry_point"),
        (fenced("def f(x): return 1 / 0"), "raised"),
        (fenced("def f(): return 4"), "raised"),
        (fenced("def f(x): return 5"), "wrong_output"),
        (fenced("raise ValueError\n" + DOUBLE), "raised"),
        (fenced("def f(x):\n    while True: pass"), "timeout"),
        (fenced("import os\ndef f(x): os.kill(os.getpid(), 9)"), "crash"),
    ],
)
def test_how_a_program_failed_is_the_reason(completion: str, reason: str) -> None:
    """A wrong value is evidence; a time-out or a crash is not."""
    [verdict] = judged(["assert f(2) == 4"], completion, seconds=0.5)
    assert verdict.reason == reason
    undecided = reason in {"unparsed", "timeout", "crash"}
    assert verdict.outcome is (Outcome.UNDECIDED if undecided else Outcome.DROP)


def test_the_score_is_the_share_of_the_cases() -> None:
    """A graded reward; the detail names the first failed call."""
    [verdict] = judged([f"assert f({x}) == {2 * x}" for x in range(4)], fenced("def f(x): return 2 * x if x < 3 else 0"))
    assert verdict.score == 0.75
    assert verdict.detail is not None
    assert verdict.detail["call"] == "f(3)"
    assert verdict.detail["found"] == "0"


@pytest.mark.parametrize(
    ("how", "printed", "right"),
    [
        ("lines", "1 2 \n3\n\n", True),
        ("lines", "1  2\n3", False),
        ("tokens", "1\n2 3", True),
        ("tokens", "1 2 4", False),
        ("exact", "1 2\n3\n", True),
        ("exact", "1 2\n3", False),
    ],
)
def test_standard_output_is_compared_as_asked(how: str, printed: str, right: bool) -> None:
    """By lines, by words or by characters."""
    reference = {"inputs": [""], "outputs": ["1 2\n3\n"]}
    [verdict] = judged(reference, fenced(f"print({printed!r}, end='')"), stdout=how)
    assert (verdict.outcome is Outcome.KEEP) == right


def test_numbers_in_standard_output_may_be_off_by_a_rounding() -> None:
    """If the expected number has a decimal point."""
    reference = {"inputs": [""], "outputs": ["0.3333333333 3"]}
    assert results(reference, fenced("print(1/3, 3)"), fenced("print(1/3, 3.0000001)"), stdout="tokens") == [
        "keep",
        "wrong_output",
    ]


def test_a_package_of_the_recipe_is_checked_before_anything_runs(untrusting: None) -> None:
    """It must be installed; of others than the usual ones, the user must have said that they are trusted."""
    for name, reason in (("networkx-no", "is code that does not come with thresher"), ("scikit-learn", "is not installed")):
        with pytest.raises(FilterError, match=f"code_tests: packages: {name} {reason}"):
            filters.build("code_tests", {"packages": [name]}, TOOLS)


def test_the_versions_of_packages_are_part_of_the_key() -> None:
    plain, with_numpy = (filters.build("code_tests", {"packages": names}, TOOLS) for names in ([], ["numpy"]))

    assert with_numpy.parameters["packages"] == {"numpy": version("numpy")}
    assert plain.key == filters.build("code_tests", {}, TOOLS).key != with_numpy.key


def test_identical_programs_and_tests_run_once() -> None:
    """Within a batch. Across batches thresher.judging.verdict_cache keeps verdicts; the filter does not."""
    counted: list[Job] = []

    class Counted(Sandbox):
        def run(self, jobs: Sequence[Job], packages: Sequence[str] = ()) -> list[Ran]:
            counted.extend(jobs)
            return TOOLS.sandbox.run(jobs)

    built = filters.build("code_tests", {}, Tools(sandbox=Counted()))
    reference = json.dumps(["assert f(2) == 4"])
    completions = [fenced(DOUBLE), f"Here:\n{fenced(DOUBLE)}", fenced("def f(x): return 0")] * 5
    table = pa.table({"completion": completions, "reference": [reference] * len(completions)})
    first = judge(built, table)["outcome"].to_pylist()

    assert first == ["keep", "keep", "drop"] * 5
    assert len(counted) == 2
    assert judge(built, table)["outcome"].to_pylist() == first
    assert len(counted) == 4
