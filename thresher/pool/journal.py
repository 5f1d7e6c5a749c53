"""The journal of an unfinished shard: the samples of its prompts so far, group by group.

    RUN/journal/00042-0001.arrows    Arrow IPC streams (schema JOURNAL), one per process that worked on the shard

Finished groups are appended and handed to the operating system immediately, so they survive kill -9 of this process; they, and
the name of their stream, are synced to the disk once a second. A process never appends to a stream of another. A stream may end
in the middle of a batch or, after a power cut, in garbage: it is read batch by batch, each compared with its checksum, up to the
first that is not whole. An object store cannot append, so a new object is written there every few seconds.
"""

import io
import os
import time
import zlib
from contextlib import suppress
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa

from filters.chunks import CHUNK_BYTES, pieces
from schemas.sample import JOURNAL
from thresher.durable import make_folders, sync
from thresher.pool.store import Store, shard_name

SYNC_S = 1.0
"""Seconds between two syncs to a local disk."""
PUT_S = 5.0
"""Seconds between two objects on an object store."""

FOLDER = "journal"


class Journal:
    """A context manager that appends to the journal of one shard; leaving it writes the rest."""

    def __init__(self, store: Store, shard: int, key: str) -> None:
        self._store, self._shard = store, shard
        self._schema = JOURNAL.with_metadata({**(JOURNAL.metadata or {}), b"key": key.encode()})
        self._file: Any = None
        self._waiting: list[pa.RecordBatch] = []
        self._synced = time.monotonic()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._put()
        if self._file is not None:
            self._file.close(synced=error is not None or time.monotonic() - self._synced >= SYNC_S)
            self._file = None

    def append(self, table: pa.Table) -> None:
        """Append rows (schema JOURNAL). Raises StoreError when the disk refuses; earlier rows stay readable."""
        for part in pieces(table, CHUNK_BYTES):
            self._waiting += part.combine_chunks().to_batches()
        if self._store.local:
            self._write()
        self.tick()

    def tick(self) -> None:
        """Sync, or write to an object store, when it is due. Call it about every second."""
        if time.monotonic() - self._synced < (SYNC_S if self._store.local else PUT_S):
            return
        if self._store.local:
            if self._file is not None:
                self._file.sync()
        else:
            self._put()
        self._synced = time.monotonic()

    def _write(self) -> None:
        if self._file is None:
            self._file = _appending(self._store, FOLDER, f"{shard_name(self._shard)}-", ".arrows")
            self._file.write(self._schema.serialize())
        waiting, self._waiting = self._waiting, []
        for batch in waiting:
            self._file.write(_message(batch))

    def _put(self) -> None:
        if self._store.local or not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        parts = [self._schema.serialize().to_pybytes(), *(_message(batch).to_pybytes() for batch in waiting)]
        self._store.put_next(FOLDER, f"{shard_name(self._shard)}-", ".arrows", b"".join(parts))


def read(store: Store, shard: int, key: str) -> pa.Table:
    """All rows of a shard's journal that are whole, of all its streams (schema JOURNAL), without those of another `key`."""
    batches = [batch for name in names(store, shard) for batch in _batches(store.read_bytes(f"{FOLDER}/{name}"), key)]
    return pa.Table.from_batches(batches, JOURNAL)


def names(store: Store, shard: int) -> list[str]:
    """The streams of a shard, in the order they were started."""
    return [name for name in store.names(FOLDER, ".arrows") if name.startswith(f"{shard_name(shard)}-")]


def remove(store: Store, shard: int) -> None:
    """Remove a shard's journal, once its Parquet file and entry are written."""
    store.remove(*(f"{FOLDER}/{name}" for name in names(store, shard)))


class Appending:
    """A local file that grows. Every write goes to the operating system; `sync` waits until it is on the disk."""

    def __init__(self, store: Store, name: str, file: BinaryIO) -> None:
        self.name = name
        self._store, self._file = store, file
        self._is_named = False

    def write(self, data: bytes | pa.Buffer) -> None:
        """Append all of the data."""
        self._store.check_lease()
        with self._store.explained(self.name):
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]

    def sync(self) -> None:
        """Flush to the disk, with its name."""
        with self._store.explained(self.name):
            os.fsync(self._file.fileno())
            if not self._is_named:
                sync(os.path.dirname(self._file.name))
                self._is_named = True

    def close(self, *, synced: bool = True) -> None:
        """Close it, `synced` or as the operating system has it: for what is written elsewhere next."""
        if not self._file.closed:
            if synced:
                self.sync()
            self._file.close()


def _appending(store: Store, folder: str, prefix: str, ending: str) -> Appending:
    """Open the next free file PREFIX NNNN ENDING of a local folder for appending; no other process gets the same one."""
    with store.explained(folder):
        make_folders(store.path(folder))
        number = len(store.names(folder, ending))
        while True:
            number += 1
            name = f"{folder}/{prefix}{number:04d}{ending}"
            with suppress(FileExistsError):
                return Appending(store, name, open(store.path(name), "xb", buffering=0))


# -- inside --------------------------------------------------------------------------------------------------------------


def _message(batch: pa.RecordBatch) -> pa.Buffer:
    """An encapsulated IPC message with the checksum of its buffers."""
    batch = pa.ipc.read_record_batch(batch.serialize(), batch.schema)  # with the buffers that a reader will see
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        start = len(batch.schema.serialize())
        writer.write_batch(batch, custom_metadata={"crc32": str(_checksum(batch))})
        end = sink.tell()
    return pa.py_buffer(sink.getbuffer()[start:end])


def _checksum(batch: pa.RecordBatch) -> int:
    checksum = 0
    for column in batch.columns:
        for buffer in column.buffers():
            if buffer is not None:
                checksum = zlib.crc32(buffer, checksum)
    return checksum


def _batches(data: bytes, key: str) -> list[pa.RecordBatch]:
    """The batches of a stream, up to the first that is not whole."""
    batches: list[pa.RecordBatch] = []
    try:
        reader = pa.ipc.open_stream(pa.py_buffer(data))
        if (reader.schema.metadata or {}).get(b"key") != key.encode() or not reader.schema.equals(JOURNAL):
            return batches
        while True:
            batch, metadata = reader.read_next_batch_with_custom_metadata()
            if metadata is None or int(metadata.get(b"crc32", b"-1")) != _checksum(batch):
                return batches
            batch.validate(full=True)
            batches.append(pa.RecordBatch.from_arrays(batch.columns, schema=JOURNAL))
    except (StopIteration, pa.ArrowException, OSError, ValueError):
        return batches
