"""Removes duplicates from any table of texts: Parquet, JSONL, or a dataset of the Hub. `thresher dedupe` on the command line.

The rows pass by twice. The first time only what decides is read: the text, its group, the guard, the score; what stays in memory
is signatures, some 370 bytes of each row and 4 of each of its words. The second time the rows that stay go to OUT/kept, and those
that do not to OUT/duplicates, each with the row that it repeats. The rules are those of a run (filters.similarity,
filters.near_duplicate)."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq

from filters.near_duplicate import guards, hashes, ranks
from filters.similarity.duplicates import Clusters, among, similarities, within
from filters.similarity.kernel import I64, SCHEME, Signed, joined, signed
from schemas.recipe import DedupeSpec
from thresher.errors import SourceError
from thresher.sources import nearest

TEXTS = ("completion", "text", "content", "response", "output", "answer", "chosen")
"""Columns that are taken for the text, the first that is there."""
BATCH_ROWS = 65_536
FILE_BYTES = 1 << 29
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


def dedupe(data: str, out: Path, choice: Choice, *, config: str | None = None, split: str | None = None) -> Found:
    """Write OUT/kept, OUT/duplicates and OUT/summary.json. Raises SourceError on a table that cannot be read or lacks a
    column."""
    if out.exists():
        raise SourceError(f"{out}: is there already, and nothing is overwritten; remove it or name another --out")
    table = opened(data, config, split)
    choice = _complete(choice, table)
    began = time.perf_counter()
    texts, rest = _signed(table, choice)
    signing = time.perf_counter() - began
    order = ranks(rest, DedupeSpec())
    found, scope = _clusters(texts, rest, order, choice)
    clustering = time.perf_counter() - began - signing
    exact = int(((texts.contents[found.originals] == texts.contents) & (found.originals != np.arange(len(order)))).sum())
    draws = np.bincount(found.originals, weights=rest["multiplicity"].to_numpy(), minlength=len(order)).astype(np.int64)
    _write(table, out, found, draws, scope)
    sizes = np.sort(draws)[::-1]
    sizes = sizes[sizes > 0]
    told = Found(
        rows=len(order),
        kept=int((scope == 0).sum()),
        exact=exact,
        near=int((scope > 0).sum()) - exact,
        effective=effective_number(sizes),
        largest=tuple(sizes[:10].tolist()),
        seconds={
            "signing": round(signing, 3),
            "clustering": round(clustering, 3),
            "writing": round(time.perf_counter() - began - signing - clustering, 3),
        },
    )
    (out / "summary.json").write_text(json.dumps(told.to_dict() | {"choice": asdict(choice)}, indent=1) + "\n")
    return told


def effective_number(sizes: I64) -> float:
    """The exponential of the entropy of the shares that clusters (k,) have (Hill number of order 1; Jost 2006); 0 for none."""
    if not sizes.sum():
        return 0.0
    shares = sizes[sizes > 0] / sizes.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


# -- tables --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    """A table on disk, as often as it is asked for."""

    name: str
    schema: pa.Schema
    source: Any

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Its rows in order, in batches."""
        if isinstance(self.source, pa.dataset.Dataset):
            scanner = self.source.scanner(columns=columns, batch_size=BATCH_ROWS, use_threads=False)
            read = (pa.Table.from_batches([batch]) for batch in scanner.to_batches())
        else:
            source = self.source if columns is None else self.source.select_columns(columns)
            read = source.with_format("arrow").iter(batch_size=BATCH_ROWS)
        try:
            yield from read
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{self.name}: cannot be read: {str(error).splitlines()[0]}") from error


def opened(data: str, config: str | None, split: str | None) -> Opened:
    """A Parquet file or a folder of such, a JSONL file, the directory of a dataset, or a dataset of the Hub."""
    path = Path(data)
    try:
        if path.suffix.lower() in (".parquet", ".pq") or (path.is_dir() and config is None and _only_parquet(path)):
            source = pa.dataset.dataset(str(path), format="parquet")
            return Opened(data, source.schema, source)
        return _by_datasets(data, path, config, split)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{data}: cannot be read: {str(error).splitlines()[0]}") from error


