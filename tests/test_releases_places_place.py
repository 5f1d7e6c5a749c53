"""A call to a repository is repeated while that can help."""

import time
from typing import Any

import pytest

from thresher.releases.places.folder import Folder
from thresher.releases.places.place import LONGEST_WAIT_S, TRIES, MovedError, again, backoff


class Waiting(Folder):
    """A folder that says how long to wait after each error."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds

    def wait(self, error: Exception, tried: int) -> float | None:
        return self.seconds


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


def failing(times: int) -> Any:
    left = [MovedError("moved")] * times

    def call() -> str:
        if left:
            raise left.pop()
        return "through"

    return call


def test_a_call_is_repeated_until_it_goes_through(slept: list[float]) -> None:
    assert again(Waiting(0.5), failing(3)) == "through"
    assert slept == [0.5] * 3


def test_an_error_that_waiting_cannot_help_is_raised_without_waiting(slept: list[float]) -> None:
    with pytest.raises(MovedError):
        again(Waiting(None), failing(1))
    assert slept == []


def test_the_last_error_is_raised(slept: list[float]) -> None:
    with pytest.raises(MovedError):
        again(Waiting(0.5), failing(TRIES))
    assert len(slept) == TRIES - 1


def test_waiting_times_grow_to_a_limit() -> None:
    assert all(0.05 * 2**tried <= backoff(tried) <= 0.15 * 2**tried for tried in range(9))
    assert backoff(50) <= 1.5 * LONGEST_WAIT_S
