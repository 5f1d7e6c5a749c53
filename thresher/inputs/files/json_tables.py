"""JSON lines as one table of Arrow: a first pass over all rows finds the type of each column.

A row that lacks a key has null there, wherever in the files the key first appears. Inside a column nothing is filled in: objects
whose keys differ, and values of several kinds, are kept as Arrow's JSON, as `datasets` keeps them.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa

from thresher.errors import SourceError
from thresher.inputs.files.json_lines import Row, parse_line, read_lines
from thresher.inputs.files.named_files import NamedFile
from thresher.inputs.json_values import json_value, ordered_json, valid_text

BATCH_BYTES = 32 << 20
"""Rows are converted once their lines have this many bytes."""
DEEPEST = 30
"""Levels of lists and objects that become columns; what is deeper is kept as JSON."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_EXACT = 2**53
"""Integers up to this are floats without loss."""

Kind = Any
"""None for null; a name of NAMES; ("list", kind); ("object", {key: kind})."""
NAMES: dict[str, pa.DataType] = {
    "bool": pa.bool_(), "small": pa.int64(), "long": pa.int64(), "float": pa.float64(), "text": pa.string(), "json": pa.json_(),
}  # fmt: skip


@dataclass(frozen=True)
class JsonTable:
    """Files of JSON lines as one table."""

    files: Sequence[NamedFile]
    schema: pa.Schema
    kinds: Mapping[str, Kind] = field(repr=False)

    def batches(self, rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield all rows in order, at most `rows` at a time, with the `columns` or all. Raises SourceError."""
        schema = self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
        shapes = {name: _shape(self.kinds[name]) for name in schema.names}
        parse = parse_line if any(map(_has_json, self.kinds.values())) else _parse_again
        held: list[Row] = []
        size = 0
        for row, length in _rows(self.files, parse):
            held.append(row)
            size += length
            if len(held) == rows or size >= BATCH_BYTES:
                yield _table(held, schema, shapes)
                held, size = [], 0
        if held:
            yield _table(held, schema, shapes)


def open_json_table(files: Sequence[NamedFile]) -> JsonTable:
    """Read all rows once for the types of their columns. Raises SourceError for a line that is not one JSON object, and where
    there is no row with a key."""
    kinds: dict[str, Kind] = {}
    is_empty = True
    for row, _ in _rows(files, parse_line):
        is_empty = False
        for name, value in row.items():
            kinds[name] = _merged(kinds.get(name), _kind(value))
    if not kinds:
        raise SourceError(f"{files[0].shown}: holds no rows" + ("" if is_empty else " with a key"))
    schema = pa.schema([(valid_text(name, f"{files[0].shown}: a key"), _type(kind)) for name, kind in kinds.items()])
    return JsonTable(files, schema, kinds)


def _rows(files: Sequence[NamedFile], parse: Callable[[bytes, str], Row]) -> Iterator[tuple[Row, int]]:
    """The rows of all files, each with the length of its line in bytes."""
    for file in files:
        for number, line in read_lines(file.path, file.shown):
            row = parse(line, f"{file.shown}:{number}")
            if _SURROGATE.search(line):  # only an escape can write half of a pair
                valid_text(to_text(row), f"{file.shown}:{number}")
            yield row, len(line)


def _parse_again(line: bytes, where: str) -> Row:
    """Parse a line whose integers have 64 bits, and which was parsed before: orjson is twice as fast, and reads no NaN."""
    try:
        row: Row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return parse_line(line, where)
    return row


def _has_json(kind: Kind) -> bool:
    """Whether values of a kind are kept as JSON, where integers may be longer."""
    if not isinstance(kind, tuple):
        return bool(kind == "json")
    return any(map(_has_json, kind[1].values() if kind[0] == "object" else [kind[1]]))


def _kind(value: Any, depth: int = 0) -> Kind:
    match value:
        case None:
            return None
        case bool():
            return "bool"
        case str():
            return "text"
        case int():
            return "small" if abs(value) <= _EXACT else "long" if -(2**63) <= value < 2**63 else "json"
        case float():
            return "float"
    if depth == DEEPEST or not isinstance(value, list | dict) or value == {}:
        return "json"
    if isinstance(value, dict):
        return "object", {name: _kind(inner, depth + 1) for name, inner in value.items()}
    inner: Kind = None
    for each in value:
        inner = _merged(inner, _kind(each, depth + 1))
    return "list", inner


def _merged(one: Kind, other: Kind) -> Kind:
    """The kind of values of both kinds."""
    if one is None or one == other:
        return other
    if other is None:
        return one
    if isinstance(one, tuple) and isinstance(other, tuple) and one[0] == other[0]:
        if one[0] == "list":
            return "list", _merged(one[1], other[1])
        if one[1].keys() == other[1].keys():
            return "object", {name: _merged(inner, other[1][name]) for name, inner in one[1].items()}
        return "json"
    numbers = {"small", "long", "float"}
    if isinstance(one, str) and isinstance(other, str) and {one, other} <= numbers and {one, other} != {"long", "float"}:
        return "float" if "float" in (one, other) else "long"
    return "json"


def _type(kind: Kind) -> pa.DataType:
    if kind is None:
        return pa.null()
    if isinstance(kind, str):
        return NAMES[kind]
    if kind[0] == "list":
        return pa.list_(_type(kind[1]))
    return pa.struct([(name, _type(inner)) for name, inner in kind[1].items()])


Shape = Callable[[Any], Any] | None


def _shape(kind: Kind) -> Shape:
    """What makes a value of a kind ready for Arrow, where JSON is stored as text; None where nothing is to be done."""
    if kind == "json":
        return lambda value: None if value is None else to_text(value)
    if not isinstance(kind, tuple):
        return None
    if kind[0] == "list":
        inner = _shape(kind[1])
        return None if inner is None else lambda value: None if value is None else [inner(each) for each in value]
    fields = {name: shape for name, each in kind[1].items() if (shape := _shape(each)) is not None}
    if not fields:
        return None
    return lambda value: None if value is None else value | {name: shape(value[name]) for name, shape in fields.items()}


def to_text(value: Any) -> str:
    """The JSON text of a value, with its keys in their order; NaN and infinity become texts."""
    try:
        return ordered_json(value)
    except ValueError:
        return ordered_json(json_value(value, "", finite=False))


def _table(rows: Sequence[Row], schema: pa.Schema, shapes: Mapping[str, Shape]) -> pa.Table:
    columns = []
    for column in schema:
        shape = shapes[column.name]
        values = [row.get(column.name) for row in rows]
        ready = values if shape is None else list(map(shape, values))
        columns.append(pa.array(ready, _stored(column.type)).cast(column.type))
    return pa.table(columns, schema=schema)


def _stored(kind: pa.DataType) -> pa.DataType:
    """The type with text in the place of JSON."""
    if isinstance(kind, pa.JsonType):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_stored(kind.value_type))
    return pa.struct([each.with_type(_stored(each.type)) for each in kind]) if pa.types.is_struct(kind) else kind
