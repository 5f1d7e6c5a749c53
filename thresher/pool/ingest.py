"""Imports a user's own samples into the pool: every row of their files becomes one row of the pool, readable or not.

The rows are distributed by prompt to one spool per shard (Arrow record batches in the temporary directory: TMPDIR needs as much
room as the samples take, and twice as much where shards are cut by bytes), then the shards are written one by one. Memory holds
one shard.
"""

import hashlib
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.chunks import cuts, row_bytes, take
from filters.reasoning import USUAL, Marking, take_apart
from schemas.sample import PROMPTS, SAMPLES
from schemas.suggest import did_you_mean
from thresher import ids
from thresher.errors import SourceError, StoreError
from thresher.inputs.files.arrow_files import count_rows, is_arrow, open_arrow_files
from thresher.inputs.files.json_lines import Row, parse_line, read_lines
from thresher.inputs.files.named_files import KINDS, PARQUET, NamedFile
from thresher.inputs.sources import Columns, arrow_rows
from thresher.pool import judged
from thresher.pool.imported_rows import CONVERSATIONS, NEEDED, TURNS, pool_row_of, without_nulls_in
from thresher.pool.rows import completion_parts, parts_of_prompts
from thresher.pool.store import Store, shard_name

log = logging.getLogger(__name__)

SHOWN_COLUMNS = 100
"""Names of columns that a message lists, at most about."""
HELD_BYTES = 64 << 20
"""Rows are collected until they fill a shard or this many bytes; then they go to their spools."""
UNCUT = 1 << 62
ROW_BYTES = 1 << 30
"""Most bytes of text of a row, about half of what one value of Arrow can hold."""


class Raw(NamedTuple):
    """A row as it was read."""

    file: NamedFile
    where: str
    place: dict[str, int]
    """The number of its line or row."""
    row: Row | SourceError
    content: bytes
    """The line; empty for a row of Arrow."""


