"""Tables of any kind are read in batches and written to Parquet files."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.packed import zstd
from thresher.errors import SourceError
from thresher.inputs import tables
from thresher.inputs.tables import ParquetFolder, is_chat, is_text, last_contents, open_table

ROWS = [{"n": number, "text": f"text {number}"} for number in range(5)]
CHAT = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def rows_of(table: tables.TableSource, columns: list[str] | None = None) -> list[dict[str, Any]]:
    return [row for batch in table.batches(columns) for row in batch.to_pylist()]


@pytest.fixture
def table_of(tmp_path: Path) -> Any:
    def write(kind: str) -> str:
        if kind == "jsonl":
            (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
            return str(tmp_path / "x.jsonl")
        folder = tmp_path / "folder"
        folder.mkdir()
        for number, rows in enumerate((ROWS[:2], ROWS[2:])):
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{number}.parquet")
        return str(folder)

    return write


@pytest.mark.parametrize("kind", ["jsonl", "folder"])
def test_rows_are_read_in_order_any_number_of_times(table_of: Any, kind: str) -> None:
    table = open_table(table_of(kind), None, None)

    for _ in range(2):
        assert rows_of(table) == ROWS
    assert rows_of(table, ["n"]) == [{"n": row["n"]} for row in ROWS]


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text("{}\n")
    with pytest.raises(SourceError, match=r"no such file; did you mean answers\.jsonl"):
        open_table(str(tmp_path / "answer.jsonl"), None, None)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(SourceError, match=r"x\.parquet: cannot be read"):
        open_table(str(tmp_path / "x.parquet"), None, None)


def test_the_last_message_of_a_chat_is_its_text() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    column = pa.chunked_array([pa.array([turns, turns[:1], [], None], CHAT), pa.array([turns], CHAT)])

    assert is_chat(column.type)
    assert not is_chat(pa.list_(pa.string()))
    assert last_contents(column).to_pylist() == ["b", "a", None, None, "b"]
    assert last_contents(pa.chunked_array([["plain"]])).to_pylist() == ["plain"]


def test_large_tables_are_cut_into_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "FILE_BYTES", 1)
    files = ParquetFolder(tmp_path / "out")
    for row in ROWS[:3]:
        files.add(pa.Table.from_pylist([row]))
    files.close()

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{number:05d}.parquet" for number in range(3)]
    assert rows_of(open_table(str(tmp_path / "out"), None, None)) == ROWS[:3]


def test_messages_of_conversations_with_tools_are_json() -> None:
    """As the views write them; what was called is part of what was said."""
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    turns: list[list[dict[str, Any]]] = [
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        [{"content": "c", "tool_calls": [call]}],
        [],
    ]
    texts = [[json.dumps(turn) for turn in chat] for chat in turns]
    column = pa.chunked_array([pa.array(texts, pa.list_(pa.string())).cast(pa.list_(pa.json_()))])

    assert is_chat(column.type)
    assert last_contents(column).to_pylist() == ["b", 'c\n[{"arguments":{"a":1},"name":"add"}]', None]


def test_parts_of_a_content_are_its_texts(tmp_path: Path) -> None:
    """As in chats where some contents are texts and others are lists of parts."""
    parts = [{"type": "text", "text": "b"}, {"type": "image"}, "c"]
    chats = [[{"content": "a"}], [{"content": "x"}, {"content": parts}], [{"content": None}], [{"content": parts, "name": "n"}]]

    for kept in (chats[:3], chats):
        (tmp_path / "x.jsonl").write_text("".join(json.dumps({"text": chat}) + "\n" for chat in kept))
        table = open_table(str(tmp_path / "x.jsonl"), None, None)
        assert is_chat(table.schema.field("text").type)
        said = [text for batch in table.batches() for text in last_contents(batch["text"]).to_pylist()]
        assert [text or "" for text in said] == ["a", 'b\n{"type":"image"}\nc', "", 'b\n{"type":"image"}\nc'][: len(kept)]


def test_lists_of_json_that_are_no_chats_have_a_text_all_the_same() -> None:
    """They come from files of other people."""
    calls = ['{"content": "a", "tool_calls": {"name": "f"}}', '{"tool_calls": ["g"]}']
    last = [*calls, '"b"', "[1]", "null", "torn", '{"content": 2}', '"\\ud800"']
    column = pa.chunked_array([pa.array([[text] for text in last]).cast(pa.list_(pa.json_()))])

    assert last_contents(column).to_pylist() == [
        'a\n[{"name":"f"}]', '\n["g"]', "b", "1", None,
        '"not JSON that can be read: Expecting value: line 1 column 1 (char 0)"', "2", "?",
    ]  # fmt: skip


def test_files_whose_columns_differ_are_one_table(tmp_path: Path) -> None:
    """Of Parquet and Arrow, and JSON lines whose later keys are new."""
    (tmp_path / "t").mkdir()
    pq.write_table(pa.table({"n": [1], "w": pa.array(["a"]).dictionary_encode()}), tmp_path / "t" / "0.parquet")
    pq.write_table(pa.table({"w": ["b"], "n": [0.5], "late": [{"x": 1}]}), tmp_path / "t" / "1.parquet")
    (tmp_path / "t" / "._1.parquet").write_bytes(b"\0")
    (tmp_path / "0.jsonl").write_text('{"n": 1, "w": "a"}\n' * 3)
    (tmp_path / "1.jsonl").write_bytes(zstd(b'{"w": "b", "n": 0.5, "late": {"x": 1}}'))

    for data, count in (("t", 1), ("t/*.parquet", 1), ("*.jsonl", 3)):
        table = open_table(str(tmp_path / data), None, None)
        assert rows_of(table) == [{"n": 1.0, "w": "a", "late": None}] * count + [{"n": 0.5, "w": "b", "late": {"x": 1}}]
        assert rows_of(table, ["late"])[-1] == {"late": {"x": 1}}
        assert is_text(table.schema.field("w").type)
    with pytest.raises(SourceError, match=r"holds both JSONL files and Parquet or Arrow files"):
        open_table(str(tmp_path / "**" / "0.*"), None, None)
    pq.write_table(pa.table({"n": ["x"]}), tmp_path / "t" / "2.parquet")
    with pytest.raises(SourceError, match=r"2.parquet: the column 'n' is string, and double in .*0.parquet"):
        open_table(str(tmp_path / "t"), None, None)


def test_one_json_list_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps(ROWS))

    assert rows_of(open_table(str(tmp_path / "x.json"), None, None)) == ROWS


def test_the_split_of_a_folder_is_that_of_its_files(tmp_path: Path) -> None:
    """Without one, all files are the table."""
    for name in ("train", "test"):
        pq.write_table(pa.table({"n": [name]}), tmp_path / f"{name}.parquet")

    assert rows_of(open_table(str(tmp_path), None, "test")) == [{"n": "test"}]
    assert len(rows_of(open_table(str(tmp_path), None, None))) == 2
