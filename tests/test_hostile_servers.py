"""One answer of one server costs at most itself: whatever a server sends, its group is a failed attempt in bounded memory."""

import gzip
import re
import threading
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack
from itertools import chain, repeat
from typing import Any

import orjson
import pytest

from helpers.http_sampler import draw, group, sampler
from helpers.raw_server import PAUSE, Raw, RawServer, whole
from schemas.manifest import ServerClaims
from schemas.sample import Message
from thresher.errors import EngineError
from thresher.estimators.calibration import Quota
from thresher.judging.model_engines import SamplerAsker
from thresher.samplers.http.connection import REDIRECTIONS

HEAD = b"HTTP/1.1 200 X\r\n"
ZEROS = bytes(1 << 18)
BOMB = gzip.compress(bytes(64 << 20))

STREAMS: dict[str, tuple[Callable[[], Raw], str]] = {
    "without length": (lambda: chain([HEAD + b"\r\n"], repeat(ZEROS)), "an answer of more than"),
    "chunked": (
        lambda: chain([HEAD + b"transfer-encoding: chunked\r\n\r\n"], repeat(b"40000\r\n" + ZEROS + b"\r\n")),
        "an answer of more than",
    ),
    "with length": (lambda: chain([HEAD + b"content-length: 9999999999\r\n\r\n"], repeat(ZEROS)), "an answer of more than"),
    "compressed": (lambda: chain([HEAD + b"content-encoding: gzip\r\n\r\n"], repeat(BOMB)), "an answer of more than"),
    "events": (lambda: chain([HEAD + b"content-type: text/event-stream\r\n\r\ndata: "], repeat(b"x" * 65536)), "more than"),
    "error": (lambda: chain([b"HTTP/1.1 500 X\r\n\r\n"], repeat(b"x" * 65536)), "status 500: xxx"),
    "header": (lambda: chain([HEAD + b"x: "], repeat(b"y" * 65536)), "Got more than"),
    "headers": (lambda: chain([HEAD], (b"x%d: y\r\n" % n for n in range(10**9))), "Too many headers"),
    "interim": (lambda: repeat(b"HTTP/1.1 103 X\r\nlink: x\r\n\r\n"), "interim answers"),
    "brotli": (lambda: whole(b"abc", content_encoding="br"), "content-encoding"),
    "zstd": (lambda: whole(b"abc", content_encoding="zstd"), "content-encoding"),
    "status": (lambda: b"HTTP/1.1 99999999999 X\r\n\r\n", "Invalid response status"),
    "drip": (
        lambda: chain([HEAD + b"content-length: 100000\r\n\r\n"], chain.from_iterable(repeat((b"x", PAUSE)))),
        "arrives too slowly",
    ),
}


def choice(**fields: Any) -> dict[str, Any]:
    return {"index": 0, "finish_reason": "stop", "message": {"content": "yes"}, **fields}


def listed(**entry: Any) -> dict[str, Any]:
    """A choice with the log-probabilities of one token."""
    return choice(logprobs={"content": [{"token": "yes", "logprob": -0.5, "top_logprobs": [], **entry}]})


ANSWERS: dict[str, Any] = {
    "no object": [1, 2],
    "deep": b"[" * 1000 + b"]" * 1000,
    "deeper": b"[" * 100_000,
    "infinite": b'{"choices": [{"index": 1e400}]}',
    "lone surrogate": b'{"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "\\ud800"}}]}',
    "not UTF-8": b'{"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "\xff"}}]}',
    "an index twice": {"choices": [choice(), choice()]},
    "an index of 10**30": b'{"choices": [{"index": 1000000000000000000000000000000, "message": {"content": "yes"}}]}',
    "a token id of 2**40": {"choices": [choice(token_ids=[2**40], logprobs={"tokens": ["a"], "token_logprobs": [-1]})]},
    "a token id of -1": {"choices": [choice(token_ids=[-1])]},
    "a token id that is text": {"choices": [choice(token_ids=["1"])]},
    "a log-probability of 5": {"choices": [listed(logprob=5)]},
    "a log-probability of -1e300": {"choices": [listed(logprob=-1e300)]},
    "a log-probability that is text": {"choices": [listed(logprob="-1")]},
    "a log-probability that is true": {"choices": [listed(logprob=True)]},
    "reasoning tokens of 2**40": {
        "choices": [choice(message={"content": "yes", "reasoning": "so"})],
        "usage": {"completion_tokens_details": {"reasoning_tokens": 2**40}},
    },
    "reasoning tokens of -1": {
        "choices": [choice(message={"content": "yes", "reasoning": "so"})],
        "usage": {"completion_tokens_details": {"reasoning_tokens": -1}},
    },
    "usage that is text": {"choices": [choice()], "usage": "much"},
    "a finish reason that is a list": {"choices": [choice(finish_reason=["stop"] * 1000)]},
    "content that is a number": {"choices": [choice(message={"content": 7})]},
    "a message that is a list": {"choices": [choice(message=[1])]},
}
MODELS = whole(b'{"data": [{"id": "small"}]}')
NONE = whole(b"{}", 404)


