"""Tables with more text than one Arrow array holds.

The offsets of `string` and `list` have 32 bits, so an array holds 2 GiB of text at most. A column may have more, in several
chunks, and Arrow filters, compares and writes those. But `take` and `combine_chunks` join the chunks into one array first, and
fail with "offset overflow". The functions here take rows and compare texts chunk by chunk.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Ints = NDArray[np.int64]

CHUNK_BYTES = 256 << 20
"""Most bytes of the rows that are joined into one array, unless a single row has more."""


def row_bytes(table: pa.Table | pa.RecordBatch) -> Ints:
    """The bytes (n,) of each row in Arrow memory, without offsets and validity bits."""
    total = np.zeros(table.num_rows, np.int64)
    for column in table.columns:
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        first = 0
        for chunk in chunks:
            total[first : first + len(chunk)] += _sizes(chunk)
            first += len(chunk)
    return total


def pieces(table: pa.Table, most: int) -> Iterator[pa.Table]:
    """Cut a table into slices of at most `most` bytes each, or of one row. Nothing is copied."""
    if table.nbytes <= most:
        yield table
        return
    for start, end in cuts(row_bytes(table), most):
        yield table.slice(start, end - start)


def cuts(sizes: Ints, most: int, borders: Ints | None = None) -> Iterator[tuple[int, int]]:
    """Cut items of these sizes (n,) into runs of at most `most` bytes, or of one item; each as (start, end). `borders` (k,) are
    the ascending positions at which a run may end, the last one n; None allows all."""
    ends = np.concatenate([[0], np.cumsum(sizes)])
    allowed = np.arange(1, len(sizes) + 1) if borders is None else borders
    start = 0
    while start < len(sizes):
        end = int(np.searchsorted(ends, ends[start] + most, "right")) - 1
        place = int(np.searchsorted(allowed, max(end, start + 1), "right")) - 1
        if place < 0 or allowed[place] <= start:  # no border within reach: the next one
            place += 1
        yield start, int(allowed[place])
        start = int(allowed[place])


def take(table: pa.Table, rows: Ints) -> pa.Table:
    """The rows (k,) of a table, in the order of `rows`, which may name a row several times. Equals `table.take`, and works
    where that overflows: the result has as many chunks as it needs."""
    total = table.nbytes
    if total * _most_repeats(rows) <= CHUNK_BYTES:
        return table.take(pa.array(rows))
    if len(rows) == table.num_rows and (rows == np.arange(table.num_rows)).all():
        return table
    sizes = row_bytes(table)[rows]
    if total <= CHUNK_BYTES and int(sizes.sum()) <= CHUNK_BYTES:
        return table.take(pa.array(rows))
    parts = [_taken(table, rows[start:end]) for start, end in cuts(sizes, CHUNK_BYTES)]
    return pa.concat_tables(parts) if parts else table.slice(0, 0)


def text_codes(column: pa.ChunkedArray) -> Ints:
    """A number (n,) for each text of a column, equal for equal texts, from 0; -1 for null."""
    if column.nbytes <= CHUNK_BYTES:
        whole = column.combine_chunks() if column.num_chunks else pa.array([], column.type)
        codes: Ints = whole.dictionary_encode().indices.fill_null(-1).to_numpy().astype(np.int64)
        return codes
    numbers: dict[bytes | None, int] = {None: -1}
    found = []
    for part in pieces(pa.table([column], ["text"]), CHUNK_BYTES):
        for text in part["text"]:
            value = text.as_buffer()
            digest = None if value is None else hashlib.blake2b(value, digest_size=16).digest()
            found.append(numbers.setdefault(digest, len(numbers) - 1))
    return np.array(found, np.int64)


# -- inside --------------------------------------------------------------------------------------------------------------


def _most_repeats(rows: Ints) -> int:
    """How often the row is named that is named most often: the result is at most so many times as large as the table."""
    return int(np.bincount(rows).max(initial=0))


def _taken(table: pa.Table, rows: Ints) -> pa.Table:
    """The rows of a table, batch by batch, so that no column is joined."""
    order = np.argsort(rows, kind="stable")
    ascending, parts, first = rows[order], [], 0
    for batch in table.to_batches():
        low, high = np.searchsorted(ascending, [first, first + batch.num_rows])
        if high > low:
            parts.append(batch.take(pa.array(ascending[low:high] - first)))
        first += batch.num_rows
    joined = pa.Table.from_batches(parts, table.schema)
    if (order[1:] > order[:-1]).all():
        return joined
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return joined.take(pa.array(back))


def _sizes(array: Any) -> Ints:
    """The bytes (n,) of each value."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _sizes(array.storage)
    if pa.types.is_struct(kind):
        return sum((_sizes(child) for child in array.flatten()), np.zeros(len(array), np.int64))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy().astype(np.int64)
        inner = np.concatenate([[0], np.cumsum(_sizes(array.flatten()))])
        ends = np.cumsum(lengths)
        sizes: Ints = inner[ends] - inner[ends - lengths]
        return sizes
    try:
        lengths = pc.fill_null(pc.binary_length(array), 0)
        return np.asarray(lengths.to_numpy()).astype(np.int64)
    except pa.ArrowNotImplementedError:  # numbers, dictionaries and the like have one size
        return np.full(len(array), -(-array.nbytes // max(1, len(array))), np.int64)
