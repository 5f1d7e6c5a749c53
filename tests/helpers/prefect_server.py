"""A real Prefect server on 127.0.0.1, a process of its own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

QUICK = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "INFO",
    "PREFECT_SERVER_LOGGING_LEVEL": "INFO",
    "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
    "PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_SCHEDULER_MIN_SCHEDULED_TIME": "0:00:10",
    "PREFECT_SERVER_SERVICES_SCHEDULER_MIN_RUNS": "2",
}
"""Loops that take seconds where they would take minutes."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def task_runs(client: Any, flow_run: Any, wanted: set[str]) -> list[str]:
    """Names of a flow run's task runs. Waits for the wanted ones, because the server learns of them a little later."""
    for _ in range(300):
        names = sorted(run.name for run in client.read_task_runs(limit=200) if run.flow_run_id == flow_run)
        if wanted <= set(names):
            break
        time.sleep(0.1)
    return names


def last_flow_run(client: Any) -> Any:
    """The flow run that was created last."""
    return max(client.read_flow_runs(), key=lambda run: run.created)


class Server:
    """The server; `environment` is for programs that use it. Programs of `start` end with it."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.log = folder / "server.log"
        self.environment = os.environ | QUICK | {"PREFECT_HOME": str(folder / "home"), "PREFECT_API_URL": self.url} | environment
        self.environment.pop("PREFECT_TESTING_UNIT_TEST_MODE", None)
        self.programs: list[subprocess.Popen[bytes]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "Server":
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        for program in self.programs[::-1]:
            self.stop(program)
        self.down()

    def up(self) -> None:
        arguments = ["server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        self.process = self.start([sys.executable, "-m", "prefect", *arguments], "server.log")
        self.programs.remove(self.process)
        until = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the server did not start:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.2)

    def down(self, how: int = signal.SIGKILL) -> None:
        self.stop(self.process, how)

    def start(self, command: list[str], log: str, cwd: Path | None = None) -> "subprocess.Popen[bytes]":
        """A program in a session of its own, so that it ends with what it started."""
        with (self.folder / log).open("ab") as out:
            program = subprocess.Popen(
                command, env=self.environment, stdout=out, stderr=out, cwd=cwd or self.folder, start_new_session=True
            )
        self.programs.append(program)
        return program

    def stop(self, program: "subprocess.Popen[bytes]", how: int = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, how)
        program.wait(60)
