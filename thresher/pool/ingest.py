"""Imports a user's own samples into the pool: every row of the file becomes one row of the pool, readable or not.

The rows are distributed by prompt to one spool per shard (Arrow record batches in the temporary directory: TMPDIR needs as much
room as the samples take), then the shards are written one by one. Memory holds one shard.
"""

import hashlib
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from filters.reasoning import USUAL, Marking, take_apart
from schemas.sample import PROMPTS, SAMPLES
from schemas.suggest import did_you_mean
from thresher import ids
from thresher.errors import SourceError, StoreError
from thresher.inputs.sources import Columns, Row, arrow_rows, parse_line, read_lines
from thresher.pool.imported_rows import CONVERSATIONS, NEEDED, TURNS, pool_row_of, without_nulls_in
from thresher.pool.rows import completion_parts, parts_of_prompts
from thresher.pool.store import Store, shard_name

log = logging.getLogger(__name__)

HELD_BYTES = 64 << 20
"""Rows are collected until they fill a shard or this many bytes; then they go to their spools."""

_JSONL, _PARQUET = {".jsonl", ".ndjson"}, {".parquet", ".pq"}

Raw = tuple[str, dict[str, int], Row | SourceError, bytes]


def ingest(file: Path, store: Store, *, key: str, marking: Marking | None = USUAL, shard_rows: int = 25_000) -> int:
    """Write `samples/00000` ... and `prompts` from a JSONL or Parquet file; returns the number of shards.

    A row has `prompt` and `completion` (text or messages), or one conversation under `messages` or `conversations`, and may have
    `tools`, `chat_template_kwargs`, `reference` (any JSON), `family`, `finish_reason`, `completion_ids` and `logprobs`; see
    thresher.pool.imported_rows. Other columns become its metadata, except columns of images or sound. The column `unreadable`
    gives the reason of a row that cannot be read.

    A file of up to `shard_rows` rows is one shard. A longer one is distributed by the hash of the prompt, so that a shard holds
    whole prompts. Rows keep the file's order; `source_row` is their number in it, from 0. Finished files of the store are not
    written again. Raises SourceError for a file that is missing, empty, of another format or without the needed columns.
    """
    plan = store.finished("prompts", key)
    if plan is not None:
        shards = int(plan.facts["shards"])
        if all(store.finished(f"samples/{shard_name(shard)}", key) for shard in range(shards)):
            return shards
    shards = -(-_count(file) // shard_rows)
    with tempfile.TemporaryDirectory(prefix="thresher-") as temporary:
        folder = Path(temporary)
        try:
            _distribute(file, folder, shards, shard_rows, marking)
            parts: set[str] = set()
            prompts = sum(_write(folder, store, shard, key, parts) for shard in range(shards))
        except OSError as error:
            raise StoreError(
                f"{folder}: cannot hold the rows of {file}: {error.strerror or error}; "
                "set TMPDIR to a directory with as much room as the samples take"
            ) from error
        groups = (_spooled(folder / f"{shard}.prompts", PROMPTS) for shard in range(shards))
        facts = {"shards": shards, "prompts": prompts, "parts": sorted(parts)}
        store.write_groups("prompts", PROMPTS, groups, key=key, facts=facts)
    return shards


# -- the file ----------------------------------------------------------------------------------------------------------


def _count(file: Path) -> int:
    """Number of rows of the file. Raises SourceError where the file as a whole is at fault."""
    if not file.is_file():
        hint = did_you_mean(file.name, (sibling.name for sibling in file.parent.glob("*")))
        raise SourceError(f"{file}: no such file; wanted a .jsonl or .parquet file with prompt and completion, or messages{hint}")
    ending = file.suffix.lower()
    if ending in _JSONL:
        rows = sum(1 for _ in read_lines(file))
    elif ending in _PARQUET:
        try:
            metadata = pq.read_metadata(file)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{file}: not a Parquet file: {str(error).partition(chr(10))[0]}") from error
        rows = metadata.num_rows
        _require_columns(file, metadata.schema.to_arrow_schema().names, all)
    else:
        raise SourceError(f"{file}: wanted a .jsonl or .parquet file, found {ending or 'no ending'}; convert it")
    if not rows:
        raise SourceError(f"{file}: holds no rows; wanted rows with prompt and completion, or messages")
    return rows


def _require_columns(file: Path, columns: list[str], combine: Any) -> None:
    """Raise SourceError unless all or any (`combine`) of the needed columns are present, or one of conversations."""
    if not combine(name in columns for name in NEEDED) and not any(name in columns for name in CONVERSATIONS):
        missing = next(name for name in NEEDED if name not in columns)
        hint = did_you_mean(missing, columns)
        raise SourceError(f"{file}: no column {missing!r}; it has {', '.join(columns)}; rename yours, or use messages{hint}")


def _rows(file: Path) -> Iterator[Raw]:
    """(place, line or row number, the row or the error, its bytes if it is a line) of every row that is not blank."""
    if file.suffix.lower() in _PARQUET:
        for number, (where, row) in enumerate(arrow_rows(file, file.name, Columns(TURNS, chats=TURNS))):
            yield where, {"row": number}, without_nulls_in(row), b""
        return
    for number, line in read_lines(file):
        where = f"{file.name}:{number}"
        try:
            yield where, {"line": number}, parse_line(line, where), line
        except SourceError as error:
            yield where, {"line": number}, error, line


# -- shards ------------------------------------------------------------------------------------------------------------


def _distribute(file: Path, folder: Path, shards: int, shard_rows: int, marking: Marking | None) -> None:
    """Distribute the file's rows over one spool per shard, in the file's order; log how many cannot be read."""
    collected: dict[int, list[Row]] = {}
    waiting = waiting_bytes = 0
    kinds: Counter[str] = Counter()
    first: dict[str, str] = {}
    columns: dict[str, None] = {}

    def flush() -> None:
        for shard, rows in collected.items():
            with (folder / f"{shard}.samples").open("ab") as sink:
                sink.write(_taken_apart(pa.RecordBatch.from_pylist(rows, schema=SAMPLES), marking).serialize())
        collected.clear()

    for number, (where, place, row, raw) in enumerate(_rows(file)):
        pool_row = pool_row_of(where, place, row, raw) | {"source_row": number}
        if pool_row["unreadable"] is not None:
            kind = pool_row["unreadable"].removeprefix(f"{where}: ").partition(":")[0]
            kinds[kind] += 1
            first.setdefault(kind, pool_row["unreadable"])
        if isinstance(row, dict) and not any(name in columns for name in (*NEEDED, *CONVERSATIONS)):
            columns |= dict.fromkeys(row)
        collected.setdefault(int(pool_row["prompt_id"][:15], 16) % shards, []).append(pool_row)
        waiting, waiting_bytes = waiting + 1, waiting_bytes + len(raw) + len(pool_row["completion"])
        if waiting >= shard_rows or waiting_bytes >= HELD_BYTES:
            flush()
            waiting = waiting_bytes = 0
    flush()
    if columns:
        _require_columns(file, list(columns), any)
    for kind, count in kinds.items():
        log.warning("%s: %d rows cannot be read (%s) and are undecided; the first: %s", file, count, kind, first[kind])


def _taken_apart(rows: pa.RecordBatch, marking: Marking | None) -> pa.RecordBatch:
    """Take apart the completions that did not come apart."""
    apart, came = take_apart(rows["completion"], marking), pc.is_valid(rows["parsed_by"])
    parsed = pc.if_else(pa.array(apart.ends > 0), "marks", pa.scalar(None, pa.string()))
    columns = {"reasoning": apart.reasoning, "answer": apart.answer, "parsed_by": parsed}
    for name, column in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), SAMPLES.field(name), pc.if_else(came, rows[name], column))
    return rows


