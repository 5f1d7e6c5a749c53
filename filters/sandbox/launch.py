"""Start a zygote inside a layer of isolation: bubblewrap, or Landlock where user namespaces are missing."""

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

from filters.sandbox import bubblewrap, interpreter, landlock
from filters.sandbox.bubblewrap import DEVICES
from filters.sandbox.interpreter import Interpreter, as_user
from filters.sandbox.packages import NO_PACKAGES, THREADS, Packages
from filters.sandbox.zygote import JOB, LENGTH

START_S = 30.0
NOBODY = 65_534
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PWD": "/tmp"}  # noqa: S108
"""The program's whole environment. The hash seed is fixed, so that the order of a set of strings is the same in every run."""
_MODULES = ("values", "harness", "seccomp", "landlock", "fresh", "zygote")
# Each module gets its own copy of the builtins, so that a program that patches builtins does not patch the harness.
BOOTSTRAP = """
import builtins, json, os, sys, types
def read(size):
    parts = b""
    while len(parts) < size:
        part = os.read(0, size - len(parts))
        if not part: os._exit(1)
        parts += part
    return parts
sent = json.loads(read(int.from_bytes(read(4), "big")))
for name, source in sent["modules"]:
    module = types.ModuleType(name)
    module.__dict__["__builtins__"] = dict(vars(builtins))
    sys.modules[name] = module
    exec(compile(source, name, "exec"), vars(module))
serve = module.serve
for name, source in sent["modules"]: del sys.modules[name]
serve(sent["settings"])
"""


class StartError(Exception):
    """No zygote could be started in a layer; the message is the error output of the machine."""


@dataclass(frozen=True)
class Limits:
    """Limits of one program. Memory is address space per process, so the total is `processes` x `memory_bytes`."""

    memory_bytes: int = 512 << 20
    processes: int = 16
    file_bytes: int = 16 << 20
    folder_bytes: int = 32 << 20
    files: int = 64


@dataclass(frozen=True)
class Layer:
    """A way to isolate a zygote: `bwrap` with the executable at `path`, or `landlock`."""

    name: str
    path: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.path}, {bubblewrap.origin(self.path)})" if self.path else self.name


def layers() -> list[Layer]:
    """List the layers that may work on this machine, best first. The self-test decides whether one does."""
    available = [Layer("bwrap", path) for path in bubblewrap.installed()]
    return [*available, Layer("landlock")] if landlock.version() else available


def fresh_uid() -> int | None:
    """Return an unused user id for a zygote, None unless this process is root: the sandbox then runs as the current user.

    Each zygote gets its own id, so that limits and signals of one do not affect another.
    """
    if os.geteuid() != 0:
        return None
    return random.SystemRandom().randrange(1 << 29, 1 << 30) if _high_uids() else NOBODY


