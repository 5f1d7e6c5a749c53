"""One server: how it is greeted, what it refuses, and how many requests it gets."""

from typing import Any

import pytest
from pydantic import ValidationError

from helpers.fake_openai import FakeOpenAI
from helpers.http_sampler import draw, free_port, group, sampler
from thresher.errors import EngineError, SourceError
from thresher.estimators.calibration import Quota
from thresher.samplers.http.endpoint import FIRST_LIMIT, RateLimit
from thresher.samplers.http.protocol import RESERVED_FIELDS

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


# -- the greeting ------------------------------------------------------------------------------------------------------


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


def test_a_refused_prompt_is_quoted_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a server of vLLM is asked for the tokens of a prompt."""
    monkeypatch.setenv("SMALL_KEY", "sk-secret")

    def refuse(body: dict[str, Any]) -> str:
        raise ValueError(f"no role system, whatever sk-secret says: {sorted(body)}")

    with (
        FakeOpenAI(key="sk-secret", render=refuse) as server,
        sampler(server, api_key_env="SMALL_KEY") as http,
        pytest.raises(SourceError) as error,
    ):
        http.tokenise(group(0))
    with FakeOpenAI(owned_by="openai", render=refuse) as server, sampler(server) as other:
        assert other.tokenise(group(0)) is None
    assert str(error.value) == "no role system, whatever [key] says: ['messages', 'model']"


@pytest.mark.parametrize("url", ["http://me:sk-secret@127.0.0.1/v1", "https://host/v1?key=sk-secret"])
def test_an_address_that_holds_a_key_is_refused(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        sampler(url)

    message = caught.value.errors()[0]["msg"]
    assert "api_key_env" in message
    assert "sk-secret" not in message


@pytest.mark.parametrize(
    ("owner", "extensions", "version", "kind"),
    [("vllm", "auto", "vllm 0.32.0", "raw"), ("vllm", "none", "vllm 0.32.0", "raw"), ("hosted", "auto", "unknown", "unknown")],
)
def test_facts_come_from_the_greeting(owner: str, extensions: str, version: str, kind: str) -> None:
    with FakeOpenAI(owned_by=owner) as server, sampler(server, extensions=extensions, requests_in_flight=3) as http:
        facts = http.facts

    assert (facts.engine, facts.version, facts.logprobs_kind, facts.prompt_format) == ("openai_http", version, kind, "chat")
    assert facts.sequences == 3 * 32


# -- fields ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_all_sampling_fields_are_in_every_request(api: str) -> None:
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
    with FakeOpenAI(owned_by="hosted") as server:
        [drawn] = draw(sampler(server), [group(0)])

    assert server.bodies[0].items() >= PLAIN_FIELDS.items()
    assert not set(server.bodies[0]) & set(VLLM_FIELDS)
    assert drawn.completions[0].token_ids is None
    assert drawn.completions[0].logprobs is not None


def test_a_plain_server_cannot_be_sent_top_k() -> None:
    with FakeOpenAI(owned_by="hosted") as server, pytest.raises(EngineError, match=r"sampling.top_k: .* has no such field"):
        draw(sampler(server), [group(0, top_k=20)])

    assert server.bodies == []


def test_fields_that_decide_what_is_drawn_may_not_be_set() -> None:
    with pytest.raises(EngineError, match=r"engine.extra_body.top_k: thresher sets this itself"):
        sampler("http://127.0.0.1:1/v1", extra_body={"top_k": 3})
    assert {*VLLM_FIELDS, *PLAIN_FIELDS} <= RESERVED_FIELDS


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_fields_that_a_server_refuses_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    def strict(number: int, body: dict[str, Any]) -> Any:
        return (400, {}, "Unrecognized request argument supplied: top_k") if "top_k" in body else None

    with FakeOpenAI(misbehave=strict) as server:
        drawn = draw(sampler(server), [group(number) for number in range(20)])

    assert all(len(group.completions) == 2 for group in drawn)
    assert sum("refuses vLLM's fields" in record.message for record in caplog.records) == 1
    with (
        FakeOpenAI(misbehave=strict) as server,
        pytest.raises(EngineError, match=r"status 400: Unrecognized request argument supplied: top_k"),
    ):
        draw(sampler(server, extensions="vllm"), [group(0)])


def test_a_refused_value_is_no_unknown_field() -> None:
    """Without top_k the server's own would apply."""

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

    assert all(group.calibration is not None for group in drawn)
    assert server.bodies[-1]["max_completion_tokens"] == 5


def test_a_server_without_logprobs_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    def mute(number: int, body: dict[str, Any]) -> Any:
        return (400, {}, "logprobs are not supported") if "logprobs" in body else None

    with FakeOpenAI(misbehave=mute, owned_by="hosted") as server:
        drawn = draw(sampler(server, quota=Quota()), [group(number) for number in range(20)])

    assert all(group.calibration is None and group.completions[0].logprobs is None for group in drawn)
    assert sum("gives no log-probabilities" in record.message for record in caplog.records) == 1


def test_a_prompt_that_does_not_fit_is_named() -> None:
    with (
        FakeOpenAI(misbehave=lambda number, body: (400, {}, "This model's maximum context length is 8 tokens.")) as server,
        pytest.raises(SourceError, match=r"prompt 'prompt 4': .* do not fit .* lower max_tokens"),
    ):
        draw(sampler(server), [group(4)])
    # vLLM reduces max_tokens to what fits, without an error.
    with (
        FakeOpenAI(context=7) as server,
        pytest.raises(SourceError, match=r"'prompt 4': 3 tokens .* 5 do not fit the context of 7"),
    ):
        draw(sampler(server), [group(4)])


def test_a_model_that_is_no_longer_served_ends_the_stream() -> None:
    with (
        FakeOpenAI(misbehave=lambda number, body: (404, {}, "no such model")) as server,
        pytest.raises(EngineError, match="status 404: no such model; it no longer serves the model"),
    ):
        draw(sampler(server), [group(0)])


# -- the rate ----------------------------------------------------------------------------------------------------------


def test_the_limit_doubles_per_round_until_the_first_refusal() -> None:
    rate = RateLimit(100)
    for _ in range(int(FIRST_LIMIT)):
        rate.grow()
    assert rate.limit == 2 * FIRST_LIMIT
    rate.shrink(sent_at=1.0, now=2.0)
    assert rate.limit == FIRST_LIMIT
    for _ in range(int(FIRST_LIMIT)):
        rate.grow()

    assert FIRST_LIMIT + 0.9 < rate.limit < FIRST_LIMIT + 1


def test_requests_that_were_in_flight_together_shrink_the_limit_once() -> None:
    rate = RateLimit(100)
    for sent_at in (1.0, 1.5, 2.0):
        rate.shrink(sent_at, now=2.0)
    assert rate.limit == FIRST_LIMIT / 2
    rate.shrink(sent_at=2.5, now=3.0)
    assert rate.limit == FIRST_LIMIT / 4
    for number in range(10):
        rate.shrink(sent_at=4.0 + number, now=4.5 + number)

    assert rate.limit == 1.0


def test_the_limit_stays_within_the_recipes() -> None:
    rate = RateLimit(3)
    rate.grow()

    assert (rate.limit, RateLimit(1000).limit) == (3, FIRST_LIMIT)


def test_pauses_do_not_shorten_each_other() -> None:
    rate = RateLimit(3)
    rate.pause(10.0)
    rate.pause(5.0)

    assert rate.paused_until == 10.0
