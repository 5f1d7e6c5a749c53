"""Runs side by side: what was found of a run is kept while its files are the same."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from helpers.small_run import small_run
from thresher.audit import runs_table as module
from thresher.audit.runs_table import KEPT, across, short_table
from thresher.cli import main
from thresher.pool.store import Store

GOOD = [("sums", ["right", "right", "wrong", "cut"], None)] * 12
BAD = [("sums", ["wrong", "wrong", "wrong", "right" if number % 2 else "wrong"], None) for number in range(12)]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The runs that were counted."""
    found = []
    audit = module.audit

    def noted(store: Store, *more: Any) -> Any:
        found.append(store.root.rsplit("/", 1)[-1])
        return audit(store, *more)

    monkeypatch.setattr(module, "audit", noted)
    return found


def begun(store: Store, second: Any) -> Any:
    os.utime(store.path("run.json"), (1_700_000_000 + second,) * 2)
    return store


def test_a_run_is_counted_again_only_when_its_files_change(tmp_path: Path, counted: Any) -> None:
    first = begun(small_run(tmp_path / "first", GOOD), 1)
    begun(small_run(tmp_path / "second", BAD, first=100), 2)
    before = across(tmp_path)
    assert counted == ["first", "second"]
    assert [bool(row.drifted) for row in before] == [False, True]

    assert across(tmp_path) == before
    first.write_bytes("report.html", b"...")
    assert across(tmp_path) == before
    assert counted == ["first", "second"]
    first.write_bytes("published.json", json.dumps({"repo": "mine/sums", "version": "v1.0.0"}).encode())
    now = across(tmp_path)
    assert counted == ["first", "second", "first"]
    assert (now[0].repo, now[0].release, now[1]) == ("mine/sums", "v1.0.0", before[1])


def test_what_was_kept_by_another_thresher_or_is_torn_is_not_believed(tmp_path: Path, counted: Any) -> None:
    begun(small_run(tmp_path / "one", GOOD), 1)
    before = across(tmp_path)
    for torn in ("{", '{"format": ["9.9.9"], "runs": {}}', "[]"):
        (tmp_path / KEPT).write_text(torn)
        assert across(tmp_path) == before
    assert counted == ["one"] * 4
    assert json.loads((tmp_path / KEPT).read_text())["runs"].keys() == {"one"}


def test_a_folder_that_cannot_be_written_to_and_brackets_in_a_name(
    tmp_path: Path, counted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runs [1]"
    begun(small_run(folder / "one", GOOD), 1)
    monkeypatch.setattr(module.Store, "write_bytes", lambda *_: (_ for _ in ()).throw(module.StoreError("read-only")))
    assert [row.run for row in across(folder)] == [f"{folder}/one"]
    across(folder)
    assert counted == ["one", "one"]


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


def test_the_table_of_a_terminal_is_narrow_and_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    begun(small_run(tmp_path / "whole", GOOD), 1)
    begun(small_run(tmp_path / "cut", GOOD, first=100, stop_after=1), 2)
    broken = begun(small_run(tmp_path / "broken", GOOD, first=200), 3)
    broken.write_bytes("run.json", b'{"pool_version": 99}')
    begun(small_run(tmp_path / "worse", BAD, first=300), 4)
    os.utime(broken.path("run.json"), (1_700_000_003,) * 2)

    assert main(["audit", "--all", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    notes = short_table(across(tmp_path))["notes"].to_pylist()
    assert notes[:2] == ["", "unfinished"]
    assert notes[2].startswith("unreadable. run.json: pool version 99")
    assert notes[3].startswith("pass rate 50.0 % to 12.5 %")
