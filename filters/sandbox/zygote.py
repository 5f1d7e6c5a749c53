"""The process inside the sandbox that forks a child for every program, one at a time, and cleans up after it.

It runs in the same sandbox as the program, but the program cannot reach it: it is process 1 of its namespace (or, under Landlock,
outside the program's domain), it cannot be traced, and its descriptors are closed in the child before the program starts. It
enforces the deadline, reads the child's output up to a limit, then kills every other process, waits for each, and empties the
writable folder. It does not parse what the child wrote: records are passed on as bytes. Only the standard library is used.
"""

import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import resource
import select
import signal
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from filters.sandbox.harness import RECORDS_BYTES, run
from filters.sandbox.landlock import restrict, ruleset
from filters.sandbox.seccomp import load, program

JOB = struct.Struct(">dBII")
"""Seconds, whether it is a script, length of the job (JSON) and of its standard input in bytes."""
LENGTH = struct.Struct(">I")
STDOUT_BYTES = 1 << 20
_CHANNEL_FROM = 24
_PR_SET_DUMPABLE, _PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 4, 1, 36

PRELOADED = (
    "abc ast base64 binascii bisect calendar cmath collections collections.abc contextlib copy ctypes dataclasses "
    "datetime decimal difflib enum fractions functools hashlib heapq inspect io itertools json keyword math numbers "
    "operator os pprint queue random re secrets shlex socket statistics string struct subprocess tempfile textwrap "
    "threading time timeit traceback types typing unicodedata unittest urllib.parse uuid warnings weakref zlib "
).split()
"""Modules that programs use most, imported once before the fork."""


def _read(fd: int, size: int) -> bytes:
    """Read exactly `size` bytes. Ends this process when the other side has closed the descriptor."""
    parts = []
    while size:
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            os._exit(0)
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def serve(settings: dict[str, Any]) -> NoReturn:
    """Run jobs from descriptor 0 until it is closed."""
    if settings["layer"] == "bwrap" and os.getpid() != 1:
        raise OSError("not process 1 of its own PID namespace")  # it kills every process that it sees
    control = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 10)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGPIPE", "SIGXFSZ"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    for limit, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_NPROC, settings["processes"])):
        resource.setrlimit(limit, (value, value))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) or libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    os.chdir(settings["folder"])
    os.umask(0o077)
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    confine = _confinement(settings, libc)
    gc.collect()
    gc.disable()
    gc.freeze()
    ready = json.dumps({"pid": os.getpid(), "python": ".".join(map(str, sys.version_info[:3]))})
    _write(control, LENGTH.pack(len(ready)) + ready.encode())
    os.dup2(null, 2)
    while True:
        _serve_job(control, settings, confine)


def _serve_job(control: int, settings: dict[str, Any], confine: Callable[[], None]) -> None:
    """Read one job and answer it. A separate function, so that no local name keeps a finished job in memory."""
    seconds, script, job_bytes, stdin_bytes = JOB.unpack(_read(control, JOB.size))
    job = _Job(seconds, bool(script), _read(control, job_bytes), _read(control, stdin_bytes))
    head, records, stdout = _run_job(control, settings, confine, job)
    head["clean"] = _emptied(settings["folder"]) if settings["writable"] else True
    text = json.dumps(head).encode()
    _write(control, LENGTH.pack(len(text)) + text + records + stdout)


def _confinement(settings: dict[str, Any], libc: ctypes.CDLL) -> Callable[[], None]:
    """Return the function by which the child confines itself: a no-op in namespaces, everything under Landlock."""
    if settings["layer"] == "bwrap":
        return lambda: None
    rules = ruleset(settings["readable"], settings["devices"])

    def confine() -> None:
        # The kernel sends this signal when the zygote ends, for whatever reason; the filter forbids disabling it.
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) or os.getppid() != zygote:
            os._exit(120)
        restrict(rules)
        load(program(own_pid=os.getpid()))

    zygote = os.getpid()
    return confine


# -- one job ---------------------------------------------------------------------------------------------------------------


class _Job(NamedTuple):
    seconds: float
    script: bool
    body: bytes
    stdin: bytes


@dataclass
class _Child:
    """A running child: the parent's ends of its pipes (-1: none), the bytes still allowed, and the bytes read so far."""

    pid: int
    records: int
    stdout: int
    feed: int
    open: set[int]
    caps: dict[int, int]
    parts: dict[int, list[bytes]]


def _start_program(settings: dict[str, Any], confine: Callable[[], None], job: _Job, fds: tuple[int, int, int]) -> NoReturn:
    """In the child: drop all privileges, then run the program. `fds`: standard input, standard output and the channel."""
    try:
        os.setsid()
        for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stdin, stdout, records = fds
        os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        channel = fcntl.fcntl(records, fcntl.F_DUPFD_CLOEXEC, _CHANNEL_FROM)
        memory, cpu = settings["memory_bytes"], int(job.seconds) + 2
        for limit, value in (
            (resource.RLIMIT_AS, memory),
            (resource.RLIMIT_DATA, memory),
            (resource.RLIMIT_FSIZE, settings["file_bytes"]),
            (resource.RLIMIT_NOFILE, settings["files"]),
            (resource.RLIMIT_CPU, cpu),
            (resource.RLIMIT_MEMLOCK, 0),
            (resource.RLIMIT_MSGQUEUE, 0),
        ):
            resource.setrlimit(limit, (value, value))
        confine()
        os.closerange(3, channel)
        os.closerange(channel + 1, settings["files"] + channel)
    except BaseException:  # noqa: BLE001 - the confinement failed: the program must not start
        os._exit(120)
    try:
        run(job.body, channel)
    finally:
        os._exit(122)  # the harness did not end this process: the program has tampered with it


