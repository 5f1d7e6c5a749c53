"""What each row of a table repeats, by signatures: in memory while they fit, otherwise in files (thresher.dedupe.out_of_core)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from filters.similarity.duplicates import Clusters, Order, among, similarities, within
from filters.similarity.kernel import F32, I64, U64
from filters.similarity.signatures import Signed, joined
from thresher.dedupe import out_of_core
from thresher.dedupe.components import ALL, GROUP, NO_SCOPE, read_repeats
from thresher.dedupe.signed_texts import sign
from thresher.dedupe.step_files import Plan
from thresher.executors.executor import map_threads

PART_BYTES = 256 << 20
"""Signatures of a part that is written to a file."""


class Resources(NamedTuple):
    """The memory and the threads that a search may use."""

    memory: int = 4 << 30
    """Bytes of signatures that are held; beyond, they go to temporary files beside OUT."""
    workers: int = 1
    """Threads that work on those files."""


class Repeated(NamedTuple):
    """What each row repeats (n,): arrays in memory, or mapped files."""

    originals: Any
    """The row that a row repeats, or its own number if it stays."""
    similarity: F32
    scopes: Any
    """NO_SCOPE, GROUP or ALL of thresher.dedupe.components."""
    draws: I64
    """Of each row that stays, the number of rows that it represents."""
    equal: Callable[[I64], Any]
    """Whether rows (k,) are word for word what they repeat."""


class SignedBatch(NamedTuple):
    """Signatures of some rows (n,), and the columns that decide which of them stays."""

    texts: Signed
    keys: list[Any]
    """Numbers (n,), the first key first; the row with the lowest stays."""
    groups: U64 | None
    draws: I64

    @property
    def nbytes(self) -> int:
        return int(sum(column.nbytes for column in self.texts) + sum(key.nbytes for key in self.keys) + 32 * len(self.draws))

    @classmethod
    def joined(cls, parts: Sequence["SignedBatch"]) -> "SignedBatch":
        """Several batches as one."""
        keys = [np.concatenate(columns) for columns in zip(*(part.keys for part in parts), strict=True)]
        groups = None if parts[0].groups is None else np.concatenate([part.groups for part in parts if part.groups is not None])
        return cls(joined([part.texts for part in parts]), keys, groups, np.concatenate([part.draws for part in parts]))

    def order(self, first: int) -> Order:
        """Which row is better: by the keys, then by the number of the row, which is `first` for the first one."""
        numbers = np.arange(first, first + len(self.draws), dtype=np.uint64)
        return Order(self.keys, np.stack([numbers, np.zeros_like(numbers)], axis=1))


class RowSignatures:
    """Signatures of all rows of a table: in memory, or in files of `folder` once they take more than the resources allow."""

    def __init__(self, folder: str, resources: Resources) -> None:
        self.rows = 0
        self._folder, self._resources = folder, resources
        self._held: list[SignedBatch] = []
        self._bytes = self._parts = 0
        self._in_files = False

    def add(self, batch: SignedBatch) -> None:
        """Add the next rows."""
        self._held.append(batch)
        self._bytes += batch.nbytes
        self.rows += len(batch.draws)
        self._in_files = self._in_files or self._bytes > self._resources.memory
        if self._in_files and self._bytes > min(PART_BYTES, self._resources.memory):
            self._write_held()

    def repeated(self, threshold: float, *, across: bool) -> Repeated:
        """Find what each row repeats; without `across` rows of different groups are not compared. Call it once, at the end."""
        if not self._in_files:
            return self._repeated_in_memory(threshold, across=across)
        self._write_held()
        plan = Plan(self._folder, threshold, self._resources.memory)
        out_of_core.find_repeats(plan, partial(map_threads, threads=self._resources.workers), across=across)
        repeats = read_repeats(plan)

        def equal(rows: I64) -> Any:
            return out_of_core.are_equal(plan, rows, repeats.originals[rows].astype(np.int64))

        return Repeated(*repeats, equal)

    def _write_held(self) -> None:
        """Write the signatures in memory to files, a part at a time."""
        while self._held:
            size, batches = 0, []
            while self._held and size < min(PART_BYTES, self._resources.memory):
                batches.append(self._held.pop(0))
                size += batches[-1].nbytes
            part = SignedBatch.joined(batches)
            first = self.rows - sum(len(batch.draws) for batch in self._held) - len(part.draws)
            further = {"draws": part.draws} | ({} if part.groups is None else {"groups": part.groups})
            sign(self._folder, self._parts, part.texts, part.order(first), further)
            self._parts += 1
        self._bytes = 0

    def _repeated_in_memory(self, threshold: float, *, across: bool) -> Repeated:
        batch = SignedBatch.joined(self._held)
        self._held.clear()
        clusters, scopes = _clusters(batch, threshold, across=across)
        draws = np.bincount(clusters.originals, weights=batch.draws, minlength=self.rows).astype(np.int64)
        contents = batch.texts.contents
        return Repeated(*clusters, scopes, draws, lambda rows: contents[rows] == contents[clusters.originals[rows]])


def _clusters(batch: SignedBatch, threshold: float, *, across: bool) -> tuple[Clusters, Any]:
    """What each row repeats, and in which scope."""
    texts, rank = batch.texts, batch.order(0).rank()
    rows = np.arange(len(rank))
    if batch.groups is None:
        clusters = among(texts, rank, threshold)
        return clusters, np.where(clusters.originals == rows, NO_SCOPE, ALL)
    _, groups = np.unique(batch.groups, return_inverse=True)
    clusters = within(texts, groups.astype(np.int64), rank, threshold)
    scopes = np.where(clusters.originals == rows, NO_SCOPE, GROUP)
    if not across:
        return clusters, scopes
    kept = np.flatnonzero(scopes == NO_SCOPE)
    further = among(texts.take(kept), rank[kept], threshold)
    moved = kept[further.originals]
    scopes[kept[moved != kept]] = ALL
    originals, similarity = clusters.originals.copy(), clusters.similarity.copy()
    originals[kept], similarity[kept] = moved, further.similarity
    originals = originals[clusters.originals]
    changed = np.flatnonzero((originals != clusters.originals) & (scopes == GROUP))
    similarity[changed] = similarities(texts, changed, originals[changed])
    return Clusters(originals, similarity), scopes
