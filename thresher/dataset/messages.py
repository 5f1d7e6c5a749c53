"""The form of prompts and completions in the views: text, or chat messages with exactly the parts that occur in the run.

The form is one text, which run and repository note: `text` for a base model, `chat` for messages of role and content, and `chat`
with the further parts and columns that occur, such as `chat+reasoning_content+tool_calls+tools`. A part that never occurs is left
out, because many chat templates ask whether a key exists and not whether it is null. `inline` means that completions keep their
reasoning in the text.
"""

from collections.abc import Callable

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from schemas.sample import MESSAGE_PARTS

JSON = pa.json_()
CALLS = ("tool_calls",)
"""Parts of messages that are JSON."""


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
    fields = [pa.field(part, JSON if part in CALLS else pa.string()) for part in parts_of(prompt_format)]
    return pa.list_(pa.struct(fields))


def prompt_column(messages: pa.ChunkedArray, prompt_format: str) -> pa.ChunkedArray:
    """Prompts as messages, or as plain text for a base model."""
    if prompt_format == "text":
        return _converted(messages, _joined, pa.string())
    parts = parts_of(prompt_format)
    return _converted(messages, lambda turns: _selected(turns, parts), message_type(prompt_format))


def completion_column(rows: pa.Table, prompt_format: str) -> pa.ChunkedArray:
    """Completions as one message of the assistant, or as plain text: the answer, with its reasoning and tool calls as parts of
    their own, or `inline` the whole completion."""
    texts = rows["completion"] if has(prompt_format, "inline") or prompt_format == "text" else pc.fill_null(rows["answer"], "")
    if prompt_format == "text":
        return texts
    columns: dict[str, pa.Array] = {"role": pa.repeat("assistant", rows.num_rows), "content": _combined(texts)}
    for part in parts_of(prompt_format)[2:]:
        columns[part] = pa.nulls(rows.num_rows, pa.string())
    if "reasoning_content" in columns and not has(prompt_format, "inline"):
        columns["reasoning_content"] = _combined(rows["reasoning"])
    if "tool_calls" in columns:
        columns["tool_calls"] = pa.array(map(_as_calls, rows["tool_calls"].to_pylist()), pa.string())
    kind = message_type(prompt_format)
    fields = [columns[field.name].cast(field.type) for field in kind.value_type]
    messages = pa.StructArray.from_arrays(fields, names=list(columns))
    lists = pa.ListArray.from_arrays(pa.array(np.arange(rows.num_rows + 1, dtype=np.int32)), messages)
    return pa.chunked_array([lists.cast(kind)], kind)


# -- inside --------------------------------------------------------------------------------------------------------------


def _as_calls(calls: str | None) -> str | None:
    """Calls of the pool, {name, arguments}, in the form that chat templates take."""
    if calls is None:
        return None
    return orjson.dumps([{"type": "function", "function": call} for call in orjson.loads(calls)]).decode()


def _combined(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks else pa.array([], column.type)


def _selected(turns: pa.Array, parts: list[str]) -> pa.Array:
    """Messages with some of their parts."""
    arrays = [turns.values.field(part) for part in parts]
    arrays = [array.cast(JSON) if part in CALLS else array for part, array in zip(parts, arrays, strict=True)]
    return pa.ListArray.from_arrays(turns.offsets, pa.StructArray.from_arrays(arrays, names=parts))


def _converted(column: pa.ChunkedArray, convert: Callable[[pa.Array], pa.Array], kind: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array([convert(chunk).cast(kind) for chunk in column.chunks], kind)


def _joined(turns: pa.Array) -> pa.Array:
    """The contents of the messages, separated by a blank line, as thresher.samplers.sampler.plain_text sends them to an
    engine."""
    return pc.binary_join(pa.ListArray.from_arrays(turns.offsets, turns.values.field("content")), "\n\n")
