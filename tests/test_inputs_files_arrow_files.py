"""Parquet and Arrow files are read as one table, in batches of a bounded size."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thresher.errors import SourceError
from thresher.inputs.files import arrow_files
from thresher.inputs.files.arrow_files import count_rows, is_arrow, open_arrow_files
from thresher.inputs.files.named_files import NamedFile, named_files


def write(folder: Path, name: str, table: pa.Table) -> NamedFile:
    """The kind of file that the ending says; `.bin` is a stream."""
    if name.endswith(".parquet"):
        pq.write_table(table, folder / name, row_group_size=2)
    else:
        with (pa.ipc.new_stream if name.endswith(".bin") else pa.ipc.new_file)(folder / name, table.schema) as writer:
            writer.write_table(table)
    (file,) = named_files(name, folder)
    return file


def test_files_of_all_kinds_are_one_table(tmp_path: Path) -> None:
    tables = [pa.table({"n": [1, 2, 3]}), pa.table({"t": ["x"], "n": [1.5]}), pa.table({"n": pa.nulls(1)})]
    files = [write(tmp_path, name, each) for name, each in zip(("0.parquet", "1.arrow", "2.bin"), tables, strict=True)]
    table = open_arrow_files(files)
    batches = list(table.batches(2))

    assert table.names == ("n", "t")
    assert [(batch.file.name, batch.first, batch.rows.num_rows) for batch in batches] == [
        ("0.parquet", 0, 2), ("0.parquet", 2, 1), ("1.arrow", 0, 1), ("2.bin", 0, 1),
    ]  # fmt: skip
    rows = pa.concat_tables(batch.rows for batch in batches).to_pylist()
    assert [(row["n"], row["t"]) for row in rows] == [(1.0, None), (2.0, None), (3.0, None), (1.5, "x"), (None, None)]
    assert [batch.rows.column_names for batch in table.batches(9, ["t"])] == [["t"]] * 4
    assert [count_rows(file) for file in files] == [3, 1, 1]
    assert all(is_arrow(file.path) for file in files)


def test_columns_that_nobody_reads_may_differ(tmp_path: Path) -> None:
    """But a name that stands twice cannot be chosen from."""
    files = [write(tmp_path, f"{n}.parquet", pa.table({"n": [n], "x": [value]})) for n, value in enumerate((1, "a"))]

    table = open_arrow_files(files, lambda schema, file: ["n"])
    assert (table.names, table.schema.names) == (("n", "x"), ["n"])
    with pytest.raises(SourceError, match=r"1.parquet: the column 'x' is string, and int64 in 0.parquet"):
        open_arrow_files(files)
    twice = write(tmp_path, "twice.arrow", pa.table([[1], [2], [3]], ["n", "x", "x"]))
    with pytest.raises(SourceError, match=r"twice.arrow: the column 'x' stands 2 times"):
        open_arrow_files([twice], lambda schema, file: ["n"])


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow"])
def test_large_rows_come_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Also where a file stores a text that repeats only once."""
    monkeypatch.setattr(arrow_files, "BATCH_BYTES", 30_000)
    table = pa.table({"text": ["x" * 10_000] * 7, "n": range(7)})
    file = write(tmp_path, name, table)
    if name == "x.parquet":
        pq.write_table(table, file.path)

    assert max(batch.rows.num_rows for batch in open_arrow_files([file]).batches(4096)) <= 3
    assert [row for batch in open_arrow_files([file]).batches(4096) for row in batch.rows["n"].to_pylist()] == list(range(7))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8b...", "found a file compressed with gzip; decompress it"),
        (b"PK\x03\x04", "found a file compressed with zip"),
        (b"prompt,a", "neither Parquet nor Arrow IPC: it starts with b'prompt'"),
        (b"PAR1 and no more", "cannot be read from row 0 on; is it damaged"),
        (b"ARROW1 and no more", "cannot be read from row 0 on; is it damaged"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.parquet").write_bytes(content)

    with pytest.raises(SourceError, match=rf"x.parquet: .*{message}"):
        open_arrow_files(named_files("x.parquet", tmp_path))


def test_a_file_that_breaks_later_names_the_row(tmp_path: Path) -> None:
    table = pa.table({"text": ["a" * 5000, "b" * 5000, "c" * 5000]})
    pq.write_table(table, tmp_path / "x.parquet", compression="none", use_dictionary=False, row_group_size=1)
    content = bytearray((tmp_path / "x.parquet").read_bytes())
    at = content.index(b"cccc") - 60
    content[at : at + 40] = b"\xff" * 40
    (tmp_path / "x.parquet").write_bytes(content)

    with pytest.raises(SourceError, match=r"x.parquet: cannot be read from row 2 on; is it damaged"):
        list(open_arrow_files(named_files("x.parquet", tmp_path)).batches(10))
