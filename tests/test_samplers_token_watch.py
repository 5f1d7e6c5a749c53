"""How long an engine is silent, from what its front end holds. tests/test_samplers_vllm_stalls.py has real engines that hang."""

from types import SimpleNamespace

import pytest

from thresher.samplers.token_watch import LONGEST_LOOK_S, TokenWatch, requests_of, stalled


def silences(*looks: dict[str, int], step_s: float = 1.0) -> list[float]:
    watch = TokenWatch()
    return [watch.look({0: look} if look else {}, number * step_s)[0] for number, look in enumerate(looks)]


def test_silence_is_counted_while_no_request_gets_a_token() -> None:
    assert silences({"a": 0, "b": 3}, {"a": 0, "b": 3}, {"a": 0, "b": 3}, {"a": 1, "b": 3}, {"a": 1, "b": 3}) == [0, 1, 2, 0, 1]


def test_an_engine_without_requests_is_not_silent() -> None:
    assert silences({}, {}, {"a": 0}, {"a": 0}, {}, {"a": 0}) == [0, 0, 0, 1, 0, 0]


def test_a_request_that_enters_is_no_progress_and_one_that_ends_is() -> None:
    assert silences({"a": 2}, {"a": 2, "b": 0}, {"a": 2, "b": 0, "c": 0}, {"b": 0, "c": 0}) == [0, 1, 2, 0]


def test_a_request_that_came_and_made_a_token_between_two_looks_is_progress() -> None:
    assert silences({"a": 2}, {"a": 2}, {"a": 2, "b": 1}) == [0, 1, 0]


def test_each_rank_is_watched_by_itself() -> None:
    """A data-parallel copy that hangs is found although another works."""
    watch = TokenWatch()
    looks = [watch.look({b"0": {"a": number}, b"1": {"b": 5, "c": 0}}, float(number)) for number in range(4)]

    assert looks[-1] == (3.0, 2)


def test_time_in_which_nobody_looked_does_not_count() -> None:
    """This process may be stopped, and its engine with it."""
    assert silences({"a": 1}, {"a": 1}, step_s=3600)[-1] == LONGEST_LOOK_S


def test_requests_are_read_from_the_front_end() -> None:
    """The attributes are vLLM's; tests/test_samplers_vllm_stalls.py reads real ones."""
    states = {name: SimpleNamespace(detokenizer=SimpleNamespace(num_output_tokens=lambda: 4)) for name in ("a", "b")}
    states["c"] = SimpleNamespace(detokenizer=None)
    processor = SimpleNamespace(request_states=states)
    one_rank = SimpleNamespace(output_processor=processor, engine_core=SimpleNamespace())
    two_ranks = SimpleNamespace(output_processor=processor, engine_core=SimpleNamespace(reqs_in_flight={"a": b"0", "b": b"1"}))

    assert requests_of(one_rank) == {None: {"a": 4, "b": 4, "c": 0}}
    assert requests_of(two_ranks) == {b"0": {"a": 4}, b"1": {"b": 4}, None: {"c": 0}}


@pytest.mark.parametrize(
    ("seconds", "requests", "words"),
    [(600.4, 12, "no token for 600 s with 12 requests"), (1.25, 1, "no token for 1.2 s with 1 request")],
)
def test_a_stall_is_told_in_seconds_and_requests(seconds: float, requests: int, words: str) -> None:
    assert stalled(seconds, requests) == words
