"""The HTTP sampler against a fake server, and (slow) against a real vLLM server."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from helpers.fake_openai import FakeOpenAI
from helpers.http_sampler import calibration_of, collect, draw, group, sampler, until
from helpers.vllm_server import serving
from schemas.sample import Message
from thresher.errors import EngineError
from thresher.estimators.calibration import Quota, calibrations, empty_sums
from thresher.samplers.http.logprobs import calibrate, read_logprobs
from thresher.samplers.http.protocol import Tokenised
from thresher.samplers.orphans import command_line, descendants
from thresher.samplers.sampler import NEUTRAL, Group


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_completions_hold_tokens_and_logprobs(api: str) -> None:
    with FakeOpenAI() as server:
        http = sampler(server, api=api)
        [drawn] = draw(http, [group(7, n=3)])

    assert (drawn.number, drawn.source, len(drawn.completions), drawn.error) == (7, f"127.0.0.1:{server.port}", 3, None)
    assert (http.facts.version, http.facts.prompt_format) == ("vllm 0.32.0", "chat" if api == "chat" else "text")
    assert drawn.prompt_ids is not None and drawn.prompt_ids.tolist() == [1, 2, 3]
    for completion in drawn.completions:
        assert completion.token_ids is not None and completion.logprobs is not None
        assert completion.text == " ".join(map(str, completion.token_ids))
        assert (completion.token_ids.dtype, completion.logprobs.dtype) == (np.dtype(np.int32), np.dtype(np.float32))
        assert len(completion.token_ids) == len(completion.logprobs)
        assert completion.cumulative_logprob == completion.logprobs.astype(np.float64).sum()
        assert completion.seed is None


@pytest.mark.slow
@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("owner", ["vllm", "hosted"])
def test_calibration_distinguishes_a_true_sampler_from_a_truncating_one(api: str, owner: str) -> None:
    scores = {}
    for only in (None, 2):
        with FakeOpenAI(only=only, owned_by=owner) as server:
            http = sampler(server, api=api, quota=Quota())
            scores[only] = calibration_of(draw(http, [group(number, n=8, max_tokens=20) for number in range(15)]))

    assert scores[None].tokens > 1000
    assert scores[None].exceeds == ()
    assert {score.event for score in scores[2].exceeds} >= {"top1", "p>=0.05", "tail"}


@pytest.mark.slow
def test_closing_releases_streams_that_wait() -> None:
    with FakeOpenAI(delay_s=30) as server, sampler(server) as http, http.stream() as stream:
        stream.submit([group(number) for number in range(20)])
        threading.Timer(0.2, http.close).start()
        with pytest.raises(EngineError, match="the engine was stopped"):
            stream.take(20)
        with pytest.raises(EngineError, match="the engine was stopped"):
            stream.submit([group(0)])
        with pytest.raises(EngineError, match="the engine was stopped"), http.stream():
            pass


def test_a_sampler_must_be_opened_first() -> None:
    with sampler("http://127.0.0.1:1/v1").stream() as stream, pytest.raises(EngineError, match="use it as a context manager"):
        stream.submit([group(0)])


def test_a_server_that_does_not_answer_about_a_prompt_is_an_error() -> None:
    """It has the time that the caller gives it."""
    with FakeOpenAI(render=lambda body: body["messages"][0]["content"]) as server, sampler(server) as http:
        assert http.tokenise(group(0)) == Tokenised(8, "prompt 0", 1000)
        release = server.hang()
        with pytest.raises(EngineError, match="POST /tokenize: TimeoutError"):
            http.tokenise(group(0), timeout_s=0.2)
        release.set()
    with pytest.raises(EngineError, match="use it as a context manager"):
        sampler("http://127.0.0.1:1/v1").tokenise(group(0))


def test_leaving_a_stream_cancels_its_requests() -> None:
    with FakeOpenAI(delay_s=0.3) as server, sampler(server) as http:
        with http.stream() as stream:
            stream.submit([group(number) for number in range(100)])
            assert stream.take(0) == []
            time.sleep(0.1)
        with http.stream() as stream:
            stream.submit([group(0)])
            collect(stream, 1)
        assert len(server.bodies) <= 10


# -- a real server -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base url of vLLM, serving the embedded model with a generation_config that truncates."""
    from thresher.inputs.models import embedded_model

    home = tmp_path_factory.mktemp("served")
    for file in Path(embedded_model().path).iterdir():
        if file.name != "generation_config.json":
            (home / file.name).symlink_to(file)
    config = {"top_k": 20, "top_p": 0.8, "temperature": 0.7, "repetition_penalty": 1.1, "do_sample": True}
    (home / "generation_config.json").write_text(json.dumps(config))
    with serving(str(home), home / "log") as url:
        yield url


def real_group(number: int, n: int = 4, **parameters: Any) -> Group:
    values = {**NEUTRAL, "max_tokens": 48, "stop": [], **parameters}
    return Group(number, (Message("user", f"Write sentence {number} of a story."),), n, values)


