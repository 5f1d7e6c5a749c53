"""The locks hold hashes, what is installed is checked against them, and the licence of every package is listed."""

import re
import subprocess
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from helpers.docs import ROOT, make_licences

licences = make_licences()
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def entries(lock: str) -> dict[str, list[str]]:
    """The hashes of each requirement of a lock, by its name; every line must be a requirement, a hash or a comment."""
    found: dict[str, list[str]] = {}
    lines = [line for line in lock.splitlines() if not line.strip().startswith("#")]
    for above, line in zip(["", *lines], lines, strict=False):
        if named := re.fullmatch(r"([A-Za-z0-9._-]+)==\S+(?: ; .*)? \\", line):
            found[named[1]] = []
            continue
        hashed = re.fullmatch(r"    --hash=sha256:([0-9a-f]{64})(?: \\)?", line)
        assert hashed, f"neither a version with hashes nor a hash: {line}"
        assert above.endswith("\\"), f"a hash that belongs to nothing: {line}"
        found[list(found)[-1]].append(hashed[1])
    return found


@pytest.mark.parametrize("name", ["cpu.lock", "docs.txt"])
def test_every_package_of_a_lock_has_hashes(name: str) -> None:
    found = entries((ROOT / "requirements" / name).read_text("utf-8"))

    assert len(found) > 20
    assert [package for package, hashes in found.items() if not hashes] == []


def test_locks_are_installed_with_their_hashes() -> None:
    """pip installs nothing else but thresher itself."""
    installs = [line.strip() for line in MAKEFILE.splitlines() if re.search(r"\binstall -|\binstall --", line)]

    assert len(installs) == 4
    assert [line for line in installs if "--require-hashes" not in line and "-e ." not in line] == []
    assert all("--no-deps" in line for line in installs)


@pytest.mark.parametrize(("left", "gone"), [("left_out", "pycosat"), ("wanted", None)])
def test_parts_of_the_lock_keep_their_hashes(left: str, gone: str | None) -> None:
    """Without a compiler pycosat is left out, hashes included; pip is installed first, with its own."""
    [program] = re.findall(rf"awk '([^']*{left} = [^']*)'", MAKEFILE)
    lock = ROOT / "requirements" / "cpu.lock"
    part = subprocess.run(["awk", program, str(lock)], capture_output=True, text=True, check=True).stdout
    whole = entries(lock.read_text("utf-8"))

    assert entries(part) == ({name: value for name, value in whole.items() if name != gone} if gone else {"pip": whole["pip"]})


def test_the_licence_of_every_package_is_listed() -> None:
    page = licences.PAGE.read_text("utf-8")
    rows = dict(re.findall(r"^\| ([A-Za-z0-9._-]+) \| [^|]+ \| ([^|]+) \|", page.partition(licences.BEGIN)[2], re.MULTILINE))

    assert set(licences.locked()) == set(rows) - {"package", "---"}
    assert [name for name, licence in rows.items() if licence.strip() == "not stated"] == []
    assert licences.page(page) == page


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("License-Expression: MIT\nLicense: BSD", "MIT"),
        ("License: BSD\nClassifier: License :: OSI Approved :: MIT License", "BSD"),
        ("License: Dual License\nClassifier: License :: OSI Approved :: MIT License", "MIT License"),
        ("License: Copyright of somebody, who says at length what may be done with it, and what not", "not stated"),
        ("License-File: LICENSE\nLicense-File: NOTICE", "not stated; see LICENSE, NOTICE"),
        ("Classifier: License :: OSI Approved", "not stated"),
    ],
)
def test_what_a_package_states_is_read(tmp_path: Path, metadata: str, expected: str) -> None:
    (tmp_path / "METADATA").write_text(f"Metadata-Version: 2.4\nName: x\nVersion: 1\n{metadata}\n")

    assert licences.stated(PathDistribution(tmp_path)) == expected


def test_a_stale_page_is_found_and_a_package_that_is_not_installed_keeps_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = "| not-installed-anywhere | 1.0 | MIT | the lock |"
    (tmp_path / "page.md").write_text(f"# By hand\n{licences.BEGIN}\n| package | ... |\n{kept}\n")
    (tmp_path / "lock").write_text("not-installed-anywhere==1.0 \\\n    --hash=sha256:0\npytest==9.0 \\\n    --hash=sha256:0\n")
    monkeypatch.setattr(licences, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(licences, "LOCK", tmp_path / "lock")

    assert licences.main(["--check"]) == 1
    assert "docs/licences.md is stale" in capsys.readouterr().err
    assert licences.main([]) == 0
    assert licences.main(["--check"]) == 0
    text = (tmp_path / "page.md").read_text()
    assert text.startswith("# By hand\n")
    assert kept in text
    assert "| pytest | 9.0 | MIT |" in text
