"""Programs per second through the sandbox, compared with a new plain Python and a new bubblewrap per program.

Run as `python benchmarks/verify_code.py`. They take turns in rounds, so that other work of the machine affects all of them
equally; the figures are medians over the rounds.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from filters.sandbox import Job, Limits, Sandbox, launch
from filters.sandbox.launch import Layer
from filters.sandbox.packages import shown
from filters.sandbox.pool import Pool

PROGRAM = "def f(x):\n    return x + 1\n"
PLAIN = "fresh python3 -I -S -B"
WORKERS = 2
PACKAGES = ("numpy", "pandas", "sympy")
ROUNDS = 5


def rows() -> list[dict[str, Any]]:
    """A row per contender: programs per second of wall time and milliseconds of processor time per program, two at a time."""
    zygotes = {layer.name: Pool(layer, Limits(), WORKERS) for layer in reversed(launch.layers())}
    zygotes |= {f"{name} with {PACKAGES}": Pool(pool.layer, Limits(), WORKERS, shown(PACKAGES)) for name, pool in zygotes.items()}
    ways: dict[str, tuple[Callable[[int], None], int]] = {
        **{f"zygote in {name}": (partial(_through, pool), 200) for name, pool in zygotes.items()},
        PLAIN: (partial(_fresh, []), 40),
    }
    if bwrap := next((layer for layer in launch.layers() if layer.name == "bwrap"), None):
        walls = _bwrap(bwrap)
        ways["fresh bwrap"] = (partial(_fresh, walls), 40)
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for run, _ in ways.values():
        run(WORKERS)
    for _ in range(ROUNDS):
        for name, (run, count) in ways.items():
            busy, started = _busy(), time.perf_counter()
            run(count)
            measured[name].append((count / (time.perf_counter() - started), (_busy() - busy) / count * 1000))
    for pool in zygotes.values():
        pool.close()
    table: list[dict[str, Any]] = [
        {
            "way": name,
            "programs_per_s": statistics.median(rate for rate, _ in rounds),
            "cpu_ms": statistics.median(cost for _, cost in rounds),
        }
        for name, rounds in measured.items()
    ]
    plain = next(row for row in table if row["way"] == PLAIN)
    return [{**row, "ratio": row["programs_per_s"] / plain["programs_per_s"]} for row in table]


def start_up() -> dict[str, float]:
    """Seconds of the first `run` of a process, including the self-test, and of a restart after `close`."""
    job, sandbox = [Job(PROGRAM, ("f(1)",))], Sandbox()
    started = time.perf_counter()
    sandbox.run(job)
    first = time.perf_counter() - started
    sandbox.close()
    started = time.perf_counter()
    sandbox.run(job)
    again = time.perf_counter() - started
    sandbox.close()
    return {"first_run_s": first, "again_s": again}


def _through(pool: Pool, count: int) -> None:
    answers = pool.run([Job(PROGRAM, ("f(41)",))] * count)
    assert all(answer.frames[0].value == 42 for answer in answers)


def _fresh(walls: list[str], count: int) -> None:
    """Run the program `count` times, each in a process of its own, two at a time; it prints its answer."""
    command = [*walls, "/usr/bin/python3" if walls else sys.executable, "-I", "-S", "-B", "-c", f"{PROGRAM}print(f(41))"]
    for _ in range(count // WORKERS):
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd="/") for _ in range(WORKERS)]
        assert all(process.communicate()[0] == b"42\n" for process in processes)


def _bwrap(layer: Layer) -> list[str]:
    """A short bubblewrap command without the seccomp filter and the change of user: the cheapest possible start."""
    binds = [part for path in ("/usr", "/lib", "/lib64") if os.path.exists(path) for part in ("--ro-bind", path, path)]
    return [layer.path, "--unshare-all", "--die-with-parent", "--new-session", "--clearenv", *binds, "--tmpfs", "/tmp"]


def _busy() -> float:
    """Processor seconds of the whole machine: these include grandchildren, and everything else that runs."""
    with open("/proc/stat") as file:
        user, nice, system, *_ = map(int, file.readline().split()[1:])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    for row in rows():
        print(f"{row['way']:24} {row['programs_per_s']:7.0f} programs/s   {row['cpu_ms']:6.2f} ms   {row['ratio']:5.2f} x plain")
    print({name: round(seconds, 2) for name, seconds in start_up().items()})