@pytest.mark.slow
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_vllm_serve_draws_tokens_with_logprobs(vllm_server: str, api: str) -> None:
    http = sampler(vllm_server, api=api)
    drawn = draw(http, [real_group(0), real_group(1, stop=["."]), real_group(2, n=2, temperature=0.0)], timeout=600)

    assert http.facts.version == "vllm 0.32.0"
    assert [len(result.completions) for result in drawn] == [4, 4, 2]
    for result in drawn:
        assert result.prompt_ids is not None and len(result.prompt_ids) > 4
        for completion in result.completions:
            assert completion.token_ids is not None and completion.logprobs is not None
            assert len(completion.token_ids) == len(completion.logprobs) <= 48
            assert (completion.logprobs <= 0).all()
            assert completion.finish_reason in {"stop", "length"}
    assert any(completion.stop_reason == "." for completion in drawn[1].completions)
    assert "." not in "".join(completion.text for completion in drawn[1].completions)
    assert drawn[2].completions[0].text == drawn[2].completions[1].text


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["raw_logprobs", "processed_logprobs", "raw_logits"])
def test_vllm_serve_is_asked_which_log_probabilities_it_gives(tmp_path: Path, mode: str) -> None:
    """Of a recipe that changes the distribution. Logits are no log-probabilities, and nothing is drawn with them."""
    from thresher.inputs.models import embedded_model

    with serving(str(embedded_model().path), tmp_path / "log", "--logprobs-mode", mode) as url:
        if mode == "raw_logits":
            with pytest.raises(EngineError, match="which are impossible: logits"):
                draw(sampler(url, give_up_after_s=3), [real_group(0, n=1)], timeout=600)
        else:
            with sampler(url, tells_kind=True) as http:
                assert http.facts.logprobs_kind == mode.removesuffix("_logprobs")


@pytest.mark.slow
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_vllm_serve_shows_the_prompt_that_it_reads(vllm_server: str, api: str) -> None:
    """The tokens are as many as those that it reports with samples."""
    with sampler(vllm_server, api=api) as http:
        read = http.tokenise(real_group(0))
        with http.stream() as stream:
            stream.submit([real_group(0, n=1)])
            (drawn,) = collect(stream, 1, timeout=600)

    assert read is not None and read.text is not None and drawn.prompt_ids is not None
    assert (read.tokens, read.context) == (len(drawn.prompt_ids), 512)
    assert "Write sentence 0 of a story." in read.text
    assert read.text.endswith("<|im_start|>assistant\n") is (api == "chat")


@pytest.mark.slow
def test_vllm_serve_refuses_a_prompt_that_does_not_fit_and_draws_the_others(vllm_server: str) -> None:
    """It reduces max_tokens without an error where only that is too large."""
    long = Group(1, (Message("user", "word " * 600),), 1, real_group(0).parameters)
    drawn = draw(sampler(vllm_server), [real_group(0), long, real_group(2, max_tokens=500)], timeout=600)

    assert [(answer.refused, len(answer.completions)) for answer in drawn] == [(False, 4), (True, 0), (True, 0)]
    assert "maximum context length is 512" in (drawn[1].error or "")
    assert "do not fit the context of 512" in (drawn[2].error or "")


@pytest.mark.slow
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_explicit_fields_overrule_vllm_serve(vllm_server: str, api: str) -> None:
    """The server's generation_config truncates. thresher's draws are ancestral nevertheless, those of a plain request are not."""
    calibrated = calibration_of(
        draw(sampler(vllm_server, api=api, quota=Quota()), [real_group(number, n=8) for number in range(9)], timeout=600)
    )

    assert calibrated.tokens > 2000
    assert calibrated.exceeds == ()

    body = {"model": "small", "max_tokens": 48, "n": 8, "return_tokens_as_token_ids": True}
    body |= {"logprobs": True, "top_logprobs": 20} if api == "chat" else {"logprobs": 20}
    plain = empty_sums()
    with httpx.Client(trust_env=False, timeout=300) as client:
        for number in range(4):
            text = f"Write sentence {number} of a story."
            prompt = {"messages": [{"role": "user", "content": text}]} if api == "chat" else {"prompt": text}
            path = "/chat/completions" if api == "chat" else "/completions"
            for choice in client.post(vllm_server + path, json=body | prompt).json()["choices"]:
                tokens, _, tops = read_logprobs(choice["logprobs"])
                part = calibrate(tokens, tops, 20)
                plain += empty_sums() if part is None else part[0]
    worst = calibrations({("plain", ""): (1, plain)})[0].exceeds

    assert max(abs(score.z or 0) for score in worst) > 8


@pytest.mark.slow
def test_vllm_serve_is_left_while_its_engine_is_stopped_and_not_while_it_is_slow(
    vllm_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its counters move during a long completion. While its engine is stopped, it answers everything but completions."""
    silent_s = 4.0
    started = time.monotonic()
    [long] = draw(sampler(vllm_server, silent_s=silent_s), [real_group(0, n=16, max_tokens=400)], timeout=600)
    assert time.monotonic() - started > silent_s
    assert len(long.completions) == 16
    assert caplog.text == ""

    [engine] = [process for process in descendants(os.getpid()) if b"EngineCore" in command_line(process.pid)]
    with (
        FakeOpenAI(delay_s=0.02, counts="tokens") as other,
        sampler(vllm_server, other, silent_s=5.0) as http,
        http.stream() as stream,
    ):
        stream.submit([real_group(number, max_tokens=300) for number in range(16)])
        time.sleep(0.5)
        os.kill(engine.pid, signal.SIGSTOP)
        try:
            drawn = collect(stream, 16, timeout=120)
            assert httpx.get(f"{vllm_server}/models", trust_env=False).status_code == 200
        finally:
            os.kill(engine.pid, signal.SIGCONT)
        assert [len(result.completions) for result in drawn] == [4] * 16
        assert other.drew_any(drawn)
        assert f"{vllm_server} answers, but makes no token (no token for " in caplog.text
        until(lambda: f"{vllm_server} answers again" in caplog.text)
