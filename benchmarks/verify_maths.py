"""Maths: accuracy on the committed pairs, and answers per second of one core, compared with math-verify alone and exact strings.

python benchmarks/verifiers.py maths

Times are processor time of this process, so one core. The mixed load has 400 answers: 70 % plain numbers, half of them wrong.
"""

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from filters.maths.cleaning import same
from filters.maths.extraction import final_answer
from filters.maths.verify import verified

PAIRS = Path(__file__).parents[1] / "tests" / "data" / "math_pairs.jsonl"
Pair = tuple[str, str]


def thresher(gold: str, answer: str) -> bool:
    """Compare as the filter does, in this process."""
    final = final_answer(f"So it is $\\boxed{{{answer}}}$.").answer or ""
    equal = same(gold, final)
    return verified(gold, final) == "equal" if equal is None else equal


def math_verify(gold: str, answer: str) -> bool:
    """Compare with math-verify's defaults, both sides as $...$, without time-outs."""
    from math_verify import parse, verify

    return bool(
        verify(parse(f"${gold}$", parsing_timeout=None), parse(f"${answer}$", parsing_timeout=None), timeout_seconds=None)
    )


def exact(gold: str, answer: str) -> bool:
    return gold == answer


def fast(gold: str, answer: str) -> bool:
    """Only extraction and the fast path."""
    return bool(same(gold, final_answer(f"So it is $\\boxed{{{answer}}}$.").answer or ""))


def rows() -> list[dict[str, Any]]:
    """The accuracy table, then the throughput table."""
    import logging

    logging.disable(logging.WARNING)  # math-verify warns about every disabled time-out.
    pairs = [json.loads(line) for line in PAIRS.read_text("utf-8").splitlines()]
    table_rows: list[dict[str, Any]] = []
    ways: dict[str, Callable[[str, str], bool]] = {"thresher": thresher, "math-verify": math_verify, "exact string": exact}
    for name, way in ways.items():
        equal = [way(pair["gold"], pair["answer"]) for pair in pairs]
        accepts = sum(is_equal and pair["equal"] is not True for is_equal, pair in zip(equal, pairs, strict=True))
        rejects = sum(not is_equal and pair["equal"] is True for is_equal, pair in zip(equal, pairs, strict=True))
        share = 100 * (1 - (accepts + rejects) / len(pairs))
        counts = {"false accepts": accepts, "false rejects": rejects}
        table_rows.append({"way": name, "pairs": len(pairs), "right %": share, **counts})
    mixed, plain = _mixed(pairs), _plain(20_000)
    speeds = {
        "thresher, mixed": _speed(thresher, mixed),
        "math-verify, mixed": _speed(math_verify, mixed),
        "exact string, mixed": _speed(exact, mixed),
        "thresher, fast path": _speed(fast, plain),
    }
    for name, speed in speeds.items():
        ratio = speed / speeds["math-verify, mixed"]
        table_rows.append({"load": name, "answers/s/core": round(speed), "x math-verify": ratio})
    return table_rows


def _speed(way: Callable[[str, str], bool], pairs: list[Pair]) -> float:
    for gold, answer in pairs[:40]:
        way(gold, answer)
    start = time.process_time()
    for gold, answer in pairs:
        way(gold, answer)
    return len(pairs) / (time.process_time() - start)


def _mixed(pairs: list[dict[str, Any]]) -> list[Pair]:
    draw = random.Random(0)
    hard = [(pair["gold"], pair["answer"]) for pair in pairs if same(pair["gold"], pair["answer"]) is None]
    numbers = _plain(280)
    mixed = numbers + [hard[draw.randrange(len(hard))] for _ in range(120)]
    draw.shuffle(mixed)
    return mixed


def _plain(count: int) -> list[Pair]:
    draw = random.Random(1)
    golds = [draw.randint(-9999, 9999) for _ in range(count)]
    return [(str(gold), draw.choice((f"{gold}", f"{gold:,}", f"{gold + 1}", f"{gold}5"))) for gold in golds]
