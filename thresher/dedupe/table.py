"""Remove duplicates from any table of texts: Parquet, JSONL, or a dataset of the Hub. `thresher dedupe` on the command line.

The rows are read twice. The first pass reads only the columns that decide: the text, its group, the guard, the score. It keeps
their signatures, some 370 bytes a row and 4 a word (thresher.dedupe.row_signatures). The second pass writes the rows that stay to
OUT/kept, and the others to OUT/duplicates, each with the row that it repeats. The rules are those of a run (filters.similarity).
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.similarity.guards import guards, hashes
from filters.similarity.kernel import I64
from filters.similarity.signatures import SCHEME, signed
from schemas.repeats import DedupeSpec
from schemas.suggest import did_you_mean
from thresher.dedupe.row_signatures import Repeated, Resources, RowSignatures, SignedBatch
from thresher.durable import make_folders, place_folder, remove_leftovers, temporary_folder
from thresher.errors import SourceError
from thresher.inputs.files.arrow_values import python_values
from thresher.inputs.files.named_files import is_pattern
from thresher.inputs.tables import ParquetFolder, TableSource, is_chat, is_text, last_contents, open_table

TEXTS = ("completion", "text", "content", "response", "output", "answer", "chosen")
"""Columns that may hold the text; the first of them in the table is taken."""
COUNTED_ROWS = 1 << 20
"""Rows that are counted in one step."""
ADDED = ("row", "duplicate_of", "similarity", "scope")
"""Columns of OUT/duplicates beside the table's own. OUT/kept has `multiplicity`; a column of that name in the table is summed."""


@dataclass(frozen=True)
class Choice:
    """Which rows of a table are compared, and which copy stays."""

    text: str | None = None
    """Column of texts, or of chat messages, where the last one is compared; None takes the first of TEXTS."""
    group: str | None = None
    """Column whose equal values form a group, inside which all pairs are compared; None for no groups."""
    across: bool = True
    """Whether rows of different groups can repeat each other."""
    guard: str = "numbers"
    """What duplicates must agree in: `numbers` in the text, `none`, or a column."""
    score: str | None = None
    """Column of numbers: the row with the highest stays, then the shortest, then the first."""
    threshold: float = 0.7
    """Least Jaccard similarity of duplicates."""


@dataclass(frozen=True)
class Summary:
    """How many rows of a table were kept and dropped."""

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
        """Return it as JSON values."""
        return asdict(self) | {"largest": list(self.largest)}

    def lines(self) -> list[str]:
        """Return it as lines of text, rounded."""
        largest = ", ".join(f"{size:,}" for size in self.largest)
        share = f" ({100 * self.kept / self.rows:.1f} %)" if self.rows else ""
        return [
            f"{self.rows:,} rows: {self.kept:,} kept{share}, {self.exact:,} exact and {self.near:,} near duplicates dropped",
            f"largest clusters: {largest} rows; effective number of different texts: {round(self.effective):,}",
            ", ".join(f"{seconds:.1f} s {step}" for step, seconds in self.seconds.items()),
        ]


def dedupe(
    data: str,
    out: Path,
    choice: Choice,
    resources: Resources | None = None,
    *,
    config: str | None = None,
    split: str | None = None,
) -> Summary:
    """Write OUT/kept, OUT/duplicates and OUT/summary.json. Raises SourceError on a table that cannot be read or lacks a
    column, and if OUT exists, also if it came into being meanwhile."""
    if out.exists():
        raise SourceError(f"{out}: exists already, and nothing is overwritten; remove it or name another --out")
    if (config is not None or split is not None) and (Path(data).is_file() or is_pattern(data)):
        raise SourceError(f"{data}: a file has no config and no split; leave out --config and --split")
    table = open_table(data, config, split)
    choice = _complete(choice, table)
    clock = [time.perf_counter()]
    make_folders(out.parent)
    remove_leftovers(out.parent)
    with temporary_folder(out) as scratch:
        for name in ("signatures", "out"):
            (scratch / name).mkdir()
        signatures = RowSignatures(str(scratch / "signatures"), resources or Resources())
        _sign(table, choice, signatures)
        clock.append(time.perf_counter())
        repeated = signatures.repeated(choice.threshold, across=choice.across)
        clock.append(time.perf_counter())
        _write(table, scratch / "out", repeated)
        clock.append(time.perf_counter())
        summary = _summary(repeated, np.diff(clock).round(3).tolist())
        del repeated, signatures
        text = json.dumps(summary.to_dict() | {"choice": asdict(choice)}, indent=1) + "\n"
        (scratch / "out" / "summary.json").write_text(text)
        try:
            place_folder(scratch / "out", out)
        except OSError as error:
            if not out.exists():
                raise
            raise SourceError(
                f"{out}: another process wrote it meanwhile, and nothing is overwritten; remove it or name another --out"
            ) from error
    return summary


def _summary(repeated: Repeated, seconds: list[float]) -> Summary:
    """Count the rows, a million at a time."""
    sizes: Counter[int] = Counter()
    kept = exact = 0
    for rows in _slices(len(repeated.originals)):
        stays = repeated.originals[rows] == rows
        kept += int(stays.sum())
        exact += int(repeated.equal(rows[~stays]).sum())
        for size, count in zip(*np.unique(repeated.draws[rows][stays], return_counts=True), strict=True):
            sizes[int(size)] += int(count)
    largest = [size for size in sorted(sizes, reverse=True)[:10] for _ in range(min(10, sizes[size]))][:10]
    return Summary(
        rows=len(repeated.originals),
        kept=kept,
        exact=exact,
        near=len(repeated.originals) - kept - exact,
        effective=effective_number(np.array(list(sizes), np.int64), np.array(list(sizes.values()), np.int64)),
        largest=tuple(largest),
        seconds=dict(zip(("signing", "clustering", "writing"), seconds, strict=True)),
    )


