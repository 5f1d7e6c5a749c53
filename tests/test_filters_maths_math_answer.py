"""math_answer: extraction, comparison and references through the filter, and hostile answers."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import filters
from filters.judging import judge
from filters.maths.extraction import final_answer
from filters.maths.math_answer import golds_of
from filters.tools import Tools
from helpers.filter_tables import pool_table

PAIRS = [json.loads(line) for line in (Path(__file__).parent / "data" / "math_pairs.jsonl").read_text("utf-8").splitlines()]

PATHOLOGICAL = [
    "9^{9^{9^{9}}}",
    "9**9**9**9",
    "\\frac{1}{" * 200 + "2" + "}" * 200,
    "(" * 2000 + "1" + ")" * 2000,
    "$ " * 50_000,
    "1000000!",
    "\\binom{1000000000}{500000000}",
    "\\{" + ",".join(map(str, range(2000))) + "\\}",
    "\\sum_{k=1}^{10^{12}} k^{-k}",
    "\\int_0^1 x^{x^{x}} dx",
    "{" * 400,
    "\\boxed{" * 500,
    "x" * 60_000,
    "((x+1)^{99}+(x+2)^{98})^{97}",
    "\\sqrt" * 100,
    "__import__('os').system('touch /tmp/thresher_canary')",
    "\\left(" * 300,
    "1" * 50_000,
    "10^{10^{10}}",
    "\\prod_{n=1}^{999999} n",
]

TOOLS = Tools()


@pytest.fixture(scope="module", autouse=True)
def _closed_at_the_end() -> Iterator[None]:
    with TOOLS:
        yield


def results(*pairs: tuple[str, Any], **parameters: Any) -> list[str]:
    """The reason per (completion, reference), `keep` where kept."""
    table = pool_table(*({"completion": text, "reference": reference} for text, reference in pairs))
    rows = judge(filters.build("math_answer", parameters, TOOLS), table).to_pylist()
    return [row["reason"] or row["outcome"] for row in rows]


def test_the_pairs_are_many_and_of_many_kinds() -> None:
    """At least 150, right and wrong ones, in 20 kinds."""
    assert len(PAIRS) >= 150
    assert len({pair["kind"] for pair in PAIRS}) >= 20
    assert 100 < sum(pair["equal"] is True for pair in PAIRS) < len(PAIRS) - 90
    assert sum(pair["equal"] is None for pair in PAIRS) < 15


@pytest.mark.slow
def test_the_filter_decides_every_pair() -> None:
    """Through extraction, fast path and workers, boxed."""
    decided = results(*((f"So it is $\\boxed{{{pair['answer']}}}$.", pair["gold"]) for pair in PAIRS))

    expected = {True: "keep", False: "wrong_answer", None: "unverifiable"}
    assert [pair for pair, result in zip(PAIRS, decided, strict=True) if result != expected[pair["equal"]]] == []


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\\boxed{42}", "42"),
        ("First \\boxed{1}. Then we see that it is \\boxed{42}.", "42"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("$\\boxed 5$", "5"),
        ("\\fbox{7}", "7"),
        ("\\boxed{5} and again \\boxed{ 5 }", "5"),
        ("We get 6 * 7.\n#### 42", "42"),
        ("The answer is 42.", "42"),
        ("The final answer is: 3/4", "3/4"),
        ("**Answer:** 73", "73"),
        ("**Final Answer:** **73**", "73"),
        ("Answer:\n12", "12"),
        ("<answer>3/4</answer>", "3/4"),
        ("Answer: \\$1,234.50", "\\$1,234.50"),
        ("42", "42"),
        (" 3.5 cm ", "3.5 cm"),
        ("(1, 2)", "(1, 2)"),
    ],
)
def test_the_single_candidate_is_extracted(text: str, answer: str) -> None:
    """The last box, otherwise the text after a marker, otherwise the whole completion."""
    assert final_answer(text).answer is not None
    assert final_answer(text).answer == answer


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{5} or \\boxed{6}",
        "It could be \\boxed{5}, \\boxed{6} or \\boxed{7}",
        "The answer is 5.\nNo, the answer is 6.",
        "<answer>1</answer><answer>2</answer>",
        "\\boxed{5",
        "\\boxed{1}. Then \\boxed{2",
        "",
        "We add the numbers and then we divide by two as the task wants it",
        "5\n6",
        "x" * 300,
    ],
)
def test_no_candidate_or_several_are_unparsed(text: str) -> None:
    """Guessing with many answers must not be rewarded."""
    assert final_answer(text).answer is None
    assert results((text, "5")) == ["unparsed"]


@pytest.mark.parametrize(
    "text", ["The answer is 5 or 6", "5 or 6", "\\boxed{5 \\text{ or } 6}", "\\boxed{5?}", "Answer: maybe 5"]
)
def test_hedges_are_unparsed(text: str) -> None:
    """Unless the reference itself names several."""
    assert results((text, "5")) == ["unparsed"]


def test_a_reference_may_name_several() -> None:
    """As a list of acceptable answers, or as a set of solutions."""
    assert results(("5 or 6", "5, 6"), ("x = 6 or x = 5", "5 or 6"), ("6", ["5", "6"]), ("7", ["5", 6])) == [
        "keep",
        "keep",
        "keep",
        "wrong_answer",
    ]


@pytest.mark.parametrize(
    ("reference", "golds"),
    [
        (42, ("42",)),
        (0.5, ("0.5",)),
        ("She has 6 * 7 = <<6*7=42>>42.\n#### 42", ("42",)),
        ("so \\boxed{\\frac12}", ("\\frac12",)),
        (["1", 2], ("1", "2")),
        (True, None),
        ({"a": 1}, None),
        ("", None),
        ([], None),
        ("#### ", None),
        ("\\boxed{1", None),
    ],
)
def test_references(reference: Any, golds: tuple[str, ...] | None) -> None:
    """A number, a text, a solution with its answer behind ####, or a list of these."""
    assert golds_of(reference) == golds


