"""The HTTP sampler against servers that misbehave, and (slow) against a real vLLM server."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import ValidationError

from helpers.fake_openai import FakeOpenAI
from schemas.engines import HttpEngine
from schemas.sample import Message
from thresher.errors import EngineError, SourceError
from thresher.estimators.calibration import Calibration, Quota, Sums, calibrations, nothing
from thresher.samplers import openai_http
from thresher.samplers.openai_answers import calibrate, logprobs_of, read_answer
from thresher.samplers.openai_http import HttpSampler, addresses
from thresher.samplers.orphans import _descendants, kill
from thresher.samplers.sampler import NEUTRAL, Drawn, Group

VLLM_FIELDS = {
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "min_tokens": 0,
    "ignore_eos": False,
    "watermarking": False,
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
}
PLAIN_FIELDS = {"temperature": 1.0, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "max_tokens": 5, "n": 2}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits, and no key of the one who runs the tests."""
    monkeypatch.setattr(openai_http, "_FIRST_WAIT_S", 0.005)
    monkeypatch.setattr(openai_http, "_PROBE_S", 0.05)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def sampler(*servers: Any, quota: Quota | None = None, seeds: Any = "auto", **spec: Any) -> HttpSampler:
    urls = tuple(server if isinstance(server, str) else server.url for server in servers)
    return HttpSampler(
        HttpEngine(kind="openai_http", base_urls=urls, **spec), "small", quota=quota or Quota(standard_error=0), seeds=seeds
    )


def group(number: int, n: int = 2, **parameters: Any) -> Group:
    values = {**NEUTRAL, "max_tokens": 5, "stop": [], **parameters}
    return Group(number, (Message("user", f"prompt {number}"),), n, values, tuple(1000 * number + i for i in range(n)))


def collect(stream: Any, wanted: int, timeout: float = 20.0) -> list[Drawn]:
    drawn: list[Drawn] = []
    deadline = time.monotonic() + timeout
    while len(drawn) < wanted:
        assert time.monotonic() < deadline, f"{len(drawn)} of {wanted}"
        drawn += stream.take(0.2)
    return sorted(drawn, key=lambda one: one.number)


def draw(held: HttpSampler, groups: list[Group], timeout: float = 20.0) -> list[Drawn]:
    with held, held.stream() as stream:
        stream.submit(groups)
        return collect(stream, len(groups), timeout)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def calibration_of(drawn: list[Drawn]) -> Calibration:
    found: Sums = np.sum([one.calibration for one in drawn if one.calibration is not None], axis=0)
    return calibrations({("server", ""): (int(found[:, 0].sum()), found)})[0]


# -- what comes back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_completions_hold_tokens_and_logprobs(api: str) -> None:
    with FakeOpenAI() as server:
        held = sampler(server, api=api)
        [one] = draw(held, [group(7, n=3)])

    assert (one.number, one.source, len(one.completions), one.error) == (7, f"127.0.0.1:{server.port}", 3, None)
    assert (held.facts.version, held.facts.prompt_format) == ("vllm 0.32.0", "chat" if api == "chat" else "text")
    assert one.prompt_ids is not None and one.prompt_ids.tolist() == [1, 2, 3]
    for completion in one.completions:
        assert completion.token_ids is not None and completion.logprobs is not None
        assert completion.text == " ".join(map(str, completion.token_ids))
        assert (completion.token_ids.dtype, completion.logprobs.dtype) == (np.int32, np.float32)
        assert len(completion.token_ids) == len(completion.logprobs)
        assert completion.cumulative_logprob == completion.logprobs.astype(np.float64).sum()
        assert completion.seed is None


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_every_sampling_field_is_on_every_request(api: str) -> None:
    with FakeOpenAI() as server:
        draw(sampler(server, api=api), [group(0), group(1, stop=["\n"]), group(2, n=1, temperature=0.0)])

    assert all(body.items() >= {**VLLM_FIELDS, **PLAIN_FIELDS}.items() for body in server.bodies if body["temperature"])
    assert sorted((body["temperature"], body["n"], tuple(body.get("stop", ()))) for body in server.bodies) == [
        (0.0, 1, ()),
        (1.0, 2, ()),
        (1.0, 2, ("\n",)),
    ]
    assert all(not body["logprobs"] if api == "completions" else body["logprobs"] is True for body in server.bodies)
    assert all("seed" not in body for body in server.bodies)


