"""Columns of several files are one where no value changes, and refused by name where one would."""

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from thresher.errors import SourceError
from thresher.inputs.files.column_types import conformed, plain, unified

T = pa.timestamp
JSON_LIST = pa.list_(pa.json_())


def table(values: Any, kind: Any = None) -> pa.Table:
    return pa.table({"a": values if isinstance(values, pa.Array) else pa.array(values, kind)})


def together(*tables: pa.Table) -> pa.Table:
    schema = unified((f"{number}.parquet", each.schema) for number, each in enumerate(tables))
    return pa.concat_tables(conformed(each, schema, f"{number}.parquet") for number, each in enumerate(tables))


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        (table([1], pa.int32()), table([2]), pa.int64()),
        (table([1]), table([2], pa.uint64()), pa.int64()),
        (table([1]), table([2.5]), pa.float64()),
        (table([2**30 + 1], pa.int32()), table([2.5], pa.float32()), pa.float64()),
        (table([1.5], pa.float16()), table([2.5], pa.float32()), pa.float32()),
        (table(["x"]), table(["y"], pa.large_string()), pa.large_string()),
        (table(["x"]), table(["y"], pa.string_view()), pa.large_string()),
        (table(pa.array(["x"]).dictionary_encode()), table(["y"]), pa.string()),
        (table(pa.RunEndEncodedArray.from_arrays([1], ["x"])), table(["y"]), pa.string()),
        (table([None]), table([["x"]]), pa.list_(pa.string())),
        (table([[1]]), table([[2, 3]], pa.large_list(pa.int8())), pa.large_list(pa.int64())),
        (table([[1, 2]], pa.list_(pa.int8(), 2)), table([[3], [4, 5]]), pa.list_(pa.int64())),
        (table([[1, 2], [3]], pa.list_view(pa.int64())), table([[4]]), pa.list_(pa.int64())),
        (table([["x"]], pa.list_(pa.dictionary(pa.int8(), pa.string()))), table([["y"]]), pa.list_(pa.string())),
        (table([1], T("s")), table([1_000_000_001], T("us")), T("us")),
        (table([1], T("s", "UTC")), table([2], T("ms", "UTC")), T("ms", "UTC")),
        (table([1], pa.duration("s")), table([2], pa.duration("ms")), pa.duration("ms")),
        (table([1], pa.date32()), table([86_400_000], pa.date64()), pa.date64()),
        (table([b"x"], pa.binary(1)), table([b"xy"]), pa.binary()),
        (table([Decimal("1.50")]), table([Decimal("100.125")]), pa.decimal128(6, 3)),
        (table([[("k", 1)]], pa.map_(pa.string(), pa.int8())), table([[("k", 2)]], pa.map_(pa.string(), pa.int64())),
         pa.map_(pa.string(), pa.int64())),
        (table(pa.array([["{}"]]).cast(JSON_LIST)), table([None]), JSON_LIST),
    ],
    ids=lambda value: str(value.schema.field(0).type) if isinstance(value, pa.Table) else "",
)  # fmt: skip
def test_types_become_one_without_changing_a_value(one: pa.Table, other: pa.Table, kind: pa.DataType) -> None:
    """In either order."""
    for tables in ((one, other), (other, one)):
        joined = together(*tables)
        assert joined.schema.field("a").type == kind
        assert joined["a"].to_pylist() == [value for each in tables for value in each["a"].to_pylist()]


def test_a_column_or_field_more_is_null_elsewhere() -> None:
    """At any depth, wherever it first appears."""
    first = pa.table({"s": [{"x": 1}], "l": [[{"x": {"y": 1}}]]})
    second = pa.table({"l": [[{"x": {"z": "b"}, "w": 2.5}]], "s": [{"n": None, "x": 2.5}], "new": ["n"]})

    assert together(first, second).to_pylist() == [
        {"s": {"x": 1, "n": None}, "l": [{"x": {"y": 1, "z": None}, "w": None}], "new": None},
        {"s": {"x": 2.5, "n": None}, "l": [{"x": {"y": None, "z": "b"}, "w": 2.5}], "new": "n"},
    ]


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (table([1]), table(["x"]), "1.parquet: the column 'a' is string, and int64 in 0.parquet; give it one type in all files"),
        (table(["x"]), table([b"x"]), "the column 'a' is binary, and string in 0.parquet"),
        (table([True]), table([1]), "the column 'a' is int64, and bool in"),
        (table([Decimal("1.5")]), table([1.5]), r"the column 'a' is double, and decimal128\(2, 1\) in"),
        (table([1], T("s")), table([1], T("s", "UTC")), r"the column 'a' is timestamp\[s, tz=UTC\], and timestamp\[s\] in"),
        (table([1], T("s")), table([1], pa.date32()), r"the column 'a' is date32\[day\], and timestamp\[s\] in"),
        (table([{"x": 1}]), table([{"x": "y"}]), "the column 'a' is struct<x: string>, and struct<x: int64> in"),
        (table([[1]]), table([1]), "the column 'a' is int64, and list<item: int64> in"),
        (table(["{}"], pa.json_()), table(["x"]), "the column 'a' is string, and extension<arrow.json> in"),
        (table([2**53 + 1]), table([0.5]), "0.parquet: the column 'a' is int64, and double together .*: Integer value 900"),
        (table([1]), table([2**63], pa.uint64()), "1.parquet: the column 'a' is uint64, and int64 together"),
        (table([2**40], T("s")), table([1], T("ns")), r"0.parquet: the column 'a' is timestamp\[s\], and timestamp\[ns\] tog"),
        (pa.table([[1], [2]], ["a", "a"]), table([1]), "0.parquet: the column 'a' stands 2 times; rename all but one"),
        (table([1]), pa.table({"s": pa.StructArray.from_arrays([[1], [2]], ["x", "x"])}),
         "1.parquet: in 's' the field 'x' stands 2 times"),
        (table(pa.array([[None]], pa.list_(pa.struct([("x", pa.int8()), ("x", pa.int8())])))), table([1]),
         "0.parquet: in 'a' the field 'x' stands 2 times"),
    ],
)  # fmt: skip
def test_what_cannot_be_one_is_refused_by_name(one: pa.Table, other: pa.Table, message: str) -> None:
    """Whether the types have nothing in common, or a value does not fit."""
    with pytest.raises(SourceError, match=message):
        together(one, other)


def test_plain_types_hold_the_values_themselves() -> None:
    word = pa.dictionary(pa.int8(), pa.string())
    nested = pa.struct([("w", word), ("l", pa.large_list_view(word)), ("m", pa.map_(word, pa.string_view()))])

    assert plain(nested) == pa.struct([
        ("w", pa.string()), ("l", pa.large_list(pa.string())), ("m", pa.map_(pa.string(), pa.large_string())),
    ])  # fmt: skip