@pytest.mark.slow
def test_an_unreadable_reference_is_a_bad_one() -> None:
    """It could match nothing; `thresher check` refuses it."""
    golds = ["\\foo{", "1 +", "\\sum_{k=1}^{n} k", "x" * 900, "?!"]
    assert results(*(("\\boxed{7}", gold) for gold in golds)) == ["bad_reference"] * len(golds)


def test_no_reference_is_no_wrong_answer() -> None:
    """Without a reference, and with one of another type."""
    assert results(("5", None), ("5", {"a": 1}), ("5", True)) == ["no_reference", "bad_reference", "bad_reference"]


@pytest.mark.slow
def test_gold_and_wrong_answers_check_the_filter() -> None:
    """For every reference of the pairs: its own answer is kept, a wrong one dropped."""
    built = filters.build("math_answer", {}, TOOLS)
    assert built.gold is not None
    assert built.wrong is not None
    golds = sorted({pair["gold"] for pair in PAIRS})

    assert set(results(*((str(built.gold(gold)), gold) for gold in golds))) == {"keep"}
    assert set(results(*((str(built.wrong(gold)), gold) for gold in golds))) == {"wrong_answer"}


@pytest.mark.slow
def test_pathological_answers_are_undecided_or_wrong_and_never_right() -> None:
    """The guard refuses most of them, the worker bounds the rest, and nothing is executed."""
    canary = Path("/tmp/thresher_canary")
    canary.unlink(missing_ok=True)
    decided = results(*((f"\\boxed{{{text}}}", "5") for text in PATHOLOGICAL), ("\\boxed{5}", "5"), seconds=2)

    assert decided[-1] == "keep"
    assert set(decided[:-1]) <= {"unparsed", "unverifiable", "timeout", "crash", "wrong_answer"}
    assert decided.count("unverifiable") >= 6
    assert not canary.exists()


@pytest.mark.slow
def test_ten_thousand_answers_with_fifty_pathological_ones() -> None:
    """Every answer gets a verdict, and the good ones get the correct one."""
    rows: list[tuple[str, Any]] = []
    for number in range(10_000):
        form = (
            f"\\boxed{{{number}}}",
            f"The answer is {number}.0",
            f"\\boxed{{\\frac{{{2 * number}}}{{2}}}}",
            f"#### {number + 1}",
        )
        rows.append((form[number % 4], number))
    slow = ["((x+1)^{99}+(x+2)^{98})^{97} = \\begin{cases} 1 \\end{cases}", *PATHOLOGICAL]
    for number in range(50):
        rows[number * 199 + 7] = (f"\\boxed{{{slow[number % len(slow)]}}}", 5)
    started = time.monotonic()
    decided = results(*rows, seconds=2)

    bad = {number * 199 + 7 for number in range(50)}
    assert len(decided) == 10_000
    for number, result in enumerate(decided):
        if number in bad:
            assert result != "keep"
        else:
            assert result == ("wrong_answer" if number % 4 == 3 else "keep"), rows[number]
    assert time.monotonic() - started < 300  # no hang: fifty time-outs, twice, take 200 s
