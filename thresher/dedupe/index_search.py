"""Searches an index for the released texts that other texts are most similar to (thresher.dedupe.index).

A text is looked up by its band keys. The Bloom filter of a run excludes most of them; for the rest, the row groups whose range of
keys holds one are read. Candidates are compared by their sketches, so a similarity is an estimate with a standard error of 0.04;
equal texts are recognised by their hashes.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from filters.similarity.kernel import F32, I64, U8, jit
from filters.similarity.signatures import SLOTS, Signed
from thresher.dedupe.bloom_filter import may_hold
from thresher.dedupe.index_runs import IndexRun, band_keys, key_groups

MOST_PER_KEY = 64
"""Most candidates of one key: released texts hold no duplicates, so more of them share a key by chance."""


class Similar(NamedTuple):
    """The released text that each of some texts (n,) is most similar to."""

    names: list[str | None]
    """None if no released text reaches the threshold."""
    similarity: F32
    """1 for an equal text, else an estimate."""
    equal: Any
    """Whether the two are equal (n,)."""


def most_similar(runs: Path, searched: Sequence[IndexRun], texts: Signed, threshold: float, allowed: Collection[str]) -> Similar:
    """Search runs for what each text is most similar to, if that reaches the threshold, among the `allowed` releases."""
    rows = len(texts.guards)
    names: list[str | None] = [None] * rows
    similar = Similar(names, np.zeros(rows, np.float32), np.zeros(rows, np.bool_))
    keys = band_keys(texts.bands)
    order = np.argsort(keys)
    wanted, askers = keys[order], order % rows if rows else order
    for run in searched if allowed and rows else ():
        home = runs / run.name
        possible = may_hold(np.load(home / "bloom.npy", mmap_mode="r"), wanted)
        pairs = _candidates(home, run, wanted[possible], askers[possible])
        if len(pairs):
            _compare(home, pairs, texts, threshold, allowed, similar)
    return similar


def _candidates(home: Path, run: IndexRun, wanted: I64, askers: I64) -> I64:
    """Pairs of a row of a run and a text that share a key (k, 2), in the order of the rows."""
    pieces = [np.zeros((0, 2), np.int64)]
    for keys, rows in key_groups(home, run, wanted) if len(wanted) else ():
        start, end = np.searchsorted(wanted, keys[0]), np.searchsorted(wanted, keys[-1], "right")
        starts = np.searchsorted(keys, wanted[start:end])
        counts = np.minimum(np.searchsorted(keys, wanted[start:end], "right") - starts, MOST_PER_KEY)
        places = np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        pieces.append(np.stack([rows[places].astype(np.int64), np.repeat(askers[start:end], counts)], axis=1))
    pairs = np.concatenate(pieces)
    packed = np.unique(pairs[:, 0] << 32 | pairs[:, 1])
    return np.stack([packed >> 32, packed & 0xFFFFFFFF], axis=1)


def _compare(home: Path, pairs: I64, texts: Signed, threshold: float, allowed: Collection[str], similar: Similar) -> None:  # noqa: PLR0917
    """Compare pairs, in the order of the rows, and note in `similar` which of them are better than what it holds."""
    with pq.ParquetFile(home / "signatures.parquet") as file:
        first = 0
        for number in range(file.num_row_groups):
            rows = file.metadata.row_group(number).num_rows
            start, end = np.searchsorted(pairs[:, 0], [first, first + rows])
            if end > start:
                table = file.read_row_group(number).combine_chunks()
                _compare_group(table, pairs[start:end] - np.array([first, 0], np.int64), texts, threshold, allowed, similar)
            first += rows


def _compare_group(  # noqa: PLR0917 - as _compare
    table: pa.Table, pairs: I64, texts: Signed, threshold: float, allowed: Collection[str], similar: Similar
) -> None:
    """Compare the rows of one row group of signatures with the texts that they are paired with."""
    group_rows, askers = pairs[:, 0], pairs[:, 1]
    column = table["sketch"].chunk(0)
    sketch_bytes = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * SLOTS :][: table.num_rows * SLOTS]
    likes = _estimates(sketch_bytes.reshape(-1, SLOTS), group_rows, texts.sketches, askers)
    equal = table["content"].to_numpy()[group_rows] == texts.contents[askers]
    likes[equal] = 1
    comparable = table["guard"].to_numpy()[group_rows] == texts.guards[askers]
    for pair in np.flatnonzero((likes >= threshold) & comparable).tolist():
        asker, row = int(askers[pair]), int(group_rows[pair])
        if table["release"][row].as_py() not in allowed:
            continue
        name, best = table["name"][row].as_py(), similar.names[asker]
        now, before = (equal[pair], likes[pair]), (similar.equal[asker], similar.similarity[asker])
        if best is None or now > before or (now == before and name < best):
            similar.names[asker] = name
            similar.similarity[asker], similar.equal[asker] = likes[pair], equal[pair]


@jit
def _estimates(sketches: U8, rows: I64, asking: U8, askers: I64) -> Any:
    """Estimate Jaccard similarities (k,) by sketches, as filters.similarity.signatures.estimate does."""
    similarities = np.empty(len(rows), np.float32)
    for pair in range(len(rows)):
        first, second = sketches[rows[pair]], asking[askers[pair]]
        count = np.uint8(0)
        for slot in range(SLOTS):
            count = np.uint8(count + np.uint8(first[slot] == second[slot]))
        similarities[pair] = (np.float64(count) / SLOTS - 1 / 256) / (1 - 1 / 256)
    return similarities
