"""Requests to servers, byte for byte where it matters, and how their answers are read."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest

from helpers.http_sampler import group
from schemas.engines import HttpEngine
from thresher.estimators.calibration import empty_sums
from thresher.samplers.http.dialects import OPENAI, VLLM, VLLM_PLAIN, Form
from thresher.samplers.http.protocol import (
    Question,
    Response,
    Service,
    calibrate,
    label_logprobs,
    likeliest_asked,
    prompt_body,
    read_answer,
    read_logprobs,
    request_body,
    unsupported_fields,
)

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


@pytest.mark.parametrize("dialect", [OPENAI, VLLM_PLAIN], ids=["openai", "vllm behind a gateway"])
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
        pytest.param(OPENAI, {"reasoning_effort": "low"}, {"reasoning_effort": "low"}, id="effort"),
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
    assert unsupported_fields(group(3, **parameters), Form(OPENAI)) == [name]


@pytest.mark.parametrize(("api", "kept", "calibrated", "asked"), [("chat", 4, False, 5), ("completions", 4, False, 4),
                                                                   ("chat", 4, True, 20), ("chat", 0, False, 0)])  # fmt: skip
def test_as_many_likeliest_tokens_are_asked_for_as_are_surely_listed(api: Any, kept: int, calibrated: bool, asked: int) -> None:
    """A chat answer lists the drawn token in the place of the last."""
    question = Question(replace(group(3), keep_top=kept), 0, 2, calibrated)

    assert likeliest_asked(question, service(api=api).spec, Form(VLLM)) == asked


def test_fields_that_a_dialect_lacks_are_named_if_they_matter() -> None:
    assert unsupported_fields(group(0), Form(OPENAI)) == []
    assert unsupported_fields(group(0, top_k=20, min_p=0.1), Form(OPENAI)) == ["top_k", "min_p"]
    assert unsupported_fields(group(0, top_k=20), Form(VLLM)) == []


@pytest.mark.parametrize(
    ("dialect", "seed"), [(VLLM, 2**40 + 5), (VLLM_PLAIN, 2**40 + 5), (OPENAI, 5)], ids=["vllm", "plain", "openai"]
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
        pytest.param(Form(OPENAI), {"top_logprobs": 20, "max_tokens": 5}, id="openai"),
        pytest.param(
            Form(OPENAI, logprobs=False),
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


# -- answers -----------------------------------------------------------------------------------------------------------


def test_an_answer_without_logprobs_calibrates_nothing() -> None:
    choice: dict[str, Any] = {"index": 0, "text": "Paris", "finish_reason": "stop"}
    answer = read_answer(json.dumps({"choices": [choice]}).encode(), 1, top_logprobs=20, seed=None)

    assert (answer.calibration, answer.completions[0].logprobs, answer.completions[0].cumulative_logprob) == (None, None, None)
    choice["logprobs"] = {"tokens": ["Paris"], "token_logprobs": [None], "top_logprobs": [{}]}
    with pytest.raises(ValueError, match="log-probabilities"):
        read_answer(json.dumps({"choices": [choice]}).encode(), 1, top_logprobs=20, seed=None)


def test_choices_are_ordered_by_index_and_no_more_than_asked_for() -> None:
    choices = [{"index": index, "text": str(index), "finish_reason": "stop"} for index in (2, 0, 1)]
    answer = read_answer(json.dumps({"choices": choices}).encode(), 2, top_logprobs=0, seed=10)

    assert [(completion.text, completion.seed) for completion in answer.completions] == [("0", 10), ("1", 11)]


@pytest.mark.parametrize("reason", [None, "abort", "error"])
def test_an_unfinished_choice_is_no_answer(reason: str | None) -> None:
    choices = [{"index": 0, "text": "half", "finish_reason": reason}]
    with pytest.raises(ValueError, match="finish_reason"):
        read_answer(json.dumps({"choices": choices}).encode(), 1, top_logprobs=0, seed=None)


def test_token_ids_are_read_from_names_of_tokens() -> None:
    """A server that returns no token_ids may still name tokens by their ids."""
    logprobs = {"tokens": ["token_id:5", "token_id:0"], "token_logprobs": [-1.0, -0.5], "top_logprobs": [{}, {}]}
    choices = [{"index": 0, "text": "x", "finish_reason": "stop", "logprobs": logprobs}]
    answer = read_answer(json.dumps({"choices": choices}).encode(), 1, top_logprobs=0, seed=None)

    assert answer.completions[0].token_ids is not None
    assert answer.completions[0].token_ids.tolist() == [5, 0]
    assert (answer.tokens, answer.completions[0].cumulative_logprob) == (2, -1.5)


def test_the_list_of_tokens_does_not_depend_on_the_draw() -> None:
    """A tie at every rank, listed as vLLM does in chat: the drawn token first, instead of the last of the top 5."""
    p = np.array([0.2, 0.2, 0.15, 0.15, 0.1, 0.1, 0.05, 0.05])
    total, weight = empty_sums(), empty_sums()
    for drawn in range(len(p)):
        listed = [drawn, *(other for other in range(5) if other != drawn)][:5]
        top = [{"token": f"token_id:{token}", "logprob": float(np.log(p[token]))} for token in listed]
        tokens, _, tops = read_logprobs({"content": [{**top[0], "top_logprobs": top}]})
        sums = calibrate(tokens, tops, 5)
        assert sums is not None
        total += p[drawn] * sums
        weight[:, 1] = sums[:, 1]

    assert total[:, 0] == pytest.approx(weight[:, 1])


def test_label_logprobs_add_up_spellings_with_and_without_a_space() -> None:
    listed = [{"token": " A", "logprob": np.log(0.5)}, {"token": "A", "logprob": np.log(0.25)}, {"token": "C", "logprob": -3.0}]
    chat = {"choices": [{"logprobs": {"content": [{"top_logprobs": listed}]}}]}
    plain = {"choices": [{"logprobs": {"top_logprobs": [{entry["token"]: entry["logprob"] for entry in listed}]}}]}

    for answer in (chat, plain):
        logprobs = label_logprobs(json.dumps(answer).encode(), ("A", "B"))
        assert list(logprobs or ()) == pytest.approx([np.log(0.75), -np.inf])
    assert label_logprobs(json.dumps(chat).encode(), ("X", "Y")) is None
    assert label_logprobs(b'{"choices": [{"logprobs": null}]}', ("A", "B")) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"error": {"message": "too hot", "code": 1}}', "too hot"),
        (b'{"error": "too hot"}', "too hot"),
        (b'{"detail": [{"msg": "bad"}]}', '[{"msg": "bad"}]'),
        (b'{"message": "too hot"}', "too hot"),
        (b"<html>", "<html>"),
        (b"[1]", "[1]"),
        (b"x" * 1000, "x" * 500),
    ],
)
def test_the_error_message_of_a_server_is_read(content: bytes, message: str) -> None:
    assert Response(400, "", content).message == message


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60))

    assert [Response(429, value, b"").wait_s for value in ("1.5", "-3", "", "soon")] == [1.5, 0.0, 0.0, 0.0]
    assert 50 < Response(429, soon, b"").wait_s <= 60
