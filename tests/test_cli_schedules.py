"""What schedule, schedules and serve print; tests/test_flows_schedules.py has them with a server."""

import signal
from collections.abc import Callable
from typing import Any

import pytest
from prefect import State
from prefect.states import Completed, Crashed, Failed

from flows import schedules as server
from flows import serving
from helpers.printed import printed_json, printed_lines, printed_rows
from thresher.cli import main

ROW: dict[str, Any] = {
    "name": "nightly",
    "schedule": "0 2 * * * (UTC)",
    "paused": False,
    "next": "2026-11-24T02:00:00Z",
    "last": None,
    "last_state": None,
    "last_message": None,
    "pool": None,
    "machine": "here",
    "recipe": "/r.yaml",
    "out": "/runs",
}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The schedules on the server; the first one is what `schedule` makes."""
    rows = [dict(ROW)]
    monkeypatch.setattr(server, "schedules", lambda: rows)
    monkeypatch.setattr(server, "schedule", lambda recipe, **options: rows[0])
    return rows


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, ["next run: 2026-11-24T02:00:00Z, executed by: thresher serve nightly"]),
        ({"pool": "gpu"}, ["next run: 2026-11-24T02:00:00Z, executed by: prefect worker start --pool gpu"]),
    ],
)
def test_a_new_schedule_says_who_executes_it(
    changes: dict[str, Any], lines: list[str], answers: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    answers[0] |= changes

    assert printed_lines(capsys, "schedule", "r.yaml", "--cron", "0 2 * * *") == [
        "nightly: 0 2 * * * (UTC); run directories go to /runs",
        *lines,
    ]


def test_a_paused_schedule_has_no_next_run(answers: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    answers[0] |= {"paused": True, "next": None}

    assert main(["schedule", "r.yaml", "--cron", "0 2 * * *"]) == 0
    assert capsys.readouterr() == ("nightly: 0 2 * * * (UTC), paused; run directories go to /runs\n", "")


def test_a_server_that_plans_no_run_is_explained(answers: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    answers[0]["next"] = None

    assert main(["schedule", "r.yaml", "--cron", "0 2 * * *"]) == 0
    assert "the Prefect server has not planned a run of nightly yet" in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "printed"), [("pause", "paused"), ("resume", "resumed"), ("remove", "removed")])
def test_a_change_of_a_schedule_is_one_line(
    flag: str, printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = []
    monkeypatch.setattr(server, "change", lambda name, what: changes.append((name, what)))

    assert printed_lines(capsys, "schedule", "nightly", f"--{flag}") == [f"nightly: {printed}"]
    assert changes == [("nightly", flag)]


def test_schedules_are_listed_in_each_format(answers: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert printed_rows(capsys, "schedules") == [{name: "" if value is None else str(value) for name, value in ROW.items()}]
    assert printed_json(capsys, "schedules") == [ROW]
    header, _, row = [line for line in printed_lines(capsys, "schedules") if line.strip()]
    assert header.split() == ["name", "schedule", "next", "(UTC)", "last", "(UTC)", "ended"]
    assert row.split() == ["nightly", "0", "2", "*", "*", "*", "(UTC)", "2026-11-24", "02:00"]


def test_no_schedules_say_how_to_make_one(answers: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    answers.clear()

    assert printed_lines(capsys, "schedules") == ["no schedules; make one: thresher schedule RECIPE --cron ..."]
    assert printed_json(capsys, "schedules") == []


def test_serve_wants_at_least_one_run_at_a_time(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls = []

    def stopped(names: list[str], *, at_once: int, say: Callable[[str], None]) -> int:
        calls.append((names, at_once))
        return signal.SIGTERM

    monkeypatch.setattr(serving, "serve", stopped)

    assert main(["serve", "--at-once", "0"]) == 1
    assert capsys.readouterr().err == "thresher: --at-once: must be 1 or more, found 0\n"
    assert main(["serve", "nightly", "--at-once", "2"]) == 143
    assert capsys.readouterr().err == f"thresher: {serving.STOPPED}\n"
    assert calls == [(["nightly"], 2)]


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (Completed(message="All states completed."), None),
        (
            Failed(message="Flow run encountered an exception: PublishError: not released; --force REASON does:\n  a\n  b"),
            "not released: a; b",
        ),
        (Failed(message="Flow run encountered an exception: EngineError: no server\nmore"), "no server"),
        (Crashed(message="Process exited with status code: -9. Typically caused by ..."), "Process exited with status code: -9"),
    ],
)
def test_a_failed_run_says_why_in_a_line(
    state: State[Any], why: str | None, answers: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    answers[0]["last_message"] = server._why(state)

    assert (server._why(state) or "").startswith(why or "")
    assert server.short_rows(answers)[0].get("why") == why
    assert (why or "nightly").split()[0] in "".join(printed_lines(capsys, "schedules"))
