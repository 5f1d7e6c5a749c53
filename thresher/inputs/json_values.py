"""Values of rows as JSON: what Python, NumPy and Arrow hold becomes one of JSON's types, or an error that names the place."""

import base64
import json
import math
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa

from thresher.errors import SourceError


@dataclass(frozen=True)
class Unreadable:
    """A value that could not be read, and why. It costs the row that uses it."""

    reason: str

    def __str__(self) -> str:
        return self.reason


MOST_LEVELS = 200
"""Levels of lists and objects of a value. Some readers of JSON stop at 254, and a message puts a value a few levels down."""
_LARGEST = 10**308
"""Integers up to this are numbers for every reader of JSON, if not always the same ones."""

ordered_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
"""The JSON text of a value with its keys in their own order. Templates show tools and arguments in this order, and a model was
trained on that of their authors."""


def json_value(value: Any, where: str, *, finite: bool = True) -> Any:
    """Convert a value to JSON: dates and times to ISO 8601 text, durations to seconds, bytes to base64, decimals to text, scalars
    of NumPy and Arrow to their value. Raises SourceError for a value that JSON cannot hold.

    JSON has no NaN and no infinity: they are refused or, unless `finite`, become the texts NaN, Infinity and -Infinity. So are
    integers of more than 308 digits, and become texts where they have more than 64 bits, which few readers of JSON keep.
    """
    return _converted(value, where, finite, 0)


def valid_text(value: str, where: str) -> str:
    """Return the text. Raises SourceError for half a surrogate pair, which a JSON escape can write and UTF-8 cannot."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        byte = f" (or the byte 0x{code - 0xDC00:02x}, which is not UTF-8)" if 0xDC80 <= code <= 0xDCFF else ""
        raise SourceError(f"{where}: \\u{code:04x} is half of a surrogate pair{byte}, which is not text; remove it") from error
    return str(value)


def _converted(value: Any, where: str, finite: bool, level: int) -> Any:
    if level > MOST_LEVELS:
        raise SourceError(f"{where}: nested too deeply: more than {MOST_LEVELS} lists and objects in each other")
    match value:
        case None | bool():
            return value
        case str():
            return valid_text(value, where)
        case int():
            if finite and abs(value) > _LARGEST:
                raise SourceError(f"{where}: an integer of more than 308 digits, which JSON readers refuse; write it as a text")
            return int(value) if finite or -(2**63) <= value < 2**64 else str(value)
        case float():
            if math.isfinite(value):
                return float(value)
            if finite:
                raise SourceError(f"{where}: {value} is not a number in JSON; use null, or a text")
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case dict():
            return {valid_text(str(key), where): _converted(inner, where, finite, level + 1) for key, inner in value.items()}
        case list() | tuple():
            return [_converted(inner, where, finite, level + 1) for inner in value]
        case Unreadable():
            raise SourceError(f"{where}: {value.reason}")
        case date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal() | UUID():
            return str(value)
        case bytes():
            return base64.b64encode(value).decode()
        case pa.Scalar():
            return _converted(value.as_py(), where, finite, level)
    if type(value).__module__ == "numpy":
        return str(value) if type(value).__name__ == "datetime64" else _converted(value.tolist(), where, finite, level)
    raise SourceError(f"{where}: a {type(value).__name__} cannot be kept as JSON; leave the field out")
