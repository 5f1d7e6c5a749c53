"""Every value of Arrow has a value in Python, and then in JSON."""

from typing import Any

import pyarrow as pa
import pytest

from thresher.inputs.files.arrow_values import python_values
from thresher.inputs.json_values import Unreadable, json_value

T, FAR = pa.timestamp, 2**38
JSON = pa.array([['{"a": [1]}', "[2]", "null"], None, []]).cast(pa.list_(pa.json_()))
BAD = pa.Array.from_buffers(pa.string(), 1, pa.array([b"a\xff"]).buffers())


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (pa.array([FAR, 0, None], T("s")), ["10680-07-14T06:09:04", "1970-01-01T00:00:00", None]),
        (pa.array([-(2**37)], T("s", "UTC")), ["-2386-09-25T08:55:28+00:00"]),
        (pa.array([2**62], T("s")), ["4611686018427387904 s since 1970-01-01"]),
        (pa.array([0], T("s", "No/Where")), ["1970-01-01T00:00:00+00:00"]),
        (pa.array([5], T("ns")), ["1970-01-01T00:00:00.000000005"]),
        (pa.array([-800_000, 0], pa.date32()), ["-0221-09-04", "1970-01-01"]),
        (pa.array([2**30], pa.date32()), ["1073741824 days since 1970-01-01"]),
        (pa.array([1, None], pa.time64("ns")), ["00:00:00.000000001", None]),
        (pa.array([2**62, 60], pa.duration("s")), [float(2**62), 60.0]),
        (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), [[1, 2, 3]]),
        (pa.array([[FAR], None, [0, FAR]], pa.list_(T("s"))).slice(1), [None, ["1970-01-01T00:00:00", "10680-07-14T06:09:04"]]),
        (pa.array([[0, FAR], None], pa.list_(T("s"), 2)), [["1970-01-01T00:00:00", "10680-07-14T06:09:04"], None]),
        (pa.array([[FAR]], pa.list_view(T("s"))), [["10680-07-14T06:09:04"]]),
        (pa.array([{"x": FAR, "y": 1}, None], pa.struct([("x", T("s")), ("y", pa.int8())])),
         [{"x": "10680-07-14T06:09:04", "y": 1}, None]),
        (pa.array([[("k", FAR)], None], pa.map_(pa.string(), T("s"))), [[["k", "10680-07-14T06:09:04"]], None]),
        (pa.array([FAR, FAR], T("s")).dictionary_encode(), ["10680-07-14T06:09:04"] * 2),
        (pa.RunEndEncodedArray.from_arrays([2], pa.array([FAR], T("s"))), ["10680-07-14T06:09:04"] * 2),
        (JSON, [[{"a": [1]}, [2], None], None, []]),
        (JSON.slice(1), [None, []]),
        (pa.StructArray.from_arrays([JSON, JSON], ["j", "n"]).slice(1, 1), [{"j": None, "n": None}]),
        (pa.array(["7", None], pa.json_()), [7, None]),
        (pa.array([b"\0" * 16], pa.uuid()), ["00000000-0000-0000-0000-000000000000"]),
        (pa.array([b"\xff"], pa.binary_view()), ["/w=="]),
    ],
    ids=lambda value: str(value.type)[:50] if isinstance(value, pa.Array) else "",
)  # fmt: skip
def test_values_of_any_type_become_json(column: pa.Array, values: list[Any]) -> None:
    """JSON is parsed at any depth; what is beyond Python's calendar is text; nanoseconds stay."""
    assert json_value(python_values(column), "x") == values
    assert json_value(python_values(pa.chunked_array([column, column])), "x") == values * 2


def test_a_value_that_cannot_be_read_costs_itself() -> None:
    column = pa.array([['{"a": 1', "9" * 5000, "[" * 100_000, '{"a": 1, "a": 2}', "[1]"]]).cast(pa.list_(pa.json_()))
    (values,) = python_values(column)

    assert [isinstance(value, Unreadable) for value in values] == [True] * 4 + [False]
    assert str(values[3]) == "not JSON that can be read: the key 'a' stands twice in one object"
    assert python_values(pa.ListArray.from_arrays([0, 1], BAD)) == [["a\udcff"]]
