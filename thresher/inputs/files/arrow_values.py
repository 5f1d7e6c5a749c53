"""Values of Arrow's columns as Python's: JSON is parsed at any depth, and no value is an error of its whole column.

What Python has no type for, such as a date after the year 9999, becomes text in ISO 8601.
"""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from thresher.inputs.files.json_lines import parse_json
from thresher.inputs.json_values import Unreadable

_FAULTS = (ValueError, OverflowError, KeyError)
"""What Arrow raises for a value that Python cannot hold, for a text that is not UTF-8, and for an unknown time zone."""
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def python_values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """The values of a column (n,). JSON that cannot be parsed is Unreadable, a byte that is not UTF-8 half a surrogate pair."""
    if isinstance(column, pa.ChunkedArray):
        return [value for chunk in column.chunks for value in python_values(chunk)]
    if not _changes(column.type):
        try:
            return list(column.to_pylist())
        except _FAULTS:
            pass
    return _by_parts(column)


def _changes(kind: pa.DataType) -> bool:
    """Whether Arrow gives other values than wanted, anywhere in the type: JSON as text, times without their nanoseconds."""
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _changes(kind.value_type)
    if isinstance(kind, pa.JsonType) or kind == pa.time64("ns"):
        return True
    return any(_changes(kind.field(number).type) for number in range(kind.num_fields))


def _by_parts(array: pa.Array) -> list[Any]:
    kind = array.type
    if isinstance(kind, pa.JsonType):
        return [text if text is None else _parsed(text) for text in python_values(array.storage)]
    if isinstance(kind, pa.BaseExtensionType):
        return python_values(array.storage)
    if pa.types.is_dictionary(kind):
        return python_values(array.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return python_values(pc.run_end_decode(array))
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        columns = [python_values(column) for column in array.flatten()]
        rows = zip(*columns, strict=True) if columns else [()] * len(array)
        valid = array.is_valid().to_pylist()
        return [dict(zip(names, row, strict=True)) if there else None for row, there in zip(rows, valid, strict=True)]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        return _lists(array)
    if kind.num_fields:  # fixed lists, views of lists, unions
        return [None if not scalar.is_valid else _one(scalar) for scalar in array]
    return [_leaf(scalar) for scalar in array]


def _lists(array: pa.Array) -> list[Any]:
    offsets = array.offsets.to_pylist()
    first, last = offsets[0], offsets[-1]
    if pa.types.is_map(array.type):
        keys, items = (python_values(part[first:last]) for part in (array.keys, array.items))
        inner: list[Any] = list(zip(keys, items, strict=True))
    else:
        inner = python_values(array.values[first:last])
    valid = array.is_valid().to_pylist()
    starts = zip(offsets, offsets[1:], valid, strict=False)
    return [inner[start - first : end - first] if there else None for start, end, there in starts]


def _one(scalar: pa.Scalar) -> Any:
    values = getattr(scalar, "values", None)
    return _leaf(scalar) if values is None else python_values(values)


def _leaf(scalar: pa.Scalar) -> Any:
    if not scalar.is_valid:
        return None
    if scalar.type == pa.time64("ns"):
        return str(scalar.cast(pa.string()))
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return scalar.cast(pa.large_binary()).as_py().decode("utf-8", "surrogateescape")
    except _FAULTS:
        return _as_text(scalar)


def _as_text(scalar: pa.Scalar) -> Any:
    """A date or time beyond Python's as text, a duration as its seconds."""
    kind = scalar.type
    if pa.types.is_duration(kind):
        return scalar.value / _PER_SECOND[kind.unit]
    zone = "+00:00" if pa.types.is_timestamp(kind) and kind.tz is not None else ""
    if zone:  # Python or Arrow may not know the zone; the instant is in UTC.
        scalar = pa.scalar(scalar.value, pa.timestamp(kind.unit))
    written = str(scalar.cast(pa.string()))
    if written.startswith("<"):  # beyond Arrow's own calendar
        unit = "days" if pa.types.is_date32(kind) else getattr(kind, "unit", "ms")
        return f"{scalar.value} {unit} since 1970-01-01{zone and ' UTC'}"
    return written.replace(" ", "T") + zone


def _parsed(text: Any) -> Any:
    try:
        return parse_json(text)
    except (ValueError, RecursionError) as error:
        return Unreadable(f"not JSON that can be read: {str(error)[:100]}")
