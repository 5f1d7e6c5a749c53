"""The queue of one server: groups are divided into requests and put together again."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from helpers.http_sampler import group
from thresher.estimators.calibration import empty_sums
from thresher.samplers.finished import FinishedGroups
from thresher.samplers.http.answers import Answer
from thresher.samplers.http.connection import RateLimit
from thresher.samplers.http.counters import WorkCounters
from thresher.samplers.http.endpoint import Endpoint
from thresher.samplers.http.lanes import Job, Lane, Request
from thresher.samplers.sampler import Completion


@pytest.fixture
def lane() -> Lane:
    return Lane(cast("Endpoint", SimpleNamespace(rate=RateLimit(4), worked_at=10.0, counters=WorkCounters(), up=True)))


def job(number: int, n: int, *, priority: int = 0, expected_tokens: int = 0) -> Job:
    return Job(FinishedGroups(), group(number, n), (priority, number), expected_tokens=expected_tokens)


def answer(texts: list[str], *, calibrated: bool = True) -> Answer:
    completions = tuple(Completion(text, "stop") for text in texts)
    return Answer(completions, np.array([1], np.int32), 3 * len(texts), empty_sums() + 1 if calibrated else None)


def sent(lane: Lane) -> list[tuple[int, int]]:
    """First index and count of all waiting requests, which are sent."""
    requests = [lane.send(1.0) for _ in range(len(lane.waiting))]
    return [(request.question.first, request.question.n) for request in requests if request is not None]


def test_a_group_is_divided_into_requests(lane: Lane) -> None:
    lane.add(job(0, 7), size=3)

    assert sent(lane) == [(0, 3), (3, 3), (6, 1)]
    assert (lane.tokens, len(lane.in_flight)) == (7 * 5, 3)


def test_requests_of_a_smaller_rank_are_sent_first(lane: Lane) -> None:
    for number, priority in ((0, 1), (1, 0), (2, 1)):
        lane.add(job(number, 1, priority=priority), size=1)

    assert [cast("Request", lane.send(1.0)).question.group.number for _ in range(3)] == [1, 0, 2]


def test_missing_completions_are_asked_for_in_smaller_requests(lane: Lane) -> None:
    lane.add(job(0, 5), size=5)
    request = lane.send(1.0)
    assert request is not None
    lane.add_missing(request, 2)

    assert sent(lane) == [(2, 2), (4, 1)]


def test_a_group_is_complete_and_in_order_whatever_the_order_of_answers(lane: Lane) -> None:
    drawn_by, complete = job(4, 3, expected_tokens=9), []
    for texts, first in ((["c"], 2), (["a", "b"], 0)):
        drawn_by.add(answer(texts), first)
        complete.append(drawn_by.complete)
    drawn = drawn_by.drawn("host:1")

    assert complete == [False, True]
    assert ([completion.text for completion in drawn.completions], drawn.source, drawn.number) == (["a", "b", "c"], "host:1", 4)
    assert drawn.calibration is not None
    assert (drawn.calibration == 2).all()


@pytest.mark.parametrize(
    "spoil", [lambda spoilt: spoilt.add(answer(["b"], calibrated=False), 1), lambda spoilt: setattr(spoilt, "expected_tokens", 0)]
)
def test_a_group_is_calibrated_in_full_or_not_at_all(spoil: Callable[[Job], Any]) -> None:
    spoilt = job(0, 2, expected_tokens=9)
    spoilt.add(answer(["a", "b"]), 0)
    spoil(spoilt)

    assert spoilt.drawn("host:1").calibration is None


def test_requests_of_a_finished_job_are_not_sent(lane: Lane) -> None:
    finished, unfinished = job(0, 2), job(1, 2)
    lane.add(finished, size=1)
    lane.add(unfinished, size=1)
    finished.over = True
    assert lane.send(1.0) is None
    lane.drop(finished)

    assert [request.job for request in lane.waiting] == [unfinished, unfinished]


def test_load_is_tokens_in_flight_over_the_limit(lane: Lane) -> None:
    lane.add(job(0, 5), size=1)
    requests = [lane.send(1.0) for _ in range(4)]
    assert (lane.load, lane.full, lane.idle) == (5.0, True, False)
    for request in requests:
        assert request is not None
        lane.returned(request)

    assert (lane.load, lane.full, lane.idle) == (0.0, False, False)


def test_silence_counts_from_the_oldest_request_or_the_last_answer(lane: Lane) -> None:
    assert lane.silent_s(now=100.0) == 0.0
    lane.add(job(0, 2), size=1)
    lane.send(3.0)
    assert lane.silent_s(now=12.0) == 2.0
    lane.send(40.0)

    assert lane.silent_s(now=50.0) == 40.0
    lane.awake_at = 45.0
    assert lane.silent_s(now=50.0) == 5.0


def test_a_server_without_counters_is_checked_after_the_limit(lane: Lane) -> None:
    lane.add(job(0, 1), size=1)
    lane.send(10.0)

    assert [lane.due(now, 20.0) for now in (29.0, 31.0)] == [False, True]
    lane.checking = True
    assert not lane.due(31.0, 20.0)


def test_counters_are_read_four_times_within_the_limit(lane: Lane) -> None:
    lane.add(job(0, 1), size=1)
    lane.send(10.0)
    lane.endpoint.counters.look((0.0,), 0, 12.0)

    assert [lane.due(now, 20.0) for now in (14.0, 16.0, 18.0)] == [False, False, True]
    lane.endpoint.counters.look((0.0,), 0, 18.0)
    assert [lane.due(now, 20.0) for now in (22.0, 24.0)] == [False, True]
    lane.endpoint.up = False
    assert not lane.due(24.0, 20.0)


def test_the_mean_length_follows_the_answers(lane: Lane) -> None:
    lane.observe(answer(["a", "b"]))
    assert lane.mean_tokens == 3.0
    lane.observe(Answer(answer(["a"]).completions, None, 13, None))
    lane.observe(Answer(answer(["a"]).completions, None, 0, None))

    assert lane.mean_tokens == pytest.approx(4.0)
