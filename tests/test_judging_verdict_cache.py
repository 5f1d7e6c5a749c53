"""A costly filter is asked once for what is the same; undecided verdicts are asked for again."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest

from filters.base import Filter, Role, Scope
from schemas.sample import VERDICTS, Verdict
from thresher.judging.verdict_cache import COSTLY_US, VerdictCache, judged_once


class Counting:
    """A judge that keeps texts with an even number, cannot judge "?", and counts the texts that it sees."""

    def __init__(self, cost_us: float = COSTLY_US) -> None:
        self.seen: list[str] = []
        self.filter = Filter("even", "1", Scope.SAMPLE, Role.VERIFIER, self._judge, ("completion",), cost_us=cost_us)

    def _judge(self, table: pa.Table) -> list[Verdict]:
        texts = table["completion"].to_pylist()
        self.seen += texts
        return [self._verdict(text) for text in texts]

    @staticmethod
    def _verdict(text: str) -> Verdict:
        if text == "?":
            return Verdict.undecided("unparsed")
        return Verdict.keep() if int(text) % 2 == 0 else Verdict.drop("odd")


def samples(*texts: str) -> pa.Table:
    return pa.table({"sample_id": [f"s{number}" for number in range(len(texts))], "completion": list(texts)})


def outcomes(verdicts: pa.Table) -> list[Any]:
    return [str(outcome) for outcome in verdicts["outcome"].to_pylist()]


def test_equal_samples_are_judged_once() -> None:
    counting, cache = Counting(), VerdictCache()

    assert outcomes(cache.judged(counting.filter, samples("2", "3", "2"))) == ["keep", "drop", "keep"]
    assert outcomes(cache.judged(counting.filter, samples("3", "4"))) == ["drop", "keep"]
    assert counting.seen == ["2", "3", "4"]


def test_undecided_verdicts_are_not_kept() -> None:
    counting, cache = Counting(), VerdictCache()
    for _ in range(2):
        assert outcomes(cache.judged(counting.filter, samples("?"))) == ["undecided"]

    assert counting.seen == ["?", "?"]


def test_cheap_filters_are_not_cached() -> None:
    counting, cache = Counting(cost_us=1), VerdictCache()
    cache.judged(counting.filter, samples("2", "2"))

    assert counting.seen == ["2", "2"]


def test_the_cache_is_bounded() -> None:
    counting, cache = Counting(), VerdictCache(most=1)
    for text in ("2", "4", "2"):
        cache.judged(counting.filter, samples(text))

    assert counting.seen == ["2", "4", "2"]


@pytest.mark.parametrize("key", ["same", "other"])
def test_verdicts_on_disk_count_for_a_filter_of_the_same_key(key: str) -> None:
    counting = Counting(cost_us=1)
    row = {"row": 0, "sample_id": "s0", "filter": "even", "outcome": "drop", "reason": "before"}
    earlier = pa.Table.from_pylist([row | {"filter_key": counting.filter.key if key == "same" else "other"}], VERDICTS)

    verdicts, known = judged_once(counting.filter, samples("2", "4"), earlier)

    assert (known, verdicts["reason"].to_pylist()) == ((1, ["before", ""]) if key == "same" else (0, ["", ""]))
    assert counting.seen == (["4"] if key == "same" else ["2", "4"])


def test_verdicts_dropped_while_a_batch_is_judged_are_still_returned() -> None:
    """Another thread fills the cache between the look-up and the answer."""
    counting, cache = Counting(), VerdictCache(most=1)
    cache.judged(counting.filter, samples("2"))
    waiting, ready = threading.Event(), threading.Event()

    def slow(table: pa.Table) -> list[Verdict]:
        waiting.set()
        ready.wait(10)
        return [Verdict.drop("odd")] * table.num_rows

    blocked = Filter("even", "1", Scope.SAMPLE, Role.VERIFIER, slow, ("completion",), cost_us=COSTLY_US)
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(cache.judged, blocked, samples("2", "3"))
        waiting.wait(10)
        cache.judged(counting.filter, samples("4"))
        ready.set()

    assert outcomes(answer.result()) == ["keep", "drop"]


def test_threads_get_the_verdicts_of_one_thread() -> None:
    counting, cache, fresh = Counting(), VerdictCache(most=5), VerdictCache()
    tables = [samples(*(str(number % 7) for number in range(start, start + 20))) for start in range(40)]
    with ThreadPoolExecutor(8) as threads:
        parallel = list(threads.map(lambda table: cache.judged(counting.filter, table), tables))

    assert [outcomes(verdicts) for verdicts in parallel] == [outcomes(fresh.judged(counting.filter, table)) for table in tables]
