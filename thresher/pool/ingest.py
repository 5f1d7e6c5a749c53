"""Takes a user's own samples into the pool: every row of the file becomes one row of the pool, readable or not.

Its rows are dealt out by prompt to one spool per shard (Arrow record batches in the temporary directory, so TMPDIR
wants as much room as the samples take), and then the shards are written one by one. Memory holds one shard.
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

from schemas.recipe import EVERY_FAMILY
from schemas.sample import PROMPTS, SAMPLES, Message, to_json
from schemas.suggest import did_you_mean
from thresher import ids
from thresher.errors import SourceError, StoreError
from thresher.inputs.json_values import json_value, valid_text
from thresher.inputs.sources import Row, arrow_rows, parse_line, read_lines
from thresher.pool.store import Store, shard_name

log = logging.getLogger(__name__)

RAW_CHARS = 500
"""Characters of an unreadable row that are kept."""
HELD_BYTES = 64 << 20
"""Rows are held until they are as many as a shard's, or this big; then they go to their spools."""

FLOAT32_MAX = 3.4e38

_NEEDED = ("prompt", "completion")
_OURS = frozenset({*_NEEDED, "reference", "family"})
_JSONL, _PARQUET = {".jsonl", ".ndjson"}, {".parquet", ".pq"}

Raw = tuple[str, dict[str, int], Row | SourceError, bytes]


