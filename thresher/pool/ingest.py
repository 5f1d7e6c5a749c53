"""Imports a user's own samples into the pool: every row of the file becomes one row of the pool, readable or not.

The rows are distributed by prompt to one spool per shard (Arrow record batches in the temporary directory: TMPDIR needs as much
room as the samples take), then the shards are written one by one. Memory holds one shard.
"""

import hashlib
import json
import logging
import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from filters.reasoning import USUAL, Marking, take_apart
from schemas.recipe import EVERY_FAMILY
from schemas.sample import PROMPTS, SAMPLES, Message, to_json
from schemas.suggest import did_you_mean
from thresher import ids
from thresher.errors import SourceError, StoreError
from thresher.inputs.json_values import json_value, valid_text
from thresher.inputs.sources import Row, arrow_rows, parse_line, read_lines
from thresher.pool.rows import completion_parts, parts_of_prompts
from thresher.pool.store import Store, shard_name

log = logging.getLogger(__name__)

RAW_CHARS = 500
"""Characters of an unreadable row that are kept in its metadata."""
HELD_BYTES = 64 << 20
"""Rows are collected until they fill a shard or this many bytes; then they go to their spools."""

FLOAT32_MAX = 3.4e38

_NEEDED = ("prompt", "completion")
_OURS = frozenset({*_NEEDED, "reference", "family"})
_JSONL, _PARQUET = {".jsonl", ".ndjson"}, {".parquet", ".pq"}

Raw = tuple[str, dict[str, int], Row | SourceError, bytes]


def ingest(file: Path, store: Store, *, key: str, marking: Marking | None = USUAL, shard_rows: int = 25_000) -> int:
    """Write `samples/00000` ... and `prompts` from a JSONL or Parquet file; returns the number of shards.

    A row has `prompt` (text, or a list of {role, content}), `completion` (text, or messages, of which the last assistant message
    counts) and may have `reference` (any JSON), `family`, `finish_reason`, `completion_ids` and `logprobs`. Other columns become
    its metadata; NaN and infinities become texts there. The column `unreadable` gives the reason of a row that cannot be read.

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
        raise SourceError(f"{file}: no such file; wanted a .jsonl or .parquet file with prompt and completion{hint}")
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
        raise SourceError(f"{file}: holds no rows; wanted rows with prompt and completion")
    return rows


def _require_columns(file: Path, columns: list[str], combine: Any) -> None:
    """Raise SourceError unless all or any (`combine`) of the needed columns are present."""
    if not combine(name in columns for name in _NEEDED):
        missing = next(name for name in _NEEDED if name not in columns)
        hint = did_you_mean(missing, columns)
        raise SourceError(f"{file}: no column {missing!r}; it has {', '.join(columns)}; rename yours{hint}")


def _rows(file: Path) -> Iterator[Raw]:
    """(place, line or row number, the row or the error, its bytes if it is a line) of every row that is not blank."""
    if file.suffix.lower() in _PARQUET:
        for number, (where, row) in enumerate(arrow_rows(file, file.name)):
            yield where, {"row": number}, row, b""
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
        pool_row = _pool_row(where, place, row, raw) | {"source_row": number}
        if pool_row["unreadable"] is not None:
            kind = pool_row["unreadable"].removeprefix(f"{where}: ").partition(":")[0]
            kinds[kind] += 1
            first.setdefault(kind, pool_row["unreadable"])
        if isinstance(row, dict) and not any(name in columns for name in _NEEDED):
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
    for prompt, completion in zip(prompt_ids, table["completion"].to_pylist(), strict=True):
        index.append(drawn[prompt])
        drawn[prompt] += 1
        content = hashlib.sha256(f"{prompt}{completion}".encode()).digest()
        sample_ids.append(ids.digest("brought", prompt, completion, copies[content]))
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


# -- rows --------------------------------------------------------------------------------------------------------------


def _pool_row(where: str, place: dict[str, int], row: Row | SourceError, raw: bytes) -> Row:
    """A row of the pool without its numbers. An unreadable row has the hash of its bytes as prompt_id for now."""
    pool_row: Row = {"sample_id": "", "index": 0, "anchor": False, "engine": "brought", "unreadable": None}
    pool_row |= {"family": "default", "messages": [], "completion": ""}
    try:
        if isinstance(row, SourceError):
            raise row
        _fill(pool_row, row, where)
    except (SourceError, RecursionError) as error:
        content = raw or json.dumps(row, sort_keys=True, default=str).encode()
        pool_row["prompt_id"] = hashlib.sha256(content).hexdigest()
        pool_row["metadata"] = to_json(place | {"raw": content.decode("utf-8", "replace")[:RAW_CHARS]})
        pool_row["unreadable"] = str(error) if isinstance(error, SourceError) else f"{where}: nested too deeply"
        pool_row |= {"completion": "", "reference": None}
    return pool_row


def _fill(pool_row: Row, row: Row, where: str) -> None:
    """Fill the pool's row from a row, in place, so that what was read before a fault is kept."""
    family = row.get("family")
    if family is not None and not isinstance(family, str):
        raise SourceError(f"{where}: bad family: wanted text, found {_short(family)}")
    pool_row["family"] = valid_text(family, f"{where}: bad family") if family else "default"
    if pool_row["family"] == EVERY_FAMILY:
        raise SourceError(f"{where}: bad family: {EVERY_FAMILY!r} means all families together; use another name")
    pool_row["messages"] = _messages(_required(row, "prompt", where), f"{where}: bad prompt")
    pool_row["completion"] = _completion(_required(row, "completion", where), f"{where}: bad completion")
    reference = json_value(row.get("reference"), f"{where}: bad reference")
    pool_row["reference"] = None if reference is None else to_json(reference)
    engine_columns = _engine_columns(row, where)
    pool_row |= engine_columns
    rest = {name: value for name, value in row.items() if name not in _OURS and name not in engine_columns}
    pool_row["metadata"] = to_json(json_value(rest, f"{where}: bad metadata", finite=False))
    pool_row["prompt_id"] = ids.prompt_id([Message(**message) for message in pool_row["messages"]], reference)


