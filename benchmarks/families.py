"""What families cost: run and audit of the same number of samples in 300, 3,000 and 10,000 families.

python benchmarks/families.py [--samples 120000] [--rounds 3]

The engine replays, so that the samples themselves cost little. Each step is a process of its own; rounds alternate between the
numbers of families, and the seconds of the processors are medians. Exits with 1 if the audit of 3,000 families costs more than
1.5 times as much as that of 300, or 10,000 families more than 4 times as much as 3,000. The run has no bound for the first step:
each family has a source of its own to read.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import yaml
from against import HERE, timed

FAMILIES = (300, 3_000, 10_000)
MOST = {"run": (float("inf"), 4.0), "audit": (1.5, 4.0)}
"""The largest ratio of each number of families to the one before."""
EACH = 4


def write_recipe(folder: Path, families: int, samples: int) -> None:
    """A recipe of that many families, with equal numbers of prompts in each."""
    folder.mkdir()
    prompts = -(-samples // (families * EACH))
    entries = [
        {
            "family": f"family{number:05d}",
            "source": {"kind": "grid", "fields": {"n": list(range(prompts))}},
            "template": f"What follows {number} and {{{{ n }}}}?",
            "reference_template": "{{ n + 1 }}",
        }
        for number in range(families)
    ]
    with (folder / "answers.jsonl").open("w") as answers:
        for number in range(families):
            for n in range(prompts):
                for text in (f"{n + 1}", f"{n}"):
                    answers.write(json.dumps({"prompt": f"What follows {number} and {n}?", "completion": text}) + "\n")
    recipe = {
        "name": "families",
        "prompts": entries,
        "engine": {"kind": "replay", "path": "answers.jsonl"},
        "sampling": {"samples_per_prompt": EACH, "anchor": False, "max_tokens": 16},
        "filters": [{"name": "finished"}, {"name": "exact_answer"}],
        "near_miss": None,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


AUDIT = """
import sys, time
from thresher.auditing.count_run import count
from thresher.auditing.statistics import statistics
from thresher.pool.run import open_run
began = time.process_time()
run = open_run(sys.argv[1])
count(run), statistics(run)
print(time.process_time() - began)
"""


def audited(run: Path) -> float:
    """Seconds of a processor of the audit and the statistics of a run, without imports."""
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    asked = [sys.executable, "-c", AUDIT, str(run)]
    return float(subprocess.run(asked, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> int:
    """Measure every number of families in turns; print the seconds and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("--samples", type=int, default=120_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    costs: dict[str, dict[int, list[float]]] = {step: {families: [] for families in FAMILIES} for step in ("run", "audit")}
    with tempfile.TemporaryDirectory(prefix="thresher-families-") as name:
        folders = {families: Path(name) / str(families) for families in FAMILIES}
        for families, folder in folders.items():
            write_recipe(folder, families, asked.samples)
        for _ in range(asked.rounds):
            for families, folder in folders.items():
                shutil.rmtree(folder / "out", ignore_errors=True)
                costs["run"][families].append(timed(HERE, ["run", "recipe.yaml", "--out", "out", "--no-prefect"], folder)[1])
                costs["audit"][families].append(audited(folder / "out"))
                print(
                    f"{families:6,} families: " + ", ".join(f"{step} {costs[step][families][-1]:.2f} s" for step in costs),
                    flush=True,
                )
    high = False
    for step, by_families in costs.items():
        seconds = [statistics.median(by_families[families]) for families in FAMILIES]
        ratios = [after / before for before, after in pairwise(seconds)]
        high = high or any(ratio > most for ratio, most in zip(ratios, MOST[step], strict=True))
        told = ", ".join(f"{families:,}: {value:.2f} s" for families, value in zip(FAMILIES, seconds, strict=True))
        print(
            f"{step:6} {told}; "
            + ", ".join(f"{ratio:.2f} (at most {most})" for ratio, most in zip(ratios, MOST[step], strict=True))
        )
    return int(high)


if __name__ == "__main__":
    sys.exit(main())
