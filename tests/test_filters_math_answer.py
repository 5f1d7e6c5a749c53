"""math_answer: what is read out of a completion, what equals what, and what becomes of hostile answers."""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import filters
from filters.judging import judge
from filters.maths.math_answer import golds_of
from filters.maths.expressions import values
from filters.maths.extraction import final_answer
from filters.maths.guard import refusal
from filters.maths.plain import same
from filters.maths.tokens import UnknownError
from filters.maths.verify import verified
from schemas.sample import SAMPLES, to_json

PAIRS = [
    json.loads(line) for line in Path(__file__).with_name("data").joinpath("math_pairs.jsonl").read_text("utf-8").splitlines()
]

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


def said(*rows: tuple[str, Any], **parameters: Any) -> list[str]:
    """The reason per (completion, reference), `keep` where kept."""
    base = {"family": "f", "anchor": False, "messages": [], "metadata": "{}", "finish_reason": "stop", "prompt_id": "p"}
    made = [
        {**base, "sample_id": f"s{at}", "index": at, "completion": text, "reference": None if gold is None else to_json(gold)}
        for at, (text, gold) in enumerate(rows)
    ]
    found = judge(filters.build("math_answer", parameters), pa.Table.from_pylist(made, schema=SAMPLES)).to_pylist()
    return [one["reason"] or one["outcome"] for one in found]


def test_the_pairs_are_many_and_of_many_kinds() -> None:
    """At least 150, right and wrong ones, in 20 kinds."""
    assert len(PAIRS) >= 150
    assert len({pair["kind"] for pair in PAIRS}) >= 20
    assert 100 < sum(pair["equal"] for pair in PAIRS) < len(PAIRS) - 90


@pytest.mark.parametrize("kind", sorted({pair["kind"] for pair in PAIRS}))
def test_pairs_are_told_apart(kind: str) -> None:
    """Every pair of the kind, in the worker's own function; what the fast path decides is right as well."""
    for pair in PAIRS:
        if pair["kind"] == kind:
            wanted = "equal" if pair["equal"] else "different"
            assert verified(pair["gold"], pair["answer"]) == wanted, pair
            assert same(pair["gold"], pair["answer"]) in (None, pair["equal"]), pair


@pytest.mark.slow
def test_the_filter_says_of_pairs_what_the_function_says() -> None:
    """Through extraction, fast path and workers, boxed."""
    found = said(*((f"So it is $\\boxed{{{pair['answer']}}}$.", pair["gold"]) for pair in PAIRS))

    wrong = [(pair, one) for pair, one in zip(PAIRS, found, strict=True) if (one == "keep") != pair["equal"]]
    assert wrong == []
    assert set(found) == {"keep", "wrong_answer"}


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
def test_the_one_candidate_is_read(text: str, answer: str) -> None:
    """The last box, else a marker, else the whole."""
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
    """Who sprays answers must not be rewarded."""
    assert final_answer(text).answer is None
    assert said((text, "5")) == ["unparsed"]


@pytest.mark.parametrize(
    "text", ["The answer is 5 or 6", "5 or 6", "\\boxed{5 \\text{ or } 6}", "\\boxed{5?}", "Answer: maybe 5"]
)
def test_hedges_are_unparsed(text: str) -> None:
    """Unless the reference itself names several."""
    assert said((text, "5")) == ["unparsed"]


def test_a_reference_may_name_several() -> None:
    """As a list of acceptable answers, or as a set of solutions."""
    assert said(("5 or 6", "5, 6"), ("x = 6 or x = 5", "5 or 6"), ("6", ["5", "6"]), ("7", ["5", 6])) == [
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
def test_a_reference_that_nothing_reads_is_a_bad_one() -> None:
    """It could match nothing; `thresher check` refuses it."""
    golds = ["\\foo{", "1 +", "\\sum_{k=1}^{n} k", "x" * 900, "?!"]
    assert said(*(("\\boxed{7}", gold) for gold in golds)) == ["bad_reference"] * len(golds)


def test_no_reference_is_no_wrong_answer() -> None:
    """None at all, or one of another kind."""
    assert said(("5", None), ("5", {"a": 1}), ("5", True)) == ["no_reference", "bad_reference", "bad_reference"]


@pytest.mark.slow
def test_gold_and_wrong_answers_check_the_filter() -> None:
    """For every reference of the pairs: its own answer is kept, a wrong one dropped."""
    built = filters.build("math_answer", {})
    assert built.gold is not None
    assert built.wrong is not None
    golds = sorted({pair["gold"] for pair in PAIRS})

    assert set(said(*((str(built.gold(gold)), gold) for gold in golds))) == {"keep"}
    assert set(said(*((str(built.wrong(gold)), gold) for gold in golds))) == {"wrong_answer"}


@pytest.mark.slow
def test_pathological_answers_are_undecided_or_wrong_and_never_right() -> None:
    """The guard refuses first; what passes it is bounded by the worker; nothing is executed."""
    canary = Path("/tmp/thresher_canary")
    canary.unlink(missing_ok=True)
    found = said(*((f"\\boxed{{{text}}}", "5") for text in PATHOLOGICAL), ("\\boxed{5}", "5"), seconds=2)

    assert found[-1] == "keep"
    assert set(found[:-1]) <= {"unparsed", "unverifiable", "timeout", "crash", "wrong_answer"}
    assert found.count("unverifiable") >= 6
    assert not canary.exists()


@given(st.text(max_size=200))
def test_any_text_is_read_and_compared_without_an_error(text: str) -> None:
    """Extraction, guard, fast path and expressions; a text equals itself."""
    found = final_answer(text)
    assert found.answer is None or found.answer.strip() == found.answer
    refusal(text)
    assert same(text, text) is True
    with contextlib.suppress(UnknownError, ZeroDivisionError, ValueError, OverflowError, IndexError):
        values(text)


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6))
def test_fractions_are_exact(above: int, below: int) -> None:
    """As LaTeX, as text, and one off."""
    assert verified(f"{above}/{below}", f"\\frac{{{above}}}{{{below}}}") == "equal"
    assert verified(f"{above}/{below}", f"\\frac{{{above + 1}}}{{{below}}}") == "different"


@pytest.mark.slow
def test_ten_thousand_answers_with_fifty_pathological_ones() -> None:
    """All accounted for; the good ones are told right from wrong."""
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
    began = time.monotonic()
    found = said(*rows, seconds=2)

    bad = {number * 199 + 7 for number in range(50)}
    assert len(found) == 10_000
    for number, one in enumerate(found):
        if number in bad:
            assert one != "keep"
        else:
            assert one == ("wrong_answer" if number % 4 == 3 else "keep"), rows[number]
    assert time.monotonic() - began < 300  # no hang: fifty time-outs, twice, take 200 s
