"""A cluster that cannot be joined is refused. Its room and its machines are checked in test_executors_ray.py."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.engines import ReplayEngine, VllmEngine
from schemas.executors import RayExecutorSpec
from thresher.errors import EngineError
from thresher.executors.ray import RayExecutor

Write = Callable[..., Path]


def test_an_old_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "__version__", "2.9.0")

    with (
        pytest.raises(EngineError, match=r"Ray 2\.9\.0 is too old, wanted is 2\.55 or later: pip install"),
        RayExecutor(RayExecutorSpec(kind="ray"), 1, engine=VllmEngine()),
    ):
        pass


@pytest.mark.slow
def test_an_address_without_a_cluster_is_refused(recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["--set", "executor={kind: ray, address: 127.0.0.1:9}"]
    command = ["run", str(recipe()), "--no-prefect", "--out", str(tmp_path / "run"), *changes]
    script = f"import sys; from thresher.cli import main; sys.exit(main({command!r}))"
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300,
        env=os.environ | {"RAY_GCS_RPC_TIMEOUT_S": "2", "RAY_gcs_server_request_timeout_seconds": "2"},
    )  # fmt: skip
    assert process.returncode == 1
    assert "executor.address 127.0.0.1:9: no Ray cluster there" in process.stderr


@pytest.mark.slow
@pytest.mark.parametrize("greeting", [b"SSH-2.0-server\r\n", b""])
def test_an_address_of_another_program_is_refused(greeting: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of another protocol, and one that does not answer."""
    monkeypatch.setattr("thresher.executors.ray_cluster.REACH_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"

        def answer() -> None:
            with listening.accept()[0] as client:
                client.sendall(greeting)
                client.recv(100)
                time.sleep(2)

        threading.Thread(target=answer, daemon=True).start()
        executor = RayExecutor(RayExecutorSpec(kind="ray", address=address), 1, engine=ReplayEngine(kind="replay", path=""))
        with pytest.raises(EngineError, match=rf"executor.address {address}: no Ray cluster there"), executor:
            pass
