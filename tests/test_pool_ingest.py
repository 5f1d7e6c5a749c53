"""A user's own samples become a pool: one row per row, whole prompts to a shard, nothing lost and nothing silent."""

import gzip
import json
import logging
import math
import random
import re
import tracemalloc
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.chunks import row_bytes
from helpers import known
from helpers.packed import zstd
from helpers.runs import filter_rows
from schemas.sample import PROMPTS, SAMPLES, Message
from thresher import ids
from thresher.auditing.count_run import count
from thresher.auditing.statistics import statistics
from thresher.errors import SourceError
from thresher.inputs.files.named_files import NamedFile, all_named, named_files
from thresher.pool import ingest as ingest_module
from thresher.pool.ingest import ingest
from thresher.pool.run import open_run
from thresher.pool.store import Store, shard_name

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}]


def taken(folder: Path, content: Any, *, name: str = "x.jsonl", **settings: Any) -> Any:
    """The store after ingesting a file of these bytes, or of these rows as JSONL."""
    if isinstance(content, list):
        content = b"".join(json.dumps(row).encode() + b"\n" for row in content)
    (folder / name).write_bytes(content)
    return stored(folder, name, **settings)


def stored(folder: Path, name: str = "x.jsonl", **settings: Any) -> Any:
    store = Store(folder / "run")
    ingest(named_files(folder / name), store, key="k", **settings)
    return store


def pool(store: Store) -> Any:
    """All rows of the pool, by shards."""
    shards = known(store.entry("prompts")).facts["shards"]
    tables = [store.read_table(f"samples/{shard_name(shard)}") for shard in range(shards)]
    assert all(table.schema.equals(SAMPLES, check_metadata=True) for table in tables)
    return pa.concat_tables(tables).to_pylist()


def turns(messages: Any) -> Any:
    """The messages of a row of the pool with the parts that they have."""
    return [Message(**message).parts for message in messages]


def test_a_prompt_of_two_families_is_counted_in_each(tmp_path: Path) -> None:
    """Two models asked the same: one always right, one never."""
    rows = [
        {"prompt": f"{n}?", "reference": str(n), "completion": str(n if family == "a" else n + 1), "family": family}
        for n in range(9)
        for family in "ab"
        for _ in range(4)
    ]
    run = open_run(filter_rows(tmp_path, rows, {"filters": [{"name": "exact_answer"}]}))

    found = count(run)

    assert [(family.family, family.prompts, family.pass_rate) for family in found.families] == [("a", 9, 1.0), ("b", 9, 0.0)]
    assert (found.total.prompts, found.total.pass_rate) == (18, 0.5)
    assert [point.value for point in statistics(run).pass_at_k if point.k == 1] == [1.0, 0.0, 0.5]


def test_text_prompts_and_all_columns_arrive(tmp_path: Path) -> None:
    """What the pool knows goes into its columns; what it does not know is metadata, untouched."""
    further = {"score": 0.5, "metadata": {"a": None}, "tags": [1, "2"], "ü": "null"}
    engine = {"finish_reason": "length", "completion_ids": [5, 6], "logprobs": [-0.5, -1]}
    row = {"prompt": "1+1?", "completion": "2", "reference": {"x": 2}, "family": "sums", **engine, **further}
    store = taken(tmp_path, [row])
    (found,) = pool(store)

    prompt_id = ids.prompt_id([Message("user", "1+1?")], {"x": 2})
    wanted = {
        "sample_id": ids.digest("brought", prompt_id, "2", 0), "prompt_id": prompt_id, "family": "sums",
        "index": 0, "anchor": False, "messages": [{"role": "user", "content": "1+1?"}], "reference": '{"x":2}',
        "completion": "2", "answer": "2", "cumulative_logprob": -1.5, "engine": "brought", "source_row": 0, **engine,
    }  # fmt: skip
    assert json.loads(found.pop("metadata")) == further
    found["messages"] = turns(found["messages"])
    assert {name: value for name, value in found.items() if value is not None} == wanted
    assert store.entry("samples/00000").facts == {"rows_unreadable": 0, "prompts": 1, "completion_tokens": 2, "parts": []}
    assert store.entry("prompts").facts == {"shards": 1, "prompts": 1, "parts": []}


