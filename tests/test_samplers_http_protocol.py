"""Requests to servers, byte for byte where it matters."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from helpers.http_sampler import group
from schemas.engines import HttpEngine
from schemas.sample import Message
from thresher.samplers.http.answers import Answer
from thresher.samplers.http.dialects import (
    ANTHROPIC,
    LLAMA_CPP,
    MISTRAL,
    OPENAI_LIKE,
    SGLANG,
    TGI,
    TOGETHER,
    VLLM,
    VLLM_PLAIN,
)
from thresher.samplers.http.protocol import (
    Question,
    Service,
    likeliest_asked,
    longest_answer,
    prompt_body,
    request_body,
    short_question,
    told_kind,
    unsupported_fields,
)
from thresher.samplers.http.refusals import Form, form_of
from thresher.samplers.sampler import NEUTRAL, Completion, Group

URL = ("http://127.0.0.1:1/v1",)


def service(*, seeded: bool = False, **spec: Any) -> Service:
    return Service(HttpEngine(kind="openai_http", base_urls=URL, **spec), "small", seeded)


def body(form: Form, asked_of: Service | None = None, *, calibrated: bool = False, **parameters: Any) -> dict[str, Any]:
    return request_body(Question(group(3, **parameters), 0, 2, calibrated), asked_of or service(), form)


def test_a_question_about_a_prompt_has_the_fields_that_render_it() -> None:
    further = {"chat_template_kwargs": {"thinking": True}, "reasoning_effort": "low", "priority": 3}
    asked = replace(group(3), tools='[{"type": "function"}]')

    assert prompt_body(asked, service(extra_body=further), Form(VLLM)) == {
        "model": "small",
        "messages": [{"role": "user", "content": "prompt 3"}],
        "tools": [{"type": "function"}],
        "chat_template_kwargs": {"thinking": True, "reasoning_effort": "low", "enable_thinking": True},
    }
    assert prompt_body(asked, service(api="completions"), Form(VLLM)) == {"model": "small", "prompt": "prompt 3"}


# -- requests ----------------------------------------------------------------------------------------------------------


def test_a_request_to_vllm_has_all_sampling_fields_in_a_fixed_order() -> None:
    """The bytes of requests do not change between versions."""
    expected = {
        "seed_of_gateway": 1,
        "model": "small",
        "n": 2,
        "stream": False,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "max_tokens": 5,
        "stop": ["\n"],
        "min_tokens": 0,
        "ignore_eos": False,
        "watermarking": False,
        "skip_special_tokens": False,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        "seed": 3000,
        "logprobs": True,
        "top_logprobs": 20,
        "messages": [{"role": "user", "content": "prompt 3"}],
    }
    asked_of = service(seeded=True, extra_body={"seed_of_gateway": 1})

    assert json.dumps(body(Form(VLLM), asked_of, calibrated=True, stop=["\n"])) == json.dumps(expected)


def test_a_request_for_plain_text_has_a_prompt_and_a_number_of_logprobs() -> None:
    request = body(Form(VLLM), service(api="completions"))

    assert list(request)[-2:] == ["logprobs", "prompt"]
    assert (request["logprobs"], request["prompt"]) == (0, "prompt 3")


@pytest.mark.parametrize("dialect", [OPENAI_LIKE, VLLM_PLAIN], ids=["openai", "vllm behind a gateway"])
def test_a_plain_request_has_openais_fields_only(dialect: Any) -> None:
    request = body(Form(dialect, length_field="max_completion_tokens", logprobs=False))

    assert set(request) == {"model", "n", "stream", "messages", "max_completion_tokens"} | {
        "temperature", "top_p", "presence_penalty", "frequency_penalty",
    }  # fmt: skip


SCHEMA = {"type": "object"}


@pytest.mark.parametrize(
    ("dialect", "parameters", "expected"),
    [
        pytest.param(VLLM, {"thinking_tokens": 9}, {"thinking_token_budget": 9}, id="thinking"),
        pytest.param(VLLM, {"structured": {"choice": ["a"]}}, {"structured_outputs": {"choice": ["a"]}}, id="choice"),
        pytest.param(VLLM, {"structured": {"json_schema": SCHEMA}}, {"structured_outputs": {"json": SCHEMA}}, id="json"),
        pytest.param(OPENAI_LIKE, {"reasoning_effort": "low"}, {"reasoning_effort": "low"}, id="effort"),
        pytest.param(
            VLLM_PLAIN,
            {"structured": {"json_schema": SCHEMA}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "completion", "strict": True, "schema": SCHEMA},
                }
            },
            id="json of OpenAI",
        ),
    ],
)
def test_what_is_forced_is_sent_as_the_dialect_names_it(dialect: Any, parameters: dict[str, Any], expected: Any) -> None:
    form = Form(dialect)
    more = {name: value for name, value in body(form, **parameters).items() if name not in body(form)}

    assert more == expected
    assert unsupported_fields(group(3, **parameters), form) == []


@pytest.mark.parametrize(
    ("parameters", "name"),
    [({"thinking_tokens": 9}, "thinking_tokens"), ({"structured": {"regex": "a"}}, "structured")],
)
def test_what_only_vllm_can_force_is_not_asked_of_others(parameters: dict[str, Any], name: str) -> None:
    assert unsupported_fields(group(3, **parameters), Form(OPENAI_LIKE)) == [name]


@pytest.mark.parametrize(("api", "kept", "calibrated", "asked"), [("chat", 4, False, 5), ("completions", 4, False, 4),
                                                                   ("chat", 4, True, 20), ("chat", 0, False, 0)])  # fmt: skip
def test_as_many_likeliest_tokens_are_asked_for_as_are_surely_listed(api: Any, kept: int, calibrated: bool, asked: int) -> None:
    """A chat answer lists the drawn token in the place of the last."""
    question = Question(replace(group(3), keep_top=kept), 0, 2, calibrated)

    assert likeliest_asked(question, service(api=api).spec, Form(VLLM)) == asked


def test_fields_that_a_dialect_lacks_are_named_if_they_matter() -> None:
    assert unsupported_fields(group(0), Form(OPENAI_LIKE)) == []
    assert unsupported_fields(group(0, top_k=20, min_p=0.1), Form(OPENAI_LIKE)) == ["top_k", "min_p"]
    assert unsupported_fields(group(0, top_k=20), Form(VLLM)) == []


@pytest.mark.parametrize(
    ("dialect", "seed"), [(VLLM, 2**40 + 5), (VLLM_PLAIN, 2**40 + 5), (OPENAI_LIKE, 5)], ids=["vllm", "plain", "openai"]
)
def test_seeds_have_as_many_bits_as_the_dialect_takes(dialect: Any, seed: int) -> None:
    question = Question(replace(group(3, n=2), seeds=(7, 2**40 + 5)), 1, 1)

    assert request_body(question, service(seeded=True), Form(dialect))["seed"] == seed
    assert "seed" not in request_body(question, service(), Form(dialect))
    greedy = replace(question, group=replace(question.group, parameters={**question.group.parameters, "temperature": 0.0}))
    assert "seed" not in request_body(greedy, service(seeded=True), Form(dialect))


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        pytest.param(
            Form(VLLM),
            {
                "structured_outputs": {"choice": ["A", "B"]},
                "return_tokens_as_token_ids": False,
                "top_logprobs": 20,
                "max_tokens": 5,
            },
            id="vllm",
        ),
        pytest.param(
            Form(VLLM, logprobs=False), {"structured_outputs": {"choice": ["A", "B"]}, "max_tokens": 64}, id="vllm, no logprobs"
        ),
        pytest.param(Form(OPENAI_LIKE), {"top_logprobs": 20, "max_tokens": 5}, id="openai"),
        pytest.param(
            Form(OPENAI_LIKE, logprobs=False),
            {
                "max_tokens": 64,
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {
                        "name": "verdict",
                        "strict": True,
                        "schema": {
                            "type": "object",
                            "properties": {"verdict": {"type": "string", "enum": ["A", "B"]}},
                            "required": ["verdict"],
                            "additionalProperties": False,
                        },
                    },
                },
            },
            id="openai, no logprobs",
        ),
    ],
)
def test_labels_are_asked_for_by_logprobs_or_structured_output(form: Form, expected: dict[str, Any]) -> None:
    request = request_body(Question(replace(group(0, n=1), labels=("A", "B")), 0, 1), service(), form)

    assert request.items() >= expected.items()
    special = {"structured_outputs", "response_format", "top_logprobs"}
    assert special & set(request) == special & set(expected)


# -- dialects ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "parameters", "expected", "lacks"),
    [
        pytest.param(
            SGLANG, {}, {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "skip_special_tokens": False}, (), id="sglang"
        ),
        pytest.param(
            LLAMA_CPP,
            {},
            {"top_k": 0, "repeat_penalty": 1.0, "min_p": 0.0, "xtc_probability": 0.0, "top_logprobs": 1},
            ("repetition_penalty",),
            id="llama.cpp",
        ),
        pytest.param(TGI, {}, {"temperature": 1.0}, ("presence_penalty", "top_p", "top_k"), id="tgi"),
        pytest.param(TGI, {"top_p": 0.9}, {"top_p": 0.9}, ("presence_penalty",), id="tgi, truncated"),
        pytest.param(MISTRAL, {}, {"random_seed": 3000, "n": 2}, ("seed",), id="mistral"),
        pytest.param(TOGETHER, {}, {"logprobs": 1}, ("top_logprobs",), id="together"),
        pytest.param(ANTHROPIC, {}, {"n": 1, "top_p": 1.0}, ("presence_penalty", "seed"), id="anthropic"),
    ],
)
def test_a_dialect_gets_its_own_fields(
    dialect: Any, parameters: dict[str, Any], expected: dict[str, Any], lacks: tuple[str, ...]
) -> None:
    request = body(form_of(dialect), service(seeded=True), **parameters)

    assert request.items() >= expected.items()
    assert not set(request) & set(lacks)
    assert unsupported_fields(group(0, **parameters), form_of(dialect)) == []


@pytest.mark.parametrize(
    ("dialect", "parameters"),
    [(TGI, {"presence_penalty": 0.5}), (ANTHROPIC, {"frequency_penalty": 0.5}), (ANTHROPIC, {"temperature": 1.5})],
    ids=["another meaning", "ignored", "reduced"],
)
def test_what_a_dialect_would_misunderstand_is_not_sent(dialect: Any, parameters: dict[str, Any]) -> None:
    assert unsupported_fields(group(0, **parameters), form_of(dialect)) == list(parameters)


def test_a_short_question_has_the_parameters_and_nothing_of_the_prompt() -> None:
    asked = replace(group(3, n=4, max_tokens=900), tools='[{"type": "x"}]', template='{"a": 1}', keep_top=2)
    short = short_question(Question(asked, 3, 1, calibrated=True), 16)

    assert (short.first, short.n, short.calibrated, short.group.keep_top) == (0, 1, True, 2)
    assert short.group.parameters == {**asked.parameters, "max_tokens": 16}
    assert (short.group.messages[0].content, short.group.template) == ("Hello", "{}")
    assert json.loads(short.group.tools or "")[0]["function"]["name"] == "ping"


def test_an_answer_is_as_long_as_its_tokens_allow() -> None:
    short, long = (longest_answer(Question(group(0, max_tokens=n), 0, 2), service(), Form(VLLM), b"") for n in (100, 5000))

    assert short < 20e6
    assert long - short == 2 * 4900 * 1024


@pytest.mark.parametrize(
    ("gain", "kind"), [((1.0, 1.0), "raw"), ((1.0, 2.0), "processed"), ((1.0, 1.4), None)], ids=["raw", "processed", "neither"]
)
def test_a_server_is_asked_at_two_temperatures(gain: tuple[float, float], kind: str | None) -> None:
    """Processed log-probabilities have twice the gaps at half the temperature."""
    asked: list[float] = []

    async def answer(question: Question) -> Answer:
        temperature = question.group.parameters["temperature"]
        asked.append(temperature)
        logits = np.array([3.0, 2.0, 1.0, 0.5, 0.0]) * gain[temperature == 0.5]
        logprobs = (logits - np.logaddexp.reduce(logits)).astype(np.float32)[None]
        completion = Completion("Red", "length", top_ids=np.arange(5, dtype=np.int32)[None], top_logprobs=logprobs)
        return Answer((completion,), None, 1, None)

    assert asyncio.run(told_kind(answer)) == kind
    assert asked == [1.0, 0.5]


def test_a_server_that_lists_no_tokens_tells_nothing() -> None:
    async def answer(_: Question) -> Answer:
        return Answer((Completion("Red", "length"),), None, 1, None)

    assert asyncio.run(told_kind(answer)) is None


@pytest.mark.parametrize("temperature", [0.005, 2.5])
def test_vllm_takes_no_such_temperature(temperature: float) -> None:
    """It raises the first to 0.01 without a word, and refuses the second."""
    values = {**NEUTRAL, "temperature": temperature, "max_tokens": 1, "stop": []}
    group = Group(0, (Message("user", "Hello"),), 1, values)

    assert unsupported_fields(group, form_of(VLLM)) == ["temperature"]
    assert unsupported_fields(replace(group, parameters={**values, "temperature": 0.0}), form_of(VLLM)) == []
