"""Values of rows as JSON: what Python, NumPy and Arrow hold becomes one of JSON's types, or an error that names the place."""

import base64
import json
import math
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa

from thresher.errors import SourceError

ordered_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
"""The JSON text of a value with its keys in their own order. Templates show tools and arguments in this order, and a model was
trained on that of their authors."""


def json_value(value: Any, where: str, *, finite: bool = True) -> Any:
    """Convert a value to JSON: dates and times to ISO 8601 text, durations to seconds, bytes to base64, decimals to text, scalars
    of NumPy and Arrow to their value. Raises SourceError for a value that JSON cannot hold.

    JSON has no NaN and no infinity: they are refused or, unless `finite`, become the texts NaN, Infinity and -Infinity.
    """
    try:
        return _converted(value, where, finite)
    except RecursionError as error:
        raise SourceError(f"{where}: nested too deeply to be kept as JSON") from error


def valid_text(value: str, where: str) -> str:
    """Return the text. Raises SourceError for half a surrogate pair, which a JSON escape can write and UTF-8 cannot."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(value[error.start]):04x}"
        raise SourceError(f"{where}: {half} is half of a surrogate pair, which is not text; remove it") from error
    return str(value)


def _converted(value: Any, where: str, finite: bool) -> Any:
    match value:
        case None | bool():
            return value
        case str():
            return valid_text(value, where)
        case int():
            return int(value)
        case float():
            if math.isfinite(value):
                return float(value)
            if finite:
                raise SourceError(f"{where}: {value} is not a number in JSON; use null, or a text")
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case dict():
            return {valid_text(str(key), where): _converted(inner, where, finite) for key, inner in value.items()}
        case list() | tuple():
            return [_converted(inner, where, finite) for inner in value]
        case date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal() | UUID():
            return str(value)
        case bytes():
            return base64.b64encode(value).decode()
        case pa.Scalar():
            return _converted(value.as_py(), where, finite)
    if type(value).__module__ == "numpy":
        return str(value) if type(value).__name__ == "datetime64" else _converted(value.tolist(), where, finite)
    raise SourceError(f"{where}: a {type(value).__name__} cannot be kept as JSON; leave the field out")
