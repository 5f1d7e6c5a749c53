"""The form of prompts and completions in the views: text, or chat messages with exactly the parts that occur in the run.

The form is one text, which run and repository note: `text` for a base model, `chat` for messages of role and content, and `chat`
with the further parts and columns that occur, such as `chat+reasoning_content+tool_calls+tools`. Many chat templates ask whether
a key exists and not whether it is null. So a part that never occurs is left out, and where turns differ in their keys, because
tools are called, each message is a JSON object of its own. `inline` means that completions keep their reasoning in the text.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from schemas.sample import MESSAGE_PARTS
from thresher.inputs.json_values import ordered_json

JSON = pa.json_()
OF_TOOLS = frozenset({"tool_calls", "tool_call_id", "name"})
"""Parts that some turns of a conversation with tools have, and others lack."""


def parts_of(prompt_format: str) -> list[str]:
    """The parts of the messages, in order."""
    occurring = {"role", "content", *prompt_format.split("+")[1:]}
    return [part for part in MESSAGE_PARTS if part in occurring]


def has(prompt_format: str, part: str) -> bool:
    """Whether a further part or column occurs."""
    return part in prompt_format.split("+")[1:]


def message_type(prompt_format: str) -> pa.DataType:
    """The Arrow type of prompts and completions."""
    if prompt_format == "text":
        return pa.string()
    parts = parts_of(prompt_format)
    return pa.list_(pa.struct([pa.field(part, pa.string()) for part in parts]) if OF_TOOLS.isdisjoint(parts) else JSON)


def prompt_column(messages: pa.ChunkedArray, prompt_format: str) -> pa.ChunkedArray:
    """Prompts as messages, or as plain text for a base model."""
    if prompt_format == "text":
        return _converted(messages, _joined, pa.string())
    parts = parts_of(prompt_format)
    kind = message_type(prompt_format)
    return _converted(messages, lambda turns: _selected(turns, parts, kind), kind)


def completion_column(rows: pa.Table, prompt_format: str) -> pa.ChunkedArray:
    """Completions as one message of the assistant, or as plain text: the answer, with its reasoning and tool calls as parts of
    their own, or `inline` the whole completion."""
    texts = rows["completion"] if has(prompt_format, "inline") or prompt_format == "text" else pc.fill_null(rows["answer"], "")
    if prompt_format == "text":
        return texts
    shown = {"content": texts} | {name: rows[name] for name in ("reasoning", "tool_calls") if name in rows.column_names}
    return pa.chunked_array([_said(batch, prompt_format) for batch in pa.table(shown).to_batches()], message_type(prompt_format))


def decoded(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a view with its JSON parsed, as `datasets` returns them."""
    rows: list[dict[str, Any]] = table.to_pylist()
    names = [field.name for field in table.schema if field.type == JSON]
    chats = [field.name for field in table.schema if pa.types.is_list(field.type) and field.type.value_type == JSON]
    for row in rows:
        for name in names:
            row[name] = None if row[name] is None else orjson.loads(row[name])
        for name in chats:
            row[name] = [orjson.loads(message) for message in row[name]]
        for verdict in row.get("verdicts") or ():
            verdict["detail"] = None if verdict["detail"] is None else orjson.loads(verdict["detail"])
    return rows


def combined(column: pa.ChunkedArray) -> pa.Array:
    """All chunks as one array; empty if there are none."""
    return column.combine_chunks() if column.num_chunks else pa.array([], column.type)


# -- inside --------------------------------------------------------------------------------------------------------------


def _said(completions: pa.RecordBatch, prompt_format: str) -> pa.Array:
    """Completions with the columns content, reasoning and tool_calls, each as a list of one message."""
    parts, kind, rows = parts_of(prompt_format), message_type(prompt_format), completions.num_rows
    columns: dict[str, pa.Array] = {"role": pa.repeat("assistant", rows), "content": completions["content"]}
    if "reasoning_content" in parts:
        inline = has(prompt_format, "inline")
        columns["reasoning_content"] = pa.nulls(rows, pa.string()) if inline else completions["reasoning"]
    if "tool_calls" in parts:
        columns["tool_calls"] = pa.array(map(_as_calls, completions["tool_calls"].to_pylist()), pa.string())
    return pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32)), _messages(columns, kind)).cast(kind)


def _as_calls(calls: str | None) -> str | None:
    """Calls of the pool, {name, arguments}, in the form that chat templates take."""
    if calls is None:
        return None
    # Not orjson, which reads long integers as floats and does not write deep arguments.
    return ordered_json([{"type": "function", "function": call} for call in json.loads(calls)])


def _selected(turns: pa.Array, parts: list[str], kind: pa.DataType) -> pa.Array:
    """Messages with some of their parts."""
    values = turns.flatten()
    return pa.ListArray.from_arrays(_offsets(turns), _messages({part: values.field(part) for part in parts}, kind))


def _offsets(turns: pa.ListArray) -> pa.Array:
    """The offsets of the lists in `turns.flatten()`."""
    return pc.subtract(turns.offsets, turns.offsets[0])


def _messages(columns: dict[str, pa.Array], kind: pa.DataType) -> pa.Array:
    """Messages (n,) from their parts: structs, or JSON objects without the parts that a message lacks."""
    if kind.value_type != JSON:
        return pa.StructArray.from_arrays(list(columns.values()), names=list(columns))
    rows = zip(*(column.to_pylist() for column in columns.values()), strict=True)
    texts = [_as_json({name: value for name, value in zip(columns, row, strict=True) if value is not None}) for row in rows]
    return pa.array(texts, pa.string()).cast(JSON)


def _as_json(message: dict[str, str]) -> str:
    calls = message.pop("tool_calls", None)
    text = orjson.dumps(message).decode()
    return text if calls is None else f'{text[:-1]},"tool_calls":{calls}}}'


def _converted(column: pa.ChunkedArray, convert: Callable[[pa.Array], pa.Array], kind: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array([convert(chunk).cast(kind) for chunk in column.chunks], kind)


def _joined(turns: pa.Array) -> pa.Array:
    """The contents of the messages, separated by a blank line, as thresher.samplers.sampler.plain_text sends them to an
    engine."""
    return pc.binary_join(pa.ListArray.from_arrays(_offsets(turns), turns.flatten().field("content")), "\n\n")
