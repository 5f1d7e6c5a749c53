"""The processes inside the sandbox: a zygote, which never sees a job, and for every job a supervisor and the program.

The zygote forks two supervisors ahead, each into namespaces of its own (fresh.py), and another whenever one has ended. They take
turns, by a token in a pipe. So no memory, process id or file of a job is there in the next one: the zygote has the same state
before each, and the namespaces are ready before the job is.

A supervisor serves one job. It runs in the same sandbox as the program, but the program cannot reach it: it is process 1 of its
namespace (or, under Landlock, outside the program's domain), it cannot be traced, and its descriptors are closed in the child
before the program starts. It enforces the deadline, reads the child's output up to a limit, then kills every other process and
waits for each. It does not parse what the child wrote: records are passed on as bytes. Only the standard library is used.
"""

import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import random
import resource
import select
import signal
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from filters.sandbox.fresh import fork, fork_plainly, prepare, settle, wait
from filters.sandbox.harness import RECORDS_BYTES, run
from filters.sandbox.landlock import restrict, ruleset
from filters.sandbox.seccomp import Ready, load, program
from filters.sandbox.values import note_classes

JOB = struct.Struct(">dBII")
"""Seconds, whether it is a script, length of the job (JSON) and of its standard input in bytes."""
LENGTH = struct.Struct(">I")
STDOUT_BYTES = 1 << 20
_CHANNEL_FROM = 24
_RESET = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)
_TOKEN, _END = b"x", b"."
"""What is in the pipe of turns: it is another supervisor's turn, or there are no more jobs."""
_CLOSED = 3
"""Exit status of a supervisor whose control socket was closed: the zygote ends too."""
_PR_SET_DUMPABLE, _PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 4, 1, 36
_prctl = ctypes.CDLL(None, use_errno=True).prctl

PRELOADED = (
    "abc ast base64 binascii bisect calendar cmath collections collections.abc contextlib copy ctypes dataclasses "
    "datetime decimal difflib enum fractions functools hashlib heapq inspect io itertools json keyword math numbers "
    "operator os pprint queue random re secrets shlex socket statistics string struct subprocess tempfile textwrap "
    "threading time timeit traceback types typing unicodedata unittest urllib.parse uuid warnings weakref zlib "
).split()
"""Modules that programs use most, imported once before the fork."""


def _read(fd: int, size: int) -> bytes:
    """Read exactly `size` bytes. Ends this process (_CLOSED) when the other side has closed the descriptor."""
    parts = []
    while size:
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            os._exit(_CLOSED)
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def serve(settings: dict[str, Any]) -> NoReturn:
    """Run jobs from descriptor 0 until it is closed, each in a supervisor of its own."""
    in_namespaces = settings["layer"] == "bwrap"
    if in_namespaces and os.getpid() != 1:
        raise OSError("not process 1 of its own PID namespace")
    control = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 10)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGPIPE", "SIGXFSZ"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if _prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    os.umask(0o077)
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if settings["packages"]:
        sys.path.append(settings["packages"])
    for name in settings["imports"]:
        importlib.import_module(name)
    note_classes()
    confinement = prepare(settings["devices"]) if in_namespaces else ruleset(settings["readable"], settings["devices"])
    ready = json.dumps({"python": ".".join(map(str, sys.version_info[:3]))}).encode()
    greeting = LENGTH.pack(len(ready)) + ready
    gc.collect()
    gc.disable()
    gc.freeze()
    zygote, turn = os.getpid(), os.pipe()
    os.write(turn[1], _TOKEN)
    fds = (control, *turn)
    if fork(namespaces=in_namespaces):
        _supervise(zygote, fds, settings, confinement, greeting)
    status = 0
    while not status:
        if fork(namespaces=in_namespaces):
            _supervise(zygote, fds, settings, confinement, b"")
        status = wait()
    os.write(turn[1], _END)
    while wait() >= 0:
        pass
    os._exit(0 if os.waitstatus_to_exitcode(status) == _CLOSED else 1)


def _supervise(
    zygote: int, fds: tuple[int, int, int], settings: dict[str, Any], confinement: Ready | int, greeting: bytes
) -> NoReturn:
    """In the supervisor: confine itself as far as all of its job is confined, wait for its turn, read and answer the job, and
    end. `fds`: the control socket, and the two ends of the pipe with the token."""
    control, turn, pass_on = fds
    confine: Callable[[], None] = _no_further
    if not isinstance(confinement, Ready):
        _end_with(zygote)
        if _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
        os.chdir(settings["folder"])
        confine = _confinement(confinement, os.getpid())
    elif greeting:  # the first one, which shows that it can be done
        settle(settings["folder"], settings["folder_bytes"], confinement)
    _write(control, greeting)
    os.dup2(0, 2)
    if _read(turn, len(_TOKEN)) == _END:
        os._exit(_CLOSED)
    header = _read(control, JOB.size)
    if isinstance(confinement, Ready) and not greeting:  # only now: the time of its mount would tell how long the last job took
        settle(settings["folder"], settings["folder_bytes"], confinement)
    seconds, script, job_bytes, stdin_bytes = JOB.unpack(header)
    job = _Job(seconds, bool(script), _read(control, job_bytes), _read(control, stdin_bytes))
    head, records, stdout = _run_job(control, settings, confine, job)
    text = json.dumps(head).encode()
    _write(control, LENGTH.pack(len(text)) + text + records + stdout)
    os.write(pass_on, _TOKEN)
    os._exit(0)


def _no_further() -> None:
    """In namespaces the program is confined as its supervisor is."""


def _confinement(rules: int, supervisor: int) -> Callable[[], None]:
    """Return the function by which the program confines itself under Landlock."""

    def confine() -> None:
        _end_with(supervisor)  # the filter forbids undoing this
        restrict(rules)
        load(program(own_pid=os.getpid()))

    return confine


def _end_with(parent: int) -> None:
    """Let the kernel end this process when its parent ends, for whatever reason."""
    if _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) or os.getppid() != parent:
        os._exit(120)


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
        random.seed()
        for number in _RESET:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stdin, stdout, records = fds
        os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        channel = fcntl.fcntl(records, fcntl.F_DUPFD_CLOEXEC, _CHANNEL_FROM)
        memory, cpu = settings["memory_bytes"], int(job.seconds) + 2
        for limit, value in (
            (resource.RLIMIT_NPROC, settings["processes"]),
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
    pid = fork_plainly()
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
    os._exit(_CLOSED)
