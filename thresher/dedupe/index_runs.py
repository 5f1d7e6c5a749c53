"""The runs of files of an index (thresher.dedupe.index): written once, read in row groups, merged in ranges of keys.

    INDEX/runs/NAME/keys-00000.parquet    band keys in order, and the row of each: (key, row)
                    signatures.parquet    a row of each text: (name, release, guard, content, sketch)
                    bloom.npy             a Bloom filter over the keys (thresher.dedupe.bloom_filter)

A run is named after the hash of its content.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from filters.similarity.kernel import I64, U32
from filters.similarity.signatures import BANDS, SLOTS, Signed
from thresher.dedupe.bloom_filter import add_keys, blocks_for
from thresher.durable import place_folder, temporary_folder

RANGE_KEYS = 1 << 23
"""Keys in memory while runs are merged."""
KEY_ROWS, SIGNATURE_ROWS = 1 << 17, 1 << 14
"""Rows of a row group."""
FILE_KEYS = 1 << 26
REMOVED = 2**32 - 1
"""The row of a text that is not in the merged run."""
RUN_FILES = ("signatures.parquet", "bloom.npy")
"""Files of each run beside its files of keys."""

KEYS = pa.schema([("key", pa.int64()), ("row", pa.uint32())])
SIGNATURES = pa.schema(
    [
        ("name", pa.string()),
        ("release", pa.dictionary(pa.int32(), pa.string())),
        ("guard", pa.uint64()),
        ("content", pa.uint64()),
        ("sketch", pa.binary(SLOTS)),
    ]
)


@dataclass(frozen=True)
class IndexRun:
    """One run of files. Its fields are keys of index.json."""

    name: str
    rows: int
    files: tuple[str, ...]
    """Names of the files of keys, in the order of their keys."""

    @property
    def all_files(self) -> tuple[str, ...]:
        """Names of all its files."""
        return (*self.files, *RUN_FILES)


def is_whole(home: Path, run: IndexRun) -> bool:
    """Whether the files of a run can be opened and have its rows."""
    try:
        keys = sum(pq.read_metadata(home / name).num_rows for name in run.files)
        rows = pq.read_metadata(home / "signatures.parquet").num_rows
        np.load(home / "bloom.npy", mmap_mode="r")
    except (OSError, ValueError, pa.ArrowException):
        return False
    return (keys, rows) == (BANDS * run.rows, run.rows)


def band_keys(bands: U32) -> I64:
    """The keys of all bands, one band after the other (BANDS * n,)."""
    return (bands.astype(np.int64) | np.arange(BANDS, dtype=np.int64)[:, None] << 32).ravel()


def write_texts(runs: Path, texts: Signed, names: Sequence[str], release: str) -> IndexRun | None:
    """Write a run of new texts to the folder of runs; None if there are no texts."""
    rows = len(names)
    if not rows:
        return None
    keys = band_keys(texts.bands)
    order = np.argsort(keys, kind="stable")
    signatures = pa.table(
        [
            pa.array(names, pa.string()),
            pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), [release]),
            pa.array(texts.guards),
            pa.array(texts.contents),
            pa.FixedSizeBinaryArray.from_buffers(pa.binary(SLOTS), rows, [None, pa.py_buffer(texts.sketches.tobytes())]),
        ],
        schema=SIGNATURES,
    )
    return _write_run(runs, [(keys[order], (order % rows).astype(np.uint32))], BANDS * rows, [signatures])


def merge(runs: Path, merged: Sequence[IndexRun], without: str | None) -> IndexRun | None:
    """Write several runs as one, leaving out the texts of a release; None if no text remains."""
    homes = [runs / run.name for run in merged]
    new_rows = _rows_after_merge(homes, without)
    count = int((new_rows != REMOVED).sum())
    remaining = (table.filter(pa.array(_remains(table, without), pa.bool_())) for table in signature_tables(homes))
    return _write_run(runs, _merged_keys(runs, merged, new_rows), count * BANDS, remaining)


def signature_tables(homes: Sequence[Path], columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The signatures of several runs, a row group at a time."""
    for home in homes:
        with pq.ParquetFile(home / "signatures.parquet") as file:
            for number in range(file.num_row_groups):
                yield file.read_row_group(number, columns)


