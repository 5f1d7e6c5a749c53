"""Reads Parquet files and both kinds of Arrow files in batches, several of them as one table.

The first bytes of a file say which kind it is. Memory holds a batch of a bounded number of bytes, whatever the size of a row.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from thresher.errors import SourceError
from thresher.inputs.files.column_types import conformed, unified
from thresher.inputs.files.named_files import NamedFile

BATCH_BYTES = 64 << 20
"""Rows that are in memory at a time have about this many bytes, or are one row."""
_BUFFER = 1 << 20
_PARQUET, _FILE, _STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip"}


class PlacedBatch(NamedTuple):
    """Rows of a file that follow each other, with the columns of all files."""

    file: NamedFile
    first: int
    """Number of the first of them in its file, from 0."""
    rows: pa.Table


@dataclass(frozen=True)
class ArrowFiles:
    """Parquet and Arrow files as one table: columns are matched by name (thresher.inputs.files.column_types)."""

    files: Sequence[NamedFile]
    names: tuple[str, ...]
    """The names of all columns, also of those that are left out."""
    schema: pa.Schema
    """The columns that are read."""

    def batches(self, rows: int, columns: Sequence[str] | None = None) -> Iterator[PlacedBatch]:
        """Yield all rows in order, at most `rows` at a time, with the `columns` of the schema or all. Raises SourceError."""
        schema = self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
        for file in self.files:
            first = 0
            with explained(file.shown, lambda: first):  # noqa: B023 - called before the loop goes on
                for batch in _batches(file.path, schema.names, rows):
                    yield PlacedBatch(file, first, conformed(batch, schema, file.shown))
                    first += batch.num_rows


Chooser = Callable[[pa.Schema, str], list[str]]


def open_arrow_files(files: Sequence[NamedFile], choose: Chooser | None = None) -> ArrowFiles:
    """Open files as one table. `choose` gives the names of the columns to read of a schema of the file that it names. Raises
    SourceError for files that cannot be read, and for columns that cannot be one."""
    names: dict[str, None] = {}
    chosen: list[tuple[str, pa.Schema]] = []
    for file in files:
        with explained(file.shown, lambda: 0):
            schema = _schema(file.path, file.shown)
        names |= dict.fromkeys(schema.names)
        unified([(file.shown, schema)])  # A name that stands twice cannot be chosen.
        wanted = schema.names if choose is None else choose(schema, file.shown)
        chosen.append((file.shown, pa.schema([schema.field(name) for name in wanted])))
    return ArrowFiles(files, tuple(names), unified(chosen))


def is_arrow(path: Path) -> bool:
    """Whether a file begins as a Parquet or Arrow file does. Raises OSError."""
    with path.open("rb") as file:
        return bool(file.read(6).startswith((_PARQUET, _FILE, _STREAM)))


def count_rows(file: NamedFile) -> int:
    """The number of rows of a file. Raises SourceError."""
    with explained(file.shown, lambda: 0):
        with file.path.open("rb") as opened:
            if opened.read(4) == _PARQUET:
                return int(pq.read_metadata(file.path).num_rows)
        return sum(batch.num_rows for batch in _batches(file.path, [], 1 << 30))


@contextmanager
def explained(shown: str, row: Callable[[], int]) -> Iterator[None]:
    """Raise SourceError, with the row that `row` gives, for what Arrow raises on a damaged file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise SourceError(f"{shown}: cannot be read from row {row()} on; is it damaged? {reason}") from error


def _schema(path: Path, shown: str) -> pa.Schema:
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(_PARQUET):
        with pq.ParquetFile(path) as parquet:
            return parquet.schema_arrow
    if magic == _FILE:
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as reader:
            return reader.schema
    if magic.startswith(_STREAM):  # as `datasets` stores it
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_stream(mapped) as reader:
            return reader.schema
    packed = next((name for first, name in _PACKED.items() if magic.startswith(first)), None)
    if packed is not None:
        raise SourceError(f"{shown}: wanted Parquet or Arrow IPC, found a file compressed with {packed}; decompress it")
    raise SourceError(f"{shown}: neither Parquet nor Arrow IPC: it starts with {magic!r}")


def _batches(path: Path, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Batches of the named columns that the file has."""
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(_PARQUET):
        yield from _parquet_batches(path, names, rows)
        return
    opened = pa.ipc.open_file if magic == _FILE else pa.ipc.open_stream
    with pa.memory_map(str(path)) as mapped, opened(mapped) as reader:
        numbers = range(reader.num_record_batches) if magic == _FILE else None
        for batch in reader if numbers is None else map(reader.get_batch, numbers):
            yield from _sliced(batch.select([name for name in names if name in batch.schema.names]), rows)


def _parquet_batches(path: Path, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER) as parquet:
        own = [name for name in names if name in parquet.schema_arrow.names]
        for group in range(parquet.num_row_groups):
            size = _rows_at_a_time(parquet.metadata.row_group(group), own, rows)
            for batch in parquet.iter_batches(size, row_groups=[group], columns=own, use_threads=False):
                yield from _sliced(batch, rows)


def _rows_at_a_time(group: pq.RowGroupMetaData, names: Sequence[str], rows: int) -> int:
    """As many rows of a row group as have about BATCH_BYTES by its own account."""
    columns = map(group.column, range(group.num_columns))
    size = sum(column.total_uncompressed_size for column in columns if column.path_in_schema.split(".")[0] in names)
    return int(max(1, min(rows, BATCH_BYTES * group.num_rows // max(size, 1))))


def _sliced(batch: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    """A batch in pieces of at most `rows` rows and about BATCH_BYTES: values that repeat take less in a file than here."""
    size = max(1, min(rows, BATCH_BYTES * batch.num_rows // max(batch.nbytes, 1)))
    for first in range(0, batch.num_rows, size):
        yield batch.slice(first, size)
