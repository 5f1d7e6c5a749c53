"""One writer per run directory: a lease beside the run, which survives kill -9 and needs no file locks.

    RUN/writer/000007.json    who writes, and how often it has said so; the highest number holds the lease

A process takes the lease by creating the file of the next number, which only one can create, on a local disk, on NFS and on an
object store. It renews it by writing the file again, and gives it up by marking it as released; the file stays, so that numbers
only grow. A process on this machine that is gone is noticed at once; one on another machine when its file has not changed for
STALE_S. No clocks are compared. A process that was stopped for so long, and lost its lease meanwhile, notices it before it
changes what is there: it looks for a higher number right before each rename and removal, and before other writes if the last look
is older than LOOK_S (a fencing token, Kleppmann 2016).
"""

import errno
import getpass
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from thresher.durable import IGNORED, create_file, ignores_condition, machine, make_folders, replace_file, why_not_exclusive
from thresher.errors import HeldError, StoreError
from thresher.pool.storage_errors import explained

log = logging.getLogger(__name__)

FOLDER = "writer"
RENEW_S = 10.0
"""Seconds between two renewals."""
STALE_S = 60.0
"""Seconds without a renewal after which another machine takes the lease."""
WAIT_S = 5.0
"""Seconds to wait for a holder that lives, before its name is given: it may be about to end."""
POLL_S, REMOTE_POLL_S = 0.1, 0.5
"""Seconds between two looks at a holder, on a disk and on an object store."""
LOOK_S = 1.0
"""Seconds after which a writer looks again whether it holds the lease."""


@dataclass(frozen=True)
class Holder:
    """The content of a lease file."""

    token: str
    command: str
    user: str
    host: str
    pid: int
    process: str
    """Names the process on its machine, and the machine's start; empty where the system does not tell."""
    since: str
    """UTC."""
    renewed: int = 0
    released: bool = False

    def __str__(self) -> str:
        return f"{self.user}@{self.host} (process {self.pid}, `{self.command}`, since {self.since} UTC)"


_TYPES = {"str": str, "int": int, "bool": bool, str: str, int: int, bool: bool}
"""The types of a holder's fields, by their annotation."""


class Leases:
    """The lease files of one run directory. `fs` is its file system, `base` its path there, `root` its name in messages."""

    def __init__(self, fs: Any, base: str, root: str) -> None:
        self.fs, self.root = fs, root
        self.folder = f"{base}/{FOLDER}"
        self.local = isinstance(fs, LocalFileSystem)

    def path(self, number: int) -> str:
        """The file of a number."""
        return f"{self.folder}/{number:06d}.json"

    def numbers(self) -> list[int]:
        """All numbers that were given and whose files are left, in order."""
        try:
            found = os.listdir(self.folder) if self.local else self.fs.ls(self.folder, detail=False)
            names = [str(name).rsplit("/", 1)[-1] for name in found]
        except FileNotFoundError:
            return []
        return sorted(int(name[:6]) for name in names if name[:6].isdigit() and name.endswith(".json"))

    def highest(self) -> int:
        """The number that holds the lease; 0 where nobody ever did."""
        return max(self.numbers(), default=0)

    def read(self, number: int) -> Holder | None:
        """The holder of a number; None where its file cannot be read."""
        try:
            content = json.loads(self.fs.cat_file(self.path(number)))
            holder = Holder(**{field.name: content[field.name] for field in fields(Holder) if field.name in content})
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        sound = all(type(getattr(holder, field.name)) is _TYPES[field.type] for field in fields(Holder))
        return holder if sound else None

    def write(self, number: int, holder: Holder) -> None:
        """Write the file of a number again."""
        if self.local:
            replace_file(self.path(number), _dumped(holder), durable=False)
        else:
            self.fs.pipe_file(self.path(number), _dumped(holder))

    def create(self, number: int, holder: Holder) -> None:
        """Take the lease by a number, and remove the files of smaller ones. Raises FileExistsError where another has the number,
        StoreError where the server lets two have it."""
        path = self.path(number)
        make_folders(self.folder, self.fs)
        try:
            create_file(self.fs, path, _dumped(holder))
        except FileExistsError:
            if self.read(number) != holder:  # otherwise it is ours: the answer to a first request was lost
                raise
        if ignores_condition(self.fs, path):
            raise StoreError(f"{self.root}: cannot be a run directory: {IGNORED}")
        numbers = self.numbers()
        if max(numbers, default=number) > number:  # this process was stopped meanwhile
            raise FileExistsError(path)
        for earlier in numbers:
            if earlier < number:
                with suppress(OSError):  # removed by another
                    self.fs.rm_file(self.path(earlier))


