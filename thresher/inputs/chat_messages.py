"""Reads conversations in the forms that people have them, as chat messages.

A conversation is a list of turns, the JSON text of one, an object with the list under `messages` or `conversations`, or an object
of equally long lists (as older releases of `datasets` store lists of objects). A turn has role and content, or from and value.
Content is text or a list of text parts, which are joined by line breaks, as vLLM's server joins them.

What a Message cannot carry, such as an image, raises RefusedError: the caller leaves the row out and counts it.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from schemas.sample import Message, to_json
from schemas.suggest import did_you_mean
from thresher.errors import SourceError
from thresher.inputs.json_values import json_value, ordered_json, valid_text

ROLES = {
    "system": "system", "developer": "developer",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "model": "assistant", "ai": "assistant", "bot": "assistant", "function_call": "assistant", "tool_call": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool", "function_response": "tool", "tool_response": "tool",
    "ipython": "tool",
}  # fmt: skip
"""Names of roles in common use, and the role of a chat template that each means."""
CALLING = ("function_call", "tool_call")
"""Roles of ShareGPT files whose text is a tool call."""
SYSTEM_ROLES = ("system", "developer")
LISTS = ("messages", "conversations", "conversation")
"""Keys under which an object holds the turns."""
_ROLE, _CONTENT = ("role", "from"), ("content", "value")
_REASONING = ("reasoning_content", "reasoning", "thinking")
_CALLS, _OLD_CALL = "tool_calls", "function_call"
_READ = {*_ROLE, *_CONTENT, *_REASONING, _CALLS, _OLD_CALL, "tool_call_id", "name"}
_UNCARRIED = {
    "image", "images", "image_url", "audio", "audios", "video", "videos", "file", "files", "attachments", "tools", "functions",
    "tool_plan", "documents", "citations", "refusal", "prefix", "partial",
}  # fmt: skip
"""Keys of a turn that change what a model reads or wrote, and that a Message has no place for."""
MEDIA = ("image", "audio", "video", "file")
_TEXT_PARTS = ("text", "input_text", "output_text")
_THOUGHT_PARTS = ("thinking", "reasoning", "thought")
_LOOKS_LIKE_TURNS = re.compile(
    r"\s*\[?\s*\{\s*('(role|from|content|value|messages|conversations?)'|\"(role|from|messages|conversations?)\")\s*:"
)
"""The start of a text that was meant to be a conversation: Python's repr of one, or JSON that is cut."""


class RefusedError(SourceError):
    """A row that cannot be carried. `reason` is a few words, the same for all rows of its kind."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def read_messages(value: Any, where: str, further: set[str] | None = None) -> tuple[Message, ...]:
    """Read a conversation. Keys of a turn that no message has, such as an id or a time, are left out and added to `further`.

    Raises RefusedError for what cannot be carried: images, audio and other parts, an unknown role, empty content, a call without
    a name or with arguments that are no object. Whether there is a turn of the user: see `require_user`.
    """
    messages = []
    for number, turn in enumerate(_turns(value, where)):
        place = f"{where}: turn {number}"
        try:
            messages.append(_message(turn, place, further))
        except RefusedError:
            raise
        except SourceError as error:  # half a surrogate pair, a value that JSON cannot hold
            raise RefusedError(str(error), "not text") from error
        except RecursionError as error:
            raise RefusedError(f"{place}: nested too deeply", "nested too deeply") from error
    return tuple(messages)


def require_user(messages: Sequence[Message], where: str) -> None:
    """Raise RefusedError unless there is a turn of the user."""
    if not any(message.role == "user" for message in messages):
        roles = ", ".join(message.role for message in messages) or "no turns"
        raise RefusedError(f"{where}: no turn of the user; found {roles}", "no turn of the user")


def last_answer(messages: Sequence[Message]) -> int | None:
    """The number of the last turn of the assistant, None if there is none."""
    return next((number for number in reversed(range(len(messages))) if messages[number].role == "assistant"), None)


def simple_calls(tool_calls: str) -> list[dict[str, Any]]:
    """The calls of a message as a list of {name, arguments}, without ids."""
    return [{"name": call["function"]["name"], "arguments": call["function"]["arguments"]} for call in json.loads(tool_calls)]


def without_nulls(value: Any) -> Any:
    """Leave out the keys of objects that are null, at any depth: in a column of Arrow every object has the keys of all others."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list | tuple) else value


