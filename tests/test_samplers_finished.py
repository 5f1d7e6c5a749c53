"""The queue between the thread of an engine and a stream."""

import threading

import pytest

from thresher.errors import EngineError
from thresher.samplers.finished import FinishedGroups
from thresher.samplers.sampler import Drawn


def test_take_returns_all_groups_in_the_queue() -> None:
    finished = FinishedGroups()
    for number in range(3):
        finished.put(Drawn(number, ()))

    assert [drawn.number for drawn in finished.take(0)] == [0, 1, 2]
    assert finished.take(0) == []


def test_take_waits_for_the_first_group() -> None:
    finished = FinishedGroups()
    threading.Timer(0.05, finished.put, [Drawn(7, ())]).start()

    assert [drawn.number for drawn in finished.take(20)] == [7]


def test_groups_before_an_error_come_first_and_the_error_stays() -> None:
    """Each call raises an error of its own, because streams share errors and tracebacks would grow."""
    finished, error = FinishedGroups(), EngineError("the engine was stopped")
    finished.put(Drawn(0, ()))
    finished.put(error)

    assert [drawn.number for drawn in finished.take(20)] == [0]
    for _ in range(2):
        with pytest.raises(EngineError, match="the engine was stopped") as caught:
            finished.take(20)
        assert caught.value is not error
