"""filter, dedupe and index."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.dataset
import pytest

from helpers.printed import numbers, printed_json, printed_lines, printed_rows
from thresher.cli import main

Recipe = Callable[..., Path]
TEXTS = ["one two three four five", "one two three four five", "something else"]


def test_filter_writes_one_row_per_row(recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the file's order, with outcome and reason; a line that cannot be read is undecided."""
    lines = [
        json.dumps({"prompt": "Capital of Peru?", "completion": "Lima", "reference": "Lima", "id": 1}),
        json.dumps({"prompt": "Capital of Peru?", "completion": "Cusco", "reference": "Lima", "id": 2}),
        "{not json",
        json.dumps({"prompt": [{"role": "user", "content": "Capital of Chad?"}], "completion": "N'Djamena", "id": 4}),
        json.dumps({"prompt": "Capital of Peru?", "completion": "Lima ", "reference": "Lima", "id": 5}),
    ]
    (tmp_path / "own.jsonl").write_text("\n".join(lines) + "\n")

    assert main(["filter", str(recipe()), "--samples", str(tmp_path / "own.jsonl"), "--out", str(tmp_path / "out")]) == 0
    rows = pyarrow.dataset.dataset(tmp_path / "out/dataset/rollouts/train").to_table().to_pylist()
    assert [(row["outcome"], row["reason"]) for row in rows] == [
        ("keep", ""),
        ("drop", "wrong_answer"),
        ("undecided", "unreadable_row"),
        ("undecided", "no_reference"),
        ("drop", "exact_duplicate"),
    ]
    assert "own.jsonl:3" in str(rows[2]["detail"])
    assert [json.loads(row["metadata"]).get("id") for row in rows] == [1, 2, None, 4, 5]
    assert printed_json(capsys, "audit", str(tmp_path / "out"))["outcomes"]["undecided"] == 2


@pytest.mark.slow
def test_filter_reads_several_files_and_refuses_what_is_no_data(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder and a pattern together; a file that breaks, a pattern that matches nothing, a file without a row."""
    (tmp_path / "d").mkdir()
    row = json.dumps({"prompt": "Capital of Peru?", "completion": "Lima", "reference": "Lima"}) + "\n"
    (tmp_path / "d" / "a.jsonl.gz").write_bytes(gzip.compress(row.encode()))
    (tmp_path / "b.ndjson").write_text(row.replace("Lima", "Cusco"))
    (tmp_path / "broken.jsonl").write_bytes(gzip.compress(row.encode())[:-9])
    (tmp_path / "none.jsonl").write_text("[1]\n[2]\n")
    (tmp_path / "empty.jsonl").touch()
    command = ["filter", str(recipe()), "--out", str(tmp_path / "out"), "--samples"]

    for name, said in (
        ("broken.jsonl", "breaks after line"),
        ("x*.jsonl", "no file matches this pattern"),
        ("none.jsonl", "none of its 2 rows can be read; the first: none.jsonl:1: not an object: found list"),
        ("empty.jsonl", "holds no rows"),
    ):
        assert main([*command, str(tmp_path / name)]) == 1
        assert said in " ".join(capsys.readouterr().err.split())
    allowed = [
        "filter",
        str(recipe()),
        "--out",
        str(tmp_path / "none"),
        "--samples",
        str(tmp_path / "none.jsonl"),
        "--allow-empty",
    ]
    assert main(allowed) == 0
    assert printed_json(capsys, "audit", str(tmp_path / "none"))["outcomes"]["undecided"] == 2
    assert main([*command, str(tmp_path / "d"), "--samples", str(tmp_path / "*.ndjson")]) == 0
    assert printed_json(capsys, "audit", str(tmp_path / "out"))["samples"] == 2


@pytest.fixture
def texts(tmp_path: Path) -> str:
    """A file of three texts, two of them equal."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return str(path)


def test_dedupe_prints_the_same_as_csv_and_json(texts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = printed_rows(capsys, "dedupe", texts, "--out", str(tmp_path / "first"))
    document = printed_json(capsys, "dedupe", texts, "--out", str(tmp_path / "second"))

    names = ("rows", "kept", "exact", "near")
    assert numbers(row, names) == [3, 2, 1, 0]
    assert [document[name] for name in names] == [3, 2, 1, 0]
    assert json.loads(row["largest"]) == document["largest"]


def test_dedupe_for_people_says_what_is_where(texts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    rows, clusters, seconds, files = printed_lines(capsys, "dedupe", texts, "--out", out)

    assert rows == "3 rows: 2 kept (66.7 %), 1 exact and 0 near duplicates dropped"
    assert clusters == "largest clusters: 2, 1 rows; effective number of different texts: 2"
    assert seconds.count(" s ") > 1
    assert files == f"{out}/kept, {out}/duplicates (each with the row it repeats), {out}/summary.json"


@pytest.mark.parametrize("flag", ["--memory", "--workers"])
def test_dedupe_needs_memory_and_a_worker(flag: str, texts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dedupe", texts, "--out", str(tmp_path / "out"), flag, "0"]) == 1
    assert capsys.readouterr().err == f"thresher: {flag}: must be above 0, found 0\n"


@pytest.mark.slow
def test_index_prints_the_same_in_each_format(recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    assert main(["run", str(recipe()), "--out", run, "--no-prefect"]) == 0
    rows = pyarrow.dataset.dataset(f"{run}/dataset/sft/train").count_rows()
    names = [str(tmp_path / name) for name in ("one", "two", "three")]

    capsys.readouterr()
    assert main(["index", f"{run}/dataset", "--out", names[0], "--csv"]) == 0
    assert capsys.readouterr().out == f"index,data,rows\n{names[0]},{run}/dataset,{rows}\n"
    assert printed_json(capsys, "index", f"{run}/dataset", "--out", names[1])["rows"] == rows
    (line,) = printed_lines(capsys, "index", f"{run}/dataset", "--out", names[2])
    assert line == f"{names[2]}: {rows} released samples; to use it, set dedupe.released.index in a recipe"
