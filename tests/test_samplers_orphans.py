"""Processes that end with the process that started them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from thresher.samplers.orphans import (
    Guard,
    ProcessId,
    command_line,
    descendants,
    is_running,
    kill,
    parent_of,
    processor_seconds,
    start_time,
)

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(SLEEP) as process:
        yield process
        process.kill()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_is_described_by_proc(sleeper: subprocess.Popen[bytes]) -> None:
    process = ProcessId(sleeper.pid, start_time(sleeper.pid))

    assert process in descendants(os.getpid())
    assert parent_of(sleeper.pid) == os.getpid()
    wait_until(lambda: b"time.sleep" in command_line(sleeper.pid))
    assert is_running(process)
    assert not is_running(ProcessId(sleeper.pid, "1"))


def test_processor_time_is_that_of_a_process_and_its_children(sleeper: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: b"time.sleep" in command_line(sleeper.pid))

    assert processor_seconds(os.getpid()) >= processor_seconds(sleeper.pid) >= 0
    assert processor_seconds(os.getpid()) > 0.5 * time.process_time()


def test_a_process_that_does_not_exist_is_empty() -> None:
    assert (start_time(2**31 - 1), command_line(2**31 - 1), parent_of(2**31 - 1)) == ("", b"", 0)


def test_another_process_with_a_reused_pid_is_not_killed(sleeper: subprocess.Popen[bytes]) -> None:
    kill({ProcessId(sleeper.pid, "1")})
    assert sleeper.poll() is None
    kill({ProcessId(sleeper.pid, start_time(sleeper.pid))})

    assert sleeper.wait(20) == -9


def test_a_zombie_has_ended(sleeper: subprocess.Popen[bytes]) -> None:
    process = ProcessId(sleeper.pid, start_time(sleeper.pid))
    kill({process})
    wait_until(lambda: not is_running(process))

    assert start_time(sleeper.pid) == process.started


def test_the_main_module_is_hidden_while_processes_start() -> None:
    main = sys.modules["__main__"]
    with Guard().watching():
        assert sys.modules["__main__"] is not main
        assert not hasattr(sys.modules["__main__"], "__file__")

    assert sys.modules["__main__"] is main


def test_a_guard_kills_the_processes_started_under_it() -> None:
    guard = Guard()
    with subprocess.Popen(SLEEP) as earlier:
        with guard.watching():
            watched = subprocess.Popen(SLEEP)
        assert guard.complete()
        guard.end()
        assert watched.wait(20) == -9
        assert earlier.poll() is None
        earlier.kill()


@pytest.mark.slow
def test_guarded_processes_end_when_their_parent_is_killed() -> None:
    """kill -9 gives the parent no chance to end them."""
    script = (
        "import subprocess, sys, time; from thresher.samplers.orphans import Guard; guard = Guard()\n"
        f"with guard.watching(): child = subprocess.Popen({SLEEP!r})\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        child = ProcessId(pid, start_time(pid))
        assert is_running(child)
        parent.kill()
    wait_until(lambda: not is_running(child))