def test_a_plain_server_gets_plain_fields_only() -> None:
    with FakeOpenAI(owned_by="somebody") as server:
        [one] = draw(sampler(server), [group(0)])

    assert server.bodies[0].items() >= PLAIN_FIELDS.items()
    assert not set(server.bodies[0]) & set(VLLM_FIELDS)
    assert one.completions[0].token_ids is None
    assert one.completions[0].logprobs is not None


def test_a_plain_server_cannot_be_sent_top_k() -> None:
    with FakeOpenAI(owned_by="somebody") as server, pytest.raises(EngineError, match=r"sampling.top_k: .* takes no such field"):
        draw(sampler(server), [group(0, top_k=20)])

    assert server.bodies == []


def test_fields_that_a_server_refuses_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    def strict(number: int, body: dict[str, Any]) -> Any:
        return (400, {}, "Unrecognized request argument supplied: top_k") if "top_k" in body else None

    with FakeOpenAI(misbehave=strict) as server:
        drawn = draw(sampler(server), [group(number) for number in range(20)])

    assert all(len(one.completions) == 2 for one in drawn)
    assert [record.message for record in caplog.records if "refuses" in record.message][1:] == []
    with (
        FakeOpenAI(misbehave=strict) as server,
        pytest.raises(EngineError, match=r"status 400: Unrecognized request argument supplied: top_k"),
    ):
        draw(sampler(server, extensions="vllm"), [group(0)])


def test_a_refused_value_is_no_unknown_field() -> None:
    """Without top_k the server's own would hold."""

    def old(number: int, body: dict[str, Any]) -> Any:
        return 400, {}, "top_k must be -1 (disable), or at least 1, got 0."

    with FakeOpenAI(misbehave=old) as server, pytest.raises(EngineError, match="status 400: top_k must be -1"):
        draw(sampler(server), [group(0)])

    assert all("top_k" in body for body in server.bodies)


def test_the_names_and_limits_of_hosted_servers_are_learnt() -> None:
    def hosted(number: int, body: dict[str, Any]) -> Any:
        if "max_tokens" in body:
            return 400, {}, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        return (400, {}, "Invalid value for 'top_logprobs': must be at most 5") if body["top_logprobs"] > 5 else None

    with FakeOpenAI(misbehave=hosted, owned_by="hosted") as server:
        drawn = draw(sampler(server, quota=Quota()), [group(number) for number in range(20)])

    assert all(one.calibration is not None for one in drawn)
    assert server.bodies[-1]["max_completion_tokens"] == 5


def test_a_server_without_logprobs_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    def mute(number: int, body: dict[str, Any]) -> Any:
        return (400, {}, "logprobs are not supported") if "logprobs" in body else None

    with FakeOpenAI(misbehave=mute, owned_by="hosted") as server:
        drawn = draw(sampler(server, quota=Quota()), [group(number) for number in range(20)])

    assert all(one.calibration is None and one.completions[0].logprobs is None for one in drawn)
    assert sum("gives no log-probabilities" in record.message for record in caplog.records) == 1


def test_large_groups_are_cut_into_requests_of_one_server() -> None:
    with FakeOpenAI() as one, FakeOpenAI() as other:
        drawn = draw(sampler(one, other, completions_per_request=3), [group(number, n=7) for number in range(6)])

    assert sorted(body["n"] for body in one.bodies + other.bodies) == [1] * 6 + [3] * 12
    assert {len(one.completions) for one in drawn} == {7}
    for server in (one, other):
        mine = {drawn[int(body["messages"][0]["content"].split()[1])].source for body in server.bodies}
        assert mine == {f"127.0.0.1:{server.port}"}