def _required(row: Row, name: str, where: str) -> Any:
    if row.get(name) is None:
        hint = did_you_mean(name, row.keys() - _OURS)
        raise SourceError(f"{where}: no {name}: the row has {', '.join(row) or 'no fields'}{hint}")
    return row[name]


def _messages(value: Any, where: str) -> list[dict[str, str]]:
    if isinstance(value, str):
        return [{"role": "user", "content": valid_text(value, where)}]
    wanted = "wanted text, or a list of messages with the texts role and content"
    if not isinstance(value, list) or not value:
        raise SourceError(f"{where}: {wanted}; found {_short(value)}")
    for message in value:
        if not isinstance(message, dict) or not all(isinstance(message.get(name), str) for name in ("role", "content")):
            raise SourceError(f"{where}: {wanted}; found the message {_short(message)}")
        further = [name for name, inner in message.items() if inner is not None and name not in ("role", "content")]
        if further:
            raise SourceError(f"{where}: {wanted}, and nothing else; found {further[0]}, which would be lost")
    return [{name: valid_text(message[name], where) for name in ("role", "content")} for message in value]


def _completion(value: Any, where: str) -> str:
    if isinstance(value, str):
        return valid_text(value, where)
    if isinstance(value, list):
        answers = [turn.get("content") for turn in value if isinstance(turn, dict) and turn.get("role") == "assistant"]
        if answers and isinstance(answers[-1], str):
            return valid_text(answers[-1], where)
    raise SourceError(f"{where}: wanted text, or messages of which the last assistant's is text; found {_short(value)}")


def _engine_columns(row: Row, where: str) -> Row:
    """finish_reason, completion_ids and logprobs where they are null or as the pool defines them; others stay metadata."""
    columns: Row = {name: None for name in ("finish_reason", "completion_ids", "logprobs") if row.get(name) is None}
    if isinstance(reason := row.get("finish_reason"), str):
        columns["finish_reason"] = valid_text(reason, f"{where}: bad finish_reason")
    tokens, logprobs = row.get("completion_ids"), row.get("logprobs")
    if isinstance(tokens, list) and isinstance(logprobs, list) and len(tokens) != len(logprobs):
        return columns
    if isinstance(tokens, list) and all(type(token) is int and 0 <= token < 2**31 for token in tokens):
        columns["completion_ids"] = tokens
    if isinstance(logprobs, list) and all(type(value) in (int, float) and abs(value) < FLOAT32_MAX for value in logprobs):
        columns |= {"logprobs": logprobs, "cumulative_logprob": math.fsum(logprobs)}
    return columns


def _short(value: Any) -> str:
    shown = json.dumps(value, default=str)
    return shown if len(shown) <= 60 else shown[:57] + "..."
