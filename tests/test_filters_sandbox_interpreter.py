"""Which Python runs inside the sandbox."""

import sys
from pathlib import Path

import pytest

from filters.sandbox import Limits, interpreter, launch, selftest
from filters.sandbox.launch import Layer


@pytest.mark.slow
def test_an_unreadable_python_is_copied(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this Python is in a private folder and the system has none, a trimmed copy is used, and made only once."""
    monkeypatch.setattr(interpreter, "SYSTEM_PYTHON", "/nonexistent")
    own = interpreter._copied()
    probed = interpreter._probed(own, launch._probe_uid())
    assert isinstance(probed, interpreter.Interpreter), probed
    monkeypatch.setattr(interpreter, "find", lambda *_: probed)
    tested = selftest.try_out(layer, Limits())

    assert tested.held, str(tested)
    assert tested.python == ".".join(map(str, sys.version_info[:3]))
    assert not Path(own).parents[1].stat().st_mode & 0o022
    before = Path(own).stat().st_mtime_ns
    interpreter._copied.cache_clear()
    assert interpreter._copied() == own and Path(own).stat().st_mtime_ns == before
