"""The self-test: every break-out attempt fails in both layers, and a missing wall is noticed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from filters.sandbox import Limits, SandboxError, bubblewrap, landlock, launch, selftest
from filters.sandbox.launch import Layer
from filters.sandbox.selftest import SelfTest
from helpers.programs import LAYERS, PROBES

NAMES = [
    "read a file of this machine",
    "read /etc/passwd",
    "write outside of its folder",
    "connect to a port",
    "connect to an abstract socket",
    "read the environment",
    "see /proc",
    "end a process of this machine",
    "end the zygote",
    *selftest.system_calls(),
    "start 300 processes",
    "map 3 GiB",
    "write 64 MiB",
    "leave files to the next program",
    "leave a process to the next program",
    "outstay its time with all signals ignored",
]
MATRIX: dict[str, SelfTest] = {}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_gets_out(layer: Layer, name: str) -> None:
    """Every attempt of the self-test fails in both layers."""
    if layer.name not in MATRIX:
        MATRIX[layer.name] = selftest.try_out(layer, Limits())
    tested = MATRIX[layer.name]

    assert [check.name for check in tested.checks] == NAMES
    result = next(check for check in tested.checks if check.name == name)
    assert result.held, result.result


def outside(*calls: str, **environment: str) -> list[Any]:
    """The same probes without a sandbox."""
    text = f"{PROBES}\nimport json\nprint(json.dumps([{','.join(calls)}]))"
    completed = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, env=environment or None)
    values: list[Any] = json.loads(completed.stdout)
    return values


def test_the_probes_get_through_where_nothing_stops_them() -> None:
    """Outside the sandbox the same probes read, write, connect, see and kill, so a check that holds means something."""
    with selftest.canaries(os.getuid()) as targets:
        target = str(targets.folder / "open" / "x")
        results = outside(
            f"read({str(targets.folder / 'secret')!r})",
            f"write({target!r})",
            f"connect({targets.port})",
            f"connect_abstract({targets.abstract!r})",
            "'SECRET' in environment()",
            "len(listing('/proc')) > 10",
            f"fill({str(targets.folder / 'open')!r}, 64)",
            f"send_signal({targets.sleeper.pid})",
            selftest.system_calls()["limits of the zygote"],
            SECRET="x",
        )
        assert targets.sleeper.wait(5) == -signal.SIGKILL

    assert results == ["canary", [target], "came through", "came through", True, True, 64, "came through", "came through"]


@pytest.mark.slow
def test_a_missing_wall_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-test refuses a bubblewrap that shows this machine's files and processes, and names what came through."""
    if "bwrap" not in LAYERS:
        pytest.skip("no bwrap on this machine")
    walls = bubblewrap.walls

    def leaky(*arguments: Any) -> list[str]:
        command = walls(*arguments)
        return [command[0], "--ro-bind", "/etc", "/etc", "--ro-bind", "/proc", "/proc", *command[1:]]

    monkeypatch.setattr(bubblewrap, "walls", leaky)
    told = launch._settings
    monkeypatch.setattr(launch, "_settings", lambda *arguments: {**told(*arguments), "folder_bytes": 256 << 20})
    tested = selftest.try_out(LAYERS["bwrap"], Limits())

    assert not tested.held
    assert {check.name for check in tested.checks if not check.held} >= {"read /etc/passwd", "see /proc", "write 64 MiB"}
    monkeypatch.setattr(selftest, "layers", lambda: [LAYERS["bwrap"]])
    with pytest.raises(SandboxError, match=r"see /proc .*"):
        selftest.choose(Limits())


def test_without_a_layer_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without bubblewrap and Landlock, thresher refuses and says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(bubblewrap, "find_spec", lambda name: None)
    monkeypatch.setattr(landlock, "version", lambda: 0)

    with pytest.raises(SandboxError, match="apt install bubblewrap"):
        selftest.choose(Limits())


@pytest.mark.slow
def test_a_bubblewrap_that_fails_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If bwrap may not create namespaces, the next layer is used, and its error message is kept."""
    if "landlock" not in LAYERS:
        pytest.skip("no Landlock on this machine")
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(bubblewrap, "_reachable", lambda path, uid: path)
    monkeypatch.setattr(selftest, "layers", lambda: [Layer("bwrap", str(broken)), LAYERS["landlock"]])
    tested = selftest.choose(Limits())

    assert tested.layer.name == "landlock"
    assert len(tested.passed_over) == 1
    assert "passed over: bwrap" in str(tested)
