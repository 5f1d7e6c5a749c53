"""Parquet files for the Hub from tables that come bit by bit: rows are gathered to a row group, row groups to a file. A group is
written by a thread while the next is gathered, so that whoever makes the rows does not wait for compression."""

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from thresher.pool.store import parquet_options

GROUP_ROWS = 50_000
"""Rows of a row group, at most. Smaller ones compress worse and break up what an edited dataset shares with the one before."""
GROUP_BYTES = 64 << 20
"""Arrow bytes after which a row group is written however few its rows: what is held in memory."""
FILE_BYTES = 256 << 20
"""Parquet bytes after which the next file begins."""


@dataclass(frozen=True)
class TableFile:
    """A finished file: where it lies, the first 16 digits of its SHA-256, its rows, their bytes in Arrow memory, its size."""

    path: Path
    digest: str
    rows: int
    memory_bytes: int
    file_bytes: int


class TableFiles:
    """Files of one schema in a folder. A context manager."""

    def __init__(self, folder: Path, name: str, schema: pa.Schema, *, file_bytes: int | None = None) -> None:
        self._folder, self._name, self._schema = folder, name, schema
        self._file_bytes = FILE_BYTES if file_bytes is None else file_bytes
        self._gathered: list[pa.Table] = []
        self._gathered_rows = self._gathered_bytes = 0
        self._thread = ThreadPoolExecutor(1, "table-files")
        self._writing: Future[None] | None = None
        self.files: list[TableFile] = []
        self._begin()

    def __enter__(self) -> "TableFiles":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.shutdown()
        self._writer.close()
        self._file.close()
        self._path.unlink(missing_ok=True)

    def add(self, table: pa.Table) -> None:
        """Take rows of the schema's columns."""
        self._gathered.append(table)
        self._gathered_rows += table.num_rows
        self._gathered_bytes += table.nbytes
        if self._gathered_rows >= GROUP_ROWS or self._gathered_bytes >= GROUP_BYTES:
            self._hand_over()

    def finish(self, *, optional: bool = False) -> list[TableFile]:
        """Write what is left. Without a row there is one file without a row, or none where that is `optional`."""
        if self._gathered_rows:
            self._hand_over()
        self._wait()
        if self._rows or not (self.files or optional):
            self._end()
        return self.files

    def _hand_over(self) -> None:
        """Have what is gathered written, once the group before is."""
        self._wait()
        self._writing = self._thread.submit(self._write, self._gathered, self._gathered_rows, self._gathered_bytes)
        self._gathered, self._gathered_rows, self._gathered_bytes = [], 0, 0

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _write(self, tables: list[pa.Table], rows: int, size: int) -> None:
        if self._rows and self._file.tell() >= self._file_bytes:
            self._end()
            self._begin()
        groups = max(1, round(rows / GROUP_ROWS), round(size / GROUP_BYTES))
        self._writer.write_table(pa.concat_tables(tables).cast(self._schema), row_group_size=-(-rows // groups))
        self._rows += rows
        self._memory_bytes += size

    def _begin(self) -> None:
        self._path = self._folder / f".{self._name}.tmp"
        self._file = self._path.open("wb")
        self._writer = pq.ParquetWriter(self._file, self._schema, **parquet_options(self._schema, for_hub=True))
        self._rows = self._memory_bytes = 0

    def _end(self) -> None:
        self._writer.close()
        self._file.close()
        with self._path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        path = self._path.with_name(f".{self._name}.{len(self.files):05d}-{digest}.parquet")
        self._path.rename(path)
        self.files.append(TableFile(path, digest, self._rows, self._memory_bytes, path.stat().st_size))
