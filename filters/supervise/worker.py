"""One supervised worker, seen from its pool: its process, its socket, and the items it has been sent."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from filters.supervise.serve import LENGTH, OUT_OF_MEMORY, framed

START_S = 180.0
"""Seconds a worker may take to import what its task needs."""
RECEIVE_BYTES = 1 << 18
BUSY = 0.9
"""Share of the time for an item that a worker computes at least, if the item is to blame for being late."""
_CHILD = (
    "import sys, orjson; sys.path[:] = orjson.loads(sys.argv[2]); from filters.supervise.serve import serve; "
    "serve(int(sys.argv[1]))"
)


@dataclass(eq=False)
class Worker:
    """A worker process. `ready`: its task is imported. `exclusive`: it runs an item that failed before, without others beside it.

    `answered` counts items. `pending` are the numbers of items that were sent and not answered, in the order of sending. `used_s`
    is the processor time, in seconds, at which an exclusive item was sent.
    """

    task: str
    setup: Any
    seconds: float
    memory_mib: int
    ready: bool = False
    exclusive: bool = False
    answered: int = 0
    pending: dict[int, None] = field(default_factory=dict)
    deadline: float = 0.0
    used_s: float | None = None
    buffer: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        with theirs:
            # The hash seed is fixed, so that a verdict does not depend on the process it comes from.
            environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            self.process = subprocess.Popen(
                [sys.executable, "-c", _CHILD, str(theirs.fileno()), orjson.dumps(sys.path).decode()],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        self.deadline = time.monotonic() + START_S
        self._send([self.task, self.setup, self.seconds, self.memory_mib])

    def send(self, chunk: Sequence[tuple[int, Any]]) -> None:
        """Send items (number, item). The deadline of the first starts now."""
        self.pending = dict.fromkeys(number for number, _ in chunk)
        if self.exclusive:
            self.used_s = _processor_s(self.process.pid)
        self._send(chunk)
        self.deadline = time.monotonic() + self.seconds

    def _send(self, message: Any) -> None:
        self.socket.settimeout(START_S)
        with contextlib.suppress(OSError):  # the worker has died: reading from it reports that
            self.socket.sendall(framed(message))
        self.socket.setblocking(False)

    def receive(self) -> bool:
        """Read what has arrived. Returns False if the worker has ended."""
        try:
            while part := self.socket.recv(RECEIVE_BYTES):
                self.buffer += part
                if len(part) < RECEIVE_BYTES:
                    return True
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def messages(self) -> list[tuple[int, str, Any]]:
        """Take the complete messages (number, kind, value) read so far. An answer starts the deadline of the next item."""
        complete, position = [], 0
        while len(self.buffer) - position >= LENGTH.size:
            (size,) = LENGTH.unpack_from(self.buffer, position)
            if len(self.buffer) - position - LENGTH.size < size:
                break
            position += LENGTH.size
            number, kind, value = orjson.loads(bytes(memoryview(self.buffer)[position : position + size]))
            position += size
            complete.append((number, kind, value))
            if self.pending.pop(number, False) is None:
                self.answered += 1
        del self.buffer[:position]
        if complete:
            self.deadline = time.monotonic() + self.seconds
        return complete

    def kill(self) -> None:
        """End the worker and everything it started, and wait for it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.socket.close()

    def waited(self) -> bool:
        """Whether it computed for less than BUSY of the time for an exclusive item: it waited for the machine or for others."""
        now_s = _processor_s(self.process.pid)
        return self.used_s is not None and now_s is not None and now_s - self.used_s < BUSY * self.seconds

    @property
    def out_of_memory(self) -> bool:
        """Whether it ended at its own memory limit."""
        return self.process.returncode == OUT_OF_MEMORY

    def epitaph(self) -> str:
        """How the worker ended, if it ended by itself."""
        status = self.process.returncode
        if self.out_of_memory:
            return f"out of memory, {self.memory_mib} MiB allowed"
        return f"the worker died of {signal.Signals(-status).name}" if status < 0 else f"the worker exited with {status}"


def _processor_s(pid: int) -> float | None:
    """Seconds of processor time that a process has used; None where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
