"""A run's own Prefect server: what is wrong with it is found before the flow begins, and the run goes on without."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import prefect
import pytest
import yaml

from flows import temporary_server
from flows.temporary_server import NoServerError, Program, check_database, check_home
from helpers import known
from helpers.fake_openai import FakeOpenAI
from helpers.processes import left_running, marked
from thresher.cli.command_line import INTERRUPTED
from thresher.samplers import orphans

Write = Callable[..., Path]
pytestmark = pytest.mark.slow


def database(path: Path, revision: str) -> None:
    with closing(sqlite3.connect(path)) as made:
        made.execute("create table alembic_version (version_num text)")
        made.execute("insert into alembic_version values (?)", (revision,))
        made.commit()


def copied(server: Any, path: Path) -> None:
    """The database that the installed Prefect made for its server."""
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(server.folder / "home" / "prefect.db")) as own, closing(sqlite3.connect(path)) as copy:
        own.backup(copy)


def damaged(path: Path) -> None:
    database(path, "a")
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * 8000)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: database(path, "fedcba987654"), "is of a newer version (revision fedcba987654) than Prefect"),
        (lambda path: path.write_bytes(b"not a database" * 100), "cannot be used: file is not a database"),
        (damaged, "cannot be used: database disk image is malformed"),
        (lambda path: path.mkdir(), "cannot be used: unable to open database file"),
    ],
)
def test_a_database_that_prefect_cannot_use_is_refused(tmp_path: Path, write: Callable[[Path], Any], words: str) -> None:
    path = tmp_path / "prefect.db"
    write(path)

    with pytest.raises(NoServerError) as refused:
        check_database(f"sqlite+aiosqlite:///{path}")
    assert f"{path} {words}" in str(refused.value)


def test_a_database_of_the_installed_prefect_is_taken_unless_another_process_holds_it(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary_server, "LOCKED_S", 0.05)
    path = tmp_path / "prefect.db"
    copied(server, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(NoServerError, match="cannot be used: database is locked"):
            check_database(f"sqlite+aiosqlite:///{path}")
        other.execute("rollback")
        check_database(f"sqlite+aiosqlite:///{path}")


def test_databases_that_only_the_server_can_judge_are_left_to_it(tmp_path: Path) -> None:
    check_database(f"sqlite+aiosqlite:///{tmp_path / 'none.db'}")
    check_database("postgresql+asyncpg://user:password@nowhere/prefect")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("home", "why"), [("/proc/prefect", "No such file"), ("/dev/null/prefect", "Not a directory")])
def test_a_folder_that_cannot_be_written_is_refused(home: str, why: str) -> None:
    with pytest.raises(NoServerError, match=rf"{home} \(PREFECT_HOME\) cannot be written: {why}"):
        check_home(Path(home))


@pytest.mark.parametrize(("command", "why"), [(["sleep", "100"], "did not answer for"), (["false"], "stopped while it started")])
def test_a_server_that_is_silent_or_gone_is_not_waited_for(
    command: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs in place of the server: one neither answers nor computes."""
    monkeypatch.setattr(temporary_server, "SILENT_S", 0.5)
    program = Program.__new__(Program)
    with (tmp_path / "log").open("wb") as log:
        program._process = orphans.start_bound(command, log)
    try:
        with pytest.raises(NoServerError, match=why):
            temporary_server._wait(program, 9)
    finally:
        program.kill()
    assert program.poll() is not None


@pytest.fixture
def no_server(tmp_path: Path) -> Iterator[Path]:
    """No address of a server, and a PREFECT_HOME whose database is of a newer Prefect."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    home = tmp_path / "home"
    home.mkdir()
    database(home / "prefect.db", "fedcba987654")
    with temporary_settings({PREFECT_HOME: home}, restore_defaults={PREFECT_API_URL}):
        yield home


def test_a_run_goes_on_without_prefect_and_says_why(
    no_server: Path, recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from thresher.cli import main

    assert main(["run", str(recipe()), "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr()
    reason = f"its database {no_server}/prefect.db is of a newer version (revision fedcba987654) than Prefect"
    assert [line for line in said.err.splitlines() if "Prefect" in line] == [
        f"thresher: going on without Prefect: {reason} {prefect.__version__}"
    ]
    assert "16 samples of 4 prompts: 4 hits" in said.out


def test_ctrl_c_ends_a_run_and_its_server_whatever_proxy_is_set(server: Any, tmp_path: Path) -> None:
    """Nothing listens where the proxies are. The flow run is in the server's database, as crashed."""
    document = {
        "name": "interrupted",
        "prompts": [
            {"family": "n", "source": {"kind": "grid", "fields": {"n": [1, 2]}}, "template": "{{ n }}", "reference": None}
        ],
        "model": {"name": "small"},
        "sampling": {"samples_per_prompt": 2, "max_tokens": 8},
        "filters": [{"name": "finished"}],
        "run": {"filter_workers": 1},
    }
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    environment, mark = marked({**os.environ, **proxies, "PREFECT_HOME": str(tmp_path / "home")})
    for name in ("PREFECT_API_URL", "NO_PROXY", "no_proxy"):
        environment.pop(name, None)
    copied(server, tmp_path / "home" / "prefect.db")
    with FakeOpenAI(delay_s=600) as engine:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(document | {"engine": {"kind": "openai_http", "base_urls": [engine.url]}}))
        command = [sys.executable, "-m", "thresher.cli", "run", str(path), "--out", str(tmp_path / "run")]
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True) as run:
            while not engine.bodies and run.poll() is None:
                time.sleep(0.05)
            os.killpg(run.pid, signal.SIGINT)
            errors = known(run.stderr).read()
    assert (run.returncode, errors.splitlines()[-1]) == (130, f"thresher: {INTERRUPTED}")
    assert [line for line in errors.splitlines() if "sampl" not in line] == [f"thresher: {INTERRUPTED}"]
    assert left_running(mark) == []
    with closing(sqlite3.connect(tmp_path / "home" / "prefect.db")) as database:
        assert database.execute("select state_type from flow_run order by created desc limit 1").fetchone() == ("CRASHED",)