def _only_parquet(path: Path) -> bool:
    """A folder of Parquet files that are one table: no dataset with configs."""
    return not (path / "README.md").exists() and any(path.glob("*.parquet"))


def _by_datasets(data: str, path: Path, config: str | None, split: str | None) -> Opened:
    import datasets

    datasets.disable_progress_bars()
    split = split or "train"
    ending = "".join(path.suffixes[-2:]).lower()
    try:
        if any(one in ending for one in (".jsonl", ".json", ".ndjson")):
            if not path.is_file():
                raise SourceError(f"{data}: no such file{nearest(path.name, (one.name for one in path.parent.glob('*')))}")
            found = datasets.load_dataset("json", data_files=str(path), split=split)
        else:
            found = datasets.load_dataset(data, config, split=split)
    except (ValueError, FileNotFoundError, datasets.exceptions.DatasetGenerationError) as error:
        cause = error.__cause__ or error
        raise SourceError(f"{data}: cannot be read as a dataset: {str(cause).splitlines()[0]}") from error
    return Opened(data, found.features.arrow_schema, found)


def _complete(choice: Choice, table: Opened) -> Choice:
    """The choice with its text column named. Raises SourceError where a column is not there or of no use."""
    names = table.schema.names
    text = choice.text or next((name for name in TEXTS if name in names), None)
    if text is None:
        raise SourceError(f"{table.name}: which column holds the text? It has {', '.join(names)}; name one with --text")
    wanted = [text, choice.group, choice.score, None if choice.guard in ("numbers", "none") else choice.guard]
    for name in filter(None, wanted):
        if name not in names:
            raise SourceError(f"{table.name}: no column {name!r}; it has {', '.join(names)}{nearest(name, names)}")
    kind = table.schema.field(text).type
    if not (_is_text(kind) or _is_chat(kind)):
        raise SourceError(f"{table.name}: column {text!r}: wanted text or chat messages, found {kind}")
    if choice.score is not None and not pa.types.is_primitive(table.schema.field(choice.score).type):
        raise SourceError(f"{table.name}: column {choice.score!r}: wanted numbers, found {table.schema.field(choice.score).type}")
    if not 0 < choice.threshold <= 1:
        raise SourceError(f"--threshold: wanted a number above 0 and up to 1, found {choice.threshold}")
    clash = [name for name in ADDED if name in names]
    if clash:
        raise SourceError(f"{table.name}: has a column {clash[0]!r} already, which dedupe adds; rename it")
    return Choice(**asdict(choice) | {"text": text})


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_chat(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    return kind.value_type.get_field_index("content") >= 0 and _is_text(kind.value_type.field("content").type)


def _said(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts, or the contents of the last messages."""
    if _is_text(column.type):
        return column
    chunks = []
    for chunk in column.chunks:
        contents = chunk.values.field("content")
        ends = chunk.offsets.to_numpy()[1:] - 1
        some = (np.diff(chunk.offsets.to_numpy()) > 0) & chunk.is_valid().to_numpy(zero_copy_only=False)
        chunks.append(contents.take(pa.array(ends, mask=~some)))
    return pa.chunked_array(chunks, column.type.value_type.field("content").type)


def _readable(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """The texts, with U+FFFD for bytes that are no UTF-8."""
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        mended = [None if text is None else text.decode("utf-8", "replace") for text in texts.cast(pa.binary()).to_pylist()]
        return pa.chunked_array([pa.array(mended, pa.string())])
    return texts


# -- the two passes ------------------------------------------------------------------------------------------------------


def _signed(table: Opened, choice: Choice) -> tuple[Signed, pa.Table]:
    """Signatures of all rows, and what ranks and groups them."""
    assert choice.text is not None
    by = None if choice.guard in ("numbers", "none") else choice.guard
    own = "multiplicity" in table.schema.names and pa.types.is_integer(table.schema.field("multiplicity").type)
    columns = list(dict.fromkeys(filter(None, [choice.text, choice.group, choice.score, by, "multiplicity" if own else None])))
    spec = DedupeSpec(guard="answer" if by else "numbers" if choice.guard == "numbers" else "none")
    parts, rests, rows = [], [], 0
    for batch in table.batches(columns):
        texts = pc.fill_null(_readable(_said(batch[choice.text])), "")
        count = batch.num_rows
        asked = pa.table({"completion": texts, "answer": pa.nulls(count, pa.string()) if by is None else _shown(batch[by])})
        parts.append(signed(texts, guards(asked, spec)))
        rests.append(
            pa.table(
                {
                    "sample_id": pa.array(np.arange(rows, rows + count)),
                    "length": pc.utf8_length(texts).cast(pa.int64()),
                    "score": pa.nulls(count, pa.float64()) if choice.score is None else batch[choice.score].cast(pa.float64()),
                    "cumulative_logprob": pa.nulls(count, pa.float64()),
                    "multiplicity": pc.fill_null(batch["multiplicity"], 1) if own else pa.array(np.ones(count, np.int64)),
                    "group": pa.array(
                        np.zeros(count, np.uint64) if choice.group is None else hashes(_shown(batch[choice.group]))
                    ),
                }
            )
        )
        rows += count
    if not rows:
        raise SourceError(f"{table.name}: holds no rows")
    return joined(parts), pa.concat_tables(rests)


def _shown(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of any type as text, by which equal values are told."""
    if pa.types.is_nested(column.type):
        return pa.chunked_array([pa.array([json.dumps(one, sort_keys=True, default=str) for one in column.to_pylist()])])
    return pc.fill_null(column.cast(pa.string()), "")


def _clusters(texts: Signed, rest: pa.Table, order: I64, choice: Choice) -> tuple[Clusters, I64]:
    """What each row repeats, and in which scope: 1 its group, 2 another's, 0 none."""
    rows = np.arange(len(order))
    if choice.group is None:
        found = among(texts, order, choice.threshold)
        return found, np.where(found.originals == rows, 0, 2)
    _, groups = np.unique(rest["group"].to_numpy(), return_inverse=True)
    found = within(texts, groups.astype(np.int64), order, choice.threshold)
    scope = np.where(found.originals == rows, 0, 1)
    if not choice.across:
        return found, scope
    kept = np.flatnonzero(scope == 0)
    further = among(texts.take(kept), order[kept], choice.threshold)
    moved = kept[further.originals]
    scope[kept[moved != kept]] = 2
    originals, similarity = found.originals.copy(), found.similarity.copy()
    originals[kept] = moved
    originals = originals[found.originals]
    changed = np.flatnonzero(originals != found.originals)
    similarity[changed] = similarities(texts, changed, originals[changed])
    return Clusters(originals, similarity), scope


def _write(table: Opened, out: Path, found: Clusters, draws: I64, scope: I64) -> None:
    """The rows that stay and those that do not, in their order; the folder appears whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        kept, others = _Files(work / "kept"), _Files(work / "duplicates")
        first = 0
        for batch in table.batches():
            rows = np.arange(first, first + batch.num_rows)
            stays = pa.array(found.originals[rows] == rows)
            numbers = pa.array(rows)
            own = {name: batch[name] for name in batch.column_names}
            kept.add(pa.table(own | {"multiplicity": pa.array(draws[rows], pa.int64())}).filter(stays))
            named = {
                "row": numbers,
                "duplicate_of": pa.array(found.originals[rows]),
                "similarity": pa.array(found.similarity[rows].astype(np.float64).round(4)),
                "scope": pa.array(np.array(["", "group", "all"], object)[scope[rows]], pa.string()),
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


class _Files:
    """Parquet files of a folder, each up to FILE_BYTES."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0
        self.writer: Any = None
        folder.mkdir()

    def add(self, table: pa.Table) -> None:
        if self.writer is None:
            path = self.folder / f"{self.number:05d}.parquet"
            self.file = path.open("wb")
            self.writer = pq.ParquetWriter(self.file, table.schema, compression="zstd")
            self.number += 1
        if table.num_rows:
            self.writer.write_table(table)
        if self.file.tell() > FILE_BYTES:
            self.close()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.file.close()
            self.writer = None
