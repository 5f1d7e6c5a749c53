"""A replayed run by this tree and by another commit, one after the other in the same rounds.

python benchmarks/against.py COMMIT [--samples 1700000] [--each 16] [--rounds 3] [--most 1.03]

The commit's tree is unpacked from git into a temporary folder. Each round runs `thresher run` once by each tree, in a process of
its own and in turns as to which is first, and prints the seconds of the clock and of the processors. The ratios are those of the
medians. A small run is made by each first, so that nothing is compiled or read from disk for the first time while it is measured.
Exits with 1 if the ratio of the clock is above --most.
"""

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parents[1]


def timed(tree: Path, arguments: Sequence[str], cwd: Path) -> tuple[float, float]:
    """Run a command of a tree's thresher. Returns its seconds of the clock, and of the processors, its children's included."""
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": ""}
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "thresher.cli", *arguments], cwd=cwd, env=environment, stdout=output, stderr=output
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise SystemExit(
                f"thresher {' '.join(arguments)} by {tree} ended with {process.returncode}:\n{output.read()[-3000:]}"
            )
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime


def write_recipe(folder: Path, samples: int, each: int) -> None:
    """A run of that many samples, `each` of a prompt, without anchors; two answers of three are right."""
    with (folder / "prompts.jsonl").open("w") as prompts, (folder / "answers.jsonl").open("w") as answers:
        for number in range(-(-samples // each)):
            question, right = f"What is {number} and {number % 97}?", number + number % 97
            prompts.write(json.dumps({"question": question, "answer": str(right)}) + "\n")
            for text in (f"{right}", f"{number} and {number % 97} make {right}", f"{right + 1}"):
                answers.write(json.dumps({"prompt": question, "completion": text, "finish_reason": "stop"}) + "\n")
    recipe = {
        "name": "against",
        "prompts": [
            {"family": "sums", "source": {"kind": "jsonl", "path": "prompts.jsonl"}, "template": "{{ question }}"},
        ],
        "engine": {"kind": "replay", "path": "answers.jsonl"},
        "sampling": {"samples_per_prompt": each, "anchor": False, "max_tokens": 16},
        "filters": [{"name": "finished"}, {"name": "exact_answer"}],
        "near_miss": None,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def unpacked(commit: str, folder: Path) -> Path:
    """The tree of a commit of this repository."""
    archive = subprocess.run(["git", "-C", str(HERE), "archive", commit], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def main() -> int:
    """Run both trees in turns, print every round and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("commit")
    parser.add_argument("--samples", type=int, default=1_700_000)
    parser.add_argument("--each", type=int, default=16, help="samples of a prompt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most", type=float, default=1.03, help="the largest ratio of the clock")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="thresher-against-") as name:
        folder = Path(name)
        trees = {asked.commit: unpacked(asked.commit, folder / "before"), "this tree": HERE}
        write_recipe(folder, asked.samples, asked.each)
        for tree in trees.values():
            timed(tree, ["run", "recipe.yaml", "--out", "warm", "--no-prefect", "--set", "prompts.0.limit=2"], folder)
            shutil.rmtree(folder / "warm")
        measured: dict[str, list[tuple[float, float]]] = {label: [] for label in trees}
        for number in range(asked.rounds):
            for label in list(trees)[:: -1 if number % 2 else 1]:
                measured[label].append(timed(trees[label], ["run", "recipe.yaml", "--out", "run", "--no-prefect"], folder))
                shutil.rmtree(folder / "run")
                wall, cpu = measured[label][-1]
                print(f"round {number + 1}: {label:12} {wall:8.2f} s of the clock, {cpu:8.2f} s of the processors", flush=True)
    ratios = []
    for column, of in enumerate(("clock", "processors")):
        before, now = (statistics.median(times[column] for times in measured[label]) for label in trees)
        ratios.append(now / before)
        print(f"{of}: {now:.2f} s, {before:.2f} s before: {now / before:.3f}")
    return int(ratios[0] > asked.most)


if __name__ == "__main__":
    sys.exit(main())
