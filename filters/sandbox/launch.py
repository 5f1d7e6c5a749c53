"""Start a zygote inside a layer that contains it: bubblewrap, or Landlock where user namespaces are missing."""

import contextlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from filters.sandbox import bubblewrap, interpreter, landlock, seccomp
from filters.sandbox.bubblewrap import DEVICES
from filters.sandbox.interpreter import as_user
from filters.sandbox.zygote import JOB, LENGTH

START_S = 30.0
NOBODY = 65_534
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PWD": "/tmp"}  # noqa: S108
"""All that a program finds. The hash seed is fixed, so that the order of a set of strings does not change from run to run."""
_MODULES = ("values", "harness", "seccomp", "landlock", "zygote")
# The modules get a copy of the builtins each, so that a program that patches builtins does not patch the harness.
BOOTSTRAP = """
import builtins, json, os, sys, types
def read(size):
    parts = b""
    while len(parts) < size:
        part = os.read(0, size - len(parts))
        if not part: os._exit(1)
        parts += part
    return parts
given = json.loads(read(int.from_bytes(read(4), "big")))
for name, source in given["modules"]:
    module = types.ModuleType(name)
    module.__dict__["__builtins__"] = dict(vars(builtins))
    sys.modules[name] = module
    exec(compile(source, name, "exec"), vars(module))
serve = module.serve
for name, source in given["modules"]: del sys.modules[name]
serve(given["settings"])
"""


class StartError(Exception):
    """A layer in which no zygote could be started; the message is what the machine said."""


@dataclass(frozen=True)
class Limits:
    """What one program may use. Memory is address space of each process, so `processes` x `memory_bytes` in all."""

    memory_bytes: int = 512 << 20
    processes: int = 16
    file_bytes: int = 16 << 20
    folder_bytes: int = 32 << 20
    files: int = 64


@dataclass(frozen=True)
class Layer:
    """A way to contain a zygote: `bwrap` with the program at `path`, or `landlock`."""

    name: str
    path: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.path})" if self.path else self.name


def layers() -> list[Layer]:
    """What this machine may offer, best first; whether it holds is for the self-test to say."""
    found = [Layer("bwrap", path) for path in bubblewrap.found()]
    return [*found, Layer("landlock")] if landlock.version() else found


def fresh_uid() -> int | None:
    """For root, a user id that nobody has, another for each zygote, so that neither limits nor signals reach from one to the
    next; None otherwise: the sandbox then runs as ourselves.
    """
    if os.geteuid() != 0:
        return None
    return random.SystemRandom().randrange(1 << 29, 1 << 30) if _high_uids() else NOBODY


