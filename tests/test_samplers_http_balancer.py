"""Several servers share the groups: which fail, hang, die, come and go."""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from helpers.fake_openai import LOGPROBS, ORDER, FakeOpenAI
from helpers.http_sampler import calibration_of, collect, draw, free_port, group, sampler, until
from schemas.engines import HttpEngine
from thresher.errors import EngineError
from thresher.estimators.calibration import Quota
from thresher.samplers.http import protocol
from thresher.samplers.sampler import Drawn


def test_large_groups_are_divided_into_requests_to_one_server() -> None:
    with FakeOpenAI() as left, FakeOpenAI() as right:
        drawn = draw(sampler(left, right, completions_per_request=3), [group(number, n=7) for number in range(6)])

    assert sorted(body["n"] for body in left.bodies + right.bodies) == [1] * 6 + [3] * 12
    assert {len(group.completions) for group in drawn} == {7}
    for server in (left, right):
        sources = {drawn[int(body["messages"][0]["content"].split()[1])].source for body in server.bodies}
        assert sources == {f"127.0.0.1:{server.port}"}


@pytest.mark.parametrize("choices", [lambda n: 1, lambda n: n + 2, lambda n: max(1, n // 2)], ids=["one", "more", "half"])
def test_missing_choices_are_asked_for_again(choices: Callable[[int], int]) -> None:
    with FakeOpenAI(choices=choices) as server:
        drawn = draw(sampler(server), [group(number, n=5) for number in range(5)])

    assert [len(group.completions) for group in drawn] == [5] * 5


def test_seeds_are_sent_and_recorded_only_if_the_recipe_asks() -> None:
    with FakeOpenAI() as server:
        [drawn] = draw(sampler(server, seeds="sample", completions_per_request=2), [group(3, n=4)])
        [greedy] = draw(sampler(server, seeds="sample"), [group(3, n=1, temperature=0.0)])

    assert sorted(body["seed"] for body in server.bodies[:2]) == [3000, 3002]
    assert [completion.seed for completion in drawn.completions] == [3000, 3001, 3002, 3003]
    assert greedy.completions[0].seed is None
    with FakeOpenAI(owned_by="hosted") as server:
        [drawn] = draw(sampler(server, seeds="sample"), [replace(group(3, n=2), seeds=(2**40 + 5, 7))])

    assert sorted((body["n"], body["seed"]) for body in server.bodies) == [(1, 5), (1, 7)]
    assert [completion.seed for completion in drawn.completions] == [5, 7]


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_the_likeliest_tokens_of_each_position_are_kept(api: Any) -> None:
    """Exactly those of the server's distribution, whether or not the drawn token is one of them."""
    with FakeOpenAI() as server:
        groups = [replace(group(number, 8), keep_top=3) for number in range(4)]
        drawn = draw(sampler(server, api=api, quota=Quota(0.05)), groups)

    positions = listed = 0
    for completion in (completion for answer in drawn for completion in answer.completions):
        assert completion.token_ids is not None
        assert completion.top_ids is not None
        assert completion.top_logprobs is not None
        for before, token, ids, logprobs in zip(
            [1, *completion.token_ids[:-1]], completion.token_ids, completion.top_ids, completion.top_logprobs, strict=True
        ):
            assert ids.tolist() == ORDER[before][:3]
            assert logprobs == pytest.approx([LOGPROBS[before][other] for other in ORDER[before][:3]])
            positions, listed = positions + 1, listed + (token in ids)
    assert 0 < listed < positions
    assert any(body.get("top_logprobs", body.get("logprobs")) != 20 for body in server.bodies)


@pytest.mark.parametrize("trouble", [{"owned_by": "other"}, {"misbehave": lambda _, body: 400 if body["top_logprobs"] else None}])
def test_a_server_that_lists_no_token_ids_cannot_keep_the_likeliest(trouble: Any) -> None:
    with FakeOpenAI(**trouble) as server, pytest.raises(EngineError, match=r"likeliest|status 400"):
        draw(sampler(server), [replace(group(1), keep_top=3)])


def test_no_token_of_a_structure_is_calibrated() -> None:
    """Nor does it use the quota; with the test turned off there is nothing to mask."""
    quota = Quota(0.05)
    with FakeOpenAI() as server:
        [drawn] = draw(sampler(server, quota=quota), [group(1, 4, structured={"choice": ["a"]})])
        [off] = draw(sampler(server), [group(1, 4, structured={"choice": ["a"]})])

    assert drawn.calibration is not None
    assert (drawn.calibration.sum(), drawn.masked, drawn.tokens > 4) == (0, drawn.tokens, True)
    assert (off.calibration, off.masked) == (None, 0)
    assert {body["top_logprobs"] for body in server.bodies} == {0}


def test_only_tokens_before_the_budget_of_thinking_are_calibrated() -> None:
    """The tokens of a server's marks are unknown, so what may follow the budget is left out."""
    with FakeOpenAI() as server:
        [drawn] = draw(sampler(server, quota=Quota(0.05)), [group(1, 16, max_tokens=30, thinking_tokens=12)])
    lengths = [len(completion.token_ids) for completion in drawn.completions if completion.token_ids is not None]

    assert drawn.masked == sum(max(0, length - 4) for length in lengths) > 0
    assert calibration_of([drawn]).tokens == sum(min(4, length) for length in lengths)


def test_a_server_that_cannot_force_the_end_of_thinking_is_named() -> None:
    message = "thinking_token_budget is set but reasoning_config is not configured"
    with FakeOpenAI(misbehave=lambda *_: (400, {}, message)) as server, pytest.raises(EngineError, match=message):
        draw(sampler(server), [group(1, thinking_tokens=3)])


def test_only_as_much_is_calibrated_as_the_quota_allows() -> None:
    with FakeOpenAI() as server:
        drawn = draw(sampler(server, quota=Quota(standard_error=0.05)), [group(i, temperature=i % 2) for i in range(100)])

    assert 4 <= sum(group.calibration is not None for group in drawn) < 40
    assert all(group.calibration is None for group in drawn if group.number % 2 == 0)


# -- servers that fail -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["cut", "drop", "half", 500, 503, (429, {"retry-after": "0.05"}, "slow down")], ids=str)
def test_failed_requests_are_repeated(trouble: Any) -> None:
    seen = set()

    def at_first(number: int, body: dict[str, Any]) -> Any:
        prompt = body["messages"][0]["content"]
        if prompt in seen:
            return None
        seen.add(prompt)
        return trouble

    with FakeOpenAI(misbehave=at_first) as server:
        drawn = draw(sampler(server), [group(number) for number in range(15)])

    assert [(group.number, len(group.completions), group.error) for group in drawn] == [(number, 2, None) for number in range(15)]


def test_a_server_that_asks_to_wait_gets_no_requests() -> None:
    times: list[float] = []

    def storm(number: int, body: dict[str, Any]) -> Any:
        times.append(time.monotonic())
        return (429, {"retry-after": "0.5"}, "slow down") if number < 4 else None

    with FakeOpenAI(misbehave=storm) as server:
        draw(sampler(server), [group(number) for number in range(4)])

    assert times[4] - times[3] >= 0.5


BUSY = {"error": {"message": "Provider returned error, key sk-secret", "code": 502}}
CHOICE = {"index": 0, "finish_reason": "stop", "message": {"content": "a"}}


NO_ANSWERS: list[Any] = [
    BUSY,
    {"choices": [CHOICE | {"finish_reason": "error", "error": {"message": "idle"}}]},
    {"choices": None},
    {"choices": [CHOICE | {"finish_reason": None}]},
    {"choices": [CHOICE, CHOICE]},
    b"<html>busy</html>",
    b"data: {}\n\ndata: [DONE]\n\n",
    b'{"choices": [{"index": 0, "finish_reason": "stop", "text": NaN}]}',
    b'{"choices": [{"index": 0, "finish_reason": "stop", "text": "\\ud800"}]}',
    {"choices": [CHOICE | {"message": {"content": [{"type": "text", "text": "a"}] * 8_000}}]},
]


def test_a_200_that_is_no_answer_is_tried_again_as_long_as_the_server_gives_no_other() -> None:
    """More often than a failing request is repeated: the short prompt that would show that it works gets no answer either."""
    asked: Counter[str] = Counter()

    def outage(number: int, body: dict[str, Any]) -> Any:
        prompt = body["messages"][0]["content"]
        asked[prompt] += 1
        content = NO_ANSWERS[number % len(NO_ANSWERS) if prompt == "Hello" else int(prompt.split()[1])]
        return (200, {}, content) if min(asked[f"prompt {index}"] for index in range(len(NO_ANSWERS))) < 5 else None

    with FakeOpenAI(misbehave=outage) as server:
        drawn = draw(sampler(server), [group(number) for number in range(len(NO_ANSWERS))])

    assert [(len(answer.completions), answer.error) for answer in drawn] == [(2, None)] * len(NO_ANSWERS)
    assert asked["Hello"]


def test_a_prompt_is_not_given_up_because_the_server_works_again() -> None:
    """The request fails three times, the short prompt after them is answered: so is the next try."""
    with FakeOpenAI(misbehave=lambda number, body: (200, {}, b"") if number < 3 else None) as server:
        [drawn] = draw(sampler(server), [group(0)])

    assert (len(drawn.completions), drawn.error) == (2, None)
    assert [body["messages"][0]["content"] for body in server.bodies] == ["prompt 0"] * 3 + ["Hello", "prompt 0"]


def test_a_gateway_that_drops_all_logprobs_is_named_and_used(caplog: pytest.LogCaptureFixture) -> None:
    """Once a server has given them, an answer without is none."""

    def gateway(answer: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        return {"choices": [choice | {"logprobs": None} for choice in answer["choices"]]}

    with FakeOpenAI(shape=gateway) as server:
        drawn = draw(sampler(server), [group(number) for number in range(4)])
        assert all(len(answer.completions) == 2 and answer.completions[0].logprobs is None for answer in drawn)
        assert caplog.text.count("gives no log-probabilities") == 1
        server.shape = lambda answer, body: answer
        with sampler(server) as http, http.stream() as stream:
            stream.submit([group(0)])
            collect(stream, 1)
            server.shape, before = gateway, len(server.bodies)
            stream.submit([group(1)])
            until(lambda: len(server.bodies) > before + 4)
            server.shape = lambda answer, body: answer
            [late] = collect(stream, 1)
    assert late.completions[0].logprobs is not None


def test_an_error_with_status_200_waits_as_long_as_the_server_asks() -> None:
    times: list[float] = []

    def storm(number: int, body: dict[str, Any]) -> Any:
        times.append(time.monotonic())
        return (200, {"retry-after": "0.15"}, BUSY) if number < 1 else None

    with FakeOpenAI(misbehave=storm) as server:
        draw(sampler(server), [group(0)])

    assert times[1] - times[0] >= 0.15


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (500, "status 500: no"),
        ((200, {}, {"choices": [CHOICE | {"message": {"content": 300_000 * "a"}}]}), "an answer of more than \\d+ bytes"),
        ((200, {}, {"choices": [CHOICE | {"message": {"content": [{"type": "image"}]}}]}), "part of type 'image'"),
        ((200, {}, BUSY), r"status 200: Provider returned error, key \[key\]"),
        (503, "status 503: no"),
    ],
    ids=["500", "huge", "list", "error", "503"],
)
def test_a_prompt_on_which_a_server_fails_each_time_is_given_up(
    trouble: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another try may succeed. Where the server says that it is busy, half of give_up_after_s is waited."""
    monkeypatch.setenv("SMALL_KEY", "sk-secret")
    monkeypatch.setattr(protocol, "SLACK_BYTES", 100_000)

    def poisoned(number: int, body: dict[str, Any]) -> Any:
        return trouble if body["messages"][0]["content"] == "prompt 2" else None

    with FakeOpenAI(misbehave=poisoned) as server:
        drawn = draw(sampler(server, give_up_after_s=0.3, api_key_env="SMALL_KEY"), [group(number) for number in range(4)])

    assert [(len(group.completions), group.refused) for group in drawn] == [(2, False), (2, False), (0, False), (2, False)]
    pattern = rf"127.0.0.1:{server.port} fails on this prompt each time, and not on others: .*{words}"
    assert re.match(pattern, drawn[2].error or "")


def test_completions_that_a_policy_withholds_are_kept_unless_it_withholds_all() -> None:
    def filtered(answer: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        asked = body["messages"][0]["content"]
        for choice in answer["choices"][: {"prompt 1": 1, "prompt 2": 3}.get(asked, 0)]:
            choice |= {"finish_reason": "content_filter", "message": {"role": "assistant"}, "logprobs": None}
        return answer

    with FakeOpenAI(shape=filtered) as server:
        drawn = draw(sampler(server, quota=Quota(0.05)), [group(number, n=3) for number in range(3)])

    assert [completion.finish_reason == "content_filter" for completion in drawn[1].completions] == [True, False, False]
    assert [(answer.refused, len(answer.completions)) for answer in drawn] == [(False, 3), (False, 3), (True, 0)]
    words = f"127.0.0.1:{server.port}: the provider's policy withholds each completion (content_filter)"
    assert drawn[2].error == words


def test_no_answer_for_long_ends_every_stream() -> None:
    with (
        FakeOpenAI(misbehave=lambda number, body: 500) as server,
        sampler(server, give_up_after_s=0.5) as http,
        http.stream() as left,
        http.stream() as right,
    ):
        for stream in (left, right):
            stream.submit([group(0)])
        for stream in (left, right):
            with pytest.raises(EngineError, match=r"no server has answered for 0.5 s .*status 500: no"):
                collect(stream, 1)


@pytest.mark.slow
def test_a_slow_answer_is_awaited_without_limit() -> None:
    with FakeOpenAI(delay_s=1.0) as server:
        [drawn] = draw(sampler(server, give_up_after_s=0.2), [group(0)])

    assert len(drawn.completions) == 2


@pytest.mark.slow
def test_others_take_over_from_a_server_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    """Its connections stay open. A server that is only slow keeps its groups."""
    with (
        FakeOpenAI(delay_s=0.02) as alive,
        FakeOpenAI(delay_s=0.02) as hanging,
        FakeOpenAI(delay_s=1.0) as slow,
        sampler(alive, hanging, slow, silent_s=0.1) as http,
        http.stream() as stream,
    ):
        stream.submit([group(number, n=4) for number in range(100)])
        first = stream.take(10)
        release = hanging.hang()
        drawn = first + collect(stream, 100 - len(first))
        assert sorted(group.number for group in drawn) == list(range(100))
        assert slow.drew_any(drawn)
        assert [url for url in (alive.url, hanging.url, slow.url) if f"{url} does not answer" in caplog.text] == [hanging.url]
        release.set()
        until(lambda: f"{hanging.url} answers again" in caplog.text)


@pytest.mark.slow
def test_a_server_that_hangs_alone_is_given_up() -> None:
    with FakeOpenAI(delay_s=0.05) as server, sampler(server, silent_s=0.1, give_up_after_s=0.5) as http, http.stream() as stream:
        release = server.hang()
        stream.submit([group(0)])
        with pytest.raises(EngineError, match=r"no server has answered for 0.5 s .*no answer for .*TimeoutError"):
            collect(stream, 1)
        release.set()


@pytest.mark.slow
def test_others_take_over_from_a_server_that_answers_and_makes_no_token(caplog: pytest.LogCaptureFixture) -> None:
    """It answers /models and /metrics all the time. It counts as out until it makes tokens."""
    with (
        FakeOpenAI(delay_s=0.02, counts="tokens") as alive,
        FakeOpenAI(delay_s=0.02, counts="tokens") as stalling,
        sampler(alive, stalling, silent_s=1.0) as http,
        http.stream() as stream,
    ):
        stream.submit([group(number, n=4) for number in range(100)])
        first = stream.take(10)
        stalling.stalled = True
        drawn = first + collect(stream, 100 - len(first))
        assert sorted(group.number for group in drawn) == list(range(100))
        assert all(len(group.completions) == 4 and group.error is None for group in drawn)
        [left] = [record.getMessage() for record in caplog.records if "makes no token" in record.message]
        assert re.fullmatch(rf"{stalling.url} answers, but makes no token \(no token for [\d.]+ s with \d+ requests\).*", left)

        stalling.bodies.clear()
        stream.submit([group(number) for number in range(20)])
        assert not stalling.drew_any(collect(stream, 20))
        assert {body["max_tokens"] for body in stalling.bodies} <= {1}  # it is only asked for a token
        assert "answers again" not in caplog.text
        stalling.stalled = False
        until(lambda: f"{stalling.url} answers again" in caplog.text)
        stream.submit([group(number, n=4) for number in range(100)])
        assert stalling.drew_any(collect(stream, 100))


@pytest.mark.slow
def test_a_server_whose_counter_moves_is_not_left_however_long_a_completion_takes(caplog: pytest.LogCaptureFixture) -> None:
    with (
        FakeOpenAI(delay_s=0.02, counts="tokens") as quick,
        FakeOpenAI(delay_s=4.0, counts="tokens") as slow,
    ):
        drawn = draw(sampler(quick, slow, silent_s=1.0), [group(number, n=4) for number in range(60)])

    assert slow.drew_any(drawn)
    assert len(slow.bodies) == len({body["messages"][0]["content"] for body in slow.bodies})  # none was asked for twice
    assert "makes no token" not in caplog.text


@pytest.mark.slow
def test_a_server_whose_steps_are_slow_gets_more_time_each_time(caplog: pytest.LogCaptureFixture) -> None:
    """Alone, with steps of three times silent_s: it is left twice."""
    with FakeOpenAI(counts="tokens") as server:
        server.steps, server.delay_s = 1, 0.9
        [drawn] = draw(sampler(server, silent_s=0.3), [group(0)], timeout=60)

    assert len(drawn.completions) == 2
    assert 1 <= caplog.text.count("makes no token") <= 2


@pytest.mark.slow
def test_counters_of_another_engine_are_not_believed(caplog: pytest.LogCaptureFixture) -> None:
    """They stand still while answers arrive, so the server counts as working while it answers anything."""
    with FakeOpenAI(delay_s=0.05, counts="frozen") as server, sampler(server, silent_s=0.2) as http, http.stream() as stream:
        stream.submit([group(number) for number in range(4)])
        collect(stream, 4)
        server.delay_s = 1.0
        stream.submit([group(number) for number in range(4)])
        collect(stream, 4)

    assert len(server.bodies) == 8
    assert "no token" not in caplog.text


@pytest.mark.slow
def test_servers_that_all_stall_are_given_up() -> None:
    """The error says what was seen."""
    with (
        FakeOpenAI(delay_s=0.02, counts="tokens") as server,
        sampler(server, silent_s=0.2, give_up_after_s=1.0) as http,
        http.stream() as stream,
    ):
        server.stalled = True
        stream.submit([group(0), group(1)])
        words = rf"no server has answered for 1 s \({server.url}: no token for [\d.]+ s with 2 requests\)"
        with pytest.raises(EngineError, match=words):
            collect(stream, 2)


def test_others_take_over_from_a_server_that_is_dead(caplog: pytest.LogCaptureFixture) -> None:
    with FakeOpenAI() as alive:
        drawn = draw(sampler(f"http://127.0.0.1:{free_port()}/v1", alive), [group(number) for number in range(8)])

    assert {group.source for group in drawn} == {f"127.0.0.1:{alive.port}"}
    assert "continuing without it" in caplog.text


def test_others_take_over_from_a_server_that_dies_and_comes_back() -> None:
    with (
        FakeOpenAI(delay_s=0.02) as alive,
        FakeOpenAI(delay_s=0.02) as dying,
        sampler(alive, dying) as http,
        http.stream() as stream,
    ):
        stream.submit([group(number, n=4) for number in range(100)])
        first = stream.take(10)
        dying.stop()
        drawn = first + collect(stream, 100 - len(first))
        assert sorted(group.number for group in drawn) == list(range(100))
        assert all(len(group.completions) == 4 and group.error is None for group in drawn)
        with FakeOpenAI(delay_s=0.02, port=dying.port) as again:
            for number in range(100):
                stream.submit([group(number) for _ in range(8)])
                if again.drew_any(collect(stream, 8)):
                    break

    assert again.bodies


def test_servers_come_and_go_with_the_file_of_a_fleet(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """The second is added during the run; the first is dropped when it is no longer in the file and does not answer."""
    caplog.set_level("INFO")
    file = tmp_path / "fleet"
    with FakeOpenAI(delay_s=0.02) as first, FakeOpenAI(delay_s=0.02) as second:
        file.write_text(f"{first.url}\n")
        with sampler(fleet="fleet", base=tmp_path) as http, http.stream() as stream:
            stream.submit([group(number) for number in range(20)])
            drawn = collect(stream, 20)
            assert first.drew_any(drawn)
            assert not second.drew_any(drawn)
            file.write_text(f"{first.url}\n{second.url}\n")
            until(lambda: f"{second.url} answers" in caplog.text)
            stream.submit([group(number) for number in range(100)])
            drawn = collect(stream, 100)
            assert first.drew_any(drawn)
            assert second.drew_any(drawn)
            file.write_text(f"{second.url}\n")
            first.stop()
            stream.submit([group(number) for number in range(100)])
            assert len(collect(stream, 100)) == 100
            until(lambda: f"{first.url} is no longer listed" in caplog.text)
            with FakeOpenAI(port=first.port) as again:
                stream.submit([group(number) for number in range(20)])
                collect(stream, 20)
    assert again.lists_of_models == 0
    with pytest.raises(ValidationError, match="base_urls"):
        HttpEngine(kind="openai_http")


# -- how many at the same time, and which first ------------------------------------------------------------------------


@pytest.mark.slow
def test_requests_in_flight_grow_and_shrink() -> None:
    """Up to the recipe's limit, and back when the server refuses; nothing is left in flight."""
    with FakeOpenAI(delay_s=0.05) as server, sampler(server, requests_in_flight=12) as http, http.stream() as stream:
        stream.submit([group(number) for number in range(200)])
        collect(stream, 200)
        assert 8 < server.most_in_progress <= 12

        server.misbehave = lambda number, body: 429 if number < 215 else None
        stream.submit([group(number) for number in range(20)])
        collect(stream, 20)
        server.most_in_progress = 0
        stream.submit([group(number) for number in range(20)])
        collect(stream, 20)
        assert 1 <= server.most_in_progress <= 9
        assert server.in_progress == 0


def test_requests_of_the_first_stream_go_first() -> None:
    with (
        FakeOpenAI(delay_s=0.01) as server,
        sampler(server, requests_in_flight=1) as http,
        http.stream(priority=1) as later,
        http.stream(priority=0) as sooner,
    ):
        later.submit([group(number) for number in range(100, 120)])
        sooner.submit([group(number) for number in range(20)])
        collect(later, 20)
        numbers = [int(body["messages"][0]["content"].split()[1]) for body in server.bodies]

    early = numbers.index(0)
    assert numbers[early : early + 20] == list(range(20))
    assert early <= 5
    assert [number for number in numbers if number >= 100] == list(range(100, 120))


def test_concurrent_streams_get_their_own_groups() -> None:
    results: dict[int, list[Drawn]] = {}
    with FakeOpenAI(misbehave=lambda number, body: 503 if number % 10 == 0 else None) as server, sampler(server) as http:

        def work(shard: int) -> None:
            with http.stream(shard) as stream:
                for start in range(0, 20, 5):
                    stream.submit(group(1000 * shard + number) for number in range(start, start + 5))
                results[shard] = collect(stream, 20)

        threads = [threading.Thread(target=work, args=(shard,)) for shard in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert {shard: [group.number for group in drawn] for shard, drawn in results.items()} == {
        shard: list(range(1000 * shard, 1000 * shard + 20)) for shard in range(8)
    }
