"""Removes duplicates from any table of texts: Parquet, JSONL, or a dataset of the Hub. `thresher dedupe` on the command line.

The rows pass by twice. The first time only what decides is read: the text, its group, the guard, the score; what stays of it is
signatures, some 370 bytes of each row and 4 of each of its words, in memory as long as there is room, else in files
(thresher.dedupe.out_of_core). The second time the rows that stay go to OUT/kept, and those that do not to OUT/duplicates, each with the
row that it repeats. The rules are those of a run (filters.similarity, filters.similarity.near_duplicate)."""

import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.similarity.duplicates import Clusters, Order, among, similarities, within
from filters.similarity.guards import guards, hashes
from filters.similarity.kernel import F32, I64, U64
from filters.similarity.signatures import SCHEME, Signed, joined, signed
from schemas.repeats import DedupeSpec
from schemas.suggest import did_you_mean
from thresher.dedupe import out_of_core
from thresher.errors import SourceError
from thresher.executors.executor import map_threads
from thresher.inputs.tables import Files, Opened, is_chat, is_text, last_said, opened

TEXTS = ("completion", "text", "content", "response", "output", "answer", "chosen")
"""Columns that are taken for the text, the first that is there."""
ROWS_AT_ONCE = 1 << 20
PART_BYTES = 256 << 20
"""Signatures of a part that is written to a file."""
MEMORY = 4 << 30
ADDED = ("row", "duplicate_of", "similarity", "scope")
"""Columns of OUT/duplicates beside the table's own; OUT/kept has `multiplicity`, to which a table's own of that name adds up."""


@dataclass(frozen=True)
class Choice:
    """What of a table is compared with what, and which copy stays."""

    text: str | None = None
    """Column of texts, or of chat messages, whose last one counts; null takes the first of TEXTS."""
    group: str | None = None
    """Column whose equal values make a group, inside which all pairs are compared; null has no groups."""
    across: bool = True
    """Whether rows of different groups can repeat each other."""
    guard: str = "numbers"
    """What duplicates must agree in: `numbers` in the text, `none`, or a column."""
    score: str | None = None
    """Column of numbers: the row with the highest stays, then the shortest, then the first."""
    threshold: float = 0.7
    """Least Jaccard similarity of duplicates."""


@dataclass(frozen=True)
class Found:
    """What was removed of a table."""

    rows: int
    kept: int
    exact: int
    """Rows that repeat another word for word."""
    near: int
    effective: float
    """Effective number of different texts: the exponential of the entropy of the clusters' shares."""
    largest: tuple[int, ...]
    """Sizes of the ten largest clusters."""
    seconds: dict[str, float]
    scheme: str = SCHEME

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"largest": list(self.largest)}

    def lines(self) -> list[str]:
        """Return it as lines of text, rounded."""
        share = f" ({100 * self.kept / self.rows:.1f} %)" if self.rows else ""
        return [
            f"{self.rows:,} rows: {self.kept:,} kept{share}, {self.exact:,} exact and {self.near:,} near duplicates dropped",
            f"largest clusters: {', '.join(f'{size:,}' for size in self.largest)} rows; "
            + f"effective number of different texts: {round(self.effective):,}",
            ", ".join(f"{seconds:.1f} s {step}" for step, seconds in self.seconds.items()),
        ]


class Means(NamedTuple):
    """What the work may take."""

    memory: int = MEMORY
    """Bytes of signatures that are held; more of them go to files beside OUT, which are removed at the end."""
    workers: int = 1
    """Threads that work on those files."""