def key_groups(home: Path, run: IndexRun, wanted: I64, *, between: bool = False) -> Iterator[tuple[I64, U32]]:
    """The row groups (keys, rows) that may hold one of the `wanted` keys (k,), which are in order; with `between`, those
    that hold any key from the first wanted one to the last."""
    for name in run.files:
        with pq.ParquetFile(home / name) as file:
            for number in range(file.num_row_groups):
                bounds = file.metadata.row_group(number).column(0).statistics
                start, end = np.searchsorted(wanted, bounds.min), np.searchsorted(wanted, bounds.max, "right")
                if end > start or (between and wanted[0] <= bounds.max and bounds.min <= wanted[-1]):
                    table = file.read_row_group(number)
                    yield table["key"].to_numpy(), table["row"].to_numpy()


# -- inside --------------------------------------------------------------------------------------------------------------


def _write_run(runs: Path, keys: Iterable[tuple[I64, U32]], key_count: int, signatures: Iterable[pa.Table]) -> IndexRun | None:
    """Write a run from its keys, in order, and its signatures."""
    digest = hashlib.sha256()
    with temporary_folder(runs / "run") as work:
        shape = (blocks_for(key_count), 8)
        bits = np.lib.format.open_memmap(work / "bloom.npy", "w+", np.uint64, shape)  # type: ignore[no-untyped-call]
        files: list[str] = []
        writer, written = None, 0
        for piece, rows in keys:
            if writer is None or written >= FILE_KEYS:
                if writer is not None:
                    writer.close()
                files.append(f"keys-{len(files):05d}.parquet")
                writer, written = _writer(work / files[-1], KEYS, {"key": "DELTA_BINARY_PACKED"}), 0
            add_keys(bits, piece)
            digest.update(piece.tobytes())
            writer.write_table(pa.table([piece, rows], schema=KEYS), row_group_size=KEY_ROWS)
            written += len(piece)
        if writer is not None:
            writer.close()
        total = 0
        with _writer(work / "signatures.parquet", SIGNATURES, {}) as signature_file:
            for table in signatures:
                for name in ("name", "release", "content"):
                    digest.update("\n".join(map(str, table[name].to_pylist())).encode())
                if table.num_rows:
                    signature_file.write_table(table, row_group_size=SIGNATURE_ROWS)
                total += table.num_rows
        bits.flush()
        name = digest.hexdigest()[:16]
        if total and not (runs / name).exists():
            place_folder(work, runs / name)
    return IndexRun(name, total, tuple(files)) if total else None


def _writer(path: Path, schema: pa.Schema, encodings: dict[str, str]) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=["release"], column_encoding=encodings or None)


def _remains(table: pa.Table, without: str | None) -> list[bool]:
    """Whether each text is of another release."""
    return [release != without for release in table["release"].to_pylist()]


def _rows_after_merge(homes: Sequence[Path], without: str | None) -> U32:
    """The row that each text of all runs (n,) gets in the merged run, or REMOVED."""
    pieces: list[U32] = []
    count = 0
    for table in signature_tables(homes, ["release"]):
        remains = np.array(_remains(table, without), bool)
        rows = np.full(len(remains), REMOVED, np.uint32)
        rows[remains] = np.arange(count, count + remains.sum(), dtype=np.uint32)
        count += int(remains.sum())
        pieces.append(rows)
    return np.concatenate(pieces)


def _merged_keys(runs: Path, merged: Sequence[IndexRun], new_rows: U32) -> Iterator[tuple[I64, U32]]:
    """The keys of several runs in order, a range of them at a time, with their rows in the merged run."""
    firsts = np.cumsum([0, *(run.rows for run in merged)])
    ranges = max(1, -(-sum(run.rows for run in merged) * BANDS // RANGE_KEYS))
    for number in range(ranges):
        low, high = ((BANDS << 32) * (number + more) // ranges for more in (0, 1))
        key_pieces, row_pieces = [np.zeros(0, np.int64)], [np.zeros(0, np.uint32)]
        for run, first in zip(merged, firsts, strict=False):
            for group_keys, group_rows in key_groups(runs / run.name, run, np.array([low, high - 1]), between=True):
                in_range = slice(*np.searchsorted(group_keys, [low, high]))
                moved = new_rows[first + group_rows[in_range].astype(np.int64)]
                key_pieces.append(group_keys[in_range][moved != REMOVED])
                row_pieces.append(moved[moved != REMOVED])
        keys, rows = np.concatenate(key_pieces), np.concatenate(row_pieces)
        order = np.argsort(keys, kind="stable")
        yield keys[order], rows[order]