def ingest(
    files: Sequence[NamedFile],
    store: Store,
    *,
    key: str,
    marking: Marking | None = USUAL,
    shard_rows: int = 25_000,
    allow_empty: bool = False,
    shard_bytes: int = 256_000_000,
) -> int:
    """Write `samples/00000` ... and `prompts` from JSONL, Parquet and Arrow files; returns the number of shards.

    A row has `prompt` and `completion` (text or messages), or one conversation under `messages` or `conversations`, and may have
    `tools`, `chat_template_kwargs`, `reference` (any JSON), `family`, `finish_reason`, `completion_ids` and `logprobs`; see
    thresher.pool.imported_rows. Other columns become its metadata, except columns of images or sound. The column `unreadable`
    gives the reason of a row that cannot be read.

    Up to `shard_rows` rows are one shard. More are distributed by the hash of the prompt, so that a shard holds whole prompts. A
    shard of more than `shard_bytes` is cut further, between prompts; a plan that is written keeps its cut. Rows keep the order of
    the files, those of Parquet and Arrow before JSONL; `source_row` is their number in all of them, from 0. Finished files of the
    store are not written again. Raises SourceError where there are no rows, for a file of another format or without the needed
    columns, and, unless `allow_empty`, for a file in which no row can be read.
    """
    plan = store.finished("prompts", key)
    if plan is not None:
        shards = int(plan.facts["shards"])
        if all(store.finished(f"samples/{shard_name(shard)}", key) for shard in range(shards)):
            return shards
        shard_bytes = int(plan.facts.get("shard_bytes", UNCUT))
    sources = _opened(files)
    shards = -(-_count(sources) // shard_rows)
    with tempfile.TemporaryDirectory(prefix="thresher-") as temporary:
        folder = Path(temporary)
        try:
            distributed = _distribute(sources, folder, shards, shard_rows, marking)
            if not allow_empty:
                distributed.require_readable()
            parts: set[str] = set()
            spools = shards
            shards = _cut(folder, spools, shard_bytes)
            cut = {} if shards == spools else {"shard_bytes": shard_bytes}
            facts: dict[str, Any] = {"shards": shards, **cut}
            prompts = sum(_write(folder, store, shard, key, parts, cut=cut) for shard in range(shards))
        except OSError as error:
            raise StoreError(
                f"{folder}: cannot hold the rows of {files[0].shown}: {error.strerror or error}; "
                "set TMPDIR to a directory with as much room as the samples take"
            ) from error
        groups = (_spooled(folder / f"{shard}.prompts", PROMPTS) for shard in range(shards))
        facts |= {"prompts": prompts, "parts": sorted(parts)}
        for shard in judged.sampled(store):  # of an interrupted import that cut them otherwise
            if shard >= shards:
                store.remove(f"samples/{shard_name(shard)}.json")
                store.remove(f"samples/{shard_name(shard)}.parquet")
        store.write_groups("prompts", PROMPTS, groups, key=key, facts=facts)
    return shards


# -- the files ---------------------------------------------------------------------------------------------------------


class Sources(NamedTuple):
    """The files by what they hold. Their rows count on from one to the next."""

    arrow: list[NamedFile]
    lines: list[NamedFile]

    @property
    def shown(self) -> str:
        """The files in messages."""
        names = [file.shown for file in (*self.arrow, *self.lines)]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more files" if len(names) > 3 else "")


def _opened(files: Sequence[NamedFile]) -> Sources:
    sources = Sources([], [])
    for file in files:
        (sources.arrow if _is_arrow(file) else sources.lines).append(file)
    return sources


def _is_arrow(file: NamedFile) -> bool:
    """Whether a file holds a table of Arrow; the content says so, and the ending must not belie it. Raises SourceError."""
    name = file.name.lower()
    endings = sum(KINDS.values(), (*PARQUET, ".json"))
    if not name.endswith(endings):
        found = Path(name).suffix or "no ending"
        raise SourceError(f"{file.shown}: wanted a .jsonl or .parquet file, found {found}; convert it")
    try:
        found_arrow = is_arrow(file.path)
    except OSError as error:
        raise SourceError(f"{file.shown}: cannot be read: {error.strerror or error}") from error
    if not found_arrow and name.endswith(KINDS["Parquet"] + KINDS["Arrow"]):
        raise SourceError(f"{file.shown}: not a Parquet file, and not an Arrow file: it begins as neither")
    return found_arrow


def _count(sources: Sources) -> int:
    """Number of rows of all files. Raises SourceError where a file as a whole is at fault."""
    if sources.arrow:
        names = open_arrow_files(sources.arrow, Columns(TURNS, chats=TURNS).chosen).names
        _require_columns(", ".join(file.shown for file in sources.arrow[:3]), list(names), all)
    rows = sum(map(count_rows, sources.arrow))
    rows += sum(1 for file in sources.lines for _ in read_lines(file.path, file.shown))
    if not rows:
        raise SourceError(f"{sources.shown}: holds no rows; wanted rows with prompt and completion, or messages")
    return rows


def _require_columns(shown: str, columns: list[str], combine: Any) -> None:
    """Raise SourceError unless all or any (`combine`) of the needed columns are present, or one of conversations."""
    if not combine(name in columns for name in NEEDED) and not any(name in columns for name in CONVERSATIONS):
        missing = next(name for name in NEEDED if name not in columns)
        hint = did_you_mean(missing, columns)
        raise SourceError(f"{shown}: no column {missing!r}; it has {', '.join(columns)}; rename yours, or use messages{hint}")


def _rows(sources: Sources) -> Iterator[Raw]:
    """Every row of every file that is not a blank line."""
    table = arrow_rows(sources.arrow, Sources(sources.arrow, []).shown, Columns(TURNS, chats=TURNS)) if sources.arrow else ()
    for file, number, row in table:
        where = f"{file.name} row {number}"
        try:
            read: Row | SourceError = without_nulls_in(row)
        except RecursionError:
            read = SourceError(f"{where}: nested too deeply")
        yield Raw(file, where, {"row": number}, read, b"")
    for file in sources.lines:
        for number, line in read_lines(file.path, file.shown):
            where = f"{file.name}:{number}"
            try:
                yield Raw(file, where, {"line": number}, parse_line(line, where), line)
            except SourceError as error:
                yield Raw(file, where, {"line": number}, error, line)


# -- shards ------------------------------------------------------------------------------------------------------------


@dataclass
class Distributed:
    """What became of the rows of each file."""

    rows: Counter[NamedFile] = field(default_factory=Counter)
    readable: Counter[NamedFile] = field(default_factory=Counter)
    first: dict[NamedFile, str] = field(default_factory=dict)
    """The reason of the first row of each file that cannot be read."""
    columns: dict[NamedFile, dict[str, None]] = field(default_factory=dict)
    """The columns of the rows of each file that cannot be read."""

    def require_readable(self) -> None:
        """Raise SourceError for a file in which no row can be read."""
        for file, rows in self.rows.items():
            if self.readable[file]:
                continue
            if columns := self.columns.get(file):
                _require_columns(file.shown, list(columns), any)
            reason = f"none of its {rows:,} rows can be read; the first: {self.first[file]}"
            raise SourceError(f"{file.shown}: {reason}; with --allow-empty they are undecided")


def _distribute(sources: Sources, folder: Path, shards: int, shard_rows: int, marking: Marking | None) -> Distributed:
    """Distribute the rows over one spool per shard, in their order; log how many cannot be read."""
    collected: dict[int, list[Row]] = {}
    waiting = waiting_bytes = 0
    kinds: Counter[str] = Counter()
    first: dict[str, str] = {}
    seen = Distributed()

    def flush() -> None:
        for shard, rows in collected.items():
            with (folder / f"{shard}.samples").open("ab") as sink:
                sink.write(_taken_apart(pa.RecordBatch.from_pylist(rows, schema=SAMPLES), marking).serialize())
        collected.clear()

    for number, raw in enumerate(_rows(sources)):
        pool_row = pool_row_of(raw.where, raw.place, raw.row, raw.content) | {"source_row": number}
        if (size := _text_bytes(pool_row)) > ROW_BYTES:
            words = f"{raw.where}: too long: wanted at most {ROW_BYTES:,} bytes, found {size:,}; shorten it"
            pool_row = pool_row_of(raw.where, raw.place, SourceError(words), raw.content) | {"source_row": number}
        seen.rows[raw.file] += 1
        if pool_row["unreadable"] is None:
            seen.readable[raw.file] += 1
        else:
            kind = pool_row["unreadable"].removeprefix(f"{raw.where}: ").partition(":")[0]
            kinds[kind] += 1
            first.setdefault(kind, pool_row["unreadable"])
            seen.first.setdefault(raw.file, pool_row["unreadable"])
            columns = seen.columns.setdefault(raw.file, {})
            if isinstance(raw.row, dict) and len(columns) < SHOWN_COLUMNS:
                columns |= dict.fromkeys(raw.row)
        collected.setdefault(int(pool_row["prompt_id"][:15], 16) % shards, []).append(pool_row)
        waiting, waiting_bytes = waiting + 1, waiting_bytes + _text_bytes(pool_row)
        if waiting >= shard_rows or waiting_bytes >= HELD_BYTES:
            flush()
            waiting = waiting_bytes = 0
    flush()
    for file in (*sources.arrow, *sources.lines):
        if file not in seen.rows and file.path.stat().st_size:
            log.warning("%s: holds no rows", file.shown)
    for kind, count in kinds.items():
        log.warning("%s: %d rows cannot be read (%s) and are undecided; the first: %s", sources.shown, count, kind, first[kind])
    return seen


def _text_bytes(pool_row: Row) -> int:
    """The bytes of all texts of a row."""
    texts = (value for part in (pool_row, *pool_row["messages"]) for value in part.values() if isinstance(value, str))
    return sum(len(text) if text.isascii() else len(text.encode(errors="replace")) for text in texts)


def _cut(folder: Path, spools: int, shard_bytes: int) -> int:
    """Cut spools of more than `shard_bytes` between prompts, so that each has no more, or one prompt; returns how many there are
    then."""
    paths = [folder / f"{number}.samples" for number in range(spools)]
    if all(not path.exists() or path.stat().st_size <= shard_bytes for path in paths):
        return spools
    shards = 0
    for path in filter(Path.exists, paths):
        sizes: dict[str, int] = {}
        for batch in _batches(path, SAMPLES):
            for prompt, size in zip(batch["prompt_id"].to_pylist(), row_bytes(batch).tolist(), strict=True):
                sizes[prompt] = sizes.get(prompt, 0) + size
        number_of: dict[str, int] = {}
        for start, end in cuts(np.array(list(sizes.values())), shard_bytes):
            number_of |= dict.fromkeys(list(sizes)[start:end], shards)
            shards += 1
        for batch in _batches(path, SAMPLES):
            numbers = np.array([number_of[prompt] for prompt in batch["prompt_id"].to_pylist()])
            for number in np.unique(numbers).tolist():
                with (folder / f"{number}.cut").open("ab") as sink:
                    sink.write(batch.take(pa.array(np.flatnonzero(numbers == number))).serialize())
        path.unlink()
    for number in range(shards):
        (folder / f"{number}.cut").rename(folder / f"{number}.samples")
    return shards


def _taken_apart(rows: pa.RecordBatch, marking: Marking | None) -> pa.RecordBatch:
    """Take apart the completions that did not come apart."""
    apart, came = take_apart(rows["completion"], marking), pc.is_valid(rows["parsed_by"])
    parsed = pc.if_else(pa.array(apart.ends > 0), "marks", pa.scalar(None, pa.string()))
    columns = {"reasoning": apart.reasoning, "answer": apart.answer, "parsed_by": parsed}
    for name, column in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), SAMPLES.field(name), pc.if_else(came, rows[name], column))
    return rows


