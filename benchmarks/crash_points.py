"""Every crash point and power cut of a run, and of each change of a repository in a folder: the table of docs/durability.md.

PYTHONPATH=.:tests python benchmarks/crash_points.py [--step 1]

A command is recorded once, with what the disk would hold after kill -9 before each of its changes of the disk, and after a power
cut there. In each of these states the same command is run again. It held if no file names another that is not there or not
whole, the command succeeds, readers get what they would have without the interruption, and no other file is left.
"""

import argparse
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

from helpers.crash_cases import Case, dangling, release_cases, repeated, run_case


def held(root: Path, case: Case, power_cuts: bool, step: int) -> Iterator[bool]:
    """Whether each state held."""
    states = case.disk.power_cut_states if power_cuts else case.disk.crash_states
    for before, state in states[::step]:
        words = ", ".join(dangling(state)) or repeated(root, case, state)
        if words:
            print(f"{case.name}, before {before}: {words}")
        yield not words


def cases(root: Path) -> Iterator[tuple[Path, Case]]:
    """Each command, in a folder of its own."""
    for name in ("run", "repo"):
        (root / name).mkdir()
    yield root / "run", run_case(root / "run")
    for case in release_cases(root / "repo"):
        yield root / "repo", case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", type=int, default=1, help="continue one of so many states")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    rows = []
    with tempfile.TemporaryDirectory(prefix="thresher-") as folder:
        for root, case in cases(Path(folder)):
            crashes, power_cuts = (list(held(root, case, power_cut, options.step)) for power_cut in (False, True))
            calls = ", ".join(f"{count} {name}" for name, count in sorted(case.disk.calls.items()) if name != "end")
            rows.append(f"| {case.name} | {calls} | {sum(crashes)} of {len(crashes)} | {sum(power_cuts)} of {len(power_cuts)} |")
    print("| command | changes of the disk | crashes held | power cuts held |", "|---|---|---:|---:|", *rows, sep="\n")


if __name__ == "__main__":
    main()