def test_messages_and_defaults(tmp_path: Path) -> None:
    """The last assistant's message is the completion, and what comes before it was there when it was drawn; there is no reference
    and the family is default."""
    said = [{"role": role, "content": text} for role, text in (("assistant", "3"), ("tool", "no"), ("assistant", "2"))]
    (found,) = pool(taken(tmp_path, [{"prompt": CHAT, "completion": said, "finish_reason": None}]))

    assert turns(found["messages"]) == [*CHAT, *said[:2]]
    assert (found["completion"], found["family"], found["reference"], found["metadata"]) == ("2", "default", None, "{}")


def test_samples_are_counted_per_prompt_in_the_order_of_the_file(tmp_path: Path) -> None:
    """A blank line is no row. The same completion twice is two samples with two ids."""
    lines = [json.dumps({"prompt": text[0], "completion": text[1]}) for text in ("ax", "bx", "ax", "ay")]
    store = taken(tmp_path, "\n\n".join(lines).encode())
    found = pool(store)

    assert [(row["source_row"], row["index"]) for row in found] == [(0, 0), (1, 0), (2, 1), (3, 2)]
    assert len({row["sample_id"] for row in found}) == 4
    prompts = store.read_group("prompts", 0)
    assert prompts.schema.equals(PROMPTS, check_metadata=True)
    assert [turns[0]["content"] for turns in prompts["messages"].to_pylist()] == ["a", "b"]


def rows_of(prompts: Any, each: Any) -> Any:
    return [{"prompt": f"p{i % prompts}", "completion": f"c{i % 7}", "i": i} for i in range(prompts * each)]


def test_sample_ids_do_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    """Nor on how many shards it makes; unreadable rows included."""
    rows = [*rows_of(10, 9), {"prompt": "a"}, {"prompt": "a"}, {"prompt": "b"}]
    first = pool(taken(tmp_path, rows))
    (tmp_path / "other").mkdir()
    random.Random(0).shuffle(rows)
    second = pool(taken(tmp_path / "other", rows, shard_rows=20))

    assert sorted(row["sample_id"] for row in first) == sorted(row["sample_id"] for row in second)
    assert len({row["sample_id"] for row in first}) == len({row["prompt_id"] for row in first}) + 80 == 93