@pytest.mark.parametrize("choices", [lambda n: 1, lambda n: n + 2, lambda n: max(1, n // 2)], ids=["one", "more", "half"])
def test_wrong_counts_of_choices_are_made_up(choices: Callable[[int], int]) -> None:
    with FakeOpenAI(choices=choices) as server:
        drawn = draw(sampler(server), [group(number, n=5) for number in range(5)])

    assert [len(one.completions) for one in drawn] == [5] * 5


def test_seeds_are_sent_and_recorded_only_when_wanted() -> None:
    with FakeOpenAI() as server:
        [one] = draw(sampler(server, seeds="sample", completions_per_request=2), [group(3, n=4)])
        [greedy] = draw(sampler(server, seeds="sample"), [group(3, n=1, temperature=0.0)])

    assert sorted(body["seed"] for body in server.bodies[:2]) == [3000, 3002]
    assert [completion.seed for completion in one.completions] == [3000, 3001, 3002, 3003]
    assert greedy.completions[0].seed is None
    with FakeOpenAI(owned_by="somebody") as server:
        [one] = draw(sampler(server, seeds="sample"), [replace(group(3, n=2), seeds=(2**40 + 5, 7))])

    assert sorted((body["n"], body["seed"]) for body in server.bodies) == [(1, 5), (1, 7)]
    assert [completion.seed for completion in one.completions] == [5, 7]


# -- servers that fail -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["cut", "drop", "half", 500, 503, (429, {"retry-after": "0.05"}, "slow down")], ids=str)
def test_what_fails_is_drawn_again(trouble: Any) -> None:
    seen = set()

    def at_first(number: int, body: dict[str, Any]) -> Any:
        asked = body["messages"][0]["content"]
        return None if asked in seen else (seen.add(asked), trouble)[1]

    with FakeOpenAI(misbehave=at_first) as server:
        drawn = draw(sampler(server), [group(number) for number in range(15)])

    assert [(one.number, len(one.completions), one.error) for one in drawn] == [(number, 2, None) for number in range(15)]


def test_a_server_that_asks_to_wait_is_left_alone() -> None:
    times: list[float] = []

    def storm(number: int, body: dict[str, Any]) -> Any:
        times.append(time.monotonic())
        return (429, {"retry-after": "0.5"}, "slow down") if number < 4 else None

    with FakeOpenAI(misbehave=storm) as server:
        draw(sampler(server), [group(number) for number in range(4)])

    assert times[4] - times[3] >= 0.5


def test_a_prompt_on_which_a_server_fails_each_time_is_given_up() -> None:
    def poisoned(number: int, body: dict[str, Any]) -> Any:
        return 500 if body["messages"][0]["content"] == "prompt 2" else None

    with FakeOpenAI(misbehave=poisoned) as server:
        drawn = draw(sampler(server), [group(number) for number in range(4)])

    assert [len(one.completions) for one in drawn] == [2, 2, 0, 2]
    assert drawn[2].error == f"127.0.0.1:{server.port} fails on it each time, and not on others: status 500: no"


def test_no_answer_for_long_ends_every_stream() -> None:
    with (
        FakeOpenAI(misbehave=lambda number, body: 500) as server,
        sampler(server, give_up_after_s=0.5) as held,
        held.stream() as one,
        held.stream() as other,
    ):
        for stream in (one, other):
            stream.submit([group(0)])
        for stream in (one, other):
            with pytest.raises(EngineError, match=r"no server has answered for 0.5 s .*status 500: no"):
                collect(stream, 1)


@pytest.mark.slow
def test_an_answer_is_waited_for_however_long_it_takes() -> None:
    with FakeOpenAI(delay_s=1.0) as server:
        [one] = draw(sampler(server, give_up_after_s=0.2), [group(0)])

    assert len(one.completions) == 2


def test_the_others_take_over_from_a_server_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    """Its connections live. One that is only slow is left to it."""
    with (
        FakeOpenAI(delay_s=0.02) as alive,
        FakeOpenAI(delay_s=0.02) as hanging,
        FakeOpenAI(delay_s=1.0) as slow,
        sampler(alive, hanging, slow, silent_s=0.1) as held,
        held.stream() as stream,
    ):
        stream.submit([group(number, n=4) for number in range(100)])
        first = stream.take(10)
        wanted = hanging.hang()
        drawn = first + collect(stream, 100 - len(first))
        assert sorted(one.number for one in drawn) == list(range(100))
        assert slow.drew_any(drawn)
        assert [url for url in (alive.url, hanging.url, slow.url) if f"{url} does not answer" in caplog.text] == [hanging.url]
        wanted.set()
        until(lambda: f"{hanging.url} answers again" in caplog.text)


def test_a_server_that_hangs_alone_is_given_up() -> None:
    with FakeOpenAI(delay_s=0.05) as server, sampler(server, silent_s=0.1, give_up_after_s=0.5) as held, held.stream() as stream:
        wanted = server.hang()
        stream.submit([group(0)])
        with pytest.raises(EngineError, match=r"no server has answered for 0.5 s .*nothing came for .*TimeoutError"):
            collect(stream, 1)
        wanted.set()


def test_the_others_take_over_from_a_server_that_is_dead(caplog: pytest.LogCaptureFixture) -> None:
    with FakeOpenAI() as alive:
        drawn = draw(sampler(f"http://127.0.0.1:{free_port()}/v1", alive), [group(number) for number in range(8)])

    assert {one.source for one in drawn} == {f"127.0.0.1:{alive.port}"}
    assert "going on without it" in caplog.text


def test_the_others_take_over_from_a_server_that_dies_and_comes_back() -> None:
    with (
        FakeOpenAI(delay_s=0.02) as alive,
        FakeOpenAI(delay_s=0.02) as dying,
        sampler(alive, dying) as held,
        held.stream() as stream,
    ):
        stream.submit([group(number, n=4) for number in range(100)])
        first = stream.take(10)
        dying.stop()
        drawn = first + collect(stream, 100 - len(first))
        assert sorted(one.number for one in drawn) == list(range(100))
        assert all(len(one.completions) == 4 and one.error is None for one in drawn)
        with FakeOpenAI(delay_s=0.02, port=dying.port) as again:
            for number in range(100):
                stream.submit([group(number) for _ in range(8)])
                if again.drew_any(collect(stream, 8)):
                    break

    assert again.bodies


def test_the_model_must_be_served() -> None:
    with (
        FakeOpenAI(models=("smell", "large")) as server,
        pytest.raises(EngineError, match=r"does not serve small, only large, smell; did you mean smell\?"),
    ):
        draw(sampler(server), [])


def test_a_server_that_cannot_be_reached_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(EngineError, match=rf"no server can be reached \(GET {url}/models: ClientConnectorError .*; start it"):
        draw(sampler(url), [])


def test_an_address_without_models_is_explained() -> None:
    with (
        FakeOpenAI() as server,
        pytest.raises(EngineError, match=r"wanted a list of models, found status 404 .* mostly end in /v1"),
    ):
        draw(sampler(server.url.removesuffix("/v1")), [])


@pytest.mark.parametrize("url", ["http://me:sk-secret@127.0.0.1/v1", "https://host/v1?key=sk-secret"])
def test_an_address_that_holds_a_key_is_refused(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        sampler(url)

    message = caught.value.errors()[0]["msg"]
    assert "give the plain address, and the key by api_key_env" in message
    assert "sk-secret" not in message


def test_the_key_is_in_no_message(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-1")
    errors: list[BaseException] = []
    with FakeOpenAI(key="another") as server:
        with pytest.raises(
            EngineError, match=r"status 401: the key in the environment variable OPENAI_API_KEY is refused"
        ) as one:
            draw(sampler(server, api_key_env="OPENAI_API_KEY"), [])
        errors.append(one.value)
    with FakeOpenAI(key="sk-secret-1", misbehave=lambda number, body: (418, {}, "your key sk-secret-1 is odd")) as server:
        held = sampler(server, api_key_env="OPENAI_API_KEY")
        with pytest.raises(EngineError, match=r"status 418: your key \[key\] is odd") as one:
            draw(held, [group(0)])
        errors += [one.value, RuntimeError(repr(held), repr(held.facts), repr(vars(held._endpoints[0])))]
    with FakeOpenAI(key="sk-secret-1", misbehave=lambda number, body: "cut" if number < 6 else None) as server:
        draw(sampler(server, api_key_env="OPENAI_API_KEY"), [group(0)])
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-1\nX-Other: 1")
    with pytest.raises(EngineError, match="characters that no key has") as one:
        sampler("http://127.0.0.1:1/v1", api_key_env="OPENAI_API_KEY")
    errors.append(one.value)

    assert "sk-secret" not in caplog.text + "".join(repr(error) + repr(error.__cause__) for error in errors)


def test_a_missing_key_is_named() -> None:
    with FakeOpenAI(key="wanted") as server, pytest.raises(EngineError, match="environment variable SPECIAL_KEY is empty"):
        draw(sampler(server, api_key_env="SPECIAL_KEY"), [])


def test_a_prompt_that_does_not_fit_is_named() -> None:
    with (
        FakeOpenAI(misbehave=lambda number, body: (400, {}, "This model's maximum context length is 8 tokens.")) as server,
        pytest.raises(SourceError, match=r"prompt 'prompt 4': .* do not fit .* lower max_tokens"),
    ):
        draw(sampler(server), [group(4)])
    # vLLM cuts max_tokens down to what fits, and says nothing.
    with (
        FakeOpenAI(context=7) as server,
        pytest.raises(SourceError, match=r"'prompt 4': 3 tokens .* 5 do not fit the context of 7"),
    ):
        draw(sampler(server), [group(4)])


def test_fields_that_decide_what_is_drawn_may_not_be_set() -> None:
    with pytest.raises(EngineError, match=r"engine.extra_body.top_k: thresher sets this itself"):
        sampler("http://127.0.0.1:1/v1", extra_body={"top_k": 3})


def test_a_loopback_server_is_reached_past_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with FakeOpenAI() as server:
        assert len(draw(sampler(server), [group(0)])) == 1


# -- how many at once, and which first ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_name_stands_for_all_its_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with two addresses is two servers; one without any is told before anything is begun."""
    look_up = socket.getaddrinfo
    with FakeOpenAI() as server:
        port = int(server.url.split(":")[2].removesuffix("/v1"))

        def named(host: Any, *more: Any, **most: Any) -> Any:
            if host != "replicas.example":
                return look_up(host, *more, **most)
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in ("127.0.0.2", "127.0.0.1", "127.0.0.2")
            ]

        monkeypatch.setattr(socket, "getaddrinfo", named)
        url = f"http://replicas.example:{port}/v1"
        assert addresses([url]) == [f"http://127.0.0.1:{port}/v1", f"http://127.0.0.2:{port}/v1"]
        assert addresses([url, url]) == addresses([url])
    spec = HttpEngine(kind="openai_http", base_urls=("http://nobody.invalid:8000/v1",), every_address=True)
    with pytest.raises(EngineError, match="its name stands for no address"):
        HttpSampler(spec, "small", quota=Quota(0.0), seeds="auto")
    with pytest.raises(ValueError, match="a certificate is of a name"):
        HttpEngine(kind="openai_http", base_urls=("https://replicas.example/v1",), every_address=True)


def test_servers_come_and_go_with_the_file_of_a_fleet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The second is taken up while the run goes on; the first is left out once it is gone from the file and answers no more."""
    monkeypatch.setattr(openai_http, "_LIST_S", 0.05)
    file, spec = tmp_path / "fleet", HttpEngine(kind="openai_http", fleet="fleet")
    with FakeOpenAI(delay_s=0.02) as first, FakeOpenAI(delay_s=0.02) as second:
        file.write_text(f"{first.url}\n")
        held = HttpSampler(spec, "small", quota=Quota(0.0), seeds="auto", base=tmp_path)
        with held, held.stream() as stream:
            stream.submit([group(number) for number in range(20)])
            drawn = collect(stream, 20)
            assert first.drew_any(drawn)
            assert not second.drew_any(drawn)
            file.write_text(f"{first.url}\n{second.url}\n")
            until(lambda: len(held._endpoints) == 2 and all(one.up for one in held._endpoints))
            stream.submit([group(number) for number in range(100)])
            drawn = collect(stream, 100)
            assert first.drew_any(drawn)
            assert second.drew_any(drawn)
            file.write_text(f"{second.url}\n")
            first.stop()
            stream.submit([group(number) for number in range(100)])
            assert len(collect(stream, 100)) == 100
            until(lambda: [one.url for one in held._endpoints] == [second.url])
    with pytest.raises(ValidationError, match="one of the two"):
        HttpEngine(kind="openai_http")


def until(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_requests_in_flight_grow_and_shrink() -> None:
    with FakeOpenAI(delay_s=0.05) as server, sampler(server, requests_in_flight=12) as held, held.stream() as stream:
        stream.submit([group(number) for number in range(200)])
        collect(stream, 200)
        [endpoint] = held._endpoints
        assert endpoint.limit == 12 and 8 < server.most_in_progress <= 12

        server.misbehave = lambda number, body: 429 if number < 215 else None
        stream.submit([group(number) for number in range(20)])
        collect(stream, 20)
        assert 1 <= endpoint.limit < 9
        assert not endpoint.in_flight and not endpoint.tokens and not held._jobs


def test_requests_of_the_first_stream_go_first() -> None:
    with (
        FakeOpenAI(delay_s=0.01) as server,
        sampler(server, requests_in_flight=1) as held,
        held.stream(priority=1) as later,
        held.stream(priority=0) as sooner,
    ):
        later.submit([group(number) for number in range(100, 120)])
        sooner.submit([group(number) for number in range(20)])
        collect(later, 20)
        asked = [int(body["messages"][0]["content"].split()[1]) for body in server.bodies]

    early = asked.index(0)
    assert asked[early : early + 20] == list(range(20))
    assert early <= 5
    assert [number for number in asked if number >= 100] == list(range(100, 120))


def test_streams_side_by_side_get_their_own() -> None:
    results: dict[int, list[Drawn]] = {}
    with FakeOpenAI(misbehave=lambda number, body: 503 if number % 10 == 0 else None) as server, sampler(server) as held:

        def work(mine: int) -> None:
            with held.stream(mine) as stream:
                for start in range(0, 20, 5):
                    stream.submit(group(1000 * mine + number) for number in range(start, start + 5))
                results[mine] = collect(stream, 20)

        threads = [threading.Thread(target=work, args=(mine,)) for mine in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert {mine: [one.number for one in drawn] for mine, drawn in results.items()} == {
        mine: list(range(1000 * mine, 1000 * mine + 20)) for mine in range(8)
    }


@pytest.mark.slow
def test_closing_frees_those_who_wait() -> None:
    with FakeOpenAI(delay_s=30) as server, sampler(server) as held, held.stream() as stream:
        stream.submit([group(number) for number in range(20)])
        threading.Timer(0.2, held.close).start()
        with pytest.raises(EngineError, match="the engine was stopped"):
            stream.take(20)
        with pytest.raises(EngineError, match="the engine was stopped"):
            stream.submit([group(0)])
        with pytest.raises(EngineError, match="the engine was stopped"), held.stream():
            pass


def test_leaving_a_stream_gives_up_what_it_has_in_flight() -> None:
    with FakeOpenAI(delay_s=0.3) as server, sampler(server) as held:
        with held.stream() as stream:
            stream.submit([group(number) for number in range(100)])
            assert stream.take(0) == []
            time.sleep(0.1)
        with held.stream() as stream:
            stream.submit([group(0)])
            collect(stream, 1)
        assert len(server.bodies) <= 10


# -- calibration -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("owner", ["vllm", "somebody"])
def test_a_true_sampler_is_told_from_a_truncating_one(api: str, owner: str) -> None:
    scores = {}
    for only in (None, 2):
        with FakeOpenAI(only=only, owned_by=owner) as server:
            held = sampler(server, api=api, quota=Quota())
            scores[only] = calibration_of(draw(held, [group(number, n=8, max_tokens=20) for number in range(15)]))

    assert scores[None].tokens > 1000
    assert scores[None].exceeds == ()
    assert {score.event for score in scores[2].exceeds} >= {"top1", "p>=0.05", "tail"}


def test_only_as_much_is_calibrated_as_the_quota_wants() -> None:
    with FakeOpenAI() as server:
        drawn = draw(sampler(server, quota=Quota(standard_error=0.05)), [group(i, temperature=i % 2) for i in range(100)])

    assert 4 <= sum(one.calibration is not None for one in drawn) < 40
    assert all(one.calibration is None for one in drawn if one.number % 2 == 0)


def test_an_answer_without_logprobs_calibrates_nothing() -> None:
    choice: dict[str, Any] = {"index": 0, "text": "Paris", "finish_reason": "stop"}
    answer = read_answer(json.dumps({"choices": [choice]}).encode(), n=1, listed=20, seed=None)

    assert (answer.found, answer.completions[0].logprobs, answer.completions[0].cumulative_logprob) == (None, None, None)
    choice["logprobs"] = {"tokens": ["Paris"], "token_logprobs": [None], "top_logprobs": [{}]}
    with pytest.raises(ValueError, match="log-probabilities"):
        read_answer(json.dumps({"choices": [choice]}).encode(), n=1, listed=20, seed=None)


def test_what_is_listed_does_not_depend_on_what_was_drawn() -> None:
    """A tie at every rank, listed as vLLM does in chat: the drawn token first, in the place of the last of the top 5."""
    p = np.array([0.2, 0.2, 0.15, 0.15, 0.1, 0.1, 0.05, 0.05])
    total, weight = nothing(), nothing()
    for drawn in range(len(p)):
        listed = [drawn, *(other for other in range(5) if other != drawn)][:5]
        top = [{"token": f"token_id:{token}", "logprob": float(np.log(p[token]))} for token in listed]
        tokens, _, tops = logprobs_of({"content": [{**top[0], "top_logprobs": top}]})
        found = calibrate(tokens, tops, 5)
        assert found is not None
        total += p[drawn] * found
        weight[:, 1] = found[:, 1]

    assert total[:, 0] == pytest.approx(weight[:, 1])


# -- a real server -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """vLLM serving the embedded model with a generation_config that truncates; gives its base url."""
    from thresher.inputs.models import embedded_model

    home = tmp_path_factory.mktemp("served")
    for file in Path(embedded_model().path).iterdir():
        if file.name != "generation_config.json":
            (home / file.name).symlink_to(file)
    config = {"top_k": 20, "top_p": 0.8, "temperature": 0.7, "repetition_penalty": 1.1, "do_sample": True}
    (home / "generation_config.json").write_text(json.dumps(config))
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(home), "--served-model-name", "small"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager", "--max-model-len", "512"]
    environment = {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "TOKENIZERS_PARALLELISM": "false",
    }
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environment})
    try:
        for _ in range(600):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            assert process.poll() is None, (home / "log").read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        children = _descendants(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kill(children)


def real_group(number: int, n: int = 4, **parameters: Any) -> Group:
    values = {**NEUTRAL, "max_tokens": 48, "stop": [], **parameters}
    return Group(number, (Message("user", f"Write sentence {number} of a story."),), n, values)


@pytest.mark.slow
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_vllm_serve_draws_tokens_with_logprobs(vllm_server: str, api: str) -> None:
    held = sampler(vllm_server, api=api)
    drawn = draw(held, [real_group(0), real_group(1, stop=["."]), real_group(2, n=2, temperature=0.0)], timeout=600)

    assert held.facts.version == "vllm 0.32.0"
    assert [len(one.completions) for one in drawn] == [4, 4, 2]
    for one in drawn:
        assert one.prompt_ids is not None and len(one.prompt_ids) > 4
        for completion in one.completions:
            assert completion.token_ids is not None and completion.logprobs is not None
            assert len(completion.token_ids) == len(completion.logprobs) <= 48
            assert (completion.logprobs <= 0).all()
            assert completion.finish_reason in {"stop", "length"}
    assert any(completion.stop_reason == "." for completion in drawn[1].completions)
    assert "." not in "".join(completion.text for completion in drawn[1].completions)
    assert drawn[2].completions[0].text == drawn[2].completions[1].text


@pytest.mark.slow
def test_vllm_serve_names_a_prompt_that_does_not_fit(vllm_server: str) -> None:
    with pytest.raises(SourceError, match=r"do not fit the context of 512"):
        draw(sampler(vllm_server), [real_group(0, max_tokens=500)], timeout=600)
    with pytest.raises(SourceError, match="maximum context length is 512"):
        draw(sampler(vllm_server), [Group(0, (Message("user", "word " * 600),), 1, real_group(0).parameters)])


@pytest.mark.slow
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_vllm_serve_is_overruled_by_explicit_fields(vllm_server: str, api: str) -> None:
    """The server's generation_config truncates; thresher's draws are ancestral all the same, and a plain request's are not."""
    found = calibration_of(
        draw(sampler(vllm_server, api=api, quota=Quota()), [real_group(number, n=8) for number in range(9)], timeout=600)
    )

    assert found.tokens > 2000
    assert found.exceeds == ()

    body = {"model": "small", "max_tokens": 48, "n": 8, "return_tokens_as_token_ids": True}
    body |= {"logprobs": True, "top_logprobs": 20} if api == "chat" else {"logprobs": 20}
    plain = nothing()
    with httpx.Client(trust_env=False, timeout=300) as client:
        for number in range(4):
            text = f"Write sentence {number} of a story."
            asked = {"messages": [{"role": "user", "content": text}]} if api == "chat" else {"prompt": text}
            path = "/chat/completions" if api == "chat" else "/completions"
            for choice in client.post(vllm_server + path, json=body | asked).json()["choices"]:
                tokens, _, tops = logprobs_of(choice["logprobs"])
                part = calibrate(tokens, tops, 20)
                plain += nothing() if part is None else part
    worst = calibrations({("plain", ""): (1, plain)})[0].exceeds

    assert max(abs(score.z or 0) for score in worst) > 8
