"""Signatures of all texts of an out-of-core search, in files that are mapped into memory.

`sign` writes a part, with the keys of each band in order; `open_texts` reads all parts as one table. A packed key has the key in
its upper 32 bits and the row in its lower 32, so that sorting it groups the rows of a key.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from filters.similarity.duplicates import Order
from filters.similarity.kernel import I64, U32, U64, jit
from filters.similarity.signatures import BANDS, Signed, ordered
from thresher.dedupe.step_files import files_of, part_folder, written_whole

MOST_TEXTS = 2**32 - 2
"""Rows are numbered by 32 bits."""
CHUNK_BYTES = 64 << 20
"""Most signatures of a chunk, whatever the memory: few of them fit in a processor's cache."""
TEXT_BYTES = 400
"""Memory of a text in a chunk, beside its shingles."""
EQUAL_BAND, GROUP_BAND = BANDS, BANDS + 1
"""Beside the bands of the signatures: keys by content, and by group where texts have groups."""
HALF, LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


def sign(folder: str, part: int, texts: Signed, order: Order, further: dict[str, Any] | None = None) -> None:
    """Write the signatures of a part of the texts. `further` columns (n, ...) are kept beside them: texts of equal `groups` (u64)
    form a group, `draws` (i64) are summed over duplicates."""
    with written_whole(part_folder(folder, part)) as unfinished:
        if unfinished is None:
            return
        ordered(texts)
        rows = len(texts.guards)
        columns = {**texts._asdict(), "draws": np.ones(rows, np.int64), **(further or {})}
        columns |= {"ids": order.ids, "order": np.stack(order.keys, axis=1)}
        keys = [*texts.bands, texts.contents >> HALF, *([columns["groups"] >> HALF] if "groups" in columns else [])]
        bands = np.empty((len(keys), rows), np.uint64)
        for band, key in enumerate(keys):
            bands[band] = key.astype(np.uint64) << HALF | np.arange(rows, dtype=np.uint64)
            bands[band].sort()
        for name, values in (columns | {"bands": bands}).items():
            np.save(unfinished / f"{name}.npy", values)


def is_signed(folder: str, part: int) -> bool:
    """Whether the signatures of a part are written."""
    return part_folder(folder, part).exists()


class SignedTexts:
    """The signatures of all texts (n,). Texts are rows, numbered from 0 through all parts."""

    def __init__(self, folder: str) -> None:
        folders = [Path(name) for name in files_of(folder, "parts")]
        self.numbers = [int(path.name) for path in folders]
        self.parts = [
            {file.stem: np.asarray(np.load(file, mmap_mode="r")) for file in sorted(path.glob("*.npy"))} for path in folders
        ]
        self.grouped = bool(self.parts) and "groups" in self.parts[0]
        self.firsts = np.cumsum([0, *(len(part["guards"]) for part in self.parts)])

    def __len__(self) -> int:
        return int(self.firsts[-1])

    def column(self, name: str, rows: I64) -> Any:
        """A column of some of the texts (k,)."""
        ascending = bool((rows[1:] >= rows[:-1]).all())
        order = np.arange(len(rows)) if ascending else np.argsort(rows, kind="stable")
        shape = self.parts[0][name].shape[1:] if self.parts else ()
        values = np.empty((len(rows), *shape), self.parts[0][name].dtype if self.parts else np.int64)
        for part, selected, places in self._by_part(rows[order]):
            values[selected if ascending else order[selected]] = part[name][places]
        return values

    def keys(self, band: int, number: int, ranges: int) -> U64:
        """The packed keys (k,) of one band that lie in one of `ranges` equal ranges."""
        low, high = (np.uint64((number + more << 32) // ranges) << HALF for more in (0, 1))
        pieces = [np.zeros(0, np.uint64)]
        for part, first in zip(self.parts, self.firsts, strict=False):
            packed = part["bands"][band]
            end = len(packed) if number + 1 == ranges else np.searchsorted(packed, high)
            pieces.append(packed[np.searchsorted(packed, low) : end] + np.uint64(first))
        return np.concatenate(pieces)

    def take(self, rows: I64) -> Signed:
        """The signatures of some of the texts, which are in ascending order; without their bands."""
        sizes = self.column("sizes", rows)
        starts = np.cumsum(sizes) - sizes
        shingles = np.empty(int(sizes.sum()), np.uint32)
        for part, selected, places in self._by_part(rows):
            _copy(part["shingles"], part["starts"], part["sizes"], places, shingles, starts[selected])
        guards, contents, words, sketches = (self.column(name, rows) for name in ("guards", "contents", "words", "sketches"))
        bands, are_ordered = np.zeros((BANDS, 0), np.uint32), np.ones(len(rows), np.bool_)
        return Signed(guards, contents, words, bands, sketches, shingles, starts, sizes, are_ordered)

    def best_first(self, rows: I64, *groups: Any) -> I64:
        """The permutation that puts the best of the rows first, inside equal groups (k,) if they are given."""
        ids, keys = self.column("ids", rows), self.column("order", rows)
        order: I64 = np.lexsort((rows, ids[:, 1], ids[:, 0], *keys.T[::-1], *groups))
        return order

    def chunks(self, rows: I64, memory: int, groups: Any = None) -> Iterator[tuple[int, int]]:
        """Cut rows into pieces whose signatures fit in memory; each as (start, end). With `groups` (k,), in order, no piece
        cuts a group."""
        ends = np.cumsum(TEXT_BYTES + 4 * self.column("sizes", rows).astype(np.int64))
        start = 0
        while start < len(rows):
            before = int(ends[start - 1]) if start else 0
            end = max(start + 1, int(np.searchsorted(ends, before + min(memory, CHUNK_BYTES), "right")))
            if groups is not None and end < len(rows):
                border = int(np.searchsorted(groups, groups[end]))
                end = border if border > start else int(np.searchsorted(groups, groups[end], "right"))
            yield start, end
            start = end

    def _by_part(self, rows: I64) -> Iterator[tuple[dict[str, Any], slice, I64]]:
        """Of rows in ascending order: a part, which of the rows it holds, and their places in it."""
        ends = np.searchsorted(rows, self.firsts)
        for part, first, start, end in zip(self.parts, self.firsts, ends, ends[1:], strict=False):
            if end > start:
                yield part, slice(int(start), int(end)), rows[start:end] - first


def open_texts(folder: str) -> SignedTexts:
    """All texts that are signed in a folder; opened once in a process until a part is added."""
    return _opened(folder, Path(folder, "parts").stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _opened(folder: str, _changed_ns: int) -> SignedTexts:
    return SignedTexts(folder)


@jit
def _copy(shingles: U32, starts: I64, sizes: I64, places: I64, target: U32, target_starts: I64) -> None:  # noqa: PLR0917 - numba
    for index in range(len(places)):
        first = starts[places[index]]
        for number in range(sizes[places[index]]):
            target[target_starts[index] + number] = shingles[first + number]
