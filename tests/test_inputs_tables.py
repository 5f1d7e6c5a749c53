"""Tables of any kind are read in batches and written to Parquet files."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thresher.errors import SourceError
from thresher.inputs import tables
from thresher.inputs.tables import ParquetFolder, is_chat, last_contents, open_table

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
