"""Writes Parquet files for the Hub from many small tables: rows are collected into row groups, row groups into files.

A thread writes a group while the next is collected, so the caller does not wait for compression.
"""

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from filters.chunks import pieces
from thresher.pool.parquet_options import parquet_options

GROUP_ROWS = 50_000
"""Most rows of a row group. Smaller groups compress worse, and share less data with the previous version of an edited dataset."""
GROUP_BYTES = 64 << 20
"""Arrow bytes after which a row group is written even with fewer rows; limits the memory. A group has less than twice as many,
unless a single row has more."""
FILE_BYTES = 256 << 20
"""Parquet bytes after which the next file is started."""


@dataclass(frozen=True)
class TableFile:
    """A finished file: its path, the first 16 digits of its SHA-256, its rows, their bytes in Arrow memory, and its size."""

    path: Path
    digest: str
    rows: int
    memory_bytes: int
    file_bytes: int


class TableFiles:
    """The files of one schema in a folder. A context manager."""

    def __init__(self, folder: Path, name: str, schema: pa.Schema, *, file_bytes: int | None = None) -> None:
        self._folder, self._name, self._schema = folder, name, schema
        self._file_bytes = FILE_BYTES if file_bytes is None else file_bytes
        self._collected: list[pa.Table] = []
        self._collected_rows = self._collected_bytes = 0
        self._thread = ThreadPoolExecutor(1, "table-files")
        self._writing: Future[None] | None = None
        self.files: list[TableFile] = []
        self._start_file()

    def __enter__(self) -> "TableFiles":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.shutdown()
        self._writer.close()
        self._file.close()
        self._path.unlink(missing_ok=True)

    def add(self, table: pa.Table) -> None:
        """Add rows with the schema's columns."""
        for part in pieces(table, GROUP_BYTES):
            self._collected.append(part)
            self._collected_rows += part.num_rows
            self._collected_bytes += part.nbytes
            if self._collected_rows >= GROUP_ROWS or self._collected_bytes >= GROUP_BYTES:
                self._hand_over()

    def finish(self, *, optional: bool = False) -> list[TableFile]:
        """Write the remaining rows and return the files. If there are no rows at all: an empty file, or no file if `optional`."""
        if self._collected_rows:
            self._hand_over()
        self._wait()
        if self._rows or not (self.files or optional):
            self._finish_file()
        return self.files

    def _hand_over(self) -> None:
        """Pass the collected rows to the thread, after it has written the group before."""
        self._wait()
        self._writing = self._thread.submit(self._write, self._collected, self._collected_rows, self._collected_bytes)
        self._collected, self._collected_rows, self._collected_bytes = [], 0, 0

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _write(self, tables: list[pa.Table], rows: int, size: int) -> None:
        if self._rows and self._file.tell() >= self._file_bytes:
            self._finish_file()
            self._start_file()
        groups = max(1, round(rows / GROUP_ROWS), round(size / GROUP_BYTES))
        self._writer.write_table(pa.concat_tables(tables).cast(self._schema), row_group_size=-(-rows // groups))
        self._rows += rows
        self._memory_bytes += size

    def _start_file(self) -> None:
        self._path = self._folder / f".{self._name}.tmp"
        self._file = self._path.open("wb")
        self._writer = pq.ParquetWriter(self._file, self._schema, **parquet_options(self._schema, for_hub=True))
        self._rows = self._memory_bytes = 0

    def _finish_file(self) -> None:
        self._writer.close()
        self._file.close()
        with self._path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        path = self._path.with_name(f".{self._name}.{len(self.files):05d}-{digest}.parquet")
        self._path.rename(path)
        self.files.append(TableFile(path, digest, self._rows, self._memory_bytes, path.stat().st_size))