def _write(folder: Path, store: Store, shard: int, key: str, parts: set[str]) -> int:
    """Number the samples of a shard, write it unless it is written, spool its prompts; return how many those are. Adds the parts
    that their messages have to `parts`."""
    table = _spooled(folder / f"{shard}.samples", SAMPLES)
    unreadable = pc.is_valid(table["unreadable"])
    prompt_ids, repeats = [], Counter[str]()
    for prompt, torn in zip(table["prompt_id"].to_pylist(), unreadable.to_pylist(), strict=True):
        prompt_ids.append(ids.digest("unreadable", prompt, repeats[prompt]) if torn else prompt)
        repeats[prompt] += torn
    index, sample_ids, drawn, copies = [], [], Counter[str](), Counter[bytes]()
    completions, calls = table["completion"].to_pylist(), table["tool_calls"].to_pylist()
    for prompt, completion, called in zip(prompt_ids, completions, calls, strict=True):
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
    prompts = table.select(PROMPTS.names).take(pa.array(first.values(), pa.int64())).cast(PROMPTS)
    with (folder / f"{shard}.prompts").open("wb") as sink:
        for batch in prompts.combine_chunks().to_batches():
            sink.write(batch.serialize())
    name = f"samples/{shard_name(shard)}"
    tokens = pc.sum(pc.list_value_length(table["completion_ids"])).as_py()
    parts.update(parts_of_prompts(prompts))
    facts = {"rows_unreadable": pc.sum(unreadable).as_py() or 0, "prompts": prompts.num_rows, "parts": completion_parts(table)}
    facts |= {} if tokens is None else {"completion_tokens": tokens}
    finished = store.finished(name, key)
    if finished is None or (finished.rows, finished.facts) != (table.num_rows, facts):
        store.write_table(name, table, key=key, facts=facts)
        log.info("%s: %d rows, %s", name, table.num_rows, facts)
    return int(prompts.num_rows)


def _spooled(path: Path, schema: pa.Schema) -> pa.Table:
    """All record batches of a spool; none where no prompt fell into the shard, so that it has no spool."""
    batches = []
    if path.exists():
        with pa.OSFile(str(path)) as source:
            while source.tell() < source.size():
                batches.append(pa.ipc.read_record_batch(pa.ipc.read_message(source), schema))
    return pa.Table.from_batches(batches, schema)
