"""Whole runs in this process, from the recipe to the dataset."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.small_run import Plan, small_run
from schemas.dataset import PublishSpec
from thresher.auditing.count_run import count
from thresher.dataset.write import write_dataset
from thresher.errors import EngineError
from thresher.inputs import recipe_file
from thresher.pool import judged
from thresher.pool.run import Run, open_run
from thresher.pool.store import Store, shard_name
from thresher.releases.publish import Published, publish
from thresher.running import steps
from thresher.running.progress import Progress
from thresher.running.sample_shard import sample_shard
from thresher.samplers.replay import ReplaySampler
from thresher.samplers.sampler import Drawn, Group

ANSWER = {"name": "exact_answer", "parameters": {"after": "A:"}}
LOOSE = {"hits": 0, "undecided": 1.0, "self_check": False, "pass_rate_drop": 1.0, "diversity_drop": 1.0}
"""Gates that refuse nothing of a small run."""


def run_recipe(recipe: Path, out: Path | str, *changes: str, salt: str | None = None) -> steps.Finished:
    """Run a recipe to its end; it must end complete and without problems."""
    begun = steps.begin(recipe_file.load(recipe, list(changes)), out, salt=salt)
    with Progress() as progress:
        finished = steps.run_steps(begun, progress)
    assert finished.audit.problems == ()
    return finished


def pool_rows(out: Path | str) -> list[dict[str, Any]]:
    """The samples of a run in the order of its shards."""
    store = Store(out)
    return [row for shard in judged.sampled(store) for row in store.read_table(f"samples/{shard_name(shard)}").to_pylist()]


class DyingSampler:
    """A sampler that fails for good after so many groups, as an engine would."""

    def __init__(self, inner: ReplaySampler, after: int) -> None:
        self._inner, self.facts, self.left, self.token_bytes = inner, inner.facts, after, inner.token_bytes
        self._groups: list[Group] = []

    def stream(self, priority: int = 0) -> "DyingSampler":
        self._stream, self._groups = self._inner.stream(priority), []
        return self

    def __enter__(self) -> "DyingSampler":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def submit(self, groups: Iterable[Group]) -> None:
        self._groups += groups

    def take(self, timeout: float) -> list[Drawn]:
        if not self._groups:
            return []
        if not self.left:
            raise EngineError("the engine died")
        self.left -= 1
        self._stream.submit([self._groups.pop(0)])
        return self._stream.take(timeout)

    def close(self) -> None:
        return None


def sample_until_it_dies(recipe: Path, out: Path, after: int) -> None:
    """Sample a run, shard by shard, with an engine that answers `after` groups and then fails."""
    begun = steps.begin(recipe_file.load(recipe), out)
    sampler = DyingSampler(ReplaySampler(recipe.parent / "answers.jsonl"), after)
    with Progress() as progress, pytest.raises(EngineError):  # noqa: PT012 - whichever shard it dies in
        for shard in begun.missing:
            sample_shard(begun.run, shard, sampler, progress)
            steps.judge_shard(begun.run, shard)


def filter_rows(folder: Path, rows: Iterable[dict[str, Any]], recipe: dict[str, Any], name: str = "run") -> Path:
    """Filter imported samples by a recipe, by default with one verifier; returns the run's directory."""
    spec = {"name": "own", "filters": [ANSWER], **recipe, "run": {"filter_workers": 0} | recipe.get("run", {})}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec))
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    begun = steps.begin_brought(recipe_file.load(folder / f"{name}.yaml"), file, folder / name)
    assert steps.run_steps(begun, Progress()).audit.problems == ()
    return folder / name


def dataset_of(run: Run) -> Path:
    """Write the dataset of a run; returns its folder."""
    return Path(write_dataset(run, audit=count(run)))


def finished_run(root: Path, plan: Plan, *, key: str, name: str = "small", **settings: Any) -> Run:
    """A run written by hand, with its dataset; `key` is its sampling key, so that several can be published to one repository."""
    run = small_run(root, plan, **settings)
    run.store.write_model("run.json", run.manifest.model_copy(update={"sampling_key": f"{key:0>32}", "name": name}))
    run = open_run(root)
    if "stop_after" not in settings:
        dataset_of(run)
    return run


def publish_loosely(run: Run, repo: Path | str, **gates: Any) -> Published:
    """Publish a run; gates refuse nothing unless they are given."""
    return publish(run, PublishSpec.model_validate({"repo": str(repo), "gates": LOOSE | gates}))


def two_prompts_run(folder: Path, name: str, **settings: Any) -> Path:
    """A finished run in folder/name: a hit and a miss of each of two prompts that no run of another name has."""
    first = int(hashlib.sha256(name.encode()).hexdigest()[:6], 16)
    plan: Plan = [(name, ["right", "wrong"], "right")] * 2
    return Path(finished_run(folder / name, plan, key=name, first=first, **settings).root)
