"""Runs of imported samples that consult an index of released samples."""

from pathlib import Path
from typing import Any

from datasets import load_dataset

from helpers.runs import filter_rows

RULE = {"guard": "answer", "run_characters": 200}
LONG = (
    "{who} had {a} apples and was given {b} more by a friend who came along the road in the morning, so that, when all of them "
    "are counted one after the other from the first to the last, the whole comes to no more and no less than A: {c}"
)
Rows = list[dict[str, Any]]


def apples(first: int, prompts: int, who: str = "Anna") -> Rows:
    """Right answers: a long one of each prompt, and one of few words."""
    return [
        {"prompt": f"{a}+{a + 1}?", "reference": str(2 * a + 1), "completion": text}
        for a in range(first, first + prompts)
        for text in (LONG.format(who=who, a=a, b=a + 1, c=2 * a + 1), f"A: {2 * a + 1}")
    ]


def asking_run(
    folder: Path,
    rows: Rows,
    name: str,
    dedupe: dict[str, Any] | None = None,
    *,
    run: dict[str, Any] | None = None,
    **recipe: Any,
) -> Path:
    """Filter rows by a recipe that asks the index beside it; `dedupe`, `run` and other keys of the recipe can be given. Returns
    the run's directory."""
    changes = {
        "name": "released",
        "dedupe": {"released": {"index": "index"}} if dedupe is None else dedupe,
        "run": {"shard_samples": 4} | (run or {}),
    }
    return filter_rows(folder, rows, changes | recipe, name)


def run_on_machine(
    folder: Path,
    machine: str,
    rows: Rows,
    repo: str | None,
    *,
    released: Any = "index",
    guard: str = "answer",
    **recipe: Any,
) -> Path:
    """Filter rows on a machine, which is a folder with an index of its own, and publish the run unless `repo` is None."""
    (folder / machine).mkdir(exist_ok=True)
    dedupe = {"released": None if released is None else {"index": released}, "guard": guard}
    gates = {"hits": 0, "self_check": False, "pass_rate_drop": 1.0, "diversity_drop": 1.0}
    if repo is not None:
        recipe["publish"] = {"repo": repo, "versions": "semantic", "gates": gates}
    return asking_run(folder, rows, f"{machine}/{rows[0]['prompt'][:2]}", dedupe, **recipe)


def rollouts(run: Path) -> Rows:
    """The rows of all splits of the rollouts."""
    splits = sorted(folder.name for folder in (run / "dataset" / "rollouts").iterdir())
    return [row for split in splits for row in load_dataset(str(run / "dataset"), "rollouts", split=split).to_list()]
