"""Files of a view: named by their hash, cut into row groups and files."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.runs import dataset_of
from helpers.small_run import small_run
from thresher.dataset import parquet_files


def test_files_are_named_by_their_hash(tmp_path: Path) -> None:
    folder = dataset_of(small_run(tmp_path))

    for file in folder.rglob("*.parquet"):
        number, digest = file.stem.split("-")
        assert digest == hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        assert number == "00000"
        assert b"huggingface" in pq.read_schema(file).metadata


@pytest.mark.slow
def test_rows_roll_over_into_groups_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Any) -> None:
    monkeypatch.setattr(parquet_files, "GROUP_ROWS", 6)
    monkeypatch.setattr(parquet_files, "FILE_BYTES", 10_000)
    plan = [("sums", ["right", "wrong"], "right")] * 12
    folder = dataset_of(small_run(tmp_path, plan, shard_prompts=1))
    files = sorted((folder / "rollouts" / "train").iterdir())

    groups = [pq.read_metadata(file).row_group(0).num_rows for file in files]

    assert len(files) > 1
    assert [file.name[:5] for file in files] == [f"{number:05d}" for number in range(len(files))]
    assert set(groups) == {6}
    indices = [row["index"] for row in load(folder, "rollouts")]
    assert indices == [-1, 0, 1] * 12


def test_a_large_shard_is_cut_into_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_files, "GROUP_ROWS", 5)
    folder = dataset_of(small_run(tmp_path, shard_prompts=5))
    (file,) = (folder / "rollouts" / "train").iterdir()

    metadata = pq.read_metadata(file)

    assert [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)] == [5] * 5


def test_row_groups_are_bounded_by_bytes_where_rows_differ_in_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large rows among many small ones, in one table."""
    monkeypatch.setattr(parquet_files, "GROUP_BYTES", 10_000)
    schema = pa.schema([("text", pa.string())])
    texts = ["x" * (4_000 if 500 <= row < 520 else 1) for row in range(1000)]
    with parquet_files.TableFiles(tmp_path, "view", schema) as files:
        files.add(pa.table([texts], schema=schema))
        (file,) = files.finish()
    opened = pq.ParquetFile(file.path)
    groups = [opened.read_row_group(group) for group in range(opened.num_row_groups)]

    assert pa.concat_tables(groups)["text"].to_pylist() == texts
    assert max(group.nbytes for group in groups) < 2 * 10_000
