"""What a server of the chat API gets for tool calls, their results and reasoning."""

import json

from schemas.sample import Message, to_json
from thresher.samplers.http.chat_turns import chat_turns


def call(name: str, identity: str | None = None, **arguments: str) -> str:
    identified = {} if identity is None else {"id": identity}
    return to_json([{**identified, "type": "function", "function": {"name": name, "arguments": arguments}}])


def test_arguments_are_text_and_ids_are_kept() -> None:
    """The API wants text, although chat templates want objects; vLLM's server turns it back."""
    turns = chat_turns(
        [
            Message("user", "Weather?"),
            Message("assistant", "", "Ask.", call("weather", "c7", city="Lima")),
            Message("tool", "clear", tool_call_id="c7", name="weather"),
        ]
    )

    assert turns == [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "Ask.",
            "reasoning": "Ask.",
            "tool_calls": [{"id": "c7", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Lima"}'}}],
        },
        {"role": "tool", "content": "clear", "tool_call_id": "c7", "name": "weather"},
    ]


def test_calls_without_ids_are_numbered_and_results_follow_them() -> None:
    """Two calls at once, then another; the last result has no call."""
    two = to_json([*json.loads(call("a")), *json.loads(call("b"))])
    messages = [Message("assistant", "", tool_calls=two), Message("tool", "1"), Message("tool", "2")]
    turns = chat_turns([*messages, Message("assistant", "", tool_calls=call("c")), Message("tool", "3"), Message("tool", "4")])

    assert [[called["id"] for called in turn.get("tool_calls", ())] for turn in turns if turn["role"] == "assistant"] == [
        ["call_0", "call_1"],
        ["call_2"],
    ]
    assert [turn["tool_call_id"] for turn in turns if turn["role"] == "tool"] == ["call_0", "call_1", "call_2", "call_3"]
