"""How a job's records are read: what the harness writes is understood, and anything else is tampering."""

import signal
from typing import Any

import pytest

from filters.sandbox.harness import BROKEN_CHANNEL, END, FAILED, RECORD, STARTED
from filters.sandbox.jobs import Frame, Job, Ran, ran

JOB = Job("", calls=("f(1)", "f(2)"))
START, LAST = RECORD.pack(STARTED, 0), RECORD.pack(END, 0)


def record(index: int, payload: bytes) -> bytes:
    return RECORD.pack(index, len(payload)) + payload


FIRST, SECOND = record(0, b'["v",1]'), record(1, b'["r","ValueError","no"]')


def read(records: bytes, *, end: str = "exit", status: int = 0, cut: bool = False) -> Ran:
    head: dict[str, Any] = {"end": end, "status": status, "cut": cut}
    return ran(JOB, head, records, b"")


def test_values_and_exceptions_are_frames() -> None:
    assert read(START + FIRST + SECOND + LAST) == Ran("done", (Frame(1), Frame(None, ("ValueError", "no"))))


@pytest.mark.parametrize(
    ("records", "status", "end", "kind"),
    [
        (START + FIRST, 0, "timeout", "timeout"),
        (START + FIRST, signal.SIGXCPU, "exit", "timeout"),
        (START + FIRST, signal.SIGSEGV, "exit", "crash"),
        (START + FIRST, 3 << 8, "exit", "crash"),
        (b"", 0, "exit", "error"),
        (START + FIRST, BROKEN_CHANNEL << 8, "exit", "tampering"),
        (START + FIRST[:-2], 0, "exit", "tampering"),
        (START + FIRST + SECOND + LAST, 3 << 8, "exit", "tampering"),
        (START + FIRST + LAST, 0, "exit", "tampering"),
        (START + SECOND, 0, "exit", "tampering"),
        (FIRST, 0, "exit", "tampering"),
        (START + record(0, b'["x",1]'), 0, "exit", "tampering"),
        (START + record(FAILED, b'["v",1]'), 0, "exit", "tampering"),
        (START + FIRST + SECOND + LAST + FIRST, 0, "exit", "tampering"),
        (START, 0, "flood", "tampering"),
    ],
    ids=[
        "late", "processor time", "signal", "exit", "not started", "channel closed", "torn", "exit after the last",
        "last is early", "wrong index", "no start", "no value", "failure with a value", "data after the last", "flood",
    ],
)  # fmt: skip
def test_how_a_job_ended_is_its_kind(records: bytes, status: int, end: str, kind: str) -> None:
    assert read(records, status=status, end=end).kind == kind


def test_a_program_that_raised_has_no_frames() -> None:
    assert read(START + record(FAILED, b'["r","KeyError","k"]') + LAST) == Ran("done", failed=("KeyError", "k"))


def test_no_expected_value_is_in_the_message() -> None:
    """What is sent inside are the program and its calls; a script gets no calls."""
    assert Job("p", ("f(1)",)).message() == b'{"program": "p", "calls": ["f(1)"], "script": false}'
    assert Job("p", ("f(1)",), stdin="x").message() == b'{"program": "p", "calls": [], "script": true}'