def dedupe(
    data: str, out: Path, choice: Choice, means: Means | None = None, *, config: str | None = None, split: str | None = None
) -> Found:
    """Write OUT/kept, OUT/duplicates and OUT/summary.json. Raises SourceError on a table that cannot be read or lacks a
    column."""
    if out.exists():
        raise SourceError(f"{out}: is there already, and nothing is overwritten; remove it or name another --out")
    table = opened(data, config, split)
    choice = _complete(choice, table)
    clock = [time.perf_counter()]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.signatures.", dir=out.parent) as scratch:
        signatures = _Signatures(scratch, means or Means())
        _sign(table, choice, signatures)
        clock.append(time.perf_counter())
        repeated = signatures.repeated(choice)
        clock.append(time.perf_counter())
        _write(table, out, repeated)
        clock.append(time.perf_counter())
        told = _told(repeated, np.diff(clock).round(3).tolist())
        del repeated, signatures
    (out / "summary.json").write_text(json.dumps(told.to_dict() | {"choice": asdict(choice)}, indent=1) + "\n")
    return told


class Repeated(NamedTuple):
    """What each row repeats (n): arrays in memory, or mapped files."""

    originals: Any
    similarity: F32
    scopes: Any
    """duplicates.NO_SCOPE, GROUP or ALL."""
    draws: I64
    """Rows that fell on each."""
    equal: Callable[[I64], Any]
    """Whether rows are word for word what they repeat."""


def _told(repeated: Repeated, seconds: list[float]) -> Found:
    """The figures, a million rows at a time."""
    sizes: Counter[int] = Counter()
    kept = exact = 0
    for rows in _slices(len(repeated.originals)):
        stays = repeated.originals[rows] == rows
        kept += int(stays.sum())
        exact += int(repeated.equal(rows[~stays]).sum())
        for size, count in zip(*np.unique(repeated.draws[rows][stays], return_counts=True), strict=True):
            sizes[int(size)] += int(count)
    largest = [size for size in sorted(sizes, reverse=True)[:10] for _ in range(min(10, sizes[size]))][:10]
    return Found(
        rows=len(repeated.originals),
        kept=kept,
        exact=exact,
        near=len(repeated.originals) - kept - exact,
        effective=effective_number(np.array(list(sizes), np.int64), np.array(list(sizes.values()), np.int64)),
        largest=tuple(largest),
        seconds=dict(zip(("signing", "clustering", "writing"), seconds, strict=True)),
    )


def _slices(rows: int) -> Iterator[I64]:
    for start in range(0, rows, ROWS_AT_ONCE):
        yield np.arange(start, min(start + ROWS_AT_ONCE, rows))


def effective_number(sizes: I64, counts: I64 | None = None) -> float:
    """The exponential of the entropy of the shares that clusters have (Hill number of order 1; Jost 2006); 0 for none. `sizes`
    (k,) come `counts` (k,) times, or once."""
    times = np.ones(len(sizes), np.int64) if counts is None else counts
    total = (sizes * times).sum()
    if not total:
        return 0.0
    shares, times = sizes[sizes > 0] / total, times[sizes > 0]
    return float(np.exp(-(times * shares * np.log(shares)).sum()))


# -- what is asked ------------------------------------------------------------------------------------------------------


def _complete(choice: Choice, table: Opened) -> Choice:
    """The choice with its text column named. Raises SourceError where a column is not there or of no use."""
    names = table.schema.names
    text = choice.text or next((name for name in TEXTS if name in names), None)
    if text is None:
        raise SourceError(f"{table.name}: which column holds the text? It has {', '.join(names)}; name one with --text")
    wanted = [text, choice.group, choice.score, None if choice.guard in ("numbers", "none") else choice.guard]
    for name in filter(None, wanted):
        if name not in names:
            raise SourceError(f"{table.name}: no column {name!r}; it has {', '.join(names)}{did_you_mean(name, names)}")
    kind = table.schema.field(text).type
    if not (is_text(kind) or is_chat(kind)):
        raise SourceError(f"{table.name}: column {text!r}: wanted text or chat messages, found {kind}")
    if choice.score is not None and not pa.types.is_primitive(table.schema.field(choice.score).type):
        raise SourceError(f"{table.name}: column {choice.score!r}: wanted numbers, found {table.schema.field(choice.score).type}")
    if not 0 < choice.threshold <= 1:
        raise SourceError(f"--threshold: wanted a number above 0 and up to 1, found {choice.threshold}")
    clash = [name for name in ADDED if name in names]
    if clash:
        raise SourceError(f"{table.name}: has a column {clash[0]!r} already, which dedupe adds; rename it")
    return Choice(**asdict(choice) | {"text": text})


