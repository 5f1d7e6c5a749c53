"""One server: how it is greeted, what it refuses, and how many requests it gets."""

import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from helpers.fake_openai import FakeOpenAI
from helpers.http_sampler import collect, draw, free_port, group, sampler, until
from thresher.errors import EngineError, SourceError
from thresher.estimators.calibration import Quota
from thresher.samplers.http import endpoint
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
    with FakeOpenAI(owned_by="hosted") as server, pytest.raises(EngineError, match=r"sampling.top_k: .* does not take it"):
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


def prompt(body: dict[str, Any]) -> str:
    content: str = body["messages"][0]["content"]
    return content


TOO_LONG: Any = (400, {}, "This model's maximum context length is 8 tokens.")


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (TOO_LONG, "maximum context length is 8 tokens.; shorten the prompt, lower sampling.max_tokens or"),
        ((400, {}, "Conversation roles must alternate, whatever sk-secret says"), "must alternate, whatever [key] says"),
        ((403, {}, "your input was flagged"), "status 403: your input was flagged"),
        ((413, {}, "too much"), "status 413: too much"),
        ((451, {}, "illegal"), "status 451: illegal"),
        ((200, {}, {"choices": [], "prompt_feedback": {"block_reason": "SAFETY"}}), "its policy blocks it: SAFETY"),
    ],
    ids=["too long", "template", "policy", "too large", "other", "blocked"],
)
def test_a_prompt_that_is_refused_costs_itself(refusal: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the very first, before the server has answered any."""
    monkeypatch.setenv("SMALL_KEY", "sk-secret")
    for bad in ("prompt 0", "prompt 3"):

        def misbehave(number: int, body: dict[str, Any], bad: str = bad) -> Any:
            return refusal if prompt(body) == bad else None

        with FakeOpenAI(misbehave=misbehave) as server:
            drawn = draw(sampler(server, api_key_env="SMALL_KEY", requests_in_flight=1), [group(number) for number in range(5)])
        refused = [answer for answer in drawn if answer.error is not None]

        assert [(f"prompt {answer.number}", answer.refused, answer.completions) for answer in refused] == [(bad, True, ())]
        assert words in (refused[0].error or "")
        assert sum(prompt(body) == bad for body in server.bodies) == (1 if refusal[0] == 200 else 2)


def test_a_refusal_that_passes_is_not_the_prompts() -> None:
    """As of a gateway that has no way to its servers for a moment."""
    with FakeOpenAI(misbehave=lambda number, body: 404 if number == 0 else None) as server:
        [drawn] = draw(sampler(server), [group(0)])

    assert (len(drawn.completions), drawn.error) == (2, None)


def test_what_every_prompt_is_refused_ends_the_stream() -> None:
    """Whether the prompts or the parameters are refused is decided by a short prompt with the same parameters."""

    def most_4(number: int, body: dict[str, Any]) -> Any:
        return (400, {}, "max_tokens is too large: 5. This model supports at most 4") if body["max_tokens"] > 4 else None

    for misbehave in (lambda number, body: TOO_LONG, most_4):
        with (
            FakeOpenAI(misbehave=misbehave) as server,
            pytest.raises(EngineError, match=r"status 400: (max_tokens is|This model)"),
        ):
            draw(sampler(server), [group(number) for number in range(3)])


def test_tools_that_are_refused_are_the_prompts_own_unless_the_server_takes_none() -> None:
    tools = '[{"type": "function", "function": {"name": "bad"}}]'
    asked = [group(0), replace(group(1), tools=tools, template='{"a": 1}')]

    def picky(number: int, body: dict[str, Any]) -> Any:
        return (400, {}, "no parameters") if body.get("tools") == json.loads(tools) else None

    with FakeOpenAI(misbehave=picky) as server:
        drawn = draw(sampler(server), asked)
        assert [(answer.refused, len(answer.completions)) for answer in drawn] == [(False, 2), (True, 0)]
    message = '"auto" tool choice requires --enable-auto-tool-choice'
    with (
        FakeOpenAI(misbehave=lambda number, body: (400, {}, message) if "tools" in body else None) as server,
        pytest.raises(EngineError, match=message),
    ):
        draw(sampler(server), asked)


def test_a_prompt_that_does_not_fit_the_known_context_is_named() -> None:
    """vLLM reduces max_tokens to what fits, without an error. The context is known to whoever asks."""
    with FakeOpenAI(context=7) as server, sampler(server) as http, http.stream() as stream:
        stream.submit([group(4), group(5, max_tokens=4)])
        drawn = collect(stream, 2)
        assert http.facts.context == 7
    assert "3 tokens and sampling.max_tokens 5 do not fit the context of 7" in (drawn[0].error or "")
    assert [(answer.refused, len(answer.completions)) for answer in drawn] == [(True, 0), (False, 2)]
    with FakeOpenAI(context=7) as server, pytest.raises(EngineError, match="max_tokens 7 do not fit the context of 7"):
        draw(sampler(server), [group(4, max_tokens=7)])


def test_a_list_of_models_that_fails_for_a_while_does_not_end_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "RECHECK_S", 0.0)
    with FakeOpenAI() as server, sampler(server) as http, http.stream() as stream:
        stream.submit([group(0)])
        collect(stream, 1)
        server.listing = {"error": {"message": "busy"}}
        stream.submit([group(1)])
        until(lambda: server.lists_of_models > 4)
        server.listing = None
        [drawn] = collect(stream, 1)

    assert len(drawn.completions) == 2


def test_a_model_that_is_no_longer_served_ends_the_stream() -> None:
    with (
        FakeOpenAI(misbehave=lambda number, body: (404, {}, "no such model")) as server,
        pytest.raises(EngineError, match="status 404: no such model; it no longer serves the model"),
    ):
        draw(sampler(server), [group(0)])
