"""Reasoning and tool calls are read wherever a server puts them."""

import json
from typing import Any

import pytest

from thresher.samplers.http.parts import read_message
from thresher.samplers.sampler import Parts

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


@pytest.mark.parametrize(
    ("message", "reasoning", "answer"),
    [
        ({"content": "b", "reasoning": "a"}, "a", "b"),
        ({"content": "b", "reasoning_content": "a"}, "a", "b"),
        ({"content": "b", "thinking": "a"}, "a", "b"),
        ({"content": "b", "reasoning": "a", "reasoning_content": "a"}, "a\na", "b"),
        ({"content": None, "reasoning": "a"}, "a", None),
        (
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "a"}]}, {"type": "text", "text": "b"}]},
            "a",
            "b",
        ),
        (
            {"content": [{"type": "reasoning", "text": "a"}, {"type": "text", "text": "b"}, {"type": "text", "text": "c"}]},
            "a",
            "bc",
        ),
    ],
    ids=["vllm", "deepseek", "ollama", "both", "cut", "mistral", "several parts"],
)
def test_reasoning_and_answer_are_told_apart(message: dict[str, Any], reasoning: str, answer: str | None) -> None:
    text, parts = read_message(message, "length")

    reasoning = reasoning.partition("\n")[0]  # a server that sends it twice means it once
    assert parts == Parts("server", reasoning, answer)
    assert text.startswith(f"<think>\n{reasoning}")
    assert text.endswith(answer or reasoning)


def test_a_message_of_text_is_not_taken_apart_by_the_server() -> None:
    assert read_message({"content": "<think>a</think>b"}, "stop") == ("<think>a</think>b", None)
    assert read_message({"content": [{"type": "text", "text": "b"}]}, "stop") == ("b", None)
    assert read_message({"content": None, "refusal": "I cannot"}, "stop") == ("I cannot", None)
    assert read_message({"content": None}, "stop", blank=True) == ("", None)
    assert read_message({"content": ""}, "stop") == ("", None)


def test_a_message_without_content_that_was_cut_ended_inside_reasoning_that_is_not_shown() -> None:
    for message in ({}, {"content": None}):
        assert read_message(message, "length") == ("", Parts("server", None, None, None))


def test_a_thought_without_content_that_ended_by_itself_has_an_empty_answer() -> None:
    _, parts = read_message({"content": None, "reasoning": "a"}, "stop")

    assert parts is not None
    assert parts.answer == ""


def test_tool_calls_have_name_and_arguments() -> None:
    broken = {"function": {"name": "sub", "arguments": '{"a": '}}
    text, parts = read_message({"content": None, "tool_calls": [CALL, broken]}, "tool_calls")

    assert parts is not None
    assert parts.tool_calls is not None
    assert json.loads(parts.tool_calls) == [{"name": "add", "arguments": {"a": 1}}, {"name": "sub", "arguments": '{"a": '}]
    assert parts.answer == ""
    assert text.count("<tool_call>") == 2


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({}, ValueError),
        ({"content": None, "tool_calls": [], "reasoning": ""}, ValueError),
        ({"content": [{"type": "image_url", "image_url": {}}]}, ValueError),
        ({"content": [{}]}, KeyError),
        ({"content": 3}, TypeError),
        ({"content": "a", "reasoning": {"text": "b"}}, TypeError),
        ({"content": "a", "tool_calls": "b"}, TypeError),
    ],
)
def test_a_message_that_cannot_be_read_is_an_error(message: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        read_message(message, "stop")
