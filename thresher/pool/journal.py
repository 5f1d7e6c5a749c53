"""The journal of a shard that is not finished: what its prompts have been given so far, group by group.

    RUN/journal/00042-0001.arrows    Arrow IPC streams (schema JOURNAL), one per process that worked on the shard

Finished groups are appended and handed to the operating system at once, so they outlive kill -9 of this process; they are synced
to the disk once a second. A process never appends to what another wrote. A stream may end in the middle of a batch, or, after a
power cut, in rubbish: it is read batch by batch, each compared with its checksum, up to the first that is not whole. On an object
store, where nothing can be appended, a new object is written every few seconds.
"""

import io
import time
import zlib
from types import TracebackType
from typing import Any

import pyarrow as pa

from schemas.sample import JOURNAL
from thresher.pool.store import Store, shard_name

SYNC_S = 1.0
"""Seconds between two syncs to a local disk."""
PUT_S = 5.0
"""Seconds between two objects on an object store."""

FOLDER = "journal"


class Journal:
    """A context manager that appends to the journal of one shard; leaving it writes what is left."""

    def __init__(self, store: Store, shard: int, key: str) -> None:
        self._store, self._shard = store, shard
        self._schema = JOURNAL.with_metadata({**(JOURNAL.metadata or {}), b"key": key.encode()})
        self._file: Any = None
        self._held: list[pa.RecordBatch] = []
        self._synced = time.monotonic()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._put()
        if self._file is not None:
            self._file.close()
            self._file = None

    def append(self, table: pa.Table) -> None:
        """Append rows (schema JOURNAL). Raises StoreError where the disk refuses; what is there stays readable."""
        for batch in table.combine_chunks().to_batches():
            self._held.append(batch)
        if self._store.local:
            self._write()
        self.tick()

    def tick(self) -> None:
        """Sync, or on an object store write, if it is time. Call it every second or so."""
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
            self._file = self._store.appending(FOLDER, f"{shard_name(self._shard)}-", ".arrows")
            self._file.write(self._schema.serialize())
        held, self._held = self._held, []
        for batch in held:
            self._file.write(_message(batch))

    def _put(self) -> None:
        if self._store.local or not self._held:
            return
        held, self._held = self._held, []
        parts = [self._schema.serialize().to_pybytes(), *(_message(batch).to_pybytes() for batch in held)]
        self._store.put_next(FOLDER, f"{shard_name(self._shard)}-", ".arrows", b"".join(parts))


def read(store: Store, shard: int, key: str) -> pa.Table:
    """All whole rows of a shard's journal, of all its streams (schema JOURNAL); rows of another `key` do not count."""
    batches = [batch for name in names(store, shard) for batch in _batches(store.read_bytes(f"{FOLDER}/{name}"), key)]
    return pa.Table.from_batches(batches, JOURNAL)


def names(store: Store, shard: int) -> list[str]:
    """The streams of a shard, in the order they were begun."""
    return [name for name in store.names(FOLDER, ".arrows") if name.startswith(f"{shard_name(shard)}-")]


def remove(store: Store, shard: int) -> None:
    """Remove a shard's journal, once its Parquet file and entry are written."""
    for name in names(store, shard):
        store.remove(f"{FOLDER}/{name}")


# -- inside --------------------------------------------------------------------------------------------------------------


def _message(batch: pa.RecordBatch) -> pa.Buffer:
    """An encapsulated IPC message that carries the checksum of its buffers."""
    whole = pa.ipc.read_record_batch(batch.serialize(), batch.schema)  # its buffers are as they will be read
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, whole.schema) as writer:
        start = len(whole.schema.serialize())
        writer.write_batch(whole, custom_metadata={"crc32": str(_checksum(whole))})
        end = sink.tell()
    return pa.py_buffer(sink.getbuffer()[start:end])


def _checksum(batch: pa.RecordBatch) -> int:
    found = 0
    for column in batch.columns:
        for buffer in column.buffers():
            if buffer is not None:
                found = zlib.crc32(buffer, found)
    return found


def _batches(data: bytes, key: str) -> list[pa.RecordBatch]:
    """The whole batches of a stream, up to the first that is torn."""
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
