"""Reads the message of an answer: text, reasoning and tool calls, in all the places where servers put them."""

from typing import Any

import orjson

from filters.reasoning import join
from schemas.sample import to_json
from thresher.samplers.sampler import Parts

REASONING = ("reasoning", "reasoning_content", "thinking")
"""Fields of a message that hold its reasoning: vLLM and OpenRouter, DeepSeek and SGLang, Ollama."""
_REASONING_PARTS = frozenset({"thinking", "reasoning", "reasoning_text", "summary_text"})
_TEXT_PARTS = frozenset({"text", "output_text", "refusal"})


def read_message(message: dict[str, Any], finish_reason: str, *, blank: bool = False) -> tuple[str, Parts | None]:
    """Return the text of a completion, and its parts if the server took it apart.

    A completion in parts has the text that most templates write for them; its token ids are those of the model's own text. One
    that was cut and has no content ended inside its reasoning, which the server may keep to itself. A refusal in the model's own
    words is its answer. Raises ValueError, TypeError, KeyError or AttributeError for content of another kind, and if there is
    nothing at all, unless the completion is known to be `blank`."""
    answer, reasoning = _content(message.get("content"))
    if answer is None and message.get("refusal"):
        answer = read_text(message["refusal"])
    for name in REASONING:
        if (value := message.get(name)) is not None:
            reasoning = [_text(value), *([] if name == "thinking" else reasoning)]
            break
    tool_calls = _calls(message.get("tool_calls"))
    cut = answer is None and tool_calls is None and finish_reason == "length"
    if answer is None and not any(reasoning) and tool_calls is None and not (cut or blank):
        raise ValueError("a message without content, reasoning or tool calls")
    if not reasoning and tool_calls is None and not cut:
        return answer or "", None
    thought = "\n".join(reasoning) if reasoning else None
    if answer is None and not cut:
        answer = ""
    return join(thought, answer, tool_calls), Parts("server", thought, answer, tool_calls)


def read_text(text: Any) -> str:
    """Return a JSON value that is text. Raises TypeError for another one."""
    if not isinstance(text, str):
        raise TypeError(f"wanted text, found {str(text)[:80]}")
    return text


# -- inside --------------------------------------------------------------------------------------------------------------


def _content(content: Any) -> tuple[str | None, list[str]]:
    """The text of a content, None for none, and the reasoning among its typed parts."""
    if content is None or isinstance(content, str):
        return content, []
    if not isinstance(content, list):
        raise TypeError(f"content is {str(content)[:80]}, which is no text")
    texts: list[str] = []
    reasoning: list[str] = []
    for part in content:
        kind = part["type"]
        if kind not in _REASONING_PARTS | _TEXT_PARTS:
            raise ValueError(f"content has a part of type {kind!r}, which is no text")
        (reasoning if kind in _REASONING_PARTS else texts).append(_text(part.get(kind, part.get("text", ""))))
    return "".join(texts) if texts else None, reasoning


def _text(value: Any) -> str:
    """A text, or the texts of typed parts joined."""
    if not isinstance(value, str | list):
        raise TypeError(f"wanted text, found {str(value)[:80]}")
    return (
        value if isinstance(value, str) else "".join(read_text(part if isinstance(part, str) else part["text"]) for part in value)
    )


def _calls(calls: Any) -> str | None:
    """Tool calls of OpenAI's form as JSON text of {name, arguments}; arguments that are no JSON stay text."""
    if not calls:
        return None
    if not isinstance(calls, list):
        raise TypeError(f"tool_calls is {str(calls)[:80]}, which is no list")
    functions = [call["function"] for call in calls]
    return to_json([{"name": read_text(one["name"]), "arguments": _arguments(one["arguments"])} for one in functions])


def _arguments(arguments: Any) -> Any:
    try:
        return orjson.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return arguments
