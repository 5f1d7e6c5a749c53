"""The program as a whole: help, errors and exit codes."""

import argparse
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from helpers import known
from thresher.cli import audits, main, parser, schema
from thresher.cli.command_line import INTERRUPTED
from thresher.errors import ThresherError

COMMANDS = {
    *(
        "run",
        "check",
        "preview",
        "estimate",
        "study",
        "filter",
        "dedupe",
        "index",
        "audit",
        "sql",
        "publish",
        "releases",
        "rollback",
        "revoke",
    ),
    *("compact", "schedule", "schedules", "serve", "fleet", "scale", "schema"),
}
PROGRAM = "import sys; from thresher.cli import main; sys.exit(main())"


def commands() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command."""
    (choices,) = [action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(choices.choices)


def arguments() -> Iterator[tuple[str, argparse.Action]]:
    """Every argument of every command."""
    for name, command in commands().items():
        yield from ((name, action) for action in command._actions)


def test_every_command_is_there() -> None:
    assert set(commands()) == COMMANDS


def test_every_command_is_described_by_a_sentence() -> None:
    for name, command in commands().items():
        text = command.description or ""

        assert text[0].isupper(), name
        assert text.endswith("."), name


def test_every_argument_has_a_help_text_that_can_be_printed() -> None:
    """A percent sign that is no format would end `--help` with an error."""
    for name, action in arguments():
        assert action.help, (name, action.dest)
        assert (action.help % {"default": action.default})[0] != " ", (name, action.dest)


def test_help_imports_no_heavy_library() -> None:
    """What Python has loaded after `thresher --help`."""
    code = f"{PROGRAM.removesuffix('; sys.exit(main())')}\ntry: main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    modules = set(printed.splitlines()[-1].split())

    assert "thresher.cli.command_line" in modules
    heavy = {"asyncio", "datasets", "importlib.util", "json", "logging", "pathlib", "prefect", "pyarrow", "pydantic", "rich"}
    assert not heavy & modules
    assert {name for name in modules if name.partition(".")[0] in ("filters", "flows", "schemas")} == set()


def test_help_takes_little_processor_time() -> None:
    """Less than 0.15 s of user and system time, Python's own start included; the least of five, as other processes disturb it."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", PROGRAM, "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    assert min(seconds) < 0.15


def test_the_package_runs_as_a_module() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "thresher.cli", "--version"], capture_output=True, text=True, check=True
    ).stdout

    assert printed.startswith("thresher ")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["audit", "nowhere"], "not a run directory"),
        (["run", "nowhere.yaml"], "cannot read the recipe"),
        (["schema", "exact_anser"], "did you mean exact_answer"),
    ],
)
def test_errors_are_a_message_without_a_traceback(
    command: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(command) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("thresher: ")
    assert message in printed
    assert "Traceback" not in printed


def test_an_error_cannot_act_on_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_options: argparse.Namespace) -> int:
        raise ThresherError("bad name \x1b[2J")

    monkeypatch.setattr(schema, "schema", fail)

    assert main(["schema"]) == 1
    assert capsys.readouterr().err == "thresher: bad name \\x1b[2J\n"


def test_an_interrupt_says_how_to_resume(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_options: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(audits, "sql", interrupt)

    assert main(["sql", "RUN", "select 1"]) == 130
    assert capsys.readouterr().err == "thresher: interrupted; finished work is kept, and the same command resumes it\n"


WAITING = """
import sys, time
from thresher.cli import audits, main

def wait(options):
    try:
        print("waiting", flush=True)
        time.sleep(60)
    finally:
        if options.query == "stubborn":
            print("ending", flush=True)
            time.sleep(60)

audits.sql = wait
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("numbers", "query"),
    [([signal.SIGINT], "q"), ([signal.SIGTERM], "q"), ([signal.SIGINT, signal.SIGINT], "stubborn")],
)
def test_a_signal_ends_a_command_with_one_line_and_a_second_one_at_once(numbers: list[signal.Signals], query: str) -> None:
    """Also where what ends in order takes long."""
    command = [sys.executable, "-c", WAITING, "sql", "RUN", query]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        output, errors = known(program.stdout), known(program.stderr)
        for number in numbers:
            assert output.readline()
            program.send_signal(number)
        said = errors.read()

    assert (program.returncode, said) == (128 + numbers[0], f"thresher: {INTERRUPTED}\n")


def test_three_fast_interrupts_end_a_command_whatever_it_does() -> None:
    """All commands have the same handler; this one would go on for two minutes."""
    command = [sys.executable, "-c", WAITING, "sql", "RUN", "stubborn"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert known(program.stdout).readline() == "waiting\n"
        for _ in range(3):
            with suppress(ProcessLookupError):
                program.send_signal(signal.SIGINT)
            time.sleep(0.05)
        said = known(program.stderr).read()
        assert program.wait(5) == 130
    assert said == f"thresher: {INTERRUPTED}\n"


def test_a_caller_of_main_keeps_its_signal_handlers(capsys: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    assert main(["audit", "nowhere"]) == 1
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert "not a run directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["run", "recipe.yaml", "--out", "s3://KEY:hunter2@bucket/run"],
        ["publish", "run", "--repo", "https://KEY:hunter2@host/repo"],
        ["dedupe", "https://KEY:hunter2@host/rows.parquet", "--out", "out"],
    ],
)
def test_an_address_with_a_password_is_refused_without_showing_it(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 1
    printed = capsys.readouterr().err
    assert "[password]@" in printed
    assert "hunter2" not in printed


def test_no_message_shows_the_password_of_an_address(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_options: argparse.Namespace) -> int:
        raise ThresherError("no Prefect server at http://me:hunter2@host:4200/api (PREFECT_API_URL)")

    monkeypatch.setattr(schema, "schema", fail)

    assert main(["schema"]) == 1
    assert capsys.readouterr().err == "thresher: no Prefect server at http://[password]@host:4200/api (PREFECT_API_URL)\n"


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error() -> None:
    """`thresher schema | head -0` succeeds, and says nothing."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        ended = subprocess.run([sys.executable, "-c", PROGRAM, "schema"], stdout=closed, stderr=subprocess.PIPE, check=False)

    assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_wrong_command_line_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "recipe.yaml", "--no-such-argument"])

    assert ended.value.code == 2
    assert "unrecognized arguments: --no-such-argument" in capsys.readouterr().err