def test_shards_hold_whole_prompts_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Every row is there once; the prompts of shard i are row group i."""
    store = taken(tmp_path, rows_of(20, 9), shard_rows=50)
    tables = [store.read_table(f"samples/{shard_name(shard)}").to_pylist() for shard in range(4)]

    assert sorted(row["source_row"] for table in tables for row in table) == list(range(180))
    for shard, table in enumerate(tables):
        assert [row["source_row"] for row in table] == sorted(row["source_row"] for row in table)
        prompts = list(dict.fromkeys(row["prompt_id"] for row in table))
        assert store.read_group("prompts", shard)["prompt_id"].to_pylist() == prompts
        assert store.entry(f"samples/{shard_name(shard)}").facts == {"rows_unreadable": 0, "prompts": len(prompts), "parts": []}
    assert store.entry("prompts").facts == {"shards": 4, "prompts": 20, "parts": []}


def test_shard_without_prompts_is_an_empty_one(tmp_path: Path) -> None:
    """One prompt alone can fill one shard only."""
    store = taken(tmp_path, rows_of(1, 30), shard_rows=10)
    sizes = [store.entry(f"samples/{shard_name(shard)}").rows for shard in range(3)]

    assert sorted(sizes) == [0, 0, 30]
    assert [store.read_group("prompts", shard).num_rows for shard in range(3)] == [size // 30 for size in sizes]


def test_finished_shards_are_not_written_again(tmp_path: Path) -> None:
    """A shard that is gone comes back the same; a finished ingest does not even read the file."""
    store = taken(tmp_path, rows_of(20, 9), shard_rows=50)
    run = tmp_path / "run"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")}
    gone = run / "samples" / "00002.parquet"
    content = gone.read_bytes()
    (run / "samples" / "00002.json").unlink()
    gone.unlink()
    stored(tmp_path, shard_rows=50)

    assert gone.read_bytes() == content
    changed = {path.name for path, when in before.items() if path.stat().st_mtime_ns != when}
    assert changed == {"00002.parquet", "prompts.parquet"}
    (tmp_path / "x.jsonl").unlink()
    assert ingest([NamedFile(tmp_path / "x.jsonl", "x.jsonl", "x.jsonl")], store, key="k") == 4


GOOD = {"prompt": "1+1?", "completion": "2"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"prompt": "a"', "not JSON: "),
        (b'["a", "b"]', "not an object: found list"),
        (b'{"prompt": "\xff", "completion": "b"}', "not UTF-8: byte 0xff in column 13"),
        (b'{"completion": "b", "promt": "a"}', "no prompt: the row has completion, promt; did you mean promt?"),
        (b'{"prompt": "a", "completion": null}', "no completion: the row has prompt, completion"),
        (b'{"prompt": 1, "completion": "b"}', "bad prompt: wanted a list of messages with role and content"),
        (b'{"prompt": [], "completion": "b"}', "bad prompt: wanted a list of messages"),
        (b'{"prompt": [{"role": "user"}], "completion": "b"}', "bad prompt: turn 0: the turn of the user is empty"),
        (
            b'{"prompt": [{"role": "user", "content": "b", "tools": [1]}], "completion": "b"}',
            "bad prompt: turn 0: tools of a message cannot be carried; leave the row out",
        ),
        (b'{"prompt": [{"role": "a", "content": "b"}], "completion": "b"}', "bad prompt: turn 0: unknown role 'a'; wanted"),
        (b'{"prompt": [{"role": "system", "content": "b"}], "completion": "b"}', "bad prompt: no turn of the user; found"),
        (b'{"prompt": "a", "completion": 2}', "bad completion: wanted a list of messages"),
        (b'{"messages": [{"role": "user", "content": "b"}]}', "bad messages: no turn of the assistant, which would be"),
        (b'{"messages": [{"role": "assistant", "content": "b"}]}', "bad messages: no turn of the user; found no turns"),
        (b'{"prompt": "a", "completion": "b", "tools": [{"name": 1}]}', "bad tools: tool 0: wanted a list of {type: function"),
        (b'{"prompt": "a", "completion": "b", "chat_template_kwargs": 3}', "bad chat_template_kwargs: wanted an object of"),
        (b'{"prompt": "a", "completion": [{"role": "user", "content": "b"}]}', "bad completion: wanted text, or"),
        (b'{"prompt": "a", "completion": "\\ud800"}', "bad completion: \\ud800 is half of a surrogate pair"),
        (b'{"prompt": "a", "completion": "b", "reference": [NaN]}', "bad reference: nan is not a number in JSON"),
        (b'{"prompt": "a", "completion": "b", "family": 3}', "bad family: wanted text, found 3"),
        (b'{"prompt": "a", "completion": "b", "x": "\\udfff"}', "bad metadata: \\udfff is half of"),
    ],
    ids=[
        "torn", "list", "latin-1", "no prompt", "null completion", "number", "no messages", "no content", "tools of a turn",
        "role", "no user", "number said", "no answer", "no question", "bad tool", "bad arguments",
        "nothing said", "surrogate", "nan", "family", "metadata",
    ],
)  # fmt: skip
def test_unreadable_row_is_kept_with_its_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture, line: bytes, said: str) -> None:
    """It is one row of the pool, in its place, and no prompt of the plan."""
    good = json.dumps(GOOD).encode()
    store = taken(tmp_path, b"\n".join([good, b"", line, good]))
    first, torn, last = pool(store)

    assert torn["unreadable"].startswith(f"x.jsonl:3: {said}")
    assert (torn["completion"], torn["reference"], torn["source_row"], torn["index"]) == ("", None, 1, 0)
    assert json.loads(torn["metadata"]) == {"line": 3, "raw": line.decode("utf-8", "replace")}
    assert [first["unreadable"], last["unreadable"], last["index"]] == [None, None, 1]
    assert store.entry("samples/00000").facts == {"rows_unreadable": 1, "prompts": 1, "parts": []}
    (record,) = caplog.records
    assert "1 rows cannot be read" in record.getMessage()
    assert record.getMessage().endswith(f"the first: {torn['unreadable']}")


def test_unreadable_row_keeps_what_could_be_read(tmp_path: Path) -> None:
    """Its prompt, so that a person can find it; but its id is that of its bytes, and its occurrence among them."""
    rows = [GOOD, {"prompt": CHAT, "family": "sums"}, {"prompt": CHAT, "family": "sums"}]
    _, first, second = pool(taken(tmp_path, rows))

    assert (turns(first["messages"]), first["family"]) == (CHAT, "sums")
    assert first["prompt_id"] != second["prompt_id"]


def test_problems_are_logged_once_per_kind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With how many rows have it and the first of them. A quoted row is cut."""
    caplog.set_level(logging.WARNING)
    content = b'{"a\n' + b'{"prompt": "a"}\n' * 3 + b"nul\n" + b"x" * 2000 + b"\n"
    taken(tmp_path, content, allow_empty=True)

    torn, lacking = (record.getMessage().partition("x.jsonl: ")[2] for record in caplog.records)
    assert torn.startswith("3 rows cannot be read (not JSON) and are undecided; the first: x.jsonl:1: not JSON: ")
    assert lacking.startswith("3 rows cannot be read (no completion) and are undecided; the first: x.jsonl:2: ")
    assert len(json.loads(pool(Store(tmp_path / "run"))[-1]["metadata"])["raw"]) == 500