@lru_cache
def _high_uids() -> bool:
    """Whether user ids of 30 bits exist here: in a container the map may end at 65,535."""
    try:
        rows = [list(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    except OSError:
        return False
    return any(first <= 1 << 29 and first + count >= 1 << 30 for first, _, count in rows)


class Zygote:
    """One running zygote. Not thread-safe; must be started from a thread that lives as long as it may run, because the kernel
    sends the signal that ends it with its parent when that thread ends.
    """

    def __init__(self, layer: Layer, limits: Limits) -> None:
        self.layer, self.served = layer, 0
        self.uid = fresh_uid()
        python = interpreter.find(_probe_uid())
        settings = {
            "layer": layer.name,
            "folder": "/tmp" if layer.name == "bwrap" else "/",  # noqa: S108 - a folder of the sandbox's own
            "writable": layer.name == "bwrap",
            "memory_bytes": limits.memory_bytes,
            "file_bytes": limits.file_bytes,
            "files": limits.files,
            "processes": limits.processes + _others(layer, self.uid),
            "readable": python.readable() if layer.name == "landlock" else [],
            "devices": DEVICES,
        }
        inside = bubblewrap.inside if layer.name == "bwrap" else str
        environment = {**ENVIRONMENT, "LD_LIBRARY_PATH": inside(python.library_path)} if python.library_path else ENVIRONMENT
        command = [inside(python.executable), "-s", "-S", "-B", "-P", "-X", "utf8", "-c", BOOTSTRAP]
        if python.version < (3, 11):
            command.remove("-P")
        filter_fd = -1
        pass_fds: tuple[int, ...] = ()
        if layer.name == "bwrap":
            walls = bubblewrap.walls(layer.path, python, limits.folder_bytes, environment, _probe_uid())
            filter_fd = _in_a_pipe(seccomp.program())
            pass_fds = (filter_fd,)
            command = [*walls, "--seccomp", str(filter_fd), "--", *command]
        ours, theirs = socket.socketpair()
        self.socket = ours
        with theirs, tempfile.TemporaryFile() as errors:
            try:
                self.process = subprocess.Popen(
                    command,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=errors,
                    pass_fds=pass_fds,
                    env=environment,
                    cwd="/",
                    start_new_session=True,
                    **as_user(self.uid),
                )
            except (OSError, subprocess.SubprocessError) as error:
                ours.close()
                raise StartError(f"{layer}: {error}") from error
            finally:
                if filter_fd >= 0:
                    os.close(filter_fd)
            theirs.close()
            try:
                ours.settimeout(START_S)
                text = json.dumps({"modules": _sources(), "settings": settings}).encode()
                ours.sendall(struct.pack(">I", len(text)) + text)
                self.python = json.loads(self._receive())["python"]
            except (OSError, EOFError) as error:
                self.kill()
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip()[-500:]
                raise StartError(f"{layer}: {said or error!r}") from error
            except BaseException:
                self.kill()
                raise

    def ask(
        self, seconds: float, script: bool, job: bytes, stdin: bytes, patience_s: float
    ) -> tuple[dict[str, Any], bytes, bytes]:
        """Run one job: how it ended, its records, its standard output. Raises TimeoutError when the zygote is late by more than
        `patience_s`, EOFError or OSError when it died.
        """
        self.socket.settimeout(seconds + patience_s)
        self.socket.sendall(JOB.pack(seconds, script, len(job), len(stdin)) + job + stdin)
        head = json.loads(self._receive())
        self.served += 1
        return head, self._exactly(head["records"]), self._exactly(head["stdout"])

    def _receive(self) -> bytes:
        return self._exactly(LENGTH.unpack(self._exactly(LENGTH.size))[0])

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = self.socket.recv(min(size, 1 << 20))
            if not part:
                raise EOFError("the zygote is gone")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def kill(self) -> None:
        """End it and everything in it, and wait for it."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # it ends by itself, and its program with it, when nobody listens
        self.socket.close()
        if not self._ended(1.0):
            # Under bubblewrap its child is process 1, and takes all others along; bubblewrap then reaps it. Under Landlock
            # whatever the program started is below the zygote for as long as that lives.
            while self.process.poll() is None and (below := descendants(self.process.pid)):
                for pid in below:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.01)
        if not self._ended(1.0 if self.layer.name == "bwrap" else 0.0):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _ended(self, seconds: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.poll() is not None


def descendants(pid: int) -> set[int]:
    """Every living process that `pid` started, and those that they started."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            after_name = path.read_text(errors="replace").rpartition(")")[2].split()
            if after_name[0] not in "ZX":
                parents[int(path.parent.name)] = int(after_name[1])
    found: set[int] = set()
    while fresh := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= fresh
    return found


@lru_cache
def _probe_uid() -> int | None:
    """The user that files are tried with: like a zygote's, a stranger to every file."""
    return fresh_uid()


@lru_cache
def _sources() -> list[tuple[str, str]]:
    folder = Path(__file__).parent
    return [(f"filters.sandbox.{name}", (folder / f"{name}.py").read_text(encoding="utf-8")) for name in _MODULES]


def _in_a_pipe(data: bytes) -> int:
    """A descriptor to read `data` from; it is shorter than a pipe holds."""
    out, into = os.pipe()
    os.write(into, data)
    os.close(into)
    return out


def _others(layer: Layer, uid: int | None) -> int:
    """Processes and threads outside that count against the limit inside: those of the same user, unless the limit is the
    namespace's own, as it is since Linux 5.14.
    """
    if uid not in (None, NOBODY) or (
        layer.name == "bwrap" and tuple(map(int, os.uname().release.split("-")[0].split(".")[:2])) >= (5, 14)
    ):
        return 0
    count = 0
    for task in Path("/proc").glob("[0-9]*/task/[0-9]*"):
        with contextlib.suppress(OSError):
            count += task.stat().st_uid == (os.geteuid() if uid is None else uid)
    return count
