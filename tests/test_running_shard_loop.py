"""Shards are sampled and judged side by side."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from thresher.running.shard_loop import overlap


def through(missing: list[int], sampled: list[int], **changes: Any) -> tuple[list[int], list[tuple[str, int]]]:
    """Pass shards through the loop; returns the shards left out, and what was done."""
    events: list[tuple[str, int]] = []

    def noting(name: str) -> Callable[[int], None]:
        return lambda shard: events.append((name, shard))

    settings: dict[str, Any] = {"judges": 1, "in_flight": lambda: 1, "stop": lambda: None, "enough": lambda: False}
    settings |= {"sample": noting("sample"), "judge": noting("judge")} | changes
    return overlap(missing, sampled, **settings), events


def test_every_missing_shard_is_sampled_once_and_every_shard_judged_once() -> None:
    left, events = through([1, 3], [0, 1, 2, 3])

    assert left == []
    assert sorted(events) == [("judge", 0), ("judge", 1), ("judge", 2), ("judge", 3), ("sample", 1), ("sample", 3)]
    assert events.index(("sample", 1)) < events.index(("judge", 1))


def test_shards_that_are_not_needed_any_more_are_returned() -> None:
    judged: list[int] = []
    left, _ = through([0, 1, 2, 3], [], judge=judged.append, enough=lambda: len(judged) >= 1)

    assert left
    assert sorted(judged + left) == [0, 1, 2, 3]


def test_as_many_shards_are_sampled_at_a_time_as_are_allowed() -> None:
    together = threading.Barrier(3, timeout=20)
    _, events = through([0, 1, 2], [], sample=lambda _: together.wait(), in_flight=lambda: 3)

    assert [name for name, _ in events] == ["judge"] * 3


@pytest.mark.parametrize("step", ["sample", "judge"])
def test_after_an_error_nothing_is_started_and_the_error_is_raised(step: str) -> None:
    started: list[int] = []

    def fail(shard: int) -> None:
        started.append(shard)
        raise ValueError(f"shard {shard}")

    with pytest.raises(ValueError, match="shard 0"):
        through(list(range(20)), [], **{step: fail})
    assert len(started) < 20
