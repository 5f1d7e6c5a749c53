"""Damaged runs, and damaged runs beside sound ones: every command names the damage, and none changes the run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.small_run import GOOD, small_run
from thresher.auditing.kept import FOLDER
from thresher.cli import main

pytestmark = pytest.mark.slow  # what draws charts takes a second to import


def files_of(run: Path) -> dict[Path, bytes]:
    """The run's files, without those that audits write."""
    return {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file.parent.name not in KEPT}


def footer(path: Path) -> None:
    """Flip bytes in the footer of a Parquet file, without changing its size."""
    data = bytearray(path.read_bytes())
    for index in range(len(data) - 60, len(data) - 44):
        data[index] ^= 0x5A
    path.write_bytes(bytes(data))


KEPT = (FOLDER, "judged")
"""Folders in which audits keep what they computed."""
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "footer of samples": (lambda run: footer(run / "samples/00001.parquet"), "samples/00001.parquet: damaged"),
    "samples cut off": (lambda run: (run / "samples/00001.parquet").write_bytes(b"PAR1"), "samples/00001.parquet: damaged"),
    "footer of verdicts": (lambda run: footer(run / "verdicts/00001.parquet"), "verdicts/00001.parquet: damaged"),
    "plan": (lambda run: footer(run / "prompts.parquet"), "prompts.parquet: damaged"),
    "plan gone": (lambda run: (run / "prompts.parquet").unlink(), "prompts.parquet: damaged"),
    "entry of samples": (lambda run: (run / "samples/00001.json").write_text("{oops"), "samples/00001.json: damaged"),
    "entry without filters": (
        lambda run: (run / "verdicts/00001.json").write_text(
            json.dumps(json.loads((run / "verdicts/00001.json").read_text()) | {"facts": {}})
        ),
        "verdicts/00001.json: damaged",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_by_the_audit_and_left_out_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    damage, message = DAMAGE[name]
    run = Path(small_run(tmp_path / "run", GOOD).root)
    damage(run)
    before = files_of(run)
    page = str(tmp_path / "page.html")

    for command in (["audit", str(run)], ["audit", str(run), "--json"], ["audit", str(run), "--html", page]):
        assert main(command) == 1
        assert message in capsys.readouterr().err
    assert Path(page).stat().st_size > 100_000
    assert main(["sql", str(run), "select count(*) as n from samples where pass_at_k(4, 1, 2) > 0", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row == {"n": 48 if name.startswith("plan") else 40}
    assert main(["sql", str(run), "select count(*) as n from prompts", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"n": 0 if name.startswith("plan") else 12}]
    assert files_of(run) == before


def test_a_damaged_neighbour_takes_nothing_from_a_sound_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "runs"
    damaged, sound = (Path(small_run(folder / name, GOOD, first=first).root) for first, name in enumerate(("a", "b")))
    footer(damaged / "samples/00001.parquet")
    for number, note in enumerate(("{oops", "[]")):
        (folder / "ab"[number] / "published.json").write_text(note)

    assert main(["audit", str(sound), "--html"]) == 0
    capsys.readouterr()
    assert main(["audit", "--all", str(folder), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(Path(row["run"]).name, row["complete"], row["release"]) for row in rows] == [("a", True, None), ("b", True, None)]
    assert rows[1]["drifted"] == ""
    (folder / "c").mkdir()
    (folder / "c" / "run.json").write_text('{"pool_version": 3, "name": "x", "recipe": []}')
    assert main(["audit", "--all", str(folder), "--json"]) == 0
    assert "not a run of thresher" in json.loads(capsys.readouterr().out)[2]["error"]


def test_a_run_is_found_by_any_of_its_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_run(tmp_path / "a", GOOD)
    small_run(tmp_path / "b", GOOD, first=100)
    (tmp_path / "link").symlink_to(tmp_path / "b")
    monkeypatch.chdir(tmp_path / "b" / "samples")
    for path in (str(tmp_path / "link"), "..", f"{tmp_path}/a/../b/"):
        assert main(["audit", path, "--html", str(tmp_path / "page.html")]) == 0
        assert "Compared with a" in (tmp_path / "page.html").read_text()
    assert main(["audit", "s3x://bucket/run"]) == 1
    assert "s3x://bucket/run: unknown storage" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--against", "x"], ["--review", "8"], ["--spread"]])
def test_options_for_one_run_are_refused_for_many(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str]) -> None:
    small_run(tmp_path / "a", GOOD)

    assert main(["audit", "--all", str(tmp_path), *option]) == 1
    assert f"audit: {option[0]} works on one run, not with --all" in capsys.readouterr().err
