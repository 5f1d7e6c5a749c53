"""Makes a row of the pool from a row of the user's own samples.

A row has a prompt and a completion, or a whole conversation. A prompt is text or chat messages. A completion is text or messages:
the last turn of the assistant is the completion, and the turns before it (its earlier calls of tools, and their results) belong
to the prompt. In a conversation, the turns before the last turn of the assistant are the prompt; turns after it are left out.
"""

import hashlib
import json
import math
from typing import Any

from filters.reasoning import join
from schemas.finish_reasons import pool_reason
from schemas.recipe import EVERY_FAMILY
from schemas.sample import Message, to_json
from schemas.suggest import did_you_mean
from thresher import ids
from thresher.errors import SourceError
from thresher.inputs.chat_messages import last_answer, read_messages, require_user, short, simple_calls, without_nulls
from thresher.inputs.files.json_lines import Row
from thresher.inputs.json_values import json_value, ordered_json, valid_text
from thresher.inputs.sources import NOT_READ
from thresher.inputs.tool_schemas import read_arguments, read_tools

RAW_CHARS = 500
"""Characters of an unreadable row that are kept in its metadata."""
REASON_CHARS = 1000
FLOAT32_MAX = 3.4e38

NEEDED = ("prompt", "completion")
CONVERSATIONS = ("messages", "conversations", "conversation")
"""Columns of whole conversations, the first that a row has."""
TURNS = frozenset({*NEEDED, *CONVERSATIONS, "tools", "chat_template_kwargs"})
_OURS = frozenset({"tools", "chat_template_kwargs", "reference", "family"})

Turns = tuple[Message, ...]


def without_nulls_in(row: Row) -> Row:
    """The row of an Arrow table, without the null keys that objects in its columns of messages and tools have from other rows."""
    return {name: without_nulls(value) if name in TURNS else value for name, value in row.items()}


def pool_row_of(where: str, place: dict[str, int], row: Row | SourceError, raw: bytes) -> Row:
    """A row of the pool without its numbers. An unreadable row has the hash of its bytes as prompt_id for now."""
    pool_row: Row = {"sample_id": "", "index": 0, "anchor": False, "engine": "brought", "unreadable": None}
    pool_row |= {"family": "default", "messages": [], "completion": ""}
    try:
        if isinstance(row, SourceError):
            raise row
        _fill(pool_row, row, where)
    except (SourceError, RecursionError) as error:
        content = raw or _content(row, where)
        pool_row["prompt_id"] = hashlib.sha256(content).hexdigest()
        pool_row["metadata"] = to_json(place | {"raw": content.decode("utf-8", "replace")[:RAW_CHARS]})
        reason = str(error) if isinstance(error, SourceError) else f"{where}: nested too deeply"
        pool_row["unreadable"] = _writable(reason)
        pool_row |= {"completion": "", "reference": None}
        pool_row |= dict.fromkeys(("reasoning", "answer", "tool_calls", "parsed_by"))
    return pool_row


def _content(row: Row | SourceError, where: str) -> bytes:
    """What identifies an unreadable row of Arrow."""
    try:
        return json.dumps(row, sort_keys=True, default=str).encode()
    except RecursionError:
        return where.encode()


def _writable(reason: str) -> str:
    """A reason that UTF-8 can hold, whatever it quotes, and that is no longer than a person reads."""
    text = reason.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= REASON_CHARS else f"{text[:REASON_CHARS]}..."


def _fill(pool_row: Row, row: Row, where: str) -> None:
    """Fill the pool's row from a row, in place, so that what was read before a fault is kept."""
    family = row.get("family")
    if family is not None and not isinstance(family, str):
        raise SourceError(f"{where}: bad family: wanted text, found {short(family)}")
    pool_row["family"] = valid_text(family, f"{where}: bad family") if family else "default"
    if pool_row["family"] == EVERY_FAMILY:
        raise SourceError(f"{where}: bad family: {EVERY_FAMILY!r} means all families together; use another name")
    read, prompt, completion = _prompt_and_completion(pool_row, row, where)
    pool_row["messages"] = [message.parts for message in prompt]
    pool_row |= _completion_columns(completion)
    pool_row["tools"] = read_tools(row.get("tools"), f"{where}: bad tools")
    pool_row["template"] = read_arguments(row.get("chat_template_kwargs"), f"{where}: bad chat_template_kwargs")
    reference = json_value(row.get("reference"), f"{where}: bad reference")
    pool_row["reference"] = None if reference is None else to_json(reference)
    engine_columns = _engine_columns(row, where)
    pool_row |= engine_columns
    rest = {name: value for name, value in row.items() if name not in {*_OURS, *read, *engine_columns} and value is not NOT_READ}
    pool_row["metadata"] = to_json(json_value(rest, f"{where}: bad metadata", finite=False))
    pool_row["prompt_id"] = ids.prompt_id(prompt, reference, pool_row["tools"], pool_row["template"])


