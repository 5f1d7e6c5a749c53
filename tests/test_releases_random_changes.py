"""Random sequences of publish, revoke, rollback and compact, cut off anywhere, against a plain reference of the rows."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helpers import FOLDER, known
from helpers.releases import config_rows
from helpers.runs import dataset_of, two_prompts_run
from schemas.repeats import DedupeSpec
from thresher.dedupe.index_runs import signature_tables
from thresher.dedupe.released import open_index
from thresher.pool.run import open_run
from thresher.releases.index_sync import take_in
from thresher.releases.places.folder import NOTHING, Folder

VIEWS = ("sft", "unpaired", "rollouts")
RUNS = ("one", "two", "three", "four", "five")
Ask = Callable[..., tuple[int, str]]


@dataclass
class Rows:
    """What a repository holds: for each release its run, the ids of each view in order, and the revoked ones."""

    releases: list[tuple[Path, dict[str, list[str]]]] = field(default_factory=list)
    merged: set[str] = field(default_factory=set)
    """Names of runs whose rows are in one release by now, so that they cannot be replaced."""
    revoked: list[str] = field(default_factory=list)

    def of(self, view: str) -> list[str]:
        return [name for _, views in self.releases for name in views[view]]


class Reference:
    """The same changes, on lists."""

    def __init__(self, runs: dict[Path, dict[str, list[str]]]) -> None:
        self.runs, self.now = runs, Rows()
        self.tags: dict[str, Rows] = {}

    def after(self, call: list[str]) -> Rows:
        """What the repository holds after a change."""
        rows = deepcopy(self.now)
        name, *arguments = call
        if name == "publish":
            run = Path(arguments[0])
            if run not in [held for held, _ in rows.releases] and run.name not in rows.merged:
                rows.releases = [entry for entry in rows.releases if entry[0].name != run.name]
                rows.releases.append((run, deepcopy(self.runs[run])))
        elif name == "revoke":
            rows.revoked += [sample for sample in arguments if sample not in rows.revoked]
        elif name == "rollback":
            rows = deepcopy(self.tags[arguments[0]])
        else:
            rows.releases = [
                (run, {view: [sample for sample in own if sample not in rows.revoked] for view, own in views.items()})
                for run, views in rows.releases
            ]
            rows.merged, rows.revoked = {run.name for run, _ in rows.releases}, []
        return rows


def read(repo: str) -> dict[str, list[str]]:
    """The ids that a reader of the card gets."""
    if not Path(repo, "README.md").exists():
        return listed(Rows())
    return {view: [row["sample_id"] for row in config_rows(repo, view)] for view in (*VIEWS, "revoked")}


def listed(rows: Rows) -> dict[str, list[str]]:
    return {view: rows.of(view) for view in VIEWS} | {"revoked": rows.revoked}


def with_index(run: Path, index: Path, repo: str) -> Path:
    """Let a run's recipe name an index of released samples."""
    opened = open_run(run)
    recipe = opened.recipe.model_copy(
        update={
            "dedupe": DedupeSpec.model_validate({"released": {"index": str(index)}}),
            "publish": opened.recipe.publish.model_copy(update={"repo": repo}),
        }
    )
    opened.store.write_model("run.json", opened.manifest.model_copy(update={"recipe": recipe}))
    dataset_of(open_run(run))
    return run