class Lease:
    """The lease of one run directory, held by this process."""

    def __init__(self, leases: Leases, number: int, holder: Holder) -> None:
        self.leases, self.number, self.holder = leases, number, holder
        self.uses = 1
        self._ended = threading.Event()
        self._renewing = threading.Lock()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Let others write."""
        self._ended.set()
        with self._renewing:
            self._say(replace(self.holder, released=True))

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_S):
            with self._renewing:
                if not self._ended.is_set():
                    self._say(replace(self.holder, renewed=self.holder.renewed + 1))

    def _say(self, holder: Holder) -> None:
        self.holder = holder
        try:
            if self.leases.highest() == self.number:
                self.leases.write(self.number, holder)
        except Exception as error:  # noqa: BLE001 - clients of object stores raise errors of their own; they may work again soon
            log.info("%s: the lease cannot be renewed: %s", self.leases.root, error)


_held: dict[str, Lease] = {}
_lock = threading.RLock()


@contextmanager
def writing(fs: Any, base: str, root: str, command: str) -> Iterator[None]:
    """Hold the lease of a run directory while the block runs. Blocks of one process may be nested, and run side by side.

    `command` is named to others. Raises HeldError with the holder's name where another process holds it, StoreError
    where the storage lets two writers take it or cannot be reached. A directory in which nothing may be written is not leased:
    every write there fails.
    """
    key, leases = key_of(fs, base), Leases(fs, base, root)
    with _lock:
        held = _held.get(key)
        if held is None:
            with explained(root, leases.folder, FOLDER, local=leases.local, verb="take the lease of"):
                held = _taken(leases, command)
            if held is not None:
                _held[key] = held
        else:
            held.uses += 1
    try:
        yield
    finally:
        if held is not None:
            with _lock:
                held.uses -= 1
                if not held.uses:
                    del _held[key]
                    held.release()


def key_of(fs: Any, base: str) -> str:
    """Names a run directory, whatever link leads to it."""
    return os.path.realpath(base) if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(base))


def number_held(key: str) -> int:
    """Return the number of the lease that this process holds of a run directory (`key_of`), 0 if it holds none."""
    held = _held.get(key)
    return 0 if held is None else held.number


def check_held(fs: Any, base: str, root: str, number: int) -> None:
    """Raise StoreError if a lease was taken over by another process."""
    leases = Leases(fs, base, root)
    highest = leases.highest()
    if highest != number:
        raise StoreError(
            f"{root}: taken over by {leases.read(highest) or 'another process'}, because this process was stopped for more than "
            f"{STALE_S:g} s; it writes nothing more here. What was journalled is kept"
        )


# -- inside --------------------------------------------------------------------------------------------------------------


def _dumped(holder: Holder) -> bytes:
    return (json.dumps(asdict(holder), indent=1) + "\n").encode()


def _taken(leases: Leases, command: str) -> Lease | None:
    """The lease, once it is free. None where nothing may be written."""
    if (reason := why_not_exclusive(leases.fs)) is not None:
        raise StoreError(f"{leases.root}: cannot be a run directory: {reason}")
    own, watch = _own(command), _Watch(leases)
    while True:
        if not watch.free():
            watch.wait()
            continue
        try:
            leases.create(watch.number + 1, own)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                return None
            raise
        if watch.holder is not None and not watch.holder.released:
            log.warning("%s: %s has ended without finishing; taking over", leases.root, watch.holder)
        return Lease(leases, watch.number + 1, own)


class _Watch:
    """Watches the holder of a lease until it is free."""

    def __init__(self, leases: Leases) -> None:
        self.leases = leases
        self.started = self.unchanged_since = time.monotonic()
        self.number = 0
        self.holder: Holder | None = None
        self.changes, self.told = -1, False

    def free(self) -> bool:
        """Look once; return whether the next number may be taken."""
        number = self.leases.highest()
        holder = self.leases.read(number) if number else None
        if self.changes < 0 or (number, holder) != (self.number, self.holder):
            self.number, self.holder = number, holder
            self.unchanged_since, self.changes = time.monotonic(), self.changes + 1
        if not number or (holder is not None and (holder.released or _is_gone(holder) or _is_forgotten(holder))):
            return True
        return time.monotonic() - self.unchanged_since > STALE_S and not (holder is not None and _is_here(holder))

    def wait(self) -> None:
        """Wait a moment. Raises HeldError if the holder lives and has not ended for long."""
        holder, waited_s = self.holder, time.monotonic() - self.started
        if holder is not None and waited_s > WAIT_S and (_is_here(holder) or self.changes):
            raise HeldError(
                f"{self.leases.root}: {holder} is writing this run, and only one process may; wait until it has ended, or stop "
                "it, and run the same command again"
            )
        if not self.told and waited_s > WAIT_S:
            self.told = True
            log.warning("%s: waiting up to %g s to see whether %s still works", self.leases.root, STALE_S, holder or "its writer")
        time.sleep(POLL_S if self.leases.local else REMOTE_POLL_S)


def _own(command: str) -> Holder:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        user = str(os.getuid())
    return Holder(secrets.token_hex(8), command, user, socket.gethostname(), os.getpid(), _process(os.getpid()) or "", now)


_machine: Callable[[], str] = machine
"""Tests give each process a machine of its own."""


def _process(pid: int) -> str | None:
    """Names a process of this machine for all time; None if there is none, empty where the system does not tell."""
    if not (here := _machine()):
        return ""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, started = fields[0], fields[19]
    return None if state in "ZX" else f"{here}/{pid}/{started}"


def _is_here(holder: Holder) -> bool:
    """Whether a holder is a process of this machine that lives."""
    return bool(holder.process) and _process(holder.pid) == holder.process


def _is_gone(holder: Holder) -> bool:
    """Whether a holder was a process of this machine and has ended."""
    here = _machine()
    return bool(here) and holder.process.startswith(f"{here}/") and _process(holder.pid) != holder.process


def _is_forgotten(holder: Holder) -> bool:
    """Whether a holder is this process, which does not hold the lease any more: its release could not be written."""
    here = bool(holder.process) and holder.process == _process(os.getpid())
    return here and all(lease.holder.token != holder.token for lease in _held.values())
