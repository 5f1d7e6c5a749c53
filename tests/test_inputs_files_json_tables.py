"""JSON lines become one table: no key is lost, and nothing is filled in."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thresher.errors import SourceError
from thresher.inputs.files import json_tables
from thresher.inputs.files.arrow_values import python_values
from thresher.inputs.files.json_tables import open_json_table
from thresher.inputs.files.named_files import named_files

JSON = pa.json_()
PLAIN = {"role": "user", "content": "a"}
CALLING = {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {"x": 1}}]}
DEEP: Any = 1
for _ in range(50):
    DEEP = [DEEP]


def table_of(folder: Path, rows: list[Any], size: int = 2) -> pa.Table:
    """The rows as a table, through a Parquet file."""
    texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "x.jsonl").write_text("\n".join(texts))
    batches = open_json_table(named_files("x.jsonl", folder)).batches(size)
    pq.write_table(pa.concat_tables(batches), folder / "x.parquet")
    return pq.read_table(folder / "x.parquet")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None, 3], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([2**60, 1], pa.int64()),
        ([2**60, 2.5], JSON),
        ([2**70, 1], JSON),
        ([1, "x", [1], {"a": None}], JSON),
        ([True, 1], JSON),
        (["2024-05-01", "2024-05-01T10:00:00Z"], pa.string()),
        ([{"q": 1}, {"q": 2.5}], pa.struct([("q", pa.float64())])),
        ([{"q": 1}, {"q": 1, "limit": 2}], JSON),
        ([{}, None], JSON),
        ([[], [None]], pa.list_(pa.null())),
        ([[PLAIN], [PLAIN, PLAIN], []], pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ([[PLAIN], [PLAIN, CALLING], []], pa.list_(JSON)),
        (
            [{"x": [{"j": 1}, {"k": 1}], "y": 1}, {"x": [], "y": None}, None],
            pa.struct([("x", pa.list_(JSON)), ("y", pa.int64())]),
        ),
        ([None, None], pa.null()),
        (["é😀", "\u0000"], pa.string()),
    ],
    ids=repr,
)
def test_values_come_back_as_they_were(tmp_path: Path, values: list[Any], kind: pa.DataType) -> None:
    """In either order: numbers keep their digits, texts that look like times stay texts, objects have their own keys only."""
    for ordered in (values, values[::-1]):
        column = table_of(tmp_path, [{"a": value} for value in ordered])["a"]
        assert python_values(column) == ordered
        assert column.type == kind


def test_deep_values_come_back(tmp_path: Path) -> None:
    assert python_values(table_of(tmp_path, [{"a": DEEP}])["a"]) == [DEEP]


def test_a_key_that_appears_last_is_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows and bytes come before it."""
    monkeypatch.setattr(json_tables, "BATCH_BYTES", 50)
    rows = [{"a": n} for n in range(100)]
    table = table_of(tmp_path, [*rows, {"b": "late", "a": 0.5}], size=7)

    assert table.column_names == ["a", "b"]
    assert table["b"].to_pylist() == [None] * 100 + ["late"]


def test_numbers_that_json_lacks_stay_numbers_or_become_texts(tmp_path: Path) -> None:
    table = table_of(tmp_path, ['{"a": NaN, "b": {"c": -Infinity}}', '{"a": 1, "b": 1}'])

    assert str(table["a"].to_pylist()) == "[nan, 1.0]"
    assert python_values(table["b"]) == [{"c": "-Infinity"}, 1]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"a": 1}', "{"], "x.jsonl:2: not JSON"),
        (['{"a": "\\ud800"}'], r"x.jsonl:1: \\ud800 is half of a surrogate pair"),
        (['{"\\udfff": 1}'], r"x.jsonl:1: \\udfff is half"),
        (['{"a": 1, "a": 2}'], "x.jsonl:1: a repeated key"),
        ([""], "x.jsonl: holds no rows$"),
        (["{}"], "x.jsonl: holds no rows with a key"),
    ],
)
def test_lines_that_are_no_rows_are_named(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        table_of(tmp_path, lines)