def served(bad: Callable[[str], Raw | None]) -> Callable[[str, Any], Raw]:
    """What a server answers: `bad(prompt)`, or two choices where that is None."""

    def answer(path: str, body: Any) -> Raw:
        if body is None:
            return MODELS if path.endswith("/models") else NONE
        right = {"choices": [choice(index=index) for index in range(body["n"])]}
        return bad(body["messages"][-1]["content"]) or whole(orjson.dumps(right))

    return answer


@pytest.mark.slow
@pytest.mark.parametrize("name", STREAMS)
def test_an_answer_without_end_is_a_failed_attempt_in_bounded_memory(name: str) -> None:
    bad, words = STREAMS[name]
    tracemalloc.start()
    try:
        with RawServer(served(lambda prompt: bad() if prompt == "prompt 1" else None)) as server:
            drawn = draw(sampler(server.url, give_up_after_s=0.3), [group(number) for number in range(3)])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert [len(group.completions) for group in drawn] == [2, 0, 2]
    assert re.match(f"127.0.0.1:{server.port} fails on this prompt each time, and not on others: .*{words}", drawn[1].error or "")
    assert len(drawn[1].error or "") < 1000
    assert peak < 50 << 20


def test_an_answer_that_is_none_is_a_failed_attempt_of_its_group() -> None:
    """Groups with right answers between them are drawn."""
    bad = {f"prompt {2 * number + 1}": answer for number, answer in enumerate(ANSWERS.values())}

    def answer_to(prompt: str) -> bytes | None:
        answer = bad.get(prompt)
        return None if answer is None else whole(answer if isinstance(answer, bytes) else orjson.dumps(answer))

    with RawServer(served(answer_to)) as server:
        groups = [group(number, n=1) for number in range(2 * len(bad) + 1)]
        drawn = draw(sampler(server.url, give_up_after_s=60, quota=Quota(0.05)), groups)

    assert [len(group.completions) for group in drawn] == [*[1, 0] * len(bad), 1]
    for name, failed in zip(ANSWERS, drawn[1::2], strict=True):
        assert "fails on this prompt each time, and not on others: an answer that cannot be read" in (failed.error or ""), name


def test_impossible_probabilities_do_not_enter_the_calibration() -> None:
    even = [{"token": t, "logprob": -2} for t in "abcd"]
    tops = [
        [{"token": "a", "logprob": 3}, *even[1:]],
        [{"token": t, "logprob": -0.5 - n / 9} for n, t in enumerate("abcd")],
        [{"token": t, "logprob": "-1"} for t in "abcd"],
        even,
    ]

    def with_tops(prompt: str) -> bytes:
        number = int(prompt.removeprefix("prompt ")) if prompt != "Hello" else 3
        top = tops[number]
        return whole(orjson.dumps({"choices": [listed(token="a", top_logprobs=top)]}))

    with RawServer(served(with_tops)) as server:
        drawn = draw(sampler(server.url, give_up_after_s=60, quota=Quota(0.05)), [group(number, n=1) for number in range(4)])

    assert [len(group.completions) for group in drawn] == [0, 0, 0, 1]


@pytest.mark.parametrize("status", sorted(REDIRECTIONS))
def test_a_prompt_is_never_sent_on(status: int) -> None:
    """Neither to another server nor to another path of the same one."""
    with RawServer(lambda path, body: whole(b"{}")) as other:
        for target in (f"{other.url}/chat/completions", "/v1/other", f"https://127.0.0.1:{other.port}/"):
            answers = {"prompt 1": whole(b"", status, location=target)}
            with RawServer(served(answers.get)) as server:
                drawn = draw(sampler(server.url, give_up_after_s=60), [group(number) for number in range(3)])
            absolute = target if "://" in target else f"http://127.0.0.1:{server.port}{target}"

            assert [len(group.completions) for group in drawn] == [2, 0, 2]
            assert f"{server.url}/chat/completions sends the request on to {absolute}" in (drawn[1].error or "")
            assert "/v1/other" not in dict(server.requests)
    assert not other.requests


