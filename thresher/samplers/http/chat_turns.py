"""Chat messages as OpenAI-compatible servers take them in a request."""

from collections.abc import Sequence
from typing import Any

from schemas.sample import Message
from thresher.inputs.json_values import ordered_json


def chat_turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return messages as the chat API takes them: arguments of a tool call are JSON text, and every call and every result has an
    id. Calls without one are numbered, and results without one belong to the calls in their order.

    Reasoning is sent under both names in use: vLLM reads `reasoning`, and gives it to templates as `reasoning_content` too; other
    servers read `reasoning_content`.
    """
    turns: list[dict[str, Any]] = []
    unanswered: list[str] = []
    number = 0
    for message in messages:
        turn = message.as_chat()
        if message.reasoning_content is not None:
            turn["reasoning"] = message.reasoning_content
        if message.tool_calls is not None:
            calls = []
            for call in turn["tool_calls"]:
                function = call["function"]
                identity = call.get("id") or f"call_{number}"
                calls.append({"id": identity, "type": "function", "function": _as_text(function)})
                unanswered.append(identity)
                number += 1
            turn["tool_calls"] = calls
        if message.role == "tool":
            identity = message.tool_call_id or (unanswered[0] if unanswered else f"call_{number}")
            turn["tool_call_id"] = identity
            if identity in unanswered:
                unanswered.remove(identity)
        turns.append(turn)
    return turns


def _as_text(function: dict[str, Any]) -> dict[str, str]:
    arguments = function["arguments"]
    return {"name": function["name"], "arguments": arguments if isinstance(arguments, str) else ordered_json(arguments)}