@lru_cache
def _high_uids() -> bool:
    """Whether user ids of 30 bits exist on this machine; in a container they may end at 65,535."""
    try:
        rows = [list(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    except OSError:
        return False
    return any(first <= 1 << 29 and first + count >= 1 << 30 for first, _, count in rows)


class Zygote:
    """One running zygote. Not thread-safe.

    Start it from a thread that lives as long as the zygote: it is started with a signal on its parent's death, and the kernel
    sends that signal when the starting thread ends.
    """

    def __init__(self, layer: Layer, limits: Limits, packages: Packages = NO_PACKAGES) -> None:
        self.layer, self.served = layer, 0
        self.uid = fresh_uid()
        python = interpreter.find(_probe_uid(), packages)
        environment = _environment(layer, python)
        command = _command(layer, python, environment)
        ours, theirs = socket.socketpair()
        self.socket = ours
        with theirs, tempfile.TemporaryFile() as errors:
            try:
                self.process = subprocess.Popen(
                    command,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=errors,
                    env=environment,
                    cwd="/",
                    start_new_session=True,
                    **as_user(self.uid),
                )
            except (OSError, subprocess.SubprocessError) as error:
                ours.close()
                raise StartError(f"{layer}: {error}") from error
            theirs.close()
            try:
                self.python = self._handshake(_settings(layer, limits, python, self.uid, packages))
            except (OSError, EOFError) as error:
                self.kill()
                errors.seek(0)
                output = errors.read().decode(errors="replace").strip()[-500:]
                raise StartError(f"{layer}: {output or error!r}") from error
            except BaseException:
                self.kill()
                raise

    def _handshake(self, settings: dict[str, Any]) -> str:
        """Send the modules and settings, wait until the zygote is ready, and return its Python version."""
        self.socket.settimeout(START_S)
        text = json.dumps({"modules": _sources(), "settings": settings}).encode()
        self.socket.sendall(struct.pack(">I", len(text)) + text)
        return str(json.loads(self._receive())["python"])

    def ask(
        self, seconds: float, script: bool, job: bytes, stdin: bytes, patience_s: float
    ) -> tuple[dict[str, Any], bytes, bytes]:
        """Run one job. Returns how it ended, its records and its standard output.

        Raises TimeoutError when the zygote is late by more than `patience_s`, EOFError or OSError when it died.
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
                raise EOFError("the zygote has ended")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def kill(self) -> None:
        """End the zygote and everything in it, and wait for it."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # the zygote and its program end when their socket closes
        self.socket.close()
        if not self._ended(1.0):
            # Under bubblewrap the child is process 1 of its namespace: when it ends, the kernel kills the rest, and bubblewrap
            # reaps it. Under Landlock the program's processes are descendants of the zygote while it lives.
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


def _environment(layer: Layer, python: Interpreter) -> dict[str, str]:
    environment = {**ENVIRONMENT, **(THREADS if python.packages else {})}
    if python.library_path:
        environment["LD_LIBRARY_PATH"] = _inside(layer, python.library_path)
    return environment


def _command(layer: Layer, python: Interpreter, environment: dict[str, str]) -> list[str]:
    """The command line of a zygote."""
    command = [_inside(layer, python.executable), "-s", "-S", "-B", "-P", "-X", "utf8", "-c", BOOTSTRAP]
    if python.version < (3, 11):
        command.remove("-P")
    if layer.name != "bwrap":
        return command
    return [*bubblewrap.walls(layer.path, python, environment, _probe_uid()), "--", *command]


def _inside(layer: Layer, path: str) -> str:
    return bubblewrap.inside(path) if layer.name == "bwrap" else path


def _settings(layer: Layer, limits: Limits, python: Interpreter, uid: int | None, packages: Packages) -> dict[str, Any]:
    """What a zygote is told at its start (zygote.serve reads it)."""
    in_namespaces = layer.name == "bwrap"
    return {
        "layer": layer.name,
        "folder": "/tmp" if in_namespaces else "/",  # noqa: S108 - the sandbox has its own /tmp
        "folder_bytes": limits.folder_bytes,
        "memory_bytes": limits.memory_bytes,
        "file_bytes": limits.file_bytes,
        "files": limits.files,
        "processes": limits.processes + 2 + _outside_processes(layer, uid),  # 2: the zygote and the next supervisor
        "readable": [] if in_namespaces else python.readable(),
        "devices": DEVICES,
        "packages": _inside(layer, packages.folder),
        "imports": packages.imports,
    }


def descendants(pid: int) -> set[int]:
    """Return all living descendants of the process `pid`."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            after_name = path.read_text(errors="replace").rpartition(")")[2].split()
            if after_name[0] not in "ZX":
                parents[int(path.parent.name)] = int(after_name[1])
    below: set[int] = set()
    while fresh := {child for child, parent in parents.items() if parent in below | {pid}} - below:
        below |= fresh
    return below


@lru_cache
def _probe_uid() -> int | None:
    """The user id with which files are probed. Like a zygote's, it owns no file."""
    return fresh_uid()


@lru_cache
def _sources() -> list[tuple[str, str]]:
    folder = Path(__file__).parent
    return [(f"filters.sandbox.{name}", (folder / f"{name}.py").read_text(encoding="utf-8")) for name in _MODULES]


def _outside_processes(layer: Layer, uid: int | None) -> int:
    """Count the processes and threads outside that count against the limit inside.

    These are the ones of the same user. Since Linux 5.14 a user namespace has a limit of its own, and there are none.
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
