"""Packages of the same names as thresher's own."""

import subprocess
import sys
from pathlib import Path

import pytest

from thresher import _neighbours


def test_the_own_packages_are_found() -> None:
    _neighbours.check()


@pytest.mark.parametrize("name", ["flows", "filters", "schemas"])
def test_another_package_of_the_same_name_is_refused(name: str, tmp_path: Path) -> None:
    """Where it is first on the path; the message names it."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; import thresher"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    message = ended.stderr.splitlines()[-1]
    assert message.startswith(f"ImportError: thresher needs its own package {name!r}, but Python found {tmp_path}/{name}/")


def test_a_missing_package_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_neighbours, "_MARKS", {"no_such_package": "module.py"})

    with pytest.raises(ImportError, match="'no_such_package', but Python found nothing"):
        _neighbours.check()