def _run_job(
    control: int, settings: dict[str, Any], confine: Callable[[], None], job: _Job
) -> tuple[dict[str, Any], bytes, bytes]:
    """Run one job, and end everything it started. Returns how it ended, its records and its standard output."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    records, records_in = os.pipe()
    stdin_out, feed = os.pipe() if job.script else (null, -1)
    stdout, stdout_in = os.pipe() if job.script else (-1, null)
    deadline = time.monotonic() + job.seconds
    pid = os.fork()
    if pid == 0:
        _start_program(settings, confine, job, (stdin_out, stdout_in, records_in))
    for fd in {null, records_in, stdin_out, stdout_in}:
        os.close(fd)
    child = _Child(
        pid,
        records,
        stdout,
        feed,
        {fd for fd in (records, stdout, feed) if fd >= 0},
        {records: RECORDS_BYTES + 4096, stdout: STDOUT_BYTES},
        {records: [], stdout: []},
    )
    for fd in child.open:
        os.set_blocking(fd, False)
    try:
        process = os.pidfd_open(pid)
    except OSError:  # before Linux 5.3
        process = -1
    end = _watched(control, child, process, deadline, memoryview(job.stdin))
    if process >= 0:
        os.close(process)
    status, cpu = _all_ended(pid, namespace=settings["layer"] == "bwrap")
    for fd in child.open:
        if fd != feed:
            _drained(fd, child)  # all writers have ended
        os.close(fd)
    if child.caps[records] < 0:
        end = "flood"
    output, frames = b"".join(child.parts[stdout]), b"".join(child.parts[records])
    cut = len(output) > STDOUT_BYTES
    output = output[:STDOUT_BYTES]
    head = {"end": end, "status": status, "cpu": cpu, "records": len(frames), "stdout": len(output), "cut": cut}
    return head, frames, output


def _watched(control: int, child: _Child, process: int, deadline: float, stdin: memoryview) -> str:
    """Feed and read the child until it exits, exceeds its deadline or writes too much. Returns which."""
    poller = select.poll()
    poller.register(control, select.POLLIN)
    if process >= 0:
        poller.register(process, select.POLLIN)
    for fd in child.open:
        poller.register(fd, select.POLLOUT if fd == child.feed else select.POLLIN)
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return "timeout"
        wait = left * 1000 + 1 if process >= 0 else min(left * 1000 + 1, 2)
        exited = process < 0 and os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        for fd, _ in poller.poll(0 if exited else wait):
            ended = False
            if fd == control:  # nothing is sent while a job runs: thresher has ended
                _end_of_all(child.pid)
            elif fd == process:
                exited = True
            elif fd == child.feed:
                try:
                    stdin = stdin[os.write(fd, stdin[:65_536]) :] if stdin else stdin
                except OSError:  # the program does not read it
                    stdin = stdin[:0]
                ended = not stdin
            else:
                ended = _drained(fd, child)
                if child.caps[fd] < 0:
                    return "full"
            if ended:
                poller.unregister(fd)
                child.open.discard(fd)
                os.close(fd)
        if exited:
            return "exit"


def _drained(fd: int, child: _Child) -> bool:
    """Read what the pipe holds now, until the cap is exceeded. Returns True at the end of the pipe."""
    while child.caps[fd] >= 0:
        try:
            part = os.read(fd, 65_536)
        except BlockingIOError:
            return False
        if not part:
            return True
        child.parts[fd].append(part)
        child.caps[fd] -= len(part)
    return False


def _all_ended(pid: int, *, namespace: bool) -> tuple[int, float]:
    """Kill and wait for every other process. Returns the child's wait status and the processor seconds of all."""
    with contextlib.suppress(ProcessLookupError):
        if namespace:
            os.kill(-1, signal.SIGKILL)  # every process in this namespace except process 1, which is this one
        else:
            os.killpg(pid, signal.SIGKILL)  # no process can leave the group: setsid and setpgid are refused
    status, cpu = 0, 0.0
    while True:
        try:
            ended, how, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return status, cpu
        if ended == pid:
            status = how
        cpu += usage.ru_utime + usage.ru_stime


def _end_of_all(pid: int) -> NoReturn:
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    os._exit(0)


def _emptied(folder: str) -> bool:
    """Remove everything in `folder` and reset its mode and times. Returns False if that failed.

    Subfolders are moved up and emptied one by one, not walked, so that no depth and no path length can stop it.
    """
    moved = 0
    try:
        os.chmod(folder, 0o700)
        while entries := list(os.scandir(folder)):
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                os.chmod(entry.path, 0o700)
                for inner in os.scandir(entry.path):
                    if inner.is_dir(follow_symlinks=False):
                        os.chmod(inner.path, 0o700)
                        moved += 1
                        os.rename(inner.path, f"{folder}/{moved}.{entry.inode()}")
                    else:
                        os.unlink(inner.path)
                os.rmdir(entry.path)
        os.utime(folder, (0, 0))
        return True
    except OSError:
        return False