def test_a_list_of_models_is_followed_within_its_origin_alone() -> None:
    """A path without a slash may lead to the one with it."""

    def slashed(path: str, body: Any) -> Raw:
        if path == "/v1/models":
            return whole(b"", 307, location="/v1/models/")
        return served(lambda prompt: None)(path.rstrip("/"), body)

    with RawServer(slashed) as server:
        assert len(draw(sampler(server.url), [group(0)])) == 1
    with RawServer(lambda path, body: MODELS) as other:
        with RawServer(lambda path, body: whole(b"", 302, location=f"{other.url}/models")) as server:
            message = f"GET {server.url}/models: status 302: {server.url}/models sends the request on to {other.url}/models"
            with pytest.raises(EngineError, match=re.escape(message)):
                draw(sampler(server.url), [])
        assert not other.requests
    with RawServer(lambda path, body: whole(b"", 302, location=path)) as server:
        with pytest.raises(EngineError, match="more than 3 redirections"):
            draw(sampler(server.url), [])
        assert len(server.requests) == 4


LISTS: dict[str, tuple[Callable[[], Raw], str]] = {
    "without end": (
        lambda: chain([HEAD + b'\r\n{"data": ['], repeat(b'{"id": "other"},' * 1000)),
        "an answer of more than 8388608",
    ),
    "a bomb": (lambda: chain([HEAD + b"content-encoding: gzip\r\n\r\n"], repeat(BOMB)), "an answer of more than 8388608"),
    "many others": (
        lambda: whole(orjson.dumps({"data": [{"id": f"other-{number}" * 10} for number in range(50_000)]})),
        "does not serve small, only other-0",
    ),
    "a long name": (lambda: whole(orjson.dumps({"data": [{"id": "x" * 5_000_000}]})), "does not serve small, only xxx"),
    "numbers": (lambda: whole(b'{"data": [1, 2]}'), "wanted a list of models"),
    "depth": (lambda: whole(b"[" * 1000 + b"]" * 1000), "wanted a list of models"),
    "names that are numbers": (lambda: whole(b'{"data": [{"id": 7}]}'), "wanted a list of models"),
    "an error of depth": (lambda: whole(b'{"error": ' + b"[" * 1000 + b"1" + b"]" * 1000 + b"}"), "GET /models: status 200"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_models_that_is_none_is_an_error_in_bounded_memory(name: str) -> None:
    bad, words = LISTS[name]
    tracemalloc.start()
    try:
        with RawServer(lambda path, body: bad()) as server, pytest.raises(EngineError, match=words) as caught:
            draw(sampler(server.url), [])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert len(str(caught.value)) < 6000
    assert peak < 100 << 20


def test_odd_claims_of_a_server_are_cut_or_left_out() -> None:
    """A model is served all the same."""
    card = {"id": "small", "root": "r" * 10**6, "owned_by": 7, "max_model_len": -(2**60), "parent": None}
    noted: list[ServerClaims] = []

    def note(source: str, claims: ServerClaims) -> list[str]:
        noted.append(claims)
        return []

    def answer(path: str, body: Any) -> Raw:
        told = {"/v1/models": {"data": [card]}, "/version": ["0.1"], "/metrics": "vllm:generation_tokens_total e\n"}
        return whole(orjson.dumps(told[path])) if path in told else served(lambda prompt: None)(path, body)

    with RawServer(answer) as server:
        assert len(draw(sampler(server.url, note=note), [group(0)])) == 1

    assert (len(noted[0].root or ""), noted[0].owned_by, noted[0].max_model_len) == (200, None, None)


def test_a_judge_with_a_hostile_server_is_undecided_on_that_question_alone() -> None:
    flood = STREAMS["compressed"][0]
    server = RawServer(served(lambda prompt: flood() if prompt == "prompt 1" else None))
    with server, ExitStack() as stack:
        opened = stack.enter_context(sampler(server.url, give_up_after_s=0.3))
        questions = [(Message("user", f"prompt {number}"),) for number in range(3)]
        choices = SamplerAsker(opened, threading.RLock()).choose(questions, ("yes", "no"))

    assert [choice.label for choice in choices] == ["yes", None, "yes"]
    assert "an answer of more than" in (choices[1].error or "")


@pytest.mark.parametrize("check", ["completion", "none"])
def test_a_server_whose_first_answer_is_hostile_cannot_be_used(check: str) -> None:
    flood = STREAMS["chunked"][0]
    with RawServer(served(lambda prompt: flood())) as server, pytest.raises(EngineError, match="an answer of more than"):
        draw(sampler(server.url, check=check, give_up_after_s=0.3), [group(0)])