def _slices(rows: int) -> Iterator[I64]:
    for start in range(0, rows, COUNTED_ROWS):
        yield np.arange(start, min(start + COUNTED_ROWS, rows))


def effective_number(sizes: I64, counts: I64 | None = None) -> float:
    """The exponential of the entropy of the clusters' shares (Hill number of order 1; Jost 2006); 0 without clusters. Each of
    `sizes` (k,) occurs `counts` (k,) times, or once."""
    times = np.ones(len(sizes), np.int64) if counts is None else counts
    total = (sizes * times).sum()
    if not total:
        return 0.0
    shares, times = sizes[sizes > 0] / total, times[sizes > 0]
    return float(np.exp(-(times * shares * np.log(shares)).sum()))


# -- columns -------------------------------------------------------------------------------------------------------------


def _complete(choice: Choice, table: TableSource) -> Choice:
    """The choice with its text column named. Raises SourceError if a column is missing or has an unsuitable type."""
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
    if choice.score is not None and not _is_number(table.schema.field(choice.score).type):
        raise SourceError(f"{table.name}: column {choice.score!r}: wanted numbers, found {table.schema.field(choice.score).type}")
    if not 0 < choice.threshold <= 1:
        raise SourceError(f"--threshold: wanted a number above 0 and up to 1, found {choice.threshold}")
    clash = [name for name in ADDED if name in names]
    if clash:
        raise SourceError(f"{table.name}: has a column {clash[0]!r} already, which dedupe adds; rename the column")
    return Choice(**asdict(choice) | {"text": text})


def _is_number(kind: pa.DataType) -> bool:
    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
    return any(check(kind) for check in checks)


def _readable(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """The texts, with U+FFFD for bytes that are not UTF-8."""
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        mended = [None if text is None else text.decode("utf-8", "replace") for text in texts.cast(pa.binary()).to_pylist()]
        return pa.chunked_array([pa.array(mended, pa.string())])
    return texts


# -- the two passes ------------------------------------------------------------------------------------------------------


def _sign(table: TableSource, choice: Choice, signatures: RowSignatures) -> None:
    """Sign all rows."""
    assert choice.text is not None
    guard = None if choice.guard in ("numbers", "none") else choice.guard
    counted = "multiplicity" in table.schema.names and pa.types.is_integer(table.schema.field("multiplicity").type)
    columns = list(
        dict.fromkeys(filter(None, [choice.text, choice.group, choice.score, guard, "multiplicity" if counted else None]))
    )
    spec = DedupeSpec(guard="answer" if guard else "numbers" if choice.guard == "numbers" else "none")
    for batch in table.batches(columns):
        texts = pc.fill_null(_readable(last_contents(batch[choice.text])), "")
        answers = pa.nulls(len(texts), pa.string()) if guard is None else _as_text(batch[guard])
        compared = pa.table({"completion": texts, "accepted": answers})
        keys = [pc.utf8_length(texts).to_numpy().astype(np.float64)]
        if choice.score is not None:
            keys.insert(0, pc.fill_null(pc.negate(batch[choice.score].cast(pa.float64())), np.inf).to_numpy())
        groups = None if choice.group is None else hashes(_as_text(batch[choice.group]))
        draws = pc.fill_null(batch["multiplicity"], 1).to_numpy().astype(np.int64) if counted else np.ones(len(texts), np.int64)
        signatures.add(SignedBatch(signed(texts, guards(compared, spec)), keys, groups, draws))
    if not signatures.rows:
        raise SourceError(f"{table.name}: holds no rows")


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of any type as text: equal values have equal texts."""
    kind = column.type
    if is_text(kind):
        return pc.fill_null(_readable(column), "")
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return pc.fill_null(column.cast(pa.string()), "")
    texts = ["" if value is None else _json(value) for value in python_values(column)]
    return pa.chunked_array([pa.array(texts, pa.string())])


def _json(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=repr, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()


def _write(table: TableSource, folder: Path, repeated: Repeated) -> None:
    """Write the rows that stay and the others, in their order."""
    names = np.array(["", "group", "all"], object)
    kept, duplicates = ParquetFolder(folder / "kept"), ParquetFolder(folder / "duplicates")
    first = 0
    for batch in table.batches():
        rows = np.arange(first, first + batch.num_rows)
        originals = repeated.originals[rows].astype(np.int64)
        stays = pa.array(originals == rows)
        columns = {name: batch[name] for name in batch.column_names}
        kept.add(pa.table(columns | {"multiplicity": pa.array(repeated.draws[rows], pa.int64())}).filter(stays))
        added = {
            "row": pa.array(rows),
            "duplicate_of": pa.array(originals),
            "similarity": pa.array(repeated.similarity[rows].astype(np.float64).round(4)),
            "scope": pa.array(names[repeated.scopes[rows]], pa.string()),
        }
        duplicates.add(pa.table(columns | added).filter(pc.invert(stays)))
        first += len(rows)
    kept.close()
    duplicates.close()