@pytest.mark.parametrize(
    "engine",
    [
        {"completion_ids": [1, 2], "logprobs": [-1.0]}, {"completion_ids": [-1]}, {"completion_ids": "ab"},
        {"logprobs": ["x"]}, {"logprobs": [1e300]}, {"finish_reason": 3},
    ],
    ids=["lengths", "negative", "text", "no number", "too big", "reason"],
)  # fmt: skip
def test_engine_columns_of_another_kind_stay_metadata(tmp_path: Path, engine: dict[str, Any]) -> None:
    """They are the user's, whatever they mean; the row is judged all the same."""
    (found,) = pool(taken(tmp_path, [{**GOOD, **engine}]))

    assert json.loads(found["metadata"]) == engine
    assert (found["completion_ids"], found["logprobs"], found["finish_reason"], found["unreadable"]) == (None,) * 4


def test_numbers_that_json_lacks_are_texts_in_metadata(tmp_path: Path) -> None:
    """pandas writes NaN for what is missing; that is no reason to lose a sample."""
    (found,) = pool(taken(tmp_path, [{**GOOD, "x": [math.nan, -math.inf]}]))

    assert json.loads(found["metadata"]) == {"x": ["NaN", "-Infinity"]}


def test_parquet_columns_of_any_type_become_metadata(tmp_path: Path) -> None:
    """Messages are lists of structs; dates are ISO texts, bytes are base64, Arrow's JSON is JSON."""
    message = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string()), ("name", pa.string())]))
    chat = [[{"role": "user", "content": "1+1?", "name": None}], [{"role": "user", "content": "1+1?", "name": "Ann"}]]
    columns = {
        "prompt": pa.array(chat, message),
        "completion": pa.array(["2", "3"]),
        "reference": pa.array([[1.5], None]),
        "when": pa.array([datetime(2024, 5, 1), None]),  # noqa: DTZ001 - a column without a time zone
        "raw": pa.array([b"\xff", b""]),
        "json": pa.array(['{"a": 1}', None], pa.json_()),
        "word": pa.array(["x", "x"]).dictionary_encode(),
        "nan": pa.array([math.nan, 1.0]),
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    first, second = pool(stored(tmp_path, "x.parquet"))

    assert (turns(first["messages"]), first["reference"]) == ([{"role": "user", "content": "1+1?"}], "[1.5]")
    metadata = {"when": "2024-05-01T00:00:00", "raw": "/w==", "json": {"a": 1}, "word": "x", "nan": "NaN"}
    assert json.loads(first["metadata"]) == metadata
    assert turns(second["messages"]) == [{"role": "user", "content": "1+1?", "name": "Ann"}]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("no.jsonl", None, "no.jsonl: no such file"),
        ("x.jsonl", b"\n", "x.jsonl: holds no rows"),
        ("x.parquet", pa.table({"prompt": [""], "completion": [""]}).slice(1), "x.parquet: holds no rows"),
        ("x.csv", b"prompt,completion\n", "x.csv: wanted a .jsonl or .parquet file, found .csv"),
        ("x.parquet", b"{}", "x.parquet: not a Parquet file, and not an Arrow file"),
        ("x.parquet", pa.table({"promt": ["a"], "completion": ["b"]}), "no column 'prompt'; it has promt, completion"),
        ("x.jsonl", b'{"text": "a"}\n{"promt": 1}\n', "no column 'prompt'; it has text, promt; .*did you mean promt"),
    ],
    ids=["missing", "empty", "empty Parquet", "kind", "no Parquet", "column", "fields"],
)
def test_a_file_without_usable_rows_is_refused(tmp_path: Path, name: str, content: Any, said: str) -> None:
    """Nothing is written then."""
    if isinstance(content, pa.Table):
        pq.write_table(content, tmp_path / name)
    elif content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(SourceError, match=said):
        stored(tmp_path, name)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([b"nul", b'{"prompt": "a"}'], "x.jsonl: none of its 2 rows can be read; the first: x.jsonl:1: not JSON: "),
        (
            [b'{"prompt": "a", "completion": 3}'],
            "x.jsonl: none of its 1 rows can be read; the first: x.jsonl:1: bad completion",
        ),
        ([b'{"q": "a", "a": "b"}'] * 2, "x.jsonl: no column 'prompt'; it has q, a; rename yours"),
    ],
    ids=["torn", "completion", "columns"],
)
def test_a_file_in_which_no_row_can_be_read_is_refused(tmp_path: Path, rows: list[bytes], message: str) -> None:
    """Beside files that can be read, too; unless that is allowed."""
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(rows))
    (tmp_path / "good.jsonl").write_text(json.dumps(GOOD))
    files = all_named([tmp_path / "good.jsonl", tmp_path / "x.jsonl"])

    with pytest.raises(SourceError, match=re.escape(message)):
        ingest(files, Store(tmp_path / "run"), key="k")
    assert not (tmp_path / "run").exists()
    ingest(files, store := Store(tmp_path / "run"), key="k", allow_empty=True)
    assert [row["unreadable"] is None for row in pool(store)] == [True] + [False] * len(rows)


