"""Takes a user's own samples into the pool: every row of the file becomes one row of the pool, readable or not."""

import hashlib
import json
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from schemas.sample import PROMPTS, SAMPLES, Message, to_json
from thresher import ids
from thresher.errors import SourceError
from thresher.sources import BATCH_ROWS, open_arrow, parse_line, plain
from thresher.store import Store, shard_name

log = logging.getLogger(__name__)

JSONL = {".jsonl", ".ndjson", ".json"}
RAW_CHARS = 500
_OURS = ("prompt", "completion", "reference", "family", "finish_reason", "completion_ids", "logprobs")

Row = dict[str, Any]


def ingest(file: Path, store: Store, *, key: str, shard_rows: int = 25_000) -> int:
    """Write `prompts` and `samples/...` from a JSONL or Parquet file with `prompt` and `completion`; returns the shard count.

    A file of up to `shard_rows` rows is one shard in the file's order. A longer one is dealt out by prompt, so that all samples
    of a prompt share a shard; within a shard the file's order holds, and `source_row` says where each row stood. Memory holds one
    shard. Raises SourceError when the file as a whole cannot be read; a single row that cannot be is kept, as `unreadable`.
    """
    done = store.finished("prompts", key)
    if done is not None:
        shards = int(done.facts["shards"])
        if all(store.finished(f"samples/{shard_name(shard)}", key) for shard in range(shards)):
            return shards
    total = _count(file)
    if not total:
        raise SourceError(f"{file}: holds no rows; give a file with prompt and completion")
    shards = max(1, -(-total // shard_rows))
    with tempfile.TemporaryDirectory(prefix="thresher-") as folder:
        _deal(file, Path(folder), shards)
        prompts = _write(Path(folder), store, key, shards)
    store.write_groups(
        "prompts",
        PROMPTS,
        (_prompts(store, shard) for shard in range(shards)),
        key=key,
        facts={"shards": shards, "prompts": prompts, "families": {}},
    )
    return shards


def _deal(file: Path, folder: Path, shards: int) -> None:
    """Spread the file's rows over one Arrow stream per shard, in the file's order."""
    sinks = [pa.OSFile(str(folder / shard_name(shard)), "wb") for shard in range(shards)]
    writers = [pa.ipc.new_stream(sink, SAMPLES) for sink in sinks]
    problems: Counter[str] = Counter()
    first: dict[str, str] = {}
    held: list[list[Row]] = [[] for _ in range(shards)]

    def flush(shard: int) -> None:
        writers[shard].write_table(pa.Table.from_pylist(held[shard], schema=SAMPLES))
        held[shard].clear()

    for number, (where, row, raw) in enumerate(_read(file)):
        made = _pool_row(row, raw, where, number)
        if made["unreadable"]:
            kind = made["unreadable"].removeprefix(f"{where}: ").split(":")[0][:60]
            problems[kind] += 1
            first.setdefault(kind, made["unreadable"])
        shard = int(made["prompt_id"][:15], 16) % shards
        held[shard].append(made)
        if len(held[shard]) >= BATCH_ROWS:
            flush(shard)
    for shard in range(shards):
        flush(shard)
        writers[shard].close()
        sinks[shard].close()
    for kind, count in problems.items():
        log.warning("%d rows cannot be read and stay undecided (%s); the first: %s", count, kind, first[kind])


def _write(folder: Path, store: Store, key: str, shards: int) -> int:
    """Number the samples of each prompt and write the shards; returns the number of prompts."""
    prompts = 0
    for shard in range(shards):
        with pa.OSFile(str(folder / shard_name(shard))) as source:
            table = pa.ipc.open_stream(source).read_all()
        prompt_ids, completions = table["prompt_id"].to_pylist(), table["completion"].to_pylist()
        seen: Counter[str] = Counter()
        repeats: Counter[tuple[str, bytes]] = Counter()
        index, sample_ids = [], []
        for prompt, text in zip(prompt_ids, completions, strict=True):
            index.append(seen[prompt])
            seen[prompt] += 1
            content = (prompt, hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest())
            sample_ids.append(ids.digest("brought", prompt, text, repeats[content]))
            repeats[content] += 1
        table = table.set_column(SAMPLES.get_field_index("index"), SAMPLES.field("index"), pa.array(index, pa.int32()))
        table = table.set_column(SAMPLES.get_field_index("sample_id"), SAMPLES.field("sample_id"), pa.array(sample_ids))
        unreadable = table.num_rows - table["unreadable"].null_count
        prompts += len(seen)
        facts = {
            "samples": table.num_rows,
            "anchors": 0,
            "prompt_tokens": 0,
            "completion_tokens": _tokens(table),
            "seconds": 0.0,
            "engine_seed": None,
            "rows_unreadable": unreadable,
            "prompts": len(seen),
        }
        store.write_table(f"samples/{shard_name(shard)}", table, key=key, facts=facts)
    return prompts


def _tokens(table: pa.Table) -> int:
    lengths = pa.compute.list_value_length(table["completion_ids"])
    return int(pa.compute.sum(lengths).as_py() or 0)


def _prompts(store: Store, shard: int) -> pa.Table:
    """One row per prompt of a shard, in the order of its first sample."""
    table = store.read_table(f"samples/{shard_name(shard)}", PROMPTS.names)
    codes = table["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    _, first = np.unique(codes, return_index=True)
    return table.take(pa.array(np.sort(first)))


def _count(file: Path) -> int:
    if file.suffix in JSONL:
        with file.open("rb") as stream:
            return sum(1 for line in stream if line.strip())
    if file.suffix not in {".parquet", ".pq"}:
        raise SourceError(f"{file}: wanted a .jsonl or .parquet file, found {file.suffix or 'no ending'}; name it by what it is")
    try:
        schema, rows = pq.read_schema(file), pq.read_metadata(file).num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{file}: not a Parquet file: {str(error).splitlines()[0]}") from error
    missing = [name for name in ("prompt", "completion") if name not in schema.names]
    if missing:
        raise SourceError(f"{file}: lacks the column {missing[0]!r}; it has {schema.names}")
    return int(rows)


def _read(file: Path) -> Iterator[tuple[str, Row | SourceError, bytes]]:
    """(where, row or why there is none, the raw line) of every row that is not blank."""
    if file.suffix in JSONL:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    where = f"{file.name}:{number}"
                    try:
                        yield where, parse_line(line, where), line
                    except SourceError as error:
                        yield where, error, line
        return
    number = 0
    for batch in open_arrow(file).to_batches(batch_size=BATCH_ROWS):
        for row in batch.to_pylist():
            yield f"{file.name} row {number}", row, b""
            number += 1


def _pool_row(row: Row | SourceError, raw: bytes, where: str, number: int) -> Row:
    """A row of the pool; its index and sample_id are given later."""
    try:
        if isinstance(row, SourceError):
            raise row
        return _readable(row, where, number)
    except SourceError as error:
        text = raw.decode("utf-8", "replace")
        if not raw and isinstance(row, dict):
            text = json.dumps(row, default=str)
        content = hashlib.sha256(raw or text.encode()).hexdigest()
        return _base(number) | {
            "prompt_id": ids.digest("unreadable", content, number),
            "family": "default",
            "messages": [],
            "metadata": to_json({"row": number, "where": where, "raw": text[:RAW_CHARS]}),
            "completion": "",
            "unreadable": str(error),
        }


def _readable(row: Row, where: str, number: int) -> Row:
    for name in ("prompt", "completion"):
        if row.get(name) is None:
            raise SourceError(f"{where}: lacks {name}; it has {sorted(row)}")
    messages = _messages(row["prompt"], f"{where}: prompt")
    completion = _completion(row["completion"], f"{where}: completion")
    reference = plain(row.get("reference"), f"{where}: reference")
    family = row.get("family")
    if family is not None and not isinstance(family, str):
        raise SourceError(f"{where}: family: wanted text, found {type(family).__name__}")
    metadata = {name: plain(value, f"{where}: {name}") for name, value in row.items() if name not in _OURS}
    made = _base(number) | {
        "prompt_id": ids.prompt_id(messages, reference),
        "family": family or "default",
        "messages": [{"role": message.role, "content": message.content} for message in messages],
        "reference": None if reference is None else to_json(reference),
        "metadata": to_json(metadata),
        "completion": completion,
        "finish_reason": row["finish_reason"] if isinstance(row.get("finish_reason"), str) else None,
    }
    tokens, logprobs = row.get("completion_ids"), row.get("logprobs")
    if isinstance(tokens, list) and all(isinstance(token, int) and 0 <= token < 2**31 for token in tokens):
        made["completion_ids"] = tokens
        if isinstance(logprobs, list) and len(logprobs) == len(tokens) and all(isinstance(one, float | int) for one in logprobs):
            made |= {"logprobs": logprobs, "cumulative_logprob": float(sum(logprobs))}
    _encodable(made, where)
    return made


def _base(number: int) -> Row:
    return dict.fromkeys(SAMPLES.names) | {
        "sample_id": "",
        "index": 0,
        "anchor": False,
        "engine": "brought",
        "source_row": number,
    }


def _encodable(made: Row, where: str) -> None:
    """A lone surrogate is valid in JSON's escapes but in no UTF-8 text."""
    try:
        to_json([made["completion"], made["messages"], made["reference"], made["metadata"], made["family"]]).encode()
    except UnicodeEncodeError as error:
        raise SourceError(
            f"{where}: holds a lone surrogate (\\u{ord(error.object[error.start]):04x}), which is no text"
        ) from error


def _messages(value: Any, where: str) -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message("user", value),)
    if not isinstance(value, list) or not value:
        raise SourceError(f"{where}: wanted text or a list of messages, found {type(value).__name__}")
    for one in value:
        if not isinstance(one, dict) or not isinstance(one.get("role"), str) or not isinstance(one.get("content"), str):
            raise SourceError(f"{where}: wanted messages with the texts role and content, found {str(one)[:60]!r}")
    return tuple(Message(one["role"], one["content"]) for one in value)


def _completion(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    messages = _messages(value, where) if isinstance(value, list) else ()
    said = [message.content for message in messages if message.role == "assistant"]
    if not said:
        raise SourceError(f"{where}: wanted text or messages that hold an assistant's, found {type(value).__name__}")
    return said[-1]
