"""Ends the processes of an engine when the process that started it is gone.

vLLM's engine processes keep running when their parent is killed with SIGKILL (vllm-project/vllm#55510). So a small process waits
at the end of a pipe from the parent: when the pipe closes, it kills the processes it was given.

Engine processes are spawned, and a spawned process imports its parent's main module. A user's script would run again in each of
them, and vLLM's CPU worker dies of the imports of thresher.running.steps (numba; vLLM 0.32 inspects every module). So the main
module is hidden while engine processes start.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import IO, NamedTuple

_RUN_BOUND = "from thresher.samplers.orphans import run_bound; run_bound()"
_KILL_LISTED = "from thresher.samplers.orphans import kill_listed; kill_listed()"

GRACE_S = 10.0
"""Seconds that a program may take to end after SIGTERM."""


class ProcessId(NamedTuple):
    """A process. The kernel reuses a pid, but not with the same start time."""

    pid: int
    started: str
    """Start time in clock ticks."""


class Guard:
    """Watches the processes that are started inside `watching()`, and their children."""

    def __init__(self) -> None:
        self._waiter: subprocess.Popen[str] | None = None
        self._watched: set[ProcessId] = set()
        self._engines: set[ProcessId] = set()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch all processes started inside the block."""
        before, main = descendants(os.getpid()), sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main
            self._watched = {process for process in descendants(os.getpid()) - before if not _is_tracker(process.pid)}
            self._engines = {process for process in self._watched if b"VLLM::" in command_line(process.pid)}
            if self._watched:
                self._waiter = subprocess.Popen(
                    [sys.executable, "-c", _KILL_LISTED], stdin=subprocess.PIPE, text=True, start_new_session=True
                )
                assert self._waiter.stdin is not None
                self._waiter.stdin.write("".join(f"{pid} {started}\n" for pid, started in self._watched) + "\n")
                self._waiter.stdin.flush()

    def complete(self) -> bool:
        """Return whether all watched engine processes (vLLM names them VLLM::...) are running."""
        return all(is_running(process) for process in self._engines)

    def end(self) -> None:
        """Kill the watched processes that are still running."""
        kill(self._watched)
        self._watched, self._engines = set(), set()
        if self._waiter is not None:
            assert self._waiter.stdin is not None
            self._waiter.stdin.close()
            self._waiter.wait()
            self._waiter = None


def start_bound(command: Sequence[str], log: IO[bytes], environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, in this process's environment or another one. It ends, with all its children, when
    this process ends or closes its input."""
    start = [sys.executable, "-c", _RUN_BOUND, *command]
    return subprocess.Popen(start, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True, env=environment)


def run_bound() -> None:
    """Run the program in the arguments. When it or the input ends, end it and the rest of this session.

    A forked process waits for the end of the input. It is no child of the process that started this one, because Ray kills the
    children of an actor.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    process = ProcessId(program.pid, start_time(program.pid))
    if os.fork() == 0:
        sys.stdin.buffer.read()
        if start_time(process.pid) == process.started:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        while is_running(process) and time.monotonic() < deadline:
            time.sleep(0.1)
    else:
        program.wait()
    os.killpg(0, signal.SIGKILL)


def kill_listed() -> None:
    """Read lines `pid started` up to an empty one, wait for the end of the input, then kill those processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    processes = set()
    for line in sys.stdin:
        if not line.strip():
            break
        pid, started = line.split()
        processes.add(ProcessId(int(pid), started))
    sys.stdin.read()
    kill(processes)


def kill(processes: set[ProcessId]) -> None:
    """Kill processes, but none that has got the pid of one of them since."""
    for pid, started in processes:
        if start_time(pid) == started:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


# -- /proc; without it, there are no processes -------------------------------------------------------------------------


def descendants(root: int) -> set[ProcessId]:
    """Return all children of a process, and their children."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        if parent := parent_of(int(folder.name)):
            children.setdefault(parent, []).append(int(folder.name))
    processes, pending = set(), [root]
    while pending:
        for child in children.get(pending.pop(), []):
            processes.add(ProcessId(child, start_time(child)))
            pending.append(child)
    return processes


def is_running(process: ProcessId) -> bool:
    """Return whether a process has not ended. A zombie, whose parent has not read its status, has ended."""
    fields = _stat(process.pid)
    return bool(fields) and fields[19] == process.started and fields[0] != "Z"


def start_time(pid: int) -> str:
    """Return the start time of a process in clock ticks, "" if there is no such process."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def parent_of(pid: int) -> int:
    """Return the pid of the parent, 0 if there is no such process."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def processor_seconds(root: int) -> float:
    """Return the processor time of a process and its descendants, in seconds."""
    processes = [root, *(child.pid for child in descendants(root))]
    ticks = sum(int(fields[11]) + int(fields[12]) for fields in map(_stat, processes) if fields)
    return ticks / os.sysconf("SC_CLK_TCK")


def command_line(pid: int) -> bytes:
    """Return the command line of a process, b"" if there is no such process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _is_tracker(pid: int) -> bool:
    """Whether this is multiprocessing's resource tracker, which also serves this process and ends by itself."""
    return b"multiprocessing.resource_tracker" in command_line(pid)
