"""Whole runs in this process, from the recipe to the dataset."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from helpers.small_run import Plan, small_run
from thresher.audit.count_run import count
from thresher.dataset.write import write_dataset
from thresher.inputs import recipe_file
from thresher.pool.run import Run, open_run
from thresher.run import steps
from thresher.run.progress import Progress

ANSWER = {"name": "exact_answer", "parameters": {"after": "A:"}}
LOOSE = {"undecided": 1.0, "self_check": False, "pass_rate_drop": 1.0, "diversity_drop": 1.0}
"""Gates that refuse nothing of a small run."""


def run_recipe(recipe: Path, out: Path | str, *changes: str, salt: str | None = None) -> steps.Finished:
    """Run a recipe to its end; it must end complete and without problems."""
    begun = steps.begin(recipe_file.load(recipe, list(changes)), out, salt=salt)
    with Progress() as progress:
        finished = steps.run_steps(begun, progress)
    assert finished.audit.problems == ()
    return finished


def filter_rows(folder: Path, rows: Iterable[dict[str, Any]], recipe: dict[str, Any], name: str = "run") -> Path:
    """Filter samples of one's own by a recipe, which by default has one verifier; returns the run's directory."""
    spec = {"name": "own", "filters": [ANSWER], **recipe, "run": {"filter_workers": 0} | recipe.get("run", {})}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec))
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    begun = steps.begin_brought(recipe_file.load(folder / f"{name}.yaml"), file, folder / name)
    assert steps.run_steps(begun, Progress()).audit.problems == ()
    return folder / name


def finished_run(root: Path, plan: Plan, *, key: str, name: str = "small", **settings: Any) -> Run:
    """A run written by hand, with its dataset; `key` is its sampling key, so that several may be published side by side."""
    run = small_run(root, plan, **settings)
    run.store.write_model("run.json", run.manifest.model_copy(update={"sampling_key": f"{key:0>32}", "name": name}))
    run = open_run(root)
    if "stop_after" not in settings:
        write_dataset(run, audit=count(run))
    return run
