"""The types of columns of several files as one: by name, and only where no value changes."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from thresher.errors import SourceError


def plain(kind: pa.DataType) -> pa.DataType:
    """The type without dictionaries, runs and views, which are ways to store a value."""
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain(kind.value_type)
    if pa.types.is_map(kind):
        return pa.map_(plain(kind.key_type), plain(kind.item_type))
    if _is_list(kind):
        inner = kind.value_field.with_type(plain(kind.value_type))
        if pa.types.is_fixed_size_list(kind):
            return pa.list_(inner, kind.list_size)
        large = pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind)
        return pa.large_list(inner) if large else pa.list_(inner)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(plain(field.type)) for field in kind])
    views = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    return views.get(kind, kind)


def unified(schemas: Iterable[tuple[str, pa.Schema]]) -> pa.Schema:
    """One schema with the columns of all files, in the order in which they appear; a file that lacks one has nulls there. Raises
    SourceError, which names file and column, for types that are not one without changing a value, and for a name that stands
    twice."""
    fields: dict[str, pa.Field] = {}
    first: dict[str, str] = {}
    for file, schema in schemas:
        _refuse_repeated(file, schema)
        for field in schema:
            kind, name = plain(field.type), field.name
            if name not in fields:
                fields[name], first[name] = pa.field(name, kind), file
                continue
            try:
                fields[name] = pa.field(name, _merged(fields[name].type, kind))
            except (TypeError, pa.ArrowException) as error:
                before = f"{fields[name].type} in {first[name]}"
                raise SourceError(
                    f"{file}: the column {name!r} is {kind}, and {before}; give it one type in all files"
                ) from error
    return pa.schema(list(fields.values()))


def _refuse_repeated(file: str, schema: pa.Schema) -> None:
    def refuse(fields: Iterable[pa.Field], where: str) -> None:
        fields = list(fields)
        names = Counter(field.name for field in fields)
        if repeated := [name for name, count in names.items() if count > 1]:
            raise SourceError(f"{file}: {where} {repeated[0]!r} stands {names[repeated[0]]} times; rename all but one")
        for field in fields:
            refuse(_inner(field.type), f"in {field.name!r} the field")

    refuse(schema, "the column")


def _inner(kind: pa.DataType) -> list[pa.Field]:
    """The fields of a type, without those of Arrow's own lists and maps."""
    if pa.types.is_struct(kind):
        return list(kind)
    if pa.types.is_map(kind):
        return [*_inner(kind.key_type), *_inner(kind.item_type)]
    return _inner(kind.value_type) if _is_list(kind) or pa.types.is_dictionary(kind) else []


def _is_list(kind: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(check(kind) for check in kinds) or pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)


def _merged(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds the values of both. Raises TypeError or ArrowException. Whether each number fits, `conformed` finds."""
    if one.equals(other):
        return one
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        fields = {field.name: field.type for field in one}
        for field in other:
            fields[field.name] = _merged(fields[field.name], field.type) if field.name in fields else field.type
        return pa.struct(list(fields.items()))
    if pa.types.is_map(one) and pa.types.is_map(other):
        return pa.map_(_merged(one.key_type, other.key_type), _merged(one.item_type, other.item_type))
    if _is_list(one) and _is_list(other):
        inner = _merged(one.value_type, other.value_type)
        return pa.large_list(inner) if pa.types.is_large_list(one) or pa.types.is_large_list(other) else pa.list_(inner)
    groups = [{_group(one), _group(other)}, {"null"}]
    if len(groups[0] - groups[1]) > 1:
        raise TypeError(f"{one} and {other} have no type in common")
    pair = [pa.schema([("", kind)]) for kind in (one, other)]
    return pa.unify_schemas(pair, promote_options="permissive").field(0).type


def _group(kind: pa.DataType) -> str:
    """Types of one group can hold each other's values. Arrow would also make text to bytes, and decimals to floats."""
    checks: dict[str, Any] = {"null": pa.types.is_null, "decimal": pa.types.is_decimal, "text": _is_text, "bytes": _is_bytes}
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number"
    return next((name for name, check in checks.items() if check(kind)), "another")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def conformed(batch: pa.RecordBatch | pa.Table, schema: pa.Schema, file: str) -> pa.Table:
    """The rows with the columns of `schema`, those that the batch lacks as nulls. Raises SourceError for a value that the common
    type cannot hold, such as an integer beyond 2^53 among floats."""
    own = set(batch.schema.names)
    columns = []
    for field in schema:
        if field.name not in own:
            columns.append(pa.nulls(batch.num_rows, field.type))
            continue
        column = batch.column(field.name)
        try:
            columns.append(column if column.type.equals(field.type) else pc.cast(_decoded(column), field.type))
        except pa.ArrowException as error:
            reason = str(error).partition("\n")[0]
            raise SourceError(
                f"{file}: the column {field.name!r} is {column.type}, and {field.type} together with the other files, which "
                f"cannot hold it: {reason}; give it one type in all files"
            ) from error
    if not columns:
        return pa.table(batch) if isinstance(batch, pa.RecordBatch) else batch
    return pa.table(columns, schema=schema)


def _decoded(column: pa.Array | pa.ChunkedArray) -> Any:
    """The column without what Arrow cannot cast: runs, and views of lists, of which pyarrow 26 keeps the first value only."""
    if pa.types.is_run_end_encoded(column.type):
        return pc.run_end_decode(column)
    return pa.array(column.to_pylist(), plain(column.type)) if _has_list_view(column.type) else column


def _has_list_view(kind: pa.DataType) -> bool:
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return True
    return any(_has_list_view(kind.field(number).type) for number in range(kind.num_fields))