def ingest(file: Path, store: Store, *, key: str, shard_rows: int = 25_000) -> int:
    """Write `samples/00000` ... and `prompts` from a JSONL or Parquet file; returns the number of shards.

    A row has `prompt` (text, or a list of {role, content}), `completion` (text, or messages of which the last
    assistant's counts) and may have `reference` (any JSON), `family`, `finish_reason`, `completion_ids` and `logprobs`.
    Further columns are its metadata, where NaN and infinities become texts. A row that cannot be read says why in
    `unreadable`.

    A file of up to `shard_rows` rows is one shard. A longer one is dealt out by the hash of the prompt, so that a shard
    holds whole prompts. Rows keep the file's order, and `source_row` counts them there from 0. What the store has
    finished is not written again. Raises SourceError for a file that is missing, empty, of another kind or without the
    columns.
    """
    done = store.finished("prompts", key)
    if done is not None:
        shards = int(done.facts["shards"])
        if all(store.finished(f"samples/{shard_name(shard)}", key) for shard in range(shards)):
            return shards
    shards = -(-_count(file) // shard_rows)
    with tempfile.TemporaryDirectory(prefix="thresher-") as temporary:
        folder = Path(temporary)
        try:
            _deal(file, folder, shards, shard_rows)
            prompts = sum(_write(folder, store, shard, key) for shard in range(shards))
        except OSError as error:
            raise StoreError(
                f"{folder}: cannot hold the rows of {file}: {error.strerror or error}; "
                "set TMPDIR to a directory with as much room as the samples take"
            ) from error
        groups = (_spooled(folder / f"{shard}.prompts", PROMPTS) for shard in range(shards))
        facts = {"shards": shards, "prompts": prompts}
        store.write_groups("prompts", PROMPTS, groups, key=key, facts=facts)
    return shards


# -- the file ----------------------------------------------------------------------------------------------------------


def _count(file: Path) -> int:
    """Rows of the file. Raises SourceError where the file as a whole is at fault."""
    if not file.is_file():
        hint = did_you_mean(file.name, (one.name for one in file.parent.glob("*")))
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
        _needed(file, metadata.schema.to_arrow_schema().names, all)
    else:
        raise SourceError(f"{file}: wanted a .jsonl or .parquet file, found {ending or 'no ending'}; convert it")
    if not rows:
        raise SourceError(f"{file}: holds no rows; wanted rows with prompt and completion")
    return rows


def _needed(file: Path, columns: list[str], there: Any) -> None:
    """Raise SourceError unless all (or any, as `there` says) of the needed columns are there."""
    if not there(name in columns for name in _NEEDED):
        missing = next(name for name in _NEEDED if name not in columns)
        hint = did_you_mean(missing, columns)
        raise SourceError(f"{file}: no column {missing!r}; it has {', '.join(columns)}; rename yours to it{hint}")


def _rows(file: Path) -> Iterator[Raw]:
    """(where, line or row number, the row or why there is none, its bytes if it is a line) of every row not blank."""
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


def _deal(file: Path, folder: Path, shards: int, shard_rows: int) -> None:
    """Spread the file's rows over one spool per shard, in the file's order; log what cannot be read."""
    held: dict[int, list[Row]] = {}
    waiting = waiting_bytes = 0
    kinds: Counter[str] = Counter()
    first: dict[str, str] = {}
    columns: dict[str, None] = {}

    def flush() -> None:
        for shard, made in held.items():
            with (folder / f"{shard}.samples").open("ab") as sink:
                sink.write(pa.RecordBatch.from_pylist(made, schema=SAMPLES).serialize())
        held.clear()

    for number, (where, place, row, raw) in enumerate(_rows(file)):
        made = _pool_row(where, place, row, raw) | {"source_row": number}
        if made["unreadable"] is not None:
            kind = made["unreadable"].removeprefix(f"{where}: ").partition(":")[0]
            kinds[kind] += 1
            first.setdefault(kind, made["unreadable"])
        if isinstance(row, dict) and not any(name in columns for name in _NEEDED):
            columns |= dict.fromkeys(row)
        held.setdefault(int(made["prompt_id"][:15], 16) % shards, []).append(made)
        waiting, waiting_bytes = waiting + 1, waiting_bytes + len(raw) + len(made["completion"])
        if waiting >= shard_rows or waiting_bytes >= HELD_BYTES:
            flush()
            waiting = waiting_bytes = 0
    flush()
    if columns:
        _needed(file, list(columns), any)
    for kind, count in kinds.items():
        log.warning("%s: %d rows cannot be read (%s) and stay undecided; the first: %s", file, count, kind, first[kind])


def _write(folder: Path, store: Store, shard: int, key: str) -> int:
    """Number the samples of a shard, write it unless it is there, spool its prompts; return how many those are."""
    table = _spooled(folder / f"{shard}.samples", SAMPLES)
    unreadable = pc.is_valid(table["unreadable"])
    prompt_ids, seen = [], Counter[str]()
    for prompt, torn in zip(table["prompt_id"].to_pylist(), unreadable.to_pylist(), strict=True):
        prompt_ids.append(ids.digest("unreadable", prompt, seen[prompt]) if torn else prompt)
        seen[prompt] += torn
    index, sample_ids, drawn, same = [], [], Counter[str](), Counter[bytes]()
    for prompt, completion in zip(prompt_ids, table["completion"].to_pylist(), strict=True):
        index.append(drawn[prompt])
        drawn[prompt] += 1
        content = hashlib.sha256(f"{prompt}{completion}".encode()).digest()
        sample_ids.append(ids.digest("brought", prompt, completion, same[content]))
        same[content] += 1
    for name, values in (("prompt_id", prompt_ids), ("sample_id", sample_ids), ("index", index)):
        at = SAMPLES.get_field_index(name)
        table = table.set_column(at, SAMPLES.field(at), pa.array(values, SAMPLES.field(at).type))
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
    facts = {"rows_unreadable": pc.sum(unreadable).as_py() or 0, "prompts": prompts.num_rows}
    facts |= {} if tokens is None else {"completion_tokens": tokens}
    found = store.finished(name, key)
    if found is None or (found.rows, found.facts) != (table.num_rows, facts):
        store.write_table(name, table, key=key, facts=facts)
        log.info("%s: %d rows, %s", name, table.num_rows, facts)
    return int(prompts.num_rows)


def _spooled(path: Path, schema: pa.Schema) -> pa.Table:
    """All record batches of a spool; none where there is no spool, because no prompt fell into the shard."""
    batches = []
    if path.exists():
        with pa.OSFile(str(path)) as source:
            while source.tell() < source.size():
                batches.append(pa.ipc.read_record_batch(pa.ipc.read_message(source), schema))
    return pa.Table.from_batches(batches, schema)


# -- rows --------------------------------------------------------------------------------------------------------------


def _pool_row(where: str, place: dict[str, int], row: Row | SourceError, raw: bytes) -> Row:
    """A row of the pool, but for its numbers. The prompt_id of an unreadable one is the hash of its bytes as yet."""
    made: Row = {"sample_id": "", "index": 0, "anchor": False, "engine": "brought", "unreadable": None}
    made |= {"family": "default", "messages": [], "completion": ""}
    try:
        if isinstance(row, SourceError):
            raise row
        _fill(made, row, where)
    except (SourceError, RecursionError) as error:
        content = raw or json.dumps(row, sort_keys=True, default=str).encode()
        made["prompt_id"] = hashlib.sha256(content).hexdigest()
        made["metadata"] = to_json(place | {"raw": content.decode("utf-8", "replace")[:RAW_CHARS]})
        made["unreadable"] = str(error) if isinstance(error, SourceError) else f"{where}: nested too deeply"
        made |= {"completion": "", "reference": None}
    return made


def _fill(made: Row, row: Row, where: str) -> None:
    """Put what a row holds into the pool's row, in place, so that what was read before a fault is kept."""
    family = row.get("family")
    if family is not None and not isinstance(family, str):
        raise SourceError(f"{where}: bad family: wanted text, found {_short(family)}")
    made["family"] = valid_text(family, f"{where}: bad family") if family else "default"
    if made["family"] == EVERY_FAMILY:
        raise SourceError(f"{where}: bad family: {EVERY_FAMILY!r} stands for all families together; give it another name")
    made["messages"] = _messages(_given(row, "prompt", where), f"{where}: bad prompt")
    made["completion"] = _completion(_given(row, "completion", where), f"{where}: bad completion")
    reference = json_value(row.get("reference"), f"{where}: bad reference")
    made["reference"] = None if reference is None else to_json(reference)
    taken = _engine_columns(row, where)
    made |= taken
    rest = {name: value for name, value in row.items() if name not in _OURS and name not in taken}
    made["metadata"] = to_json(json_value(rest, f"{where}: bad metadata", finite=False))
    made["prompt_id"] = ids.prompt_id([Message(**one) for one in made["messages"]], reference)


def _given(row: Row, name: str, where: str) -> Any:
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
    for one in value:
        if not isinstance(one, dict) or not all(isinstance(one.get(name), str) for name in ("role", "content")):
            raise SourceError(f"{where}: {wanted}; found the message {_short(one)}")
        further = [name for name, inner in one.items() if inner is not None and name not in ("role", "content")]
        if further:
            raise SourceError(f"{where}: {wanted}, and nothing else; found {further[0]}, which would be lost")
    return [{name: valid_text(one[name], where) for name in ("role", "content")} for one in value]


def _completion(value: Any, where: str) -> str:
    if isinstance(value, str):
        return valid_text(value, where)
    if isinstance(value, list):
        said = [one.get("content") for one in value if isinstance(one, dict) and one.get("role") == "assistant"]
        if said and isinstance(said[-1], str):
            return valid_text(said[-1], where)
    raise SourceError(f"{where}: wanted text, or messages of which the last assistant's is text; found {_short(value)}")


def _engine_columns(row: Row, where: str) -> Row:
    """finish_reason, completion_ids and logprobs where they are null or what the pool means; else they are metadata."""
    taken: Row = {name: None for name in ("finish_reason", "completion_ids", "logprobs") if row.get(name) is None}
    if isinstance(reason := row.get("finish_reason"), str):
        taken["finish_reason"] = valid_text(reason, f"{where}: bad finish_reason")
    tokens, logprobs = row.get("completion_ids"), row.get("logprobs")
    if isinstance(tokens, list) and isinstance(logprobs, list) and len(tokens) != len(logprobs):
        return taken
    if isinstance(tokens, list) and all(type(one) is int and 0 <= one < 2**31 for one in tokens):
        taken["completion_ids"] = tokens
    if isinstance(logprobs, list) and all(type(one) in (int, float) and abs(one) < FLOAT32_MAX for one in logprobs):
        taken |= {"logprobs": logprobs, "cumulative_logprob": math.fsum(logprobs)}
    return taken


def _short(value: Any) -> str:
    shown = json.dumps(value, default=str)
    return shown if len(shown) <= 60 else shown[:57] + "..."
