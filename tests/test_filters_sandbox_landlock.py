"""Landlock in a child process: what no rule allows is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from filters.sandbox import landlock

PROGRAM = """
import sys
from filters.sandbox.landlock import restrict, ruleset
restrict(ruleset([sys.argv[1]], ["/dev/null"]))
for path, mode in ((f"{sys.argv[1]}/file", "r"), (f"{sys.argv[1]}/file", "w"), (f"{sys.argv[2]}/file", "r"), ("/dev/null", "w")):
    try:
        open(path, mode).close()
        print("open")
    except PermissionError:
        print("refused")
"""


def test_only_the_listed_paths_can_be_opened(tmp_path: Path) -> None:
    """Folders for reading, devices for reading and writing."""
    if not landlock.version():
        pytest.skip("no Landlock on this machine")
    for name in ("listed", "unlisted"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "listed"), str(tmp_path / "unlisted")]
    completed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])

    assert completed.stdout.split() == ["open", "refused", "refused", "open"]


def test_a_kernel_without_landlock_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 0)

    with pytest.raises(OSError, match="no Landlock"):
        landlock.ruleset([], [])