def test_files_are_one_pool(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder of compressed JSONL, and Parquet whose columns differ, with images that nobody reads; hidden files are no data."""
    image = pa.array([{"bytes": b"?", "path": None}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps(GOOD).encode()))
    (tmp_path / "lines" / "b.jsonl").write_bytes(zstd(json.dumps(GOOD | {"n": 1}).encode()))
    (tmp_path / "lines" / "._b.jsonl").write_bytes(b"\0\5\x16\7")
    (tmp_path / "lines" / "_SUCCESS").touch()
    (tmp_path / "lines" / "empty.jsonl").touch()
    pq.write_table(pa.table({"prompt": ["1+1?"], "completion": ["2"], "image": image}), tmp_path / "0.parquet")
    texts = {"completion": pa.array(["2"]).dictionary_encode(), "prompt": pa.array(["1+1?"], pa.large_string())}
    pq.write_table(pa.table(texts | {"far": pa.array([2**38], pa.timestamp("s")), "family": ["f"]}), tmp_path / "1.parquet")
    ingest(all_named([tmp_path / "lines", tmp_path / "?.parquet"]), store := Store(tmp_path / "run"), key="k")
    rows = pool(store)

    assert [(row["completion"], row["family"], row["unreadable"], row["source_row"]) for row in rows] == [
        ("2", "default", None, 0), ("2", "f", None, 1), ("2", "default", None, 2), ("2", "default", None, 3),
    ]  # fmt: skip
    assert [json.loads(row["metadata"]) for row in rows] == [{"far": None}, {"far": "10680-07-14T06:09:04.000"}, {}, {"n": 1}]
    assert [record.getMessage().removeprefix(f"{tmp_path}/") for record in caplog.records] == [
        "lines/empty.jsonl: holds no rows", f"0.parquet, {tmp_path}/1.parquet: left out the columns of images or sound: image",
    ]  # fmt: skip


def test_a_broken_file_is_refused_as_a_whole(tmp_path: Path) -> None:
    """The rows before the place where it breaks would be a part of it that nobody chose."""
    lines = b"".join(json.dumps(GOOD | {"n": n, "salt": random.Random(n).random()}).encode() + b"\n" for n in range(200))
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(lines)[:-50])

    with pytest.raises(SourceError, match=r"x.jsonl.gz: breaks after line 1\d\d: .*end-of-stream"):
        ingest(named_files(tmp_path / "x.jsonl.gz"), Store(tmp_path / "run"), key="k")


def test_hostile_rows_cost_themselves(tmp_path: Path) -> None:
    """Millions of characters, deep lists, huge integers, half a surrogate pair in what the message quotes."""
    deep: Any = []
    for _ in range(400):
        deep = [deep]
    huge = int("9" * 400)
    hostile = {
        "": GOOD | {"completion": "x" * 3_000_000},
        "digits": GOOD | {"n": huge, "completion_ids": [huge]},
        "bad metadata: nested too deeply: more than 200": GOOD | {"deep": deep},
        "bad reference: nested too deeply": GOOD | {"reference": deep},
        "bad reference: an integer of more than 308 digits": GOOD | {"reference": huge},
        "bad completion: turn 0: wanted a message": GOOD | {"completion": deep},
        'bad family: wanted text, found {"\\ud800": 1}': GOOD | {"family": {"\ud800": 1}},
        "no completion: the row has prompt, \\udc00": {"prompt": "a", "\udc00": 1},
        "no prompt: the row has a0, a1": {f"a{n}": n for n in range(1000)},
    }
    *rows, last = pool(taken(tmp_path, [*hostile.values(), GOOD]))

    assert [row["unreadable"] or "" for row in rows[:2]] == ["", ""]
    assert json.loads(rows[1]["metadata"]) == {"n": str(huge), "completion_ids": [str(huge)]}
    for number, (said, row) in enumerate(list(zip(hostile, rows, strict=True))[2:], 3):
        assert row["unreadable"].startswith(f"x.jsonl:{number}: {said}")
        assert len(row["unreadable"]) < 1100
    assert (last["unreadable"], last["completion"]) == (None, "2")


@pytest.mark.slow
def test_memory_is_that_of_a_shard(tmp_path: Path) -> None:
    """Python's own, while 10 MB are dealt out to ten shards."""
    with (tmp_path / "x.jsonl").open("w") as file:
        for i in range(400):
            file.write(json.dumps({"prompt": f"p{i}", "completion": "x" * 25_000}) + "\n")
    tracemalloc.start()
    stored(tmp_path, shard_rows=40)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 5_000_000


def large(count: int, size: int) -> Any:
    """Two samples of each prompt, each with a completion of `size` bytes; those of the last prompt ten times as many."""
    prompts = [*range(count)] * 2 + [count - 1] * 18
    return [{"prompt": f"p{prompt}", "completion": f"{row:05d}" + "x" * size} for row, prompt in enumerate(prompts)]


def test_shards_are_cut_by_bytes_between_prompts(tmp_path: Path) -> None:
    """None has more, but that of a prompt which has more alone. Every row is there once, with the ids of one shard."""
    store = taken(tmp_path, large(20, 1_000), shard_bytes=20_000)
    (tmp_path / "one").mkdir()
    whole = pool(taken(tmp_path / "one", large(20, 1_000)))
    plan = known(store.entry("prompts"))
    tables = [store.read_table(f"samples/{shard_name(shard)}") for shard in range(plan.facts["shards"])]

    assert plan.facts == {"shards": len(tables), "shard_bytes": 20_000, "prompts": 20, "parts": []}
    assert 5 < len(tables) < 12
    assert [bool(row_bytes(table).sum() <= 20_000) for table in tables] == [True] * (len(tables) - 1) + [False]
    assert set(tables[-1]["prompt_id"].to_pylist()) == {whole[-1]["prompt_id"]}
    assert sorted(pool(store), key=lambda row: row["source_row"]) == whole
    for shard, table in enumerate(tables):
        prompts = list(dict.fromkeys(table["prompt_id"].to_pylist()))
        assert store.read_group("prompts", shard)["prompt_id"].to_pylist() == prompts


def test_an_import_that_began_keeps_its_cut(tmp_path: Path) -> None:
    """Once the plan is written another number of bytes changes nothing; before, no shard of the other cut stays."""
    store = taken(tmp_path, large(20, 1_000), shard_bytes=20_000)
    run, before = tmp_path / "run", pool(store)
    (run / "samples/00001.json").unlink()
    stored(tmp_path, shard_bytes=1 << 30)

    assert pool(store) == before

    (run / "prompts.json").unlink()
    stored(tmp_path, shard_bytes=30_000)

    assert len(before) == len(pool(store)) == sum(pq.read_metadata(file).num_rows for file in run.glob("samples/*.parquet"))
    assert len(list(run.glob("samples/*.json"))) == known(store.entry("prompts")).facts["shards"] < 8


def test_a_row_that_no_column_can_hold_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_module, "ROW_BYTES", 500)
    rows = pool(taken(tmp_path, [{"prompt": "p", "completion": "x" * length} for length in (10, 600, 20)]))

    assert [row["completion"] for row in rows] == ["x" * 10, "", "x" * 20]
    assert rows[1]["unreadable"] == "x.jsonl:2: too long: wanted at most 500 bytes, found 653; shorten it"


def test_rows_of_large_prompts_go_to_their_spool_before_they_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the format: a row of Parquet has no line whose bytes could be counted."""
    monkeypatch.setattr(ingest_module, "HELD_BYTES", 10_000)
    written, taken_apart = list[int](), ingest_module._taken_apart

    def noted(rows: pa.RecordBatch, marking: Any) -> pa.RecordBatch:
        written.append(rows.num_rows)
        return taken_apart(rows, marking)

    monkeypatch.setattr(ingest_module, "_taken_apart", noted)
    pq.write_table(pa.table({"prompt": [f"{row}" * 4_000 for row in range(9)], "completion": ["x"] * 9}), tmp_path / "x.parquet")

    assert len(pool(stored(tmp_path, "x.parquet"))) == 9
    assert written == [3, 3, 3]