def _prompt_and_completion(pool_row: Row, row: Row, where: str) -> tuple[tuple[str, ...], Turns, Message | str]:
    """The columns that were read, the turns of the prompt, and the completion. The pool's row gets the turns as soon as they are
    known."""
    conversation = next((name for name in CONVERSATIONS if row.get(name) is not None), None)
    if conversation is not None and any(row.get(name) is None for name in NEEDED):
        place = f"{where}: bad {conversation}"
        turns = read_messages(row[conversation], place)
        end = last_answer(turns)
        prompt = turns if end is None else turns[:end]
        pool_row["messages"] = [message.parts for message in prompt]
        if end is None:
            raise SourceError(f"{place}: no turn of the assistant, which would be the completion")
        require_user(prompt, place)
        return (conversation,), prompt, turns[end]
    given = _parts_as_turn(_required(row, "prompt", where), "user")
    prompt = (Message("user", valid_text(given, f"{where}: bad prompt")),) if isinstance(given, str) else ()
    if not prompt or given.lstrip()[:1] in ("[", "{"):
        prompt = read_messages(given, f"{where}: bad prompt")
    require_user(prompt, f"{where}: bad prompt")
    pool_row["messages"] = [message.parts for message in prompt]
    said, place = _parts_as_turn(_required(row, "completion", where), "assistant"), f"{where}: bad completion"
    if isinstance(said, str):
        return NEEDED, prompt, valid_text(said, place)
    turns = read_messages(said, place)
    end = last_answer(turns)
    if end is None:
        raise SourceError(f"{place}: wanted text, or messages with a turn of the assistant; found {short(said)}")
    return NEEDED, (*prompt, *turns[:end]), turns[end]


def _parts_as_turn(value: Any, role: str) -> Any:
    """Parts of a content alone, such as {type: text, text}, as the turn that they are the content of."""
    parts = value if isinstance(value, list) else [value]
    alone = all(isinstance(part, dict) and "type" in part and not {"role", "from"} & part.keys() for part in parts)
    return [{"role": role, "content": parts}] if parts and alone else value


def _completion_columns(completion: Message | str) -> Row:
    """The columns of a completion. One with reasoning or calls of tools comes apart; another is taken apart with the rest."""
    if isinstance(completion, str):
        return {"completion": completion}
    thought, calls = completion.reasoning_content, completion.tool_calls
    if thought is None and calls is None:
        return {"completion": completion.content}
    tool_calls = None if calls is None else ordered_json(simple_calls(calls))
    return {
        "completion": join(thought, completion.content, tool_calls),
        "reasoning": thought,
        "answer": completion.content,
        "tool_calls": tool_calls,
        "parsed_by": "messages",
    }


def _required(row: Row, name: str, where: str) -> Any:
    if row.get(name) is None:
        hint = did_you_mean(name, row.keys() - {*_OURS, *NEEDED})
        raise SourceError(f"{where}: no {name}: the row has {', '.join(row) or 'no fields'}{hint}")
    return row[name]


def _engine_columns(row: Row, where: str) -> Row:
    """finish_reason in the pool's words, completion_ids and logprobs, where they are null or as the pool defines them; others
    stay metadata."""
    columns: Row = {name: None for name in ("finish_reason", "completion_ids", "logprobs") if row.get(name) is None}
    reason = row.get("finish_reason")
    if isinstance(reason, dict):  # SGLang: {"type": "length", "length": 16}
        reason = reason.get("type")
    if isinstance(reason, str):
        columns["finish_reason"] = pool_reason(reason) or valid_text(reason, f"{where}: bad finish_reason")
    tokens, logprobs = row.get("completion_ids"), row.get("logprobs")
    if isinstance(tokens, list) and isinstance(logprobs, list) and len(tokens) != len(logprobs):
        return columns
    if isinstance(tokens, list) and all(type(token) is int and 0 <= token < 2**31 for token in tokens):
        columns["completion_ids"] = tokens
    if isinstance(logprobs, list) and all(type(value) in (int, float) and abs(value) < FLOAT32_MAX for value in logprobs):
        columns |= {"logprobs": logprobs, "cumulative_logprob": math.fsum(logprobs)}
    return columns
