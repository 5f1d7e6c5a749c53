"""A worker seen from its pool: messages that arrive in parts, deadlines, and how it ended."""

import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from filters.supervise.serve import OUT_OF_MEMORY, framed
from filters.supervise.worker import START_S, Worker


@pytest.fixture
def channel() -> Iterator[tuple[Worker, socket.socket]]:
    """A worker whose process was killed, with a new socket to write to in its place."""
    worker = Worker("no_such_module:build", None, 5.0, 512)
    worker.kill()
    worker.socket, far = socket.socketpair()
    worker.socket.setblocking(False)
    with worker.socket, far:
        yield worker, far


def test_messages_are_complete_or_kept_for_later(channel: tuple[Worker, socket.socket]) -> None:
    worker, far = channel
    worker.pending = dict.fromkeys([0, 1])
    data = framed([0, "done", "a"]) + framed([1, "done", "b"])
    far.sendall(data[:-3])

    assert worker.receive()
    assert worker.messages() == [(0, "done", "a")]
    assert (list(worker.pending), worker.answered) == ([1], 1)
    far.sendall(data[-3:])
    assert worker.receive()
    assert worker.messages() == [(1, "done", "b")]
    far.close()
    assert not worker.receive()


def test_an_answer_starts_the_deadline_of_the_next_item(channel: tuple[Worker, socket.socket]) -> None:
    worker, far = channel
    worker.deadline = 0.0
    far.sendall(framed([7, "done", None]))
    worker.receive()
    worker.messages()

    assert 0 < worker.deadline - time.monotonic() <= 5.0 < START_S


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (-signal.SIGSEGV, "the worker died of SIGSEGV"),
        (3, "the worker exited with 3"),
        (OUT_OF_MEMORY, "out of memory, 512 MiB allowed"),
    ],
)
def test_the_end_of_a_worker_is_described(channel: tuple[Worker, socket.socket], status: int, text: str) -> None:
    worker, _ = channel
    worker.process.returncode = status

    assert worker.epitaph() == text


def test_a_killed_worker_is_waited_for() -> None:
    worker = Worker("no_such_module:build", None, 5.0, 512)
    pid = worker.process.pid
    worker.kill()

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
