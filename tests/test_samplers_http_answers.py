"""An answer is whole or none, and errors have the server's own words."""

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from thresher.samplers.http.answers import Answer, Asked, BlockedError, Response, ServerError, finish_reason, read_answer

UNREADABLE = (ValueError, KeyError, TypeError, IndexError, AttributeError, ArithmeticError)


def choice(index: int = 0, **further: Any) -> dict[str, Any]:
    return {"index": index, "text": "Paris", "finish_reason": "stop"} | further


def read(*choices: Any, n: int = 1, **asked: Any) -> Answer:
    return read_answer(json.dumps({"choices": list(choices)}).encode(), Asked(n, **asked))


# -- whole answers -----------------------------------------------------------------------------------------------------


def test_an_answer_without_logprobs_calibrates_nothing() -> None:
    answer = read(choice(), top_logprobs=20)

    assert (answer.calibration, answer.completions[0].logprobs, answer.completions[0].cumulative_logprob) == (None, None, None)


def test_choices_are_ordered_by_index_and_no_more_than_asked_for() -> None:
    answer = read(*[choice(index, text=str(index)) for index in (2, 0, 1)], n=2, seed=10)

    assert [(completion.text, completion.seed) for completion in answer.completions] == [("0", 10), ("1", 11)]


def test_token_ids_are_read_from_names_of_tokens() -> None:
    """A server that returns no token_ids may still name tokens by their ids."""
    logprobs = {"tokens": ["token_id:5", "token_id:0"], "token_logprobs": [-1.0, -0.5], "top_logprobs": [{}, {}]}
    answer = read(choice(text="x", logprobs=logprobs))

    assert answer.completions[0].token_ids is not None
    assert answer.completions[0].token_ids.tolist() == [5, 0]
    assert (answer.tokens, answer.completions[0].cumulative_logprob) == (2, -1.5)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("stop", "stop"), ("STOP", "stop"), ("eos", "stop"), ("eos_token", "stop"), ("stop_sequence", "stop"),
        ("length", "length"), ("MAX_TOKENS", "length"), ("model_length", "length"), ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"), ("SAFETY", "content_filter"), ("content_filter: RECITATION", "content_filter"),
        ("refusal", "content_filter"), ("repetition", "repetition"),
    ],
)  # fmt: skip
def test_finish_reasons_are_the_pools(said: str, reason: str) -> None:
    assert finish_reason({"finish_reason": said}) == reason


def test_a_withheld_completion_has_no_answer_and_the_providers_words() -> None:
    message = {"content": "Once", "refusal": "I cannot"}
    answer = read({"index": 0, "finish_reason": "content_filter", "native_finish_reason": "SAFETY", "message": message})

    [completion] = answer.completions
    assert (completion.text, completion.finish_reason) == ("Once", "content_filter")
    assert completion.stop_reason == "content_filter: SAFETY: I cannot"
    assert completion.parts is not None
    assert completion.parts.answer is None
    mixed = read({"index": 0, "finish_reason": "SAFETY"}, choice(1, logprobs={"content": []}, text=""), n=2)
    assert [completion.finish_reason for completion in mixed.completions] == ["content_filter", "stop"]


# -- what is no whole answer -------------------------------------------------------------------------------------------

LOGPROBS: dict[str, Any] = {"content": [{"token": token, "logprob": -0.5, "top_logprobs": []} for token in ("Par", "is")]}
WHOLE: dict[str, Any] = {
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "Paris"}, "logprobs": LOGPROBS}]
}
IDS = {"index": 0, "finish_reason": "stop", "message": {"content": "Paris"}, "token_ids": [5, 6], "logprobs": LOGPROBS}


def changed(*path: Any, to: Any = None, of: Any = WHOLE) -> bytes:
    """The whole answer with a value changed, or removed where `to` is the type dict."""
    body = copy.deepcopy(of)
    inner = body
    for name in path[:-1]:
        inner = inner[name]
    if to is dict:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return json.dumps(body).encode()


def with_ids(ids: Any) -> bytes:
    return json.dumps({"choices": [IDS | {"token_ids": ids}]}).encode()


