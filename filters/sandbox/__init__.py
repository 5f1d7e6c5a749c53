"""Run untrusted programs. Only values leave the sandbox, never verdicts.

    from filters.sandbox import Job, Sandbox
    with Sandbox() as sandbox:
        [ran] = sandbox.run([Job("def f(x): return x + 1", calls=("f(41)",))])
    ran.frames[0].value                                            # 42

A zygote is a warm Python process inside bubblewrap: separate namespaces for users, processes, network, mounts and the rest; a
non-root user; only the interpreter's files and the packages of the recipe readable; no /proc, no environment variables; a seccomp
filter. For each program it forks a supervisor into a PID and a mount namespace of its own, with a new /tmp of 32 MiB that alone
is writable; the supervisor forks the program, with resource limits. When the program ends, everything it started is killed and
waited for, and the namespaces end with the supervisor. The zygote never sees a job or an answer, and forks the next supervisor
from the same state. So programs that run one after the other share no file, inode number, process id, memory, time of a file or
setting: tests leave a mark in some thirty ways and look for it. Where user namespaces are missing, Landlock, seccomp and resource
limits replace them, and nothing is writable. Before the first program the self-test tries to break out. A layer that does not
hold is not used; if none holds, `run` raises SandboxError. There is no mode without a sandbox.

What this does NOT stop:
- A hole in the kernel that is open to an unprivileged process without sockets, namespaces, io_uring, bpf and keyrings.
- Side channels: time, caches, load, locks on files that both may read. Two programs that run at the same time could signal each
  other this way, and programs that run one after the other by what the whole machine counts or remembers: the load, free memory
  and number of processes (`sysinfo`), the numbers of pipes, sockets, mounts and devices, which the kernel gives in a row for all
  of the machine, and which parts of the interpreter's files are in its cache (page faults and time show it).
- Use up to the limits: one core (or more, in several processes) for the seconds of the job, and a total of processes x memory (16
  x 512 MiB), because resource limits are per process. If that is too much, run thresher in a memory cgroup.
- Many small files: the 32 MiB count data; each empty file costs the kernel about 1 KiB more until the program has ended.
- Reading what the interpreter reads: its standard library, the C libraries, time zones, the time, the kernel's version, the
  amount of memory and the number of cores. Under Landlock also the sizes and times of files whose names it guesses (`stat`), but
  not the contents of a file or folder, and which process ids exist and come next, and the machine's name.
- A wrong answer that looks right. A program may write its records itself, but these can only claim what its calls would return,
  because no expected value is ever inside. Compare strictly, outside.
- Programs that differ from run to run: threads, time, `random`. String hashes are fixed (PYTHONHASHSEED=0).
- Under Landlock, on kernels before 6.7 (no TCP rules) and 6.12 (no scopes), only the seccomp filter refuses sockets and signals.
"""

import os
import threading
import weakref
from collections.abc import Sequence
from functools import lru_cache
from types import TracebackType
from typing import Self

from filters.sandbox.jobs import Frame, Job, Ran, SandboxError
from filters.sandbox.launch import Limits
from filters.sandbox.packages import NoPackageError, installed, modules, shown
from filters.sandbox.pool import Pool
from filters.sandbox.selftest import SelfTest, choose
from filters.sandbox.values import Other

__all__ = [
    "Frame",
    "Job",
    "Limits",
    "NoPackageError",
    "Other",
    "Ran",
    "Sandbox",
    "SandboxError",
    "SelfTest",
    "installed",
    "modules",
]

LAYER_VARIABLE = "THRESHER_SANDBOX"
"""Environment variable that restricts the layers to `bwrap` or `landlock`. The layer must still pass the self-test."""


class Sandbox:
    """Runs programs, up to `workers` in parallel (None: one per core this process may use). Thread-safe.

    Processes start with the first job. They end with `close`, when this object is collected, and at exit.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers
        self._lock = threading.Lock()
        self._pools: dict[tuple[str, ...], Pool] = {}
        self._pid = os.getpid()
        self._finalizer: weakref.finalize[[dict[tuple[str, ...], Pool], int], Sandbox] | None = None

    def run(self, jobs: Sequence[Job], packages: Sequence[str] = ()) -> list[Ran]:
        """Run every job, isolated from all the others. Returns the results in order.

        `packages`: installed packages that the programs may import, besides the standard library. The first call in a process
        runs the self-test. A time-out on a loaded machine is tried again while no other job runs. Raises SandboxError if
        no sandbox works on this machine, or a package is not installed; the message says how to fix it.
        """
        return self._started(tuple(packages)).run(jobs) if jobs else []

    def self_test(self) -> SelfTest:
        """Return what the self-test tried and in which layer; `str()` of it is text for people. Raises SandboxError as `run`."""
        return _tested(os.environ.get(LAYER_VARIABLE))

    def pids(self) -> list[int]:
        """Process ids of the running zygotes."""
        with self._lock:
            return [] if self._pid != os.getpid() else [pid for pool in self._pools.values() for pid in pool.pids()]

    def close(self) -> None:
        """End every process of this sandbox and wait for it. The next `run` starts new ones."""
        with self._lock:
            finalizer, self._finalizer, self._pools = self._finalizer, None, {}
        if finalizer is not None:
            finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _started(self, names: tuple[str, ...]) -> Pool:
        if self._pid != os.getpid():  # this process was forked: its parent's pool and lock are of no use here
            self._lock, self._pid = threading.Lock(), os.getpid()
            self.close()
        with self._lock:
            if names not in self._pools:
                layer = self.self_test().layer
                try:
                    packages = shown(names)
                except NoPackageError as error:
                    raise SandboxError(str(error)) from error
                self._pools[names] = Pool(layer, Limits(), self.workers or len(os.sched_getaffinity(0)), packages)
                self._finalizer = self._finalizer or weakref.finalize(self, _end, self._pools, os.getpid())
            return self._pools[names]


@lru_cache(maxsize=2)  # one self-test per process: it tests the machine, and takes about a second
def _tested(layer: str | None) -> SelfTest:
    return choose(Limits(), layer)


def _end(pools: dict[tuple[str, ...], Pool], pid: int) -> None:
    """Close the pools of this process. In a forked child their processes belong to the parent and are left alone."""
    for pool in pools.values():
        if pid == os.getpid():
            pool.close()
        else:
            pool.forget()