def indexed(asker: Path) -> list[str]:
    """The names in the index of a run that are of releases in the repository, after it has taken them in."""
    run = open_run(asker)
    names = take_in(run)
    index = open_index(known(run.recipe.dedupe), run.base)
    homes = [index.folder / "runs" / entry.name for entry in index.manifest.runs]
    rows = [row for table in signature_tables(homes, ["name", "release"]) for row in table.to_pylist()]
    return sorted(row["name"] for row in rows if row["release"] in names)


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Run a change in a process of its own (tests/helpers/crashing_releases.py)."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(FOLDER.parent), *sys.path])}
    program = [sys.executable, str(FOLDER / "crashing_releases.py")]
    with subprocess.Popen(program, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def asked(call: list[str], crash: int | None = None, kill: float | None = None) -> tuple[int, str]:
            known(process.stdin).write(json.dumps({"call": call, "crash": crash, "kill": kill}) + "\n")
            known(process.stdin).flush()
            status, printed = json.loads(known(process.stdout).readline())
            assert status in (0, 9) or "was merged into" in printed, printed
            return status, printed

        yield asked
        known(process.stdin).close()
        process.wait(60)


def chosen(chance: random.Random, reference: Reference, repo: str, runs: list[Path]) -> list[str]:
    """A change that is not refused."""
    kinds = ["publish"] * 4 + ["rollback", "revoke", "revoke", "compact"] * bool(reference.now.releases)
    kind = chance.choice(kinds)
    if kind == "publish":
        return [kind, repo, str(chance.choice(runs))]
    if kind == "rollback":
        return [kind, repo, chance.choice(sorted(reference.tags))]
    held = [name for view in VIEWS for name in reference.now.of(view)]
    if kind == "revoke" and held:
        return [kind, repo, *dict.fromkeys(chance.choices(held, k=chance.randint(1, 3)))]
    return ["compact", repo]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2])
def test_rows_and_index_are_those_of_a_plain_reference(seed: int, tmp_path: Path, ask: Ask) -> None:
    """Half of the changes are cut off at a change of a file, some by kill -9 at any moment; then the same command runs again, or
    another one. A reader sees the rows from before the change or those after it. The index of a machine that
    takes in every state, and of one that starts late, holds the rows that are in the shards."""
    chance, repo = random.Random(seed), str(tmp_path / "repo")
    runs = [two_prompts_run(tmp_path, name) for name in RUNS]
    for run in runs[::2]:
        with_index(run, tmp_path / "index", repo)
    asker = with_index(two_prompts_run(tmp_path, "asker"), tmp_path / "asked", repo)
    runs += [two_prompts_run(tmp_path / "refiltered", name, dataset={"description": "Again."}) for name in RUNS[:2]]
    reference = Reference({run: rows_of(run) for run in runs})
    again: list[str] | None = None
    crashes = 0
    for step in range(20):
        call = again or chosen(chance, reference, repo, runs)
        before, after, head = reference.now, reference.after([call[0], *call[2:]]), Folder(repo).head()
        cut: dict[str, Any] = {"crash": chance.randint(1, 20)} if chance.random() < 0.5 else {}
        cut = {"kill": chance.uniform(0, 0.2)} if chance.random() < 0.15 else cut
        repeats = chance.random() < 0.5  # drawn in any case: whether a kill comes in time depends on the machine
        seen = read(repo)  # of the change before it, if that was cut off before the card
        status, printed = ask(call, **cut)
        assert read(repo) in (seen, listed(before), listed(after)), (step, call, cut, printed)
        if status == 9:
            crashes += 1
            again = call if repeats else None
            reference.now = before if Folder(repo).head() == head else after
        else:
            again, reference.now = None, after
            assert read(repo) == listed(after), (step, call, printed)
        place = Folder(repo)
        for tag in {} if place.head() == NOTHING else place.tags():
            reference.tags.setdefault(tag, deepcopy(reference.now))
        if status != 9:
            assert indexed(asker) == sorted(reference.now.of("sft")), (step, call)
    while ask(["compact", repo])[1].find("as few and as large") < 0:
        reference.now = reference.after(["compact"])
    assert read(repo) == listed(reference.now)
    late = with_index(two_prompts_run(tmp_path, "late"), tmp_path / "late-index", repo)
    assert indexed(late) == indexed(asker) == sorted(reference.now.of("sft"))
    assert crashes
    assert not [file for ending in ("part", "tmp") for file in Path(repo).rglob(f"*.{ending}")]


def rows_of(run: Path) -> dict[str, list[str]]:
    """The ids of each view of a run's dataset."""
    import pyarrow.parquet as pq

    views: dict[str, Any] = {view: pq.read_table(run / "dataset" / view)["sample_id"].to_pylist() for view in VIEWS}
    return views