def short(value: Any) -> str:
    """A value as JSON of at most 60 characters, for an error message."""
    shown = json.dumps(value, default=str, ensure_ascii=False)
    return shown if len(shown) <= 60 else shown[:57] + "..."


# -- the list of turns -------------------------------------------------------------------------------------------------


def _turns(value: Any, where: str) -> Sequence[Any]:
    """The turns of a conversation in any of its forms; a text that is no JSON is one turn of the user."""
    if isinstance(value, str):
        parsed = _parsed(value)
        if parsed is None:
            if _LOOKS_LIKE_TURNS.match(value):
                wrong = "messages as a text that is not JSON"
                raise RefusedError(f"{where}: {wrong}: {short(value)}; write the list itself, or its JSON text", wrong)
            return [{"role": "user", "content": value}]
        value = parsed
    if isinstance(value, Mapping):
        named = next((name for name in LISTS if value.get(name) is not None), None)
        value = value[named] if named else _of_lists(value)
    if not isinstance(value, list | tuple) or not value:
        raise RefusedError(
            f"{where}: wanted a list of messages with role and content (or from and value); found {short(value)}",
            "no messages",
        )
    return value


def _parsed(text: str) -> Any:
    """The conversation that a text is the JSON of; None if it is a text in its own right."""
    if text.lstrip()[:1] not in ("[", "{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    first = value[0] if isinstance(value, list) and value else value
    is_turn = isinstance(first, dict) and any(name in first for name in _ROLE)
    return value if is_turn or (isinstance(value, dict) and any(name in value for name in LISTS)) else None


def _of_lists(value: Mapping[str, Any]) -> Any:
    """The turns of an object of equally long lists; a single turn is a conversation of one."""
    if not any(name in value for name in _ROLE):
        return value
    columns = {name: inner for name, inner in value.items() if isinstance(inner, list)}
    if not any(isinstance(value.get(name), list) for name in _ROLE):
        return [dict(value)]
    if len({len(column) for column in columns.values()}) != 1:
        return value
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


# -- one turn ----------------------------------------------------------------------------------------------------------


def _message(turn: Any, where: str, further: set[str] | None) -> Message:
    if not isinstance(turn, Mapping):
        raise RefusedError(f"{where}: wanted a message with role and content; found {short(turn)}", "no messages")
    named, role = _role(turn, where)
    present = {key for key, inner in turn.items() if inner is not None and inner is not False and inner not in ([], {}, "")}
    if lost := sorted(present & _UNCARRIED):
        raise RefusedError(f"{where}: {lost[0]} of a message cannot be carried; leave the row out", _medium(lost[0]) or lost[0])
    if further is not None:
        further |= present - _READ
    content, thoughts = _content(next((turn[name] for name in _CONTENT if turn.get(name) is not None), None), role, where)
    for name in _REASONING:
        if turn.get(name):
            text, inner = _content(turn[name], role, f"{where}: {name}")
            thoughts = list(dict.fromkeys([*thoughts, *filter(None, [text, *inner])]))
    calls = _calls(turn.get(_CALLS), where) + _calls(turn.get(_OLD_CALL), where)
    if named in CALLING:
        calls, content = calls + _calls(content, where), ""
    if role != "assistant" and (calls or thoughts):
        part = "a call of a tool" if calls else "reasoning"
        raise RefusedError(f"{where}: {part} in a turn of the {role}; only the assistant has it", f"{part} of the {role}")
    if not content.strip() and not calls and not thoughts and role in ("user", "assistant"):
        raise RefusedError(f"{where}: the turn of the {role} is empty", "empty content")
    return Message(
        role,
        content,
        "\n".join(thoughts) or None,
        ordered_json(calls) if calls else None,
        _text_of(turn, "tool_call_id", where),
        _text_of(turn, "name", where),
    )


def _role(turn: Mapping[str, Any], where: str) -> tuple[str, str]:
    """The role as it is written, and the one that it means."""
    named = next((turn[name] for name in _ROLE if turn.get(name) is not None), None)
    if not isinstance(named, str):
        raise RefusedError(f"{where}: a message without a role: it has {', '.join(turn) or 'no keys'}", "no role")
    role = ROLES.get(named.strip().lower())
    if role is None:
        hint = did_you_mean(named, ROLES)
        known = "system, developer, user, assistant, tool"
        raise RefusedError(
            f"{where}: unknown role {named!r}; wanted {known}, or a name that means one{hint}", f"unknown role {named[:30]}"
        )
    return named.strip().lower(), role


def _content(value: Any, role: str, where: str) -> tuple[str, list[str]]:
    """The text of a content, and the thoughts among its parts."""
    if value is None:
        return "", []
    if isinstance(value, str):
        return valid_text(value, where), []
    if isinstance(value, list | tuple) and _are_parts(value):
        texts: list[str] = []
        thoughts: list[str] = []
        for part in value:
            _read_part(part, texts, thoughts, where)
        return "\n".join(texts), thoughts
    if role == "tool":  # the result of a tool may be any value
        return to_json(json_value(value, where)), []
    if isinstance(value, Mapping):
        return _content([value], role, where)
    raise RefusedError(f"{where}: wanted text or a list of text parts; found {short(value)}", "content that is no text")


def _are_parts(value: Sequence[Any]) -> bool:
    return all(isinstance(part, str) or (isinstance(part, Mapping) and ("type" in part or "text" in part)) for part in value)


def _read_part(part: Any, texts: list[str], thoughts: list[str], where: str) -> None:
    """Add the text of a part to `texts` or `thoughts`."""
    if isinstance(part, str):
        texts.append(valid_text(part, where))
        return
    if not isinstance(part, Mapping):
        raise RefusedError(f"{where}: wanted text or a list of text parts; found {short(part)}", "content that is no text")
    kind = part.get("type") or "text"
    others = [name for name, inner in part.items() if inner is not None and name not in ("type", "text", *_THOUGHT_PARTS)]
    if kind in _THOUGHT_PARTS:
        text = next((part[name] for name in (*_THOUGHT_PARTS, "text") if part.get(name) is not None), "")
        thoughts.append(_content(text, "assistant", where)[0])
    elif kind in _TEXT_PARTS and isinstance(part.get("text"), str):
        texts.append(valid_text(part["text"], where))
    else:
        medium = _medium(str(kind)) or next(filter(None, map(_medium, others)), None)
        reason = medium or f"a part of type {str(kind)[:30]}"
        raise RefusedError(f"{where}: {reason} cannot be carried; only text can", reason)


def _medium(name: str) -> str | None:
    """What a part or key of this name holds that is no text, in words."""
    article = {"image": "an image", "audio": "audio", "video": "a video", "file": "a file"}
    return next((article[medium] for medium in MEDIA if medium in name), None)


def _text_of(turn: Mapping[str, Any], name: str, where: str) -> str | None:
    value = turn.get(name)
    return None if value in (None, "") else valid_text(str(value), f"{where}: {name}")


# -- calls of tools ----------------------------------------------------------------------------------------------------


def _calls(value: Any, where: str) -> list[dict[str, Any]]:
    """Calls as {id, type, function: {name, arguments}}, from a list, one call, or the JSON text of either."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError as error:
            raise RefusedError(f"{where}: a tool call that is not JSON: {short(value)}", "a bad tool call") from error
    if not value:
        return []
    listed: Iterable[Any] = value if isinstance(value, list | tuple) else [value]
    return [_call(call, f"{where}: tool call {number}") for number, call in enumerate(listed)]


def _call(call: Any, where: str) -> dict[str, Any]:
    if isinstance(call, str):
        with suppress(ValueError):
            call = json.loads(call)
    inside = call.get("function") if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping) else call
    if not isinstance(inside, Mapping) or not isinstance(inside.get("name"), str) or not inside["name"]:
        raise RefusedError(f"{where}: wanted a name and arguments; found {short(call)}", "a bad tool call")
    named = next((name for name in ("arguments", "parameters", "input") if inside.get(name) is not None), None)
    arguments = inside[named] if named else {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError) as error:
            raise RefusedError(f"{where}: arguments that are not JSON: {short(arguments)}", "a bad tool call") from error
    if not isinstance(arguments, Mapping):
        raise RefusedError(f"{where}: wanted an object of arguments; found {short(arguments)}", "a bad tool call")
    function = {"name": inside["name"], "arguments": arguments}
    identified = {"id": str(call["id"])} if call.get("id") else {}
    read: dict[str, Any] = json_value({**identified, "type": "function", "function": function}, where)
    return read