FIRST = ("choices", 0)
CALLS: list[Any] = ["a", [3], [{}], [{"function": {"name": 3}}]]
UNFINISHED: list[Any] = [dict, None, 3, "", "abort", "error", "insufficient_system_resource"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"null", b"[]", b"3", b'"text"', b"<html><body>busy</body></html>", b"data: {}\n\ndata: [DONE]\n\n", b'{"choices": ',
        b'{"choices": [{"index": 0, "finish_reason": "stop", "text": NaN}]}',
        b'{"choices": [{"index": 0, "finish_reason": "stop", "text": "a"}], "created": 1e999}',
        b'{"choices": [{"index": 0, "finish_reason": "stop", "text": "\\ud800"}]}',
        b'{"choices": [{"index": 0, "finish_reason": "stop", "text": "\xff"}]}',
        b"{}", changed("choices"), changed("choices", to=[]), changed("choices", to={}), changed("choices", to=[None]),
        changed(*FIRST, "index", to=dict), changed(*FIRST, "index"), changed(*FIRST, "index", to=1),
        changed(*FIRST, "index", to=-1), changed(*FIRST, "index", to="0"), changed(*FIRST, "index", to=False),
        changed("choices", to=[WHOLE["choices"][0], WHOLE["choices"][0]]),
        *(changed(*FIRST, "finish_reason", to=to) for to in UNFINISHED),
        changed(*FIRST, "message", to=dict), changed(*FIRST, "message"), changed(*FIRST, "message", to="Paris"),
        changed(*FIRST, "message", to={}), changed(*FIRST, "message", to={"content": None, "tool_calls": [], "reasoning": ""}),
        *(changed(*FIRST, "message", "content", to=to) for to in (3, {"a": 1}, [1])),
        *(changed(*FIRST, "message", "content", to=[to]) for to in ({"type": "image"}, {"type": "text", "text": 3})),
        *(changed(*FIRST, "message", to={"tool_calls": to}) for to in CALLS),
        changed(*FIRST, "message", to={"content": "a", "reasoning": 3}),
        changed(*FIRST, "logprobs", to="a"), changed(*FIRST, "logprobs", "content", to=[]),
        changed(*FIRST, "logprobs", "content", to=LOGPROBS["content"][:1]),
        *(changed(*FIRST, "logprobs", "content", 0, "logprob", to=to) for to in (dict, None, "-0.5", True)),
        *(with_ids(to) for to in ([5], [5, 6, 7], ["5", "6"], [5, -1], [5, 2**40], "56")),
        json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "text": None}]}).encode(),
        json.dumps({"choices": [choice(logprobs={"tokens": ["a", "b"], "token_logprobs": [-1.0]})]}).encode(),
        json.dumps({"choices": [choice(logprobs={"tokens": ["a"], "token_logprobs": [None]})]}).encode(),
        json.dumps({"choices": [choice(text="a" * 9000)]}).encode(),
        json.dumps({"choices": WHOLE["choices"], "usage": [3]}).encode(),
        json.dumps({"choices": WHOLE["choices"], "prompt_token_ids": ["a"]}).encode(),
    ],
    ids=lambda content: content[:60].decode(errors="replace"),
)  # fmt: skip
def test_anything_else_is_no_answer(content: bytes) -> None:
    with pytest.raises(UNREADABLE):
        read_answer(content, Asked(2, max_tokens=5))


def test_the_whole_answers_of_these_tests_are_whole() -> None:
    for body in (WHOLE, {"choices": [IDS]}, {**WHOLE, "error": None}):
        assert read_answer(json.dumps(body).encode(), Asked(2, max_tokens=5)).completions[0].text == "Paris"


def test_log_probabilities_that_are_sure_are_not_missing() -> None:
    """Nor may some choices have them and others not."""
    with pytest.raises(ValueError, match="no log-probabilities, which were asked for"):
        read(choice(), sure=True)
    with pytest.raises(ValueError, match="some of its choices have log-probabilities"):
        read(choice(), choice(1, logprobs=LOGPROBS), n=2)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "overloaded"}}, "overloaded"),
        ({"error": {"message": "overloaded"}, "choices": WHOLE["choices"]}, "overloaded"),
        ({"choices": [choice(finish_reason="error", error={"code": 502, "message": "Upstream idle"})]}, "Upstream idle"),
    ],
    ids=["alone", "with choices", "in a choice"],
)
def test_an_error_in_an_answer_is_an_error(body: dict[str, Any], words: str) -> None:
    with pytest.raises(ServerError, match=f"^{words}$"):
        read_answer(json.dumps(body).encode(), Asked(1))


def test_a_blocked_prompt_has_the_reason() -> None:
    empty: list[Any] = [[], None]
    for choices in empty:
        body = {"choices": choices, "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
        with pytest.raises(BlockedError, match="its policy blocks it: PROHIBITED_CONTENT"):
            read_answer(json.dumps(body).encode(), Asked(1))


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"error": {"message": "too hot", "code": 1}}', "too hot"),
        (b'{"error": "too hot", "error_type": "validation"}', "too hot"),
        (b'[{"error": {"message": "too hot", "status": "INVALID_ARGUMENT"}}]', "too hot"),
        (b'{"object": "error", "message": {"detail": [{"msg": "bad"}]}}', '[{"msg": "bad"}]'),
        (
            b'{"error": {"message": "Provider returned error", "metadata": {"raw": "too hot"}}}',
            "Provider returned error: too hot",
        ),
        (b'{"detail": [{"msg": "bad"}]}', '[{"msg": "bad"}]'),
        (b'{"message": "too hot"}', "too hot"),
        (b"<html>", "<html>"),
        (b"[1]", "[1]"),
        (b"x" * 1000, "x" * 500),
    ],
)
def test_the_error_message_of_a_server_is_read(content: bytes, message: str) -> None:
    assert Response(400, "", content).message == message


def test_the_field_that_an_error_is_about_is_read() -> None:
    bodies: list[Any] = [{"error": {"param": "top_p"}}, {"error": {"param": 3}}, {"error": "a"}, [], 3]

    assert [Response(400, "", json.dumps(body).encode()).param for body in bodies] == ["top_p", None, None, None, None]


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60))
    waits: Callable[[str], float] = lambda value: Response(429, value, b"").wait_s  # noqa: E731

    assert [waits(value) for value in ("1.5", "-3", "", "soon", "inf", "nan")] == [1.5, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert 50 < waits(soon) <= 60
