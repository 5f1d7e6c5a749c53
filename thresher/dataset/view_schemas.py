"""The schemas of the views' rows, as JSON Schema and as Arrow types: committed under schemas/views/, and used to check releases.

Both follow from thresher.dataset.views.COLUMNS. A column may be null exactly if its meaning contains the word "null".
"""

from functools import cache
from typing import Any

import pyarrow as pa

from schemas.sample import Kind, Outcome
from thresher.dataset import views
from thresher.dataset.messages import JSON

_TEXT = {"type": "string", "minLength": 1}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_MESSAGES = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            **{name: {"type": "string"} for name in ("role", "content")},
            **{name: {"anyOf": [{"type": "string"}, {"type": "null"}]} for name in ("reasoning_content", "tool_call_id", "name")},
            "tool_calls": {},
        },
        "required": ["role", "content"],
        "additionalProperties": False,
    },
}
LIMITS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("sample_id", "prompt_id", "group_id", "chosen_id", "rejected_id", "family", "version"), _TEXT),
    **dict.fromkeys(("similarity", "pass_rate", "reward"), _SHARE),
    **dict.fromkeys(
        ("samples", "decided", "passed", "hits", "duplicates", "undecided", "completion_tokens", "source_row"), _COUNT
    ),
    "multiplicity": {**_COUNT, "minimum": 1},
    "index": {**_COUNT, "minimum": -1},
    "temperature": {"type": "number", "minimum": 0},
    "outcome": {"enum": [outcome.value for outcome in Outcome]},
    "kind": {"enum": [kind.value for kind in Kind]},
}
"""JSON Schema keywords of columns, beyond their types."""


def nullable(meaning: str) -> bool:
    """Whether a column with this meaning may be null."""
    return "null" in meaning


@cache
def written_schema(view: str, prompt_format: str) -> pa.Schema:
    """The Arrow schema of a view's files: that of the view, with the features of `datasets` as metadata."""
    from datasets import Features

    schema: pa.Schema = Features.from_arrow_schema(views.schema(view, prompt_format)).arrow_schema
    return schema


def json_schema(view: str) -> dict[str, Any]:
    """The JSON Schema of one row; prompts are messages or plain text."""
    columns = views.COLUMNS[view]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A row of the view {view}",
        "type": "object",
        "properties": {name: _column(name, kind, meaning) for name, kind, meaning in columns},
        "required": [name for name, _, _ in columns if name not in views.IN_SOME_RUNS],
        "additionalProperties": False,
    }


def arrow_types(view: str) -> dict[str, Any]:
    """Columns and their Arrow types, in order, for both prompt formats, without parts and columns that only some runs have."""
    return {form: [[field.name, str(field.type)] for field in views.schema(view, form)] for form in ("chat", "text")}


def _column(name: str, kind: pa.DataType | None, meaning: str) -> dict[str, Any]:
    shape = {"anyOf": [_MESSAGES, {"type": "string"}]} if kind is None else {**_shape(kind), **LIMITS.get(name, {})}
    if "enum" in shape:
        shape = {"enum": shape["enum"]}
    if nullable(meaning) and shape:
        shape = {"anyOf": [shape, {"type": "null"}]}
    return {"description": meaning, **shape}


def _shape(kind: pa.DataType) -> dict[str, Any]:
    """The JSON Schema of an Arrow type; a column of JSON may hold any value."""
    if kind == JSON:
        return {}
    if pa.types.is_list(kind):
        return {"type": "array", "items": _shape(kind.value_type)}
    if pa.types.is_struct(kind):
        fields = {field.name: _shape(field.type) for field in kind}
        optional = {name: {"anyOf": [shape, {"type": "null"}]} if shape else {} for name, shape in fields.items()}
        return {"type": "object", "properties": optional, "required": list(fields), "additionalProperties": False}
    if pa.types.is_boolean(kind):
        return {"type": "boolean"}
    if pa.types.is_integer(kind):
        return {"type": "integer", "minimum": -(2 ** (kind.bit_width - 1)), "maximum": 2 ** (kind.bit_width - 1) - 1}
    return {"type": "number"} if pa.types.is_floating(kind) else {"type": "string"}
