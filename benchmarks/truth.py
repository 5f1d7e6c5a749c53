"""Verdicts beside the truth: inputs on which graders were seen to fail, and math-verify on the same ones.

python benchmarks/truth.py [--cases DIR] [--peers]

Each line of DIR (tests/data/truth) names a filter, its parameters, a completion (or several, of one prompt), a reference or
metadata, and what is expected: `keep`, `drop`, `undecided`, `keep_or_undecided`, `drop_or_undecided`, or `keep of [0, 1]` of
several completions. Prints, for each file, how many are as expected, how many wrong ones were accepted, and how many right ones
called wrong, and then each case that is not as expected. `--peers` adds what math-verify, with its own extraction and its
defaults, says of the same cases of math_answer, and the two beside each other on answers made here whose truth is known: 2,000
equal and unequal forms, and 2,000 solutions in GSM8K's form. Exits with 1 if a case is not as expected, or a made one is judged
wrongly.
"""

import argparse
import logging
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from filters.tools import Tools
from helpers.truth import CASES, Row, as_expected, cases_of, completions_of, judged


def main() -> int:
    """Print the counts, and what is not as expected."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--cases", type=Path, default=CASES)
    parser.add_argument("--peers", action="store_true", help="math-verify, and made answers")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)  # math-verify warns about every disabled time-out
    with Tools() as tools:
        faults = _files(cases_of(asked.cases), tools, peers=asked.peers)
        if asked.peers:
            faults += _made("equal and unequal forms", list(forms(2_000)), tools)
            faults += _made("solutions in GSM8K's form", list(solutions(2_000)), tools)
    return int(faults > 0)


def _files(files: dict[str, list[Row]], tools: Tools, *, peers: bool) -> int:
    print(f"{'cases of':36} {'count':>6} {'as expected':>12} {'wrong accepted':>15} {'right called wrong':>19} {'undecided':>10}")
    faults, total = [], Counter[str]()
    for name, cases in files.items():
        said = judged(cases, tools)
        counts = Counter[str](count=len(cases))
        for case, outcomes in zip(cases, said, strict=True):
            counts += _classes(case, outcomes)
            if not as_expected(case, outcomes):
                shown = f"{completions_of(case)!r:.200}, reference {case.get('reference')!r:.80}"
                faults.append(f"{name}: wanted {case['expected']}, found {outcomes}: {shown}")
        total += counts
        _print(name, counts)
    _print("all", total)
    if peers:
        cases = [case for of_file in files.values() for case in of_file if case["filter"] == "math_answer"]
        _print(
            "math_answer alone",
            sum(
                (_classes(case, said) for case, said in zip(cases, judged(cases, tools), strict=True)), Counter(count=len(cases))
            ),
        )
        theirs = [[by_math_verify(case["completion"], str(case["reference"]))] for case in cases]
        _print(
            "math-verify on the same",
            sum((_classes(case, said) for case, said in zip(cases, theirs, strict=True)), Counter(count=len(cases))),
        )
    print(*faults, sep="\n")
    return len(faults)


def _made(what: str, cases: list[Row], tools: Tools) -> int:
    """Cases whose truth is known, judged by both."""
    ours = judged(cases, tools)
    theirs = [[by_math_verify(case["completion"], case["reference"])] for case in cases]
    mine, other = (
        sum((_classes(case, said) for case, said in zip(cases, both, strict=True)), Counter(count=len(cases)))
        for both in (ours, theirs)
    )
    agreeing = sum(a == b for a, b in zip(ours, theirs, strict=True) if a != ["undecided"])
    decided = sum(a != ["undecided"] for a in ours)
    print(f"\n{what}: of {decided:,} that math_answer decides, math-verify says the same of {agreeing:,}")
    _print("math_answer", mine)
    _print("math-verify", other)
    return mine["wrong accepted"] + mine["right called wrong"]


def _classes(case: Row, said: Sequence[str]) -> Counter[str]:
    """Where a case counts. What should be dropped, or be undecided, and is kept is a wrong one that was accepted."""
    expected = case["expected"]
    if expected.startswith("keep of "):
        return Counter({"as expected": int(as_expected(case, said)), "undecided": int("undecided" in said)})
    outcome, wanted = said[0], expected.split("_or_")
    return Counter(
        {
            "as expected": int(outcome in wanted),
            "wrong accepted": int(outcome == "keep" and "keep" not in wanted),
            "right called wrong": int(outcome == "drop" and "keep" in wanted),
            "undecided": int(outcome == "undecided"),
        }
    )


def _print(name: str, counts: Counter[str]) -> None:
    columns = (("count", 6), ("as expected", 12), ("wrong accepted", 15), ("right called wrong", 19), ("undecided", 10))
    print(f"{name:36} " + " ".join(f"{counts[column]:>{width},}" for column, width in columns))


# -- math-verify ---------------------------------------------------------------------------------------------------------------


@cache
def _gold(reference: str) -> list[Any]:
    from math_verify import parse

    found: list[Any] = parse(f"\\boxed{{{reference.rpartition('####')[2].strip()}}}", parsing_timeout=None)
    return found


def by_math_verify(completion: str, reference: str) -> str:
    """What math-verify says with its defaults, without its time-outs: `keep`, `drop`, or `undecided` where it finds nothing."""
    from math_verify import parse, verify

    try:
        found = parse(completion, parsing_timeout=None)
        return "undecided" if not found else "keep" if verify(_gold(reference), found, timeout_seconds=None) else "drop"
    except Exception:  # noqa: BLE001 - whatever it raises, it decides nothing
        return "undecided"


# -- made answers --------------------------------------------------------------------------------------------------------------


def forms(count: int) -> Iterator[Row]:
    """Answers in another form than their reference, half of them equal to it and half of another value."""
    draw = random.Random(21)
    for number in range(count):
        value = Fraction(draw.randint(-400, 400), draw.choice((1, 1, 2, 4, 5, 8, 10, 3, 7)))
        other = value if number % 2 else value + draw.choice((1, -1, Fraction(1, 7), 10, Fraction(-1, 2)))
        how = draw.choice(
            (
                "The answer is {}.",
                "So we get {box}.",
                "#### {}",
                "**Final answer:** ${}$",
                "Thus, \\[{box}\\]",
                "It is {box}, as wanted.",
            )
        )
        text = draw.choice(_written(other))
        completion = how.format(text, box=f"\\boxed{{{text}}}")
        yield _case(completion, draw.choice(_written(value)), right=value == other)


def _written(value: Fraction) -> list[str]:
    """Forms of a number; several powers, roots and sums among them."""
    above, below = value.numerator, value.denominator
    found = (
        [f"\\frac{{{above}}}{{{below}}}", f"{above}/{below}"]
        if below > 1
        else [f"{above}", f"{above:,}", f"{above}.0", f"{above - 3}+3"]
    )
    if below in (2, 4, 5, 8, 10):
        found.append(f"{float(value)}")
    if below == 1 and above >= 0:
        found += [f"\\sqrt{{{above * above}}}", f"2^{{5}}-{32 - above}" if above <= 32 else f"2^{{5}}+{above - 32}"]
    return found


def solutions(count: int) -> Iterator[Row]:
    """Solutions of word problems with calculator annotations and `####`, a third of them with a slip."""
    draw = random.Random(22)
    for number in range(count):
        boxes, each, sold, price = draw.randint(3, 90), draw.randint(2, 48), draw.randint(1, 5), draw.randint(2, 1500)
        right = (boxes * each - sold) * price
        slip = number % 3 == 0
        answer = (
            draw.choice((right + price, right - 1, boxes * each * price, right * 10, (boxes + each - sold) * price))
            if slip
            else right
        )
        shown = draw.choice((str(answer), f"{answer:,}", f"${answer:,}", f"{answer}.00"))
        eggs = boxes * each
        text = (
            f"There are {boxes} boxes with {each} eggs each, so {boxes} * {each} = <<{boxes}*{each}={eggs}>>{eggs} eggs.\n"
            f"She sells all but {sold}, so {eggs} - {sold} = <<{eggs}-{sold}={eggs - sold}>>{eggs - sold} eggs.\n"
            f"At ${price} each she gets {eggs - sold} * {price} = $<<{eggs - sold}*{price}={answer}>>{answer}.\n#### {shown}"
        )
        yield _case(text, f"{eggs - sold} eggs at {price} dollars.\n#### {right}", right=answer == right)


def _case(completion: str, reference: str, *, right: bool) -> Row:
    return {
        "filter": "math_answer",
        "params": {},
        "completion": completion,
        "reference": reference,
        "expected": "keep" if right else "drop",
    }


if __name__ == "__main__":
    sys.exit(main())
