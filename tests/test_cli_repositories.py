"""publish, releases, rollback, revoke and compact."""

from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.printed import printed_json, printed_lines, printed_rows
from helpers.runs import pool_rows
from thresher.cli import main

Recipe = Callable[..., Path]


@pytest.fixture
def run(recipe: Recipe, tmp_path: Path) -> str:
    """A finished run."""
    root = str(tmp_path / "run")
    assert main(["run", str(recipe()), "--out", root, "--no-prefect"]) == 0
    return root


@pytest.mark.slow
def test_a_release_is_listed_in_each_format(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repo = str(tmp_path / "repo")
    (line,) = printed_lines(capsys, "publish", run, "--repo", repo, "--versions", "semantic")
    assert line.startswith(f"{repo}: v1.0.0 (")
    (again,) = printed_lines(capsys, "publish", run, "--repo", repo)
    assert again.startswith(f"{repo}: already holds v1.0.0 (")

    (row,), document = printed_rows(capsys, "releases", repo), printed_json(capsys, "releases", repo)
    (release,) = document["releases"]
    assert (row["version"], row["name"], row["merged_into"], row["forced"]) == ("v1.0.0", "small", "", "False")
    assert {name.removeprefix("rows_"): int(rows) for name, rows in row.items() if name.startswith("rows_")} == release["rows"]
    counts = ", ".join(f"{rows} {view}" for view, rows in release["rows"].items())
    assert printed_lines(capsys, "releases", repo) == [f"v1.0.0  small: {counts}"]


@pytest.mark.slow
def test_changes_are_one_line_each(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repo = str(tmp_path / "repo")
    assert main(["publish", run, "--repo", repo, "--versions", "semantic"]) == 0
    first, *others = [row["sample_id"] for row in pool_rows(run)[:3]]
    (tmp_path / "ids.txt").write_text("\n\n".join(others) + "\n")

    revoked = printed_lines(capsys, "revoke", repo, first, "--file", str(tmp_path / "ids.txt"), "--reason", "wrong")
    assert revoked == [f"{repo}: v1.0.1: took back 3 samples: wrong"]
    assert printed_lines(capsys, "releases", repo)[-1] == "revoked samples: 3"
    assert printed_json(capsys, "compact", repo)["version"] == "v1.0.2"
    assert printed_lines(capsys, "releases", repo)[0].endswith("(merged into v1.0.2)")
    assert [row["merged_into"] for row in printed_rows(capsys, "releases", repo)] == ["v1.0.2", ""]
    assert printed_lines(capsys, "rollback", repo, "--to", "v1.0.0") == [f"{repo}: holds what it held at v1.0.0"]


def test_a_repository_without_releases_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed_lines(capsys, "releases", str(tmp_path)) == [f"{tmp_path}: no releases"]
    assert printed_json(capsys, "releases", str(tmp_path))["releases"] == []


def test_a_file_of_ids_that_cannot_be_read_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["revoke", str(tmp_path), "--file", str(tmp_path / "none"), "--reason", "wrong"]) == 1
    assert "give a text file with one sample_id per line" in capsys.readouterr().err


def test_shards_of_no_size_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compact", str(tmp_path), "--file-mb", "0"]) == 1
    assert capsys.readouterr().err == "thresher: --file-mb: must be above 0, found 0\n"
