"""Ends an engine's processes when the process that holds the engine is gone.

vLLM's engine processes live on, computing, when their parent is killed with SIGKILL (vllm-project/vllm#55510). So a small
process waits at the end of a pipe from the parent: when the pipe closes, it kills the processes it was told of.

They are spawned, and a spawned process imports its parent's main module: a script of somebody's own would be run again in each,
and vLLM's CPU worker dies of what thresher.run.steps imports there (numba; vllm 0.32 looks through every module). So while they
start, the main module is hidden.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

_TOGETHER = "from thresher.samplers.orphans import together; together()"
_WAIT = "import sys; from thresher.samplers.orphans import wait; wait()"


GRACE_S = 10.0
"""Seconds that a program has to end by itself."""


class Guard:
    """Watches over the processes that are started inside `watching()`, and their children."""

    def __init__(self) -> None:
        self._waiter: subprocess.Popen[str] | None = None
        self._watched: set[tuple[int, str]] = set()
        self._engines: set[tuple[int, str]] = set()

    @contextmanager
    def watching(self) -> Iterator[None]:
        before, main = _descendants(os.getpid()), sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main
            self._watched = {one for one in _descendants(os.getpid()) - before if not _is_tracker(one[0])}
            self._engines = {one for one in self._watched if b"VLLM::" in _command(one[0])}
            if self._watched:
                self._waiter = subprocess.Popen(
                    [sys.executable, "-c", _WAIT], stdin=subprocess.PIPE, text=True, start_new_session=True
                )
                assert self._waiter.stdin is not None
                self._waiter.stdin.write("".join(f"{pid} {started}\n" for pid, started in self._watched) + "\n")
                self._waiter.stdin.flush()

    def whole(self) -> bool:
        """Whether every engine process among the watched ones (vLLM calls them VLLM::...) is still there."""
        return all(_started(pid) == started and _state(pid) != "Z" for pid, started in self._engines)

    def end(self) -> None:
        """Kill what is left of the watched processes."""
        kill(self._watched)
        self._watched, self._engines = set(), set()
        if self._waiter is not None:
            assert self._waiter.stdin is not None
            self._waiter.stdin.close()
            self._waiter.wait()
            self._waiter = None


def apart(command: Sequence[str], log: BinaryIO) -> subprocess.Popen[bytes]:
    """Begin a program in a session of its own, that ends, with all it began, when this process does or closes its input."""
    return subprocess.Popen(
        [sys.executable, "-c", _TOGETHER, *command], stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
    )


def together() -> None:
    """Run the program in the arguments; when it or the input ends, end it and whatever it left in this session. Who waits for the
    end of the input is a process of its own, and no child of the one that began this: Ray kills the children of an actor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    started = _started(program.pid)
    if os.fork() == 0:
        sys.stdin.buffer.read()
        if _started(program.pid) == started:
            with suppress(ProcessLookupError):
                os.kill(program.pid, signal.SIGTERM)
        until = time.monotonic() + GRACE_S
        while _started(program.pid) == started and _state(program.pid) != "Z" and time.monotonic() < until:
            time.sleep(0.1)
    else:
        program.wait()
    os.killpg(0, signal.SIGKILL)


def wait() -> None:
    """Read `pid started` lines up to an empty one, then wait for the end of the input and kill those processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    watched = set()
    for line in sys.stdin:
        if not line.strip():
            break
        pid, started = line.split()
        watched.add((int(pid), started))
    sys.stdin.read()
    kill(watched)


def kill(processes: set[tuple[int, str]]) -> None:
    """Kill those that are still the same process: a pid may have been given to another since."""
    for pid, started in processes:
        if _started(pid) == started:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _is_tracker(pid: int) -> bool:
    """Whether this is multiprocessing's resource tracker: it serves this process, not the engine alone, and ends by itself."""
    return b"multiprocessing.resource_tracker" in _command(pid)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _state(pid: int) -> str:
    """One letter, Z for a process that has ended and nobody has asked after; empty for one that is gone."""
    fields = _stat(pid)
    return fields[0] if fields else ""


def _started(pid: int) -> str:
    """Start time in clock ticks, empty for a process that is gone."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def _descendants(root: int) -> set[tuple[int, str]]:
    """(pid, start time) of all children of a process and theirs. Empty where there is no /proc."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(folder.name))
        if fields:
            parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found, todo = set(), [root]
    while todo:
        for child in parents.get(todo.pop(), []):
            found.add((child, _started(child)))
            todo.append(child)
    return found
