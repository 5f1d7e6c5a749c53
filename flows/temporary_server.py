"""The Prefect server that a run starts for itself where the user has none.

A run does not need it. So whatever is wrong with it (a database that a newer Prefect wrote, a full disk, no answer) is found
within seconds, before the flow begins, and the run goes on without Prefect.
"""

import atexit
import os
import re
import signal
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO

import httpx
import prefect
from prefect.client.orchestration import get_client
from prefect.events.clients import PrefectEventsClient
from prefect.events.worker import EventsWorker
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import (
    PREFECT_API_DATABASE_CONNECTION_URL,
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_HOME,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    get_current_settings,
    temporary_settings,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from thresher.samplers import orphans

SILENT_S = 5.0
"""How long a server may neither answer nor compute. A first start writes the database, which takes longer, but computes."""
COMPUTES_S = 0.05
"""Processor time within SILENT_S that counts as computing."""
LOCKED_S = 2.0
"""How long another process may hold the database; runs side by side do so for milliseconds."""
ROOM = 1 << 20
"""Bytes that must fit in PREFECT_HOME."""
MIGRATIONS = Path("server/database/_migrations/versions/sqlite")


class NoServerError(Exception):
    """The temporary server cannot be used, for this reason."""


@contextmanager
def temporary_server() -> Iterator[None]:
    """Let flows of this block report to a server of this process, which ends with it. Raises NoServerError."""
    if not PREFECT_SERVER_ALLOW_EPHEMERAL_MODE.value():
        raise NoServerError("its profile has no PREFECT_API_URL, and PREFECT_SERVER_ALLOW_EPHEMERAL_MODE is off")
    check_home(Path(PREFECT_HOME.value()))
    check_database(str(PREFECT_API_DATABASE_CONNECTION_URL.value()))
    server = SubprocessASGIServer()  # the one that every client of this process asks for
    if not server.running:
        try:
            server.port, program = start()
        except OSError as error:  # no room for its log, no more processes
            raise NoServerError(f"its temporary server cannot be started: {error}") from error
        server.server_process, server.running = program, True  # type: ignore[assignment]
        atexit.register(server.stop)  # after Prefect's last events
        # A server that is gone answers no event, and ten attempts for each would take minutes.
        EventsWorker.set_client_override(PrefectEventsClient, api_url=server.api_url, reconnection_attempts=0)
    try:
        with temporary_settings({PREFECT_API_REQUEST_TIMEOUT: SILENT_S, PREFECT_CLIENT_MAX_RETRIES: 0}):
            _check_client()
            yield
    except httpx.HTTPError as error:  # only Prefect's clients raise it
        abandon()
        words = str(error).partition("\n")[0] or type(error).__name__
        raise NoServerError(f"its temporary server failed: {words}") from error
    except NoServerError:
        abandon()
        raise
    finally:
        EventsWorker.set_client_override(None)


def abandon() -> None:
    """End the server of this process, which is of no use: nothing waits for its answers any longer, nor do the last events."""
    server = SubprocessASGIServer()
    if server.server_process is not None:
        server.server_process.kill()


def check_home(home: Path) -> None:
    """Raise NoServerError if Prefect's folder cannot be written, or its disk is full."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as file:
            file.write(bytes(ROOM))
            file.flush()
    except OSError as error:
        raise NoServerError(f"{home} (PREFECT_HOME) cannot be written: {error.strerror or error}") from error


def check_database(url: str) -> None:
    """Raise NoServerError if the database is one of SQLite that is damaged, locked, or of a newer Prefect. One
    that does not exist yet is made by the server."""
    try:
        address = make_url(url)
    except ArgumentError as error:
        raise NoServerError(f"PREFECT_API_DATABASE_CONNECTION_URL: {error}") from error
    if not address.drivername.startswith("sqlite") or not address.database or not Path(address.database).exists():
        return
    try:
        with closing(sqlite3.connect(address.database, timeout=LOCKED_S, isolation_level=None)) as database:
            database.execute("begin immediate")
            tables = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
            revisions = database.execute("select version_num from alembic_version") if "alembic_version" in tables else ()
            unknown = [revision for (revision,) in revisions if not is_known(revision)]
            database.execute("rollback")
    except sqlite3.Error as error:
        raise NoServerError(f"its database {address.database} cannot be used: {error}") from error
    if unknown:
        raise NoServerError(
            f"its database {address.database} is of a newer version (revision {unknown[0]}) than Prefect {prefect.__version__}"
        )


def is_known(revision: str) -> bool:
    """Return whether this Prefect knows a revision of the database; True if it keeps its migrations in another place."""
    folder = prefect.__module_path__ / MIGRATIONS
    named = re.compile(rf"""^revision\s*(?::\s*str\s*)?=\s*["']{re.escape(revision)}["']""", re.MULTILINE)
    files = sorted(folder.glob("*.py"), key=lambda file: revision not in file.name)
    return not files or any(named.search(file.read_text()) for file in files)


class Program:
    """The process of a server on a port of this machine, as Prefect ends it. It is in a session of its own, so Ctrl-C does not
    end it before the flow run is reported; and it ends with this process, whatever ends that."""

    def __init__(self, port: int, log: IO[bytes]) -> None:
        factory = ["--app-dir", str(prefect.__module_path__.parent), "--factory", "prefect.server.api.server:create_app"]
        address = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on"]
        settings = get_current_settings().to_environment_variables(exclude_unset=True)
        kind = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
        command = [sys.executable, "-m", "uvicorn", *factory, *address]
        self._process = orphans.start_bound(command, log, {**os.environ, **kind, **settings})

    @property
    def pid(self) -> int:
        """The process that all others of the server descend from."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """Let it end: it may finish the requests that it has."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        return self._process.wait(timeout)

    def kill(self) -> None:
        """End it now."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.terminate()


def start() -> tuple[int, Program]:
    """Start a server; returns its port and its process once it answers. Raises NoServerError."""
    with tempfile.NamedTemporaryFile(prefix="thresher-prefect-") as log:
        port = _free_port()
        program = Program(port, log.file)
        try:
            _wait(program, port)
        except NoServerError as error:
            program.kill()
            words = _last_line(Path(log.name).read_text(errors="replace"))
            raise NoServerError(f"{error}{f': {words}' if words else ''}") from None
        except BaseException:
            program.kill()
            raise
    return port, program


# -- inside --------------------------------------------------------------------------------------------------------------


def _check_client() -> None:
    """Raise NoServerError if Prefect's own client does not reach the server: for the sake of a proxy, say."""
    try:
        with get_client(sync_client=True) as client:
            error = client.api_healthcheck()
    except Exception as failed:  # noqa: BLE001 - a client that cannot be made raises ImportError, ValueError, ...
        error = failed
    if error is not None:
        raise NoServerError(f"its temporary server cannot be asked: {error}")


def _wait(program: Program, port: int) -> None:
    """Wait until a server answers. Raises NoServerError once it has ended, or was silent for too long."""
    begun = changed = time.monotonic()
    longest, computed = float(PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()), 0.0
    with httpx.Client(trust_env=False, timeout=1.0) as client:  # no proxy between the two
        while True:
            with suppress(httpx.HTTPError):
                if client.get(f"http://127.0.0.1:{port}/api/health").status_code == 200:
                    return
            if program.poll() is not None:
                raise NoServerError("its temporary server stopped while it started")
            now, seconds = time.monotonic(), orphans.processor_seconds(program.pid)
            if seconds >= computed + COMPUTES_S:
                changed, computed = now, seconds
            if now - changed > SILENT_S or now - begun > longest:
                raise NoServerError(f"its temporary server did not answer for {now - begun:.0f} s")
            time.sleep(0.05)


def _last_line(log: str) -> str:
    """What a server's log ends with, "" if it is empty."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (errors or lines or [""])[-1][:300]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