def _readable(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """The texts, with U+FFFD for bytes that are no UTF-8."""
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        mended = [None if text is None else text.decode("utf-8", "replace") for text in texts.cast(pa.binary()).to_pylist()]
        return pa.chunked_array([pa.array(mended, pa.string())])
    return texts


# -- the two passes ------------------------------------------------------------------------------------------------------


def _sign(table: Opened, choice: Choice, signatures: "_Signatures") -> None:
    """Sign all rows."""
    assert choice.text is not None
    by = None if choice.guard in ("numbers", "none") else choice.guard
    own = "multiplicity" in table.schema.names and pa.types.is_integer(table.schema.field("multiplicity").type)
    columns = list(dict.fromkeys(filter(None, [choice.text, choice.group, choice.score, by, "multiplicity" if own else None])))
    spec = DedupeSpec(guard="answer" if by else "numbers" if choice.guard == "numbers" else "none")
    for batch in table.batches(columns):
        texts = pc.fill_null(_readable(last_said(batch[choice.text])), "")
        asked = pa.table({"completion": texts, "answer": pa.nulls(len(texts), pa.string()) if by is None else _shown(batch[by])})
        keys = [pc.utf8_length(texts).to_numpy().astype(np.float64)]
        if choice.score is not None:
            keys.insert(0, pc.fill_null(pc.negate(batch[choice.score].cast(pa.float64())), np.inf).to_numpy())
        groups = None if choice.group is None else hashes(_shown(batch[choice.group]))
        draws = pc.fill_null(batch["multiplicity"], 1).to_numpy().astype(np.int64) if own else np.ones(len(texts), np.int64)
        signatures.add(_Batch(signed(texts, guards(asked, spec)), keys, groups, draws))
    if not signatures.rows:
        raise SourceError(f"{table.name}: holds no rows")


def _shown(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of any type as text, by which equal values are told."""
    if pa.types.is_nested(column.type):
        return pa.chunked_array([pa.array([json.dumps(one, sort_keys=True, default=str) for one in column.to_pylist()])])
    return pc.fill_null(column.cast(pa.string()), "")


class _Batch(NamedTuple):
    """Signatures of some rows, what tells the best of them, and the draws that fell on each."""

    texts: Signed
    keys: list[Any]
    groups: U64 | None
    draws: I64

    @property
    def nbytes(self) -> int:
        return int(sum(column.nbytes for column in self.texts) + sum(key.nbytes for key in self.keys) + 32 * len(self.draws))

    @classmethod
    def of(cls, parts: Sequence["_Batch"]) -> "_Batch":
        """Several as one."""
        keys = [np.concatenate(some) for some in zip(*(part.keys for part in parts), strict=True)]
        groups = None if parts[0].groups is None else np.concatenate([part.groups for part in parts if part.groups is not None])
        return cls(joined([part.texts for part in parts]), keys, groups, np.concatenate([part.draws for part in parts]))


class _Signatures:
    """Signatures of all rows: in memory, or, once they take more than they may, in files."""

    def __init__(self, folder: str, means: Means) -> None:
        self.rows = 0
        self._folder, self._means = folder, means
        self._held: list[_Batch] = []
        self._bytes = self._parts = 0
        self._files = False

    def add(self, batch: _Batch) -> None:
        """The next rows."""
        self._held.append(batch)
        self._bytes += batch.nbytes
        self.rows += len(batch.draws)
        self._files = self._files or self._bytes > self._means.memory
        if self._files and self._bytes > min(PART_BYTES, self._means.memory):
            self._spill()

    def repeated(self, choice: Choice) -> Repeated:
        """What each row repeats."""
        if not self._files:
            return self._in_memory(choice)
        self._spill()
        plan = out_of_core.Plan(self._folder, choice.threshold, self._means.memory)
        out_of_core.find(plan, partial(map_threads, threads=self._means.workers), across=choice.across)
        found = out_of_core.found(plan)
        return Repeated(
            found.originals,
            found.similarity,
            found.scopes,
            found.draws,
            lambda rows: out_of_core.equals(plan, rows, found.originals[rows].astype(np.int64)),
        )

    def _spill(self) -> None:
        """Write what is held to files."""
        while self._held:
            size, some = 0, []
            while self._held and size < min(PART_BYTES, self._means.memory):
                some.append(self._held.pop(0))
                size += some[-1].nbytes
            batch = _Batch.of(some)
            first = self.rows - sum(len(one.draws) for one in self._held) - len(batch.draws)
            further = {"draws": batch.draws} | ({} if batch.groups is None else {"groups": batch.groups})
            out_of_core.sign(self._folder, self._parts, batch.texts, _order(batch, first), further)
            self._parts += 1
        self._bytes = 0

    def _in_memory(self, choice: Choice) -> Repeated:
        batch = _Batch.of(self._held)
        self._held.clear()
        found, scopes = _clusters(batch, _order(batch, 0).rank(), choice)
        draws = np.bincount(found.originals, weights=batch.draws, minlength=self.rows).astype(np.int64)
        contents = batch.texts.contents
        return Repeated(*found, scopes, draws, lambda rows: contents[rows] == contents[found.originals[rows]])


def _order(batch: _Batch, first: int) -> Order:
    """By the score, then by the length, then by the number of the row."""
    numbers = np.arange(first, first + len(batch.draws), dtype=np.uint64)
    return Order(batch.keys, np.stack([numbers, np.zeros_like(numbers)], axis=1))


def _clusters(batch: _Batch, rank: I64, choice: Choice) -> tuple[Clusters, Any]:
    """What each row repeats, and in which scope."""
    texts, rows = batch.texts, np.arange(len(rank))
    if batch.groups is None:
        found = among(texts, rank, choice.threshold)
        return found, np.where(found.originals == rows, out_of_core.NO_SCOPE, out_of_core.ALL)
    _, groups = np.unique(batch.groups, return_inverse=True)
    found = within(texts, groups.astype(np.int64), rank, choice.threshold)
    scopes = np.where(found.originals == rows, out_of_core.NO_SCOPE, out_of_core.GROUP)
    if not choice.across:
        return found, scopes
    kept = np.flatnonzero(scopes == out_of_core.NO_SCOPE)
    further = among(texts.take(kept), rank[kept], choice.threshold)
    moved = kept[further.originals]
    scopes[kept[moved != kept]] = out_of_core.ALL
    originals, similarity = found.originals.copy(), found.similarity.copy()
    originals[kept], similarity[kept] = moved, further.similarity
    originals = originals[found.originals]
    changed = np.flatnonzero((originals != found.originals) & (scopes == out_of_core.GROUP))
    similarity[changed] = similarities(texts, changed, originals[changed])
    return Clusters(originals, similarity), scopes


def _write(table: Opened, out: Path, repeated: Repeated) -> None:
    """The rows that stay and those that do not, in their order; the folder appears whole."""
    names = np.array(["", "group", "all"], object)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        kept, others = Files(work / "kept"), Files(work / "duplicates")
        first = 0
        for batch in table.batches():
            rows = np.arange(first, first + batch.num_rows)
            originals = repeated.originals[rows].astype(np.int64)
            stays = pa.array(originals == rows)
            own = {name: batch[name] for name in batch.column_names}
            kept.add(pa.table(own | {"multiplicity": pa.array(repeated.draws[rows], pa.int64())}).filter(stays))
            named = {
                "row": pa.array(rows),
                "duplicate_of": pa.array(originals),
                "similarity": pa.array(repeated.similarity[rows].astype(np.float64).round(4)),
                "scope": pa.array(names[repeated.scopes[rows]], pa.string()),
            }
            others.add(pa.table(own | named).filter(pc.invert(stays)))
            first += len(rows)
        kept.close()
        others.close()
        work.chmod(0o755)
        os.rename(work, out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
