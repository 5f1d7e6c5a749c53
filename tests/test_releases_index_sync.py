"""The index of what was released travels with the dataset, from machine to machine."""

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import load_dataset

from helpers.released_runs import RULE, apples, rollouts, run_on_machine
from schemas.dataset import PublishSpec
from thresher.dedupe.index import Index
from thresher.errors import PublishError
from thresher.pool.run import open_run
from thresher.releases.change import rollback
from thresher.releases.compact import compact
from thresher.releases.publish import publish
from thresher.releases.repository import releases


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Path]:
    return functools.partial(run_on_machine, tmp_path)


@pytest.mark.slow
def test_the_index_travels_with_the_dataset(machine: Callable[..., Path], tmp_path: Path) -> None:
    """Two machines, each with an index of its own, release to one repository. What one released the other does not; where it came
    after the other had looked, the release is refused, whatever the other's index knows by then, and the same run, tried again,
    drops it."""
    repo = str(tmp_path / "repo")
    machine("left", apples(10, 4), repo)
    second = machine("right", apples(12, 4, who="Berta"), repo)
    assert Counter(row["kind"] for row in rollouts(second)) == {"hit": 4, "duplicate": 4}

    third = machine("left", apples(16, 2), None)  # it looks elsewhere, and is released later
    machine("right", apples(17, 2, who="Carla"), repo)
    machine("left", apples(20, 2), repo)
    with pytest.raises(PublishError, match=r"2 samples of this run repeat samples released .* run it again with publish.repo="):
        publish(open_run(third), PublishSpec(repo=repo))
    assert Counter(row["kind"] for row in rollouts(third)) == {"hit": 4}
    assert machine("left", apples(16, 2), repo) == third
    assert Counter(row["kind"] for row in rollouts(third)) == {"hit": 2, "duplicate": 2}
    assert len(releases(repo).releases) == 5
    assert load_dataset(repo, "sft", split="train").num_rows == 8 + 4 + 4 + 4 + 2
    known = [set(Index(tmp_path / name / "index", RULE).manifest.releases) for name in ("left", "right")]
    assert known[0] == {release.run for release in releases(repo).releases} > known[1]


@pytest.mark.slow
def test_a_release_that_was_replaced_is_known_as_it_is(machine: Callable[..., Path], tmp_path: Path) -> None:
    """A run that is filtered and released again keeps more; a machine that knew its old dataset takes in the new one, and does
    not bring the old one back by a release of its own."""
    repo = str(tmp_path / "repo")
    right = {"name": "exact_answer", "parameters": {"after": "A:"}}
    first = machine("left", apples(10, 4), repo, filters=[right, {"name": "regex", "parameters": {"pattern": "^A:"}}])
    assert Counter(row["kind"] for row in rollouts(first)) == {"hit": 4, "miss": 4}
    machine("right", apples(20, 1), repo)
    machine("left", apples(10, 4), repo)
    assert Counter(row["kind"] for row in rollouts(first)) == {"hit": 8}
    assert len(releases(repo).releases) == 2

    machine("right", apples(30, 1), repo)
    for name, again in (("other", apples(10, 4, "Berta")), ("right", apples(10, 4, "Carla"))):
        assert Counter(row["kind"] for row in rollouts(machine(name, again, repo))) == {"duplicate": 8}


@pytest.mark.slow
def test_releases_of_which_there_is_no_index_are_known_too(machine: Callable[..., Path], tmp_path: Path) -> None:
    """The first was released by a recipe without one, as was the third, when there was one; half of the prompts are held out. An
    index by another rule is not taken. What was merged is known as well, and what was rolled back leaves nothing in the way."""
    repo = str(tmp_path / "repo")
    held = {"dataset": {"test_share": 0.5}}
    machine("left", apples(10, 8), repo, released=None, **held)
    second = machine("right", apples(12, 8, who="Berta"), repo, **held)
    assert Counter(row["kind"] for row in rollouts(second)) == {"hit": 4, "duplicate": 12}
    machine("left", apples(30, 6), repo, released=None, **held)
    third = machine("right", apples(32, 6), repo, **held)
    assert Counter(row["kind"] for row in rollouts(third)) == {"hit": 4, "duplicate": 8}
    other = machine("third", apples(10, 6, "Berta"), repo, guard="numbers", **held)
    assert Counter(row["kind"] for row in rollouts(other)) == {"duplicate": 12}

    compact(repo)
    assert Counter(row["kind"] for row in rollouts(machine("fourth", apples(30, 8, "Carla"), repo, **held))) == {"duplicate": 16}
    rollback(repo, releases(repo).changes[-1].partition(":")[0])
    fifth = machine("fifth", apples(14, 8), repo, **held)
    assert Counter(row["kind"] for row in rollouts(fifth)) == {"hit": 8, "duplicate": 8}
