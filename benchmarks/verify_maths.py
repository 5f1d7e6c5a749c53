"""Maths: accuracy on the committed pairs, and answers per second of one core, against math-verify alone and exact strings.

python benchmarks/verifiers.py maths

Processor time of this process alone, so that workers are one core; the mixed load is 400 answers, 70 % plain numbers, half wrong.
"""

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from filters.maths.extraction import final_answer
from filters.maths.plain import same
from filters.maths.verify import verified

PAIRS = Path(__file__).parents[1] / "tests" / "data" / "math_pairs.jsonl"
Pair = tuple[str, str]


def thresher(gold: str, answer: str) -> bool:
    """As the filter does it, in this process."""
    found = final_answer(f"So it is $\\boxed{{{answer}}}$.").answer or ""
    said = same(gold, found)
    return verified(gold, found) == "equal" if said is None else said


def math_verify(gold: str, answer: str) -> bool:
    """math-verify with its defaults, both sides as $...$, time-outs off."""
    from math_verify import parse, verify

    return bool(
        verify(parse(f"${gold}$", parsing_timeout=None), parse(f"${answer}$", parsing_timeout=None), timeout_seconds=None)
    )


def exact(gold: str, answer: str) -> bool:
    return gold == answer


def fast(gold: str, answer: str) -> bool:
    """Extraction and the fast path alone."""
    return bool(same(gold, final_answer(f"So it is $\\boxed{{{answer}}}$.").answer or ""))


def rows() -> list[dict[str, Any]]:
    """The accuracy table, then the throughput table."""
    import logging

    logging.disable(logging.WARNING)  # math-verify warns of every time-out that is off
    pairs = [json.loads(line) for line in PAIRS.read_text("utf-8").splitlines()]
    found: list[dict[str, Any]] = []
    ways: dict[str, Callable[[str, str], bool]] = {"thresher": thresher, "math-verify": math_verify, "exact string": exact}
    for name, way in ways.items():
        said = [way(pair["gold"], pair["answer"]) for pair in pairs]
        accepted = sum(one and not pair["equal"] for one, pair in zip(said, pairs, strict=True))
        refused = sum(not one and pair["equal"] for one, pair in zip(said, pairs, strict=True))
        share = 100 * (1 - (accepted + refused) / len(pairs))
        found.append({"way": name, "pairs": len(pairs), "right %": share, "false accepts": accepted, "false rejects": refused})
    mixed, plain = _mixed(pairs), _plain(20_000)
    speeds = {
        "thresher, mixed": _speed(thresher, mixed),
        "math-verify, mixed": _speed(math_verify, mixed),
        "exact string, mixed": _speed(exact, mixed),
        "thresher, fast path": _speed(fast, plain),
    }
    for name, speed in speeds.items():
        found.append({"load": name, "answers/s/core": round(speed), "x math-verify": speed / speeds["math-verify, mixed"]})
    return found


def _speed(way: Callable[[str, str], bool], pairs: list[Pair]) -> float:
    for gold, answer in pairs[:40]:
        way(gold, answer)
    began = time.process_time()
    for gold, answer in pairs:
        way(gold, answer)
    return len(pairs) / (time.process_time() - began)


def _mixed(pairs: list[dict[str, Any]]) -> list[Pair]:
    draw = random.Random(0)
    hard = [(pair["gold"], pair["answer"]) for pair in pairs if same(pair["gold"], pair["answer"]) is None]
    numbers = _plain(280)
    made = numbers + [hard[draw.randrange(len(hard))] for _ in range(120)]
    draw.shuffle(made)
    return made


def _plain(count: int) -> list[Pair]:
    draw = random.Random(1)
    golds = [draw.randint(-9999, 9999) for _ in range(count)]
    return [(str(gold), draw.choice((f"{gold}", f"{gold:,}", f"{gold + 1}", f"{gold}5"))) for gold in golds]
