"""Runs side by side, a row each."""

import json
import os
from pathlib import Path

import pytest

from helpers.small_run import BAD, GOOD, small_run
from thresher.auditing.count_run import count
from thresher.auditing.pages.runs_table import across, short_table
from thresher.cli import main
from thresher.pool.run import Run, open_run


def begun(run: Run, second: int) -> Run:
    """Set the time at which the run was started."""
    os.utime(run.store.path("run.json"), (1_700_000_000 + second,) * 2)
    return run


def test_rows_name_drift_and_the_last_release(tmp_path: Path) -> None:
    first = begun(small_run(tmp_path / "first", GOOD), 1)
    begun(small_run(tmp_path / "second", BAD, first=100), 2)
    first.store.write_bytes("published.json", json.dumps({"repo": "mine/sums", "version": "v1.0.0"}).encode())

    rows = across(tmp_path)

    assert [bool(row.drifted) for row in rows] == [False, True]
    assert [(row.repo, row.release) for row in rows] == [("mine/sums", "v1.0.0"), (None, None)]
    assert across(tmp_path) == rows


def test_brackets_in_the_name_of_a_folder_are_no_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "runs [1]"
    small_run(folder / "one", GOOD)

    assert [row.run for row in across(folder)] == [f"{folder}/one"]


@pytest.mark.slow
def test_runs_on_an_object_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = f"memory://{tmp_path.name}"
    for name, plan, first in (("a", GOOD, 0), ("b", BAD, 100)):
        small_run(f"{folder}/{name}", plan, first=first)

    assert main(["audit", "--all", folder, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["run"], row["hits"], row["error"]) for row in rows] == [(f"{folder}/a", 24, None), (f"{folder}/b", 6, None)]
    assert "pass rate" in rows[1]["drifted"]
    assert main(["audit", "--all", folder, "--html"]) == 0
    assert f"report: {folder}/runs.html" in capsys.readouterr().out


def test_the_table_of_a_terminal_is_narrow_and_names_problems(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    begun(small_run(tmp_path / "whole", GOOD), 1)
    begun(small_run(tmp_path / "cut", GOOD, first=100, stop_after=1), 2)
    broken = begun(small_run(tmp_path / "broken", GOOD, first=200), 3)
    broken.store.write_bytes("run.json", b'{"pool_version": 99}')
    begun(small_run(tmp_path / "worse", BAD, first=300), 4)
    os.utime(broken.store.path("run.json"), (1_700_000_003,) * 2)

    assert main(["audit", "--all", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    notes = short_table(across(tmp_path))["notes"].to_pylist()
    assert notes[:2] == ["", "unfinished"]
    assert notes[2].startswith("unreadable. run.json: pool version 99")
    assert notes[3].startswith("pass rate 50.0 % to 12.5 %")


@pytest.mark.slow
def test_runs_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("first", "second"):
        small_run(tmp_path / name)
    small_run(tmp_path / "third", stop_after=1)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{}")

    assert main(["audit", "--all", str(tmp_path), "--json", "--html", str(tmp_path / "runs.html")]) == 0

    rows = {Path(row["run"]).name: row for row in json.loads(capsys.readouterr().out)}
    assert [rows[name]["complete"] for name in ("first", "second", "third", "broken")] == [True, True, False, None]
    assert rows["first"]["pass_rate"] == count(open_run(tmp_path / "first")).total.pass_rate
    assert "not a run of thresher" in rows["broken"]["error"]
    assert main(["audit", "--all", str(tmp_path / "first" / "samples")]) == 1
    assert "holds no runs" in capsys.readouterr().err
    assert main(["audit"]) == 1
