"""Reads files of JSON lines, plain or compressed. The content of a file says whether it is compressed, not its name."""

import bz2
import codecs
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from thresher.errors import SourceError

Row = dict[str, Any]

BUFFER = 1 << 16
"""Bytes that are read at once, and that are lost before the place where a compressed file breaks."""


def _zstd(path: Path) -> BinaryIO:
    return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"), BUFFER)


_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open, b"\x28\xb5\x2f\xfd": _zstd, b"\x50\x2a\x4d\x18": _zstd, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open,
}  # fmt: skip
"""What opens a file for reading, by its first bytes. Those of pzstd begin with a frame that is skipped."""
_OTHERS = {
    b"PAR1": "a Parquet file", b"ARROW1": "an Arrow file", b"PK\x03\x04": "a zip archive", b"\xff\xff\xff\xff": "an Arrow stream",
}  # fmt: skip


class _RepeatedKeyError(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> Row:
    """The object of these keys and values. A key that stands twice has two values, and one would be lost."""
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
    return made


def parse_json(text: str) -> Any:
    """Parse JSON. Raises ValueError or RecursionError for what is none, for a number of more than 4300 digits, and for an object
    in which a key stands twice."""
    value = json.loads(text)
    if isinstance(value, dict) and len(value) == text.count(":"):  # as many keys as there can be: none was lost
        return value
    return json.loads(text, object_pairs_hook=_object)


def parse_line(line: bytes, where: str) -> Row:
    """Parse one line of JSONL. Raises SourceError unless it is an object."""
    wanted = "wanted one JSON object per line"
    try:
        row = parse_json(line.decode())
    except UnicodeDecodeError as error:
        byte = f"byte 0x{line[error.start]:02x} in column {error.start + 1}"
        raise SourceError(f"{where}: not UTF-8: {byte}; save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise SourceError(f"{where}: not JSON: {error.msg} in column {error.colno}; {wanted}") from error
    except _RepeatedKeyError as error:
        raise SourceError(f"{where}: a repeated key: {error}; rename one of them") from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where}: not JSON that can be read: {error}; {wanted}") from error
    if not isinstance(row, dict):
        raise SourceError(f"{where}: not an object: found {type(row).__name__}; {wanted}")
    return row


def read_lines(path: Path, shown: str | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield (number from 1, bytes) of each line that is not blank, without a byte order mark. Raises SourceError for a file that
    is no text, and for one that breaks off; the message names it as `shown`."""
    number, name = 0, shown or str(path)
    try:
        with _opened(path, name) as file:
            for number, line in enumerate(file, 1):
                content = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).rstrip(b"\r\n")
                if content.strip():
                    yield number, content
    except (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        if isinstance(error, OSError) and error.errno is not None:
            raise SourceError(f"{name}: cannot be read: {reason}") from error
        raise SourceError(f"{name}: breaks after line {number}: {reason}; is it complete? Copy or compress it again") from error


def _opened(path: Path, name: str) -> Any:
    """The lines of a file, decompressed."""
    with path.open("rb") as file:
        first = file.read(8)
    for magic, what in _OTHERS.items():
        if first.startswith(magic):
            raise SourceError(f"{name}: wanted JSON lines, found {what}")
    opener = next((opener for magic, opener in _OPENERS.items() if first.startswith(magic)), None)
    return path.open("rb") if opener is None else opener(path)
