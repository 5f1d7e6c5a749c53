"""Run untrusted programs: values come out, never verdicts, and nothing else.

    from filters.sandbox import Job, run
    [ran] = run([Job("def f(x): return x + 1", calls=("f(41)",))])
    ran.frames[0].value                                            # 42

A program runs in a child of a zygote: one warm Python per core inside bubblewrap (own namespaces for users, processes, network,
mounts and the rest; a non-root user; nothing to read but the interpreter; nothing to write but a /tmp of 32 MiB; no /proc, no
environment, an own seccomp filter, resource limits). One program at a time runs in a zygote; when it ends, everything that it
started is killed, waited for and wiped. Where user namespaces are missing, Landlock, seccomp and resource limits take their
place, and there is nothing to write at all. Before the first program of a process the self-test tries to break out; a layer that
does not hold is not used, and when none holds `run` raises SandboxError. There is no mode without a sandbox.

What this does NOT stop:
- A hole in the kernel that is open to an unprivileged process without sockets, namespaces, io_uring, bpf and keyrings.
- Side channels: time, caches, load, locks on files that both may read. Two programs that run at the same moment could signal
  each other so; one after the other they cannot, except that the freed memory of a zygote may still hold an earlier program.
- Use up to the limits: one core (or more, in several processes) for the seconds of the job, and processes x memory in all (16 x
  512 MiB), for resource limits are per process. Give the whole of thresher a memory cgroup where that is too much.
- Many small files: the 32 MiB are data; each empty file costs the kernel about 1 KiB more until the program has ended.
- Reading what the interpreter reads: its standard library, the C libraries, time zones, the time, the kernel's version, how
  much memory and how many cores there are. Under Landlock also the sizes and times of files whose names it guesses (`stat`),
  though not what is in a file or a folder, which process numbers exist, and the machine's name.
- A wrong answer that looks right. A program may write its frames itself; it then says what it would have returned, no more,
  because no expected value is ever inside. Compare strictly, and outside.
- Programs that differ from run to run: threads, time, `random`. String hashes are fixed (PYTHONHASHSEED=0).
- Under Landlock, on kernels before 6.7 (no TCP rules) and 6.12 (no scopes), the seccomp filter alone refuses sockets and signals.
"""

import atexit
import os
import threading
from collections.abc import Sequence

from filters.sandbox.jobs import Frame, Job, Ran, SandboxError
from filters.sandbox.launch import Limits
from filters.sandbox.pool import Pool
from filters.sandbox.selftest import SelfTest, choose
from filters.sandbox.values import Other

__all__ = ["Frame", "Job", "Limits", "Other", "Ran", "SandboxError", "SelfTest", "close", "run", "self_test", "set_workers"]

LAYER_VARIABLE = "THRESHER_SANDBOX"
"""Environment variable that narrows the choice to `bwrap` or `landlock`; the self-test must hold all the same."""

_lock = threading.Lock()
_pool: Pool | None = None
_tested: SelfTest | None = None
_workers: int | None = None


def run(jobs: Sequence[Job]) -> list[Ran]:
    """Run every job, each isolated from every other; answers in order. May be called from several threads.

    The first call of a process runs the self-test. A time-out on a loaded machine is tried once more with nothing beside it.
    Raises SandboxError when nothing on this machine contains untrusted code; the message says how to mend that.
    """
    return _started().run(jobs) if jobs else []


def self_test() -> SelfTest:
    """What was tried in which layer and held, once per process; `str()` of it is for people.

    Raises SandboxError as `run` does.
    """
    _started()
    assert _tested is not None
    return _tested


def set_workers(count: int | None) -> None:
    """How many programs run at once, from the next start on; None: one per core that this process may use."""
    global _workers  # noqa: PLW0603 - a setting of this process, like the number of threads of a numerical library
    _workers = count
    close()


def close() -> None:
    """End every process of the sandbox and wait for it; the next `run` starts new ones without another self-test."""
    global _pool
    with _lock:
        pool, _pool = _pool, None
    if pool is not None:
        pool.close()


def _started() -> Pool:
    global _pool, _tested  # noqa: PLW0603 - the one pool of this process
    with _lock:
        if _pool is None:
            if _tested is None:
                _tested = choose(Limits(), os.environ.get(LAYER_VARIABLE))
            _pool = Pool(_tested.layer, Limits(), _workers or len(os.sched_getaffinity(0)))
        return _pool


def _forked() -> None:
    global _pool, _lock  # noqa: PLW0603 - a forked child has a sandbox of its own
    _lock = threading.Lock()
    if _pool is not None:
        _pool.forget()
    _pool = None


atexit.register(close)
os.register_at_fork(after_in_child=_forked)