def _write(folder: Path, store: Store, shard: int, key: str, parts: set[str], *, cut: dict[str, int]) -> int:
    """Number the samples of a shard, write it unless it is written, spool its prompts; return how many those are. Adds the parts
    that their messages have to `parts`. `cut` tells how the shards were cut, so that shards of another cut are written again."""
    table = _spooled(folder / f"{shard}.samples", SAMPLES)
    unreadable = pc.is_valid(table["unreadable"])
    prompt_ids, repeats = [], Counter[str]()
    for prompt, torn in zip(table["prompt_id"].to_pylist(), unreadable.to_pylist(), strict=True):
        prompt_ids.append(ids.digest("unreadable", prompt, repeats[prompt]) if torn else prompt)
        repeats[prompt] += torn
    index, sample_ids, drawn, copies = [], [], Counter[str](), Counter[bytes]()
    texts = (row.values() for batch in table.select(["completion", "tool_calls"]).to_batches() for row in batch.to_pylist())
    for prompt, (completion, called) in zip(prompt_ids, texts, strict=True):
        index.append(drawn[prompt])
        drawn[prompt] += 1
        content = hashlib.sha256(f"{prompt}{completion}{called or ''}".encode()).digest()
        further = [] if called is None else [called]
        sample_ids.append(ids.digest("brought", prompt, completion, copies[content], *further))
        copies[content] += 1
    for name, values in (("prompt_id", prompt_ids), ("sample_id", sample_ids), ("index", index)):
        column = SAMPLES.get_field_index(name)
        table = table.set_column(column, SAMPLES.field(column), pa.array(values, SAMPLES.field(column).type))
    first: dict[str, int] = {}
    for row, (prompt, torn) in enumerate(zip(prompt_ids, unreadable.to_pylist(), strict=True)):
        if not torn:
            first.setdefault(prompt, row)
    prompts = take(table.select(PROMPTS.names), np.array(list(first.values()), np.int64)).cast(PROMPTS)
    with (folder / f"{shard}.prompts").open("wb") as sink:
        for batch in prompts.to_batches():
            sink.write(batch.serialize())
    name = f"samples/{shard_name(shard)}"
    tokens = pc.sum(pc.list_value_length(table["completion_ids"])).as_py()
    parts.update(parts_of_prompts(prompts))
    facts = {"rows_unreadable": pc.sum(unreadable).as_py() or 0, "prompts": prompts.num_rows, "parts": completion_parts(table)}
    facts |= cut
    facts |= {} if tokens is None else {"completion_tokens": tokens}
    finished = store.finished(name, key)
    if finished is None or (finished.rows, finished.facts) != (table.num_rows, facts):
        store.write_table(name, table, key=key, facts=facts)
        log.info("%s: %d rows, %s", name, table.num_rows, facts)
    return int(prompts.num_rows)


def _spooled(path: Path, schema: pa.Schema) -> pa.Table:
    """All record batches of a spool; none where no prompt fell into the shard, so that it has no spool."""
    return pa.Table.from_batches(_batches(path, schema) if path.exists() else [], schema)


def _batches(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The record batches of a spool."""
    with pa.OSFile(str(path)) as source:
        while source.tell() < source.size():
            yield pa.ipc.read_record_batch(pa.ipc.read_message(source), schema)
