"""Values of rows become JSON, or are refused with their place."""

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import orjson
import pyarrow as pa
import pytest

from thresher.errors import SourceError
from thresher.inputs.json_values import MOST_LEVELS, Unreadable, json_value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.5), 0.5), (np.int8(3), 3), (np.bool_(True), True),
        (np.array([[1, 2]]), [[1, 2]]),
        (np.datetime64("2024-05-01", "ns"), "2024-05-01T00:00:00.000000000"),
        (pa.scalar({"a": 1}), {"a": 1}),
        (datetime(2024, 5, 1, 12, tzinfo=UTC), "2024-05-01T12:00:00+00:00"),
        (date(2024, 5, 1), "2024-05-01"), (time(1, 2, 3), "01:02:03"), (timedelta(minutes=1), 60.0),
        (Decimal("1.10"), "1.10"), (b"\x00\xff", "AP8="), ((1, {2: None}), [1, {"2": None}]),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_values_become_json(value: Any, expected: Any) -> None:
    """Values of Python, NumPy and Arrow have one JSON value each."""
    converted = json_value(value, "x")

    assert json.loads(json.dumps(converted)) == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "x: nan is not a number in JSON; use null, or a text"),
        ([{"a": float("-inf")}], "x: -inf is not a number in JSON"),
        (np.float32("nan"), "x: nan is not a number"),
        ("a\ud800", r"x: \\ud800 is half of a surrogate pair"),
        ({"\udfff": 1}, r"x: \\udfff is half of a surrogate pair"),
        ("a\udcff", r"x: \\udcff is half of a surrogate pair \(or the byte 0xff, which is not UTF-8\)"),
        (Unreadable("torn"), "x: torn"),
        ([10**400], "x: an integer of more than 308 digits, which JSON readers refuse; write it as a text"),
        ({1, 2}, "x: a set cannot be kept as JSON; leave the field out"),
    ],
    ids=["nan", "inside", "numpy", "surrogate", "surrogate key", "byte", "unreadable", "huge", "set"],
)
def test_values_that_json_cannot_hold_are_refused(value: Any, message: str) -> None:
    """The message names their place."""
    with pytest.raises(SourceError, match=message):
        json_value(value, "x")


def test_deep_nesting_is_refused() -> None:
    """At a depth that every reader of JSON can follow."""
    nested: list[Any] = []
    for _ in range(MOST_LEVELS):
        nested = [nested]
    assert orjson.loads(orjson.dumps(json_value([nested][0], "x"))) == nested
    with pytest.raises(SourceError, match="x: nested too deeply: more than 200 lists and objects in each other"):
        json_value([nested], "x")


def test_non_finite_numbers_can_be_kept_as_texts() -> None:
    """For columns that are copied and never read. So are integers that readers of JSON change."""
    values = [float("nan"), np.float32("-inf"), 1.0, 10**400, 2**64, 2**64 - 1, -(2**63)]

    texts = ["NaN", "-Infinity", 1.0, str(10**400), str(2**64), 2**64 - 1, -(2**63)]
    assert json_value(values, "x", finite=False) == texts
    assert json_value(2**64, "x") == 2**64
