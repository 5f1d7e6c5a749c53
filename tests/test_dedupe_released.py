"""Runs that ask what was released before, through whole runs over brought samples; and duplicates of a run by files."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_dataset

from schemas.dataset import PublishSpec
from thresher.cli import main
from thresher.dedupe import within_run
from thresher.dedupe.index import Index
from thresher.errors import PublishError, RecipeError
from thresher.inputs.recipe_file import load
from thresher.judging import winnow
from thresher.releases.change import compact, rollback
from thresher.releases.publish import publish
from thresher.releases.repository import releases
from thresher.run import steps
from thresher.run.open_run import begin_brought
from thresher.run.progress import Progress

RULE = {"guard": "answer", "run_characters": 200}
LONG = (
    "{who} had {a} apples and was given {b} more by a friend who came along the road in the morning, so that, when all of them "
    "are counted one after the other from the first to the last, the whole comes to no more and no less than A: {c}"
)
Rows = list[dict[str, Any]]


def rows(first: int, prompts: int, who: str = "Anna") -> Rows:
    """Right answers: a long one of each prompt, and one in few words."""
    made = []
    for a in range(first, first + prompts):
        said = [LONG.format(who=who, a=a, b=a + 1, c=2 * a + 1), f"A: {2 * a + 1}"]
        made += [{"prompt": f"{a}+{a + 1}?", "reference": str(2 * a + 1), "completion": text} for text in said]
    return made


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Filter samples by a recipe, changed by keywords; gives the run's directory."""

    def made(
        data: Rows,
        name: str,
        dedupe: dict[str, Any] | None = None,
        *,
        publish: dict[str, Any] | None = None,
        dataset: dict[str, Any] | None = None,
        filters: list[dict[str, Any]] | None = None,
        **changes: Any,
    ) -> Path:
        recipe = {
            "name": "released",
            "filters": filters or [{"name": "exact_answer", "parameters": {"after": "A:"}}],
            "dedupe": {"released": {"index": "index"}} if dedupe is None else dedupe,
            "run": {"filter_workers": 0, "shard_samples": 4} | changes,
        }
        recipe |= {name: value for name, value in (("publish", publish), ("dataset", dataset)) if value is not None}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
        begun = begin_brought(load(tmp_path / f"{name}.yaml"), tmp_path / f"{name}.jsonl", tmp_path / name)
        found, _ = steps.run(begun, Progress())
        assert found.problems == ()
        return tmp_path / name

    return made


@pytest.fixture
def machine(run: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Filter samples on a machine, which is a folder, and release them to a repository if there is one."""

    def made(name: str, data: Rows, repo: str | None, *, released: Any = "index", guard: str = "answer", **more: Any) -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        spec = {"released": None if released is None else {"index": released}, "guard": guard}
        gates = {"self_check": False, "pass_rate_drop": 1.0, "diversity_drop": 1.0}
        publish = None if repo is None else {"repo": repo, "versions": "semantic", "gates": gates}
        return run(data, f"{name}/{data[0]['prompt'][:2]}", spec, publish=publish, **more)

    return made


def rollouts(run: Path) -> Rows:
    splits = sorted(folder.name for folder in (run / "dataset" / "rollouts").iterdir())
    return [row for split in splits for row in load_dataset(str(run / "dataset"), "rollouts", split=split).to_list()]


def test_what_an_earlier_run_released_is_not_released_again(run: Callable[..., Path], tmp_path: Path) -> None:
    first = run(rows(10, 4), "first")
    second = run(rows(12, 4, who="Berta"), "second")

    assert Counter(row["kind"] for row in rollouts(first)) == {"hit": 8}
    kinds = {(row["kind"], row["reason"], row["detail"] and row["detail"]["scope"]) for row in rollouts(second)}
    assert kinds == {
        ("hit", "", None),
        ("duplicate", "near_duplicate", "released"),
        ("duplicate", "exact_duplicate", "released"),
    }
    released = {row["sample_id"]: row["completion"][0]["content"] for row in rollouts(first)}
    for row in rollouts(second):
        if row["kind"] == "duplicate":
            assert row["completion"][0]["content"].replace("Berta", "Anna") == released[row["nearest"]]
    assert len(load_dataset(str(second / "dataset"), "sft", split="train")) == 4
    index = Index(tmp_path / "index", RULE)
    assert (index.rows, len(index.manifest.releases)) == (12, 2)


@pytest.mark.slow
def test_a_run_again_says_the_same_and_adds_nothing(run: Callable[..., Path], tmp_path: Path) -> None:
    first = run(rows(10, 3), "first")
    before = [(row["sample_id"], row["kind"]) for row in rollouts(first)]
    run(rows(11, 3), "second")
    manifest = (tmp_path / "index" / "index.json").read_text()

    assert [(row["sample_id"], row["kind"]) for row in rollouts(run(rows(10, 3), "first"))] == before
    assert (tmp_path / "index" / "index.json").read_text() == manifest
    (first / "released.json").unlink()  # as after a crash between the dataset and the index
    run(rows(10, 3), "first")
    assert sorted(Index(tmp_path / "index", RULE).manifest.releases) == sorted(json.loads(manifest)["releases"])
    other = run(rows(10, 3), "first", {"released": {"index": "index"}, "within_run": None})
    assert [(row["sample_id"], row["kind"]) for row in rollouts(other)] == before


@pytest.mark.slow
def test_the_dataset_alone_makes_the_index_again(
    run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(rows(10, 4), "first")
    again = tmp_path / "again"

    assert main(["index", str(first / "dataset"), "--out", str(again)]) == 0
    assert "8 released samples" in capsys.readouterr().out
    columns = [
        [
            pq.read_table(next((folder / "runs").glob("*/signatures.parquet"))).select([name]).to_pydict()
            for name in ("name", "guard", "content", "sketch")
        ]
        for folder in (again, tmp_path / "index")
    ]
    assert columns[0] == columns[1]
    asked = {"released": {"index": "again"}}
    assert Counter(row["kind"] for row in rollouts(run(rows(12, 4, who="Berta"), "second", asked))) == {"hit": 4, "duplicate": 4}

    assert main(["index", str(first / "dataset"), "--out", str(again)]) == 1
    assert "is an index already" in capsys.readouterr().err
    (tmp_path / "plain.jsonl").write_text('{"completion": "x"}\n')
    assert main(["index", str(tmp_path / "plain.jsonl"), "--out", str(tmp_path / "no")]) == 1
    assert "wanted a dataset that thresher wrote" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_the_index_travels_with_the_dataset(machine: Callable[..., Path], tmp_path: Path) -> None:
    """Two machines, each with an index of its own, release to one repository. What one released the other does not; where it came
    after the other had looked, the release is refused, whatever the other's index knows by then, and the same run, tried again,
    drops it."""
    repo = str(tmp_path / "repo")
    machine("left", rows(10, 4), repo)
    second = machine("right", rows(12, 4, who="Berta"), repo)
    assert Counter(row["kind"] for row in rollouts(second)) == {"hit": 4, "duplicate": 4}

    third = machine("left", rows(16, 2), None)  # it looks elsewhere, and is released later
    machine("right", rows(17, 2, who="Carla"), repo)
    machine("left", rows(20, 2), repo)
    with pytest.raises(PublishError, match=r"2 samples of this run repeat what was .* run it again with publish.repo="):
        publish(third, PublishSpec(repo=repo))
    assert Counter(row["kind"] for row in rollouts(third)) == {"hit": 4}
    assert machine("left", rows(16, 2), repo) == third
    assert Counter(row["kind"] for row in rollouts(third)) == {"hit": 2, "duplicate": 2}
    assert len(releases(repo).releases) == 5
    assert load_dataset(repo, "sft", split="train").num_rows == 8 + 4 + 4 + 4 + 2
    known = [set(Index(tmp_path / name / "index", RULE).manifest.releases) for name in ("left", "right")]
    assert known[0] == {one.run for one in releases(repo).releases} > known[1]


@pytest.mark.slow
def test_a_release_that_was_replaced_is_known_as_it_is(machine: Callable[..., Path], tmp_path: Path) -> None:
    """A run that is filtered and released anew keeps more; a machine that knew its old dataset takes in the new one, and does not
    bring the old one back by a release of its own."""
    repo = str(tmp_path / "repo")
    right = {"name": "exact_answer", "parameters": {"after": "A:"}}
    first = machine("left", rows(10, 4), repo, filters=[right, {"name": "regex", "parameters": {"pattern": "^A:"}}])
    assert Counter(row["kind"] for row in rollouts(first)) == {"hit": 4, "miss": 4}
    machine("right", rows(20, 1), repo)
    machine("left", rows(10, 4), repo)
    assert Counter(row["kind"] for row in rollouts(first)) == {"hit": 8}
    assert len(releases(repo).releases) == 2

    machine("right", rows(30, 1), repo)
    for name, again in (("other", rows(10, 4, "Berta")), ("right", rows(10, 4, "Carla"))):
        assert Counter(row["kind"] for row in rollouts(machine(name, again, repo))) == {"duplicate": 8}


@pytest.mark.slow
def test_releases_of_which_there_is_no_index_are_known_too(machine: Callable[..., Path], tmp_path: Path) -> None:
    """The first was released by a recipe without one, as was the third, when there was one; half of the prompts are held out. An
    index by another rule is not taken. What was merged is known as well, and what was rolled back leaves nothing in the way."""
    repo = str(tmp_path / "repo")
    held = {"dataset": {"test_share": 0.5}}
    machine("left", rows(10, 8), repo, released=None, **held)
    second = machine("right", rows(12, 8, who="Berta"), repo, **held)
    assert Counter(row["kind"] for row in rollouts(second)) == {"hit": 4, "duplicate": 12}
    machine("left", rows(30, 6), repo, released=None, **held)
    third = machine("right", rows(32, 6), repo, **held)
    assert Counter(row["kind"] for row in rollouts(third)) == {"hit": 4, "duplicate": 8}
    other = machine("third", rows(10, 6, "Berta"), repo, guard="numbers", **held)
    assert Counter(row["kind"] for row in rollouts(other)) == {"duplicate": 12}

    compact(repo)
    assert Counter(row["kind"] for row in rollouts(machine("fourth", rows(30, 8, "Carla"), repo, **held))) == {"duplicate": 16}
    rollback(repo, releases(repo).changes[-1].partition(":")[0])
    fifth = machine("fifth", rows(14, 8), repo, **held)
    assert Counter(row["kind"] for row in rollouts(fifth)) == {"hit": 8, "duplicate": 8}


@pytest.mark.slow
def test_what_comes_while_a_run_asks_is_asked_about_when_it_is_tried_again(
    machine: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other release comes to the same index after this run has looked what that knows."""
    repo = str(tmp_path / "repo")
    asked = winnow._asked

    def then_another(*of: Any) -> dict[str, str]:
        found = asked(*of)
        monkeypatch.setattr(winnow, "_asked", asked)
        machine("left", rows(21, 3), repo)
        return found

    monkeypatch.setattr(winnow, "_asked", then_another)
    with pytest.raises(PublishError, match="4 samples of this run repeat"):
        machine("left", rows(20, 3), repo)
    found = machine("left", rows(20, 3), repo)
    assert Counter(row["kind"] for row in rollouts(found)) == {"hit": 2, "duplicate": 4}


def test_an_index_of_another_sort_stops_the_run_before_it_begins(run: Callable[..., Path]) -> None:
    run(rows(10, 2), "first")
    with pytest.raises(RecipeError, match=r"second.yaml.*index.json: the index was made with the rule .*rebuild it"):
        run(rows(10, 2), "second", {"released": {"index": "index"}, "guard": "none"})


@pytest.mark.slow
def test_through_files_the_verdicts_are_the_same(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    data = [row for who in ("Anna", "Berta", "Clara") for row in rows(10, 6, who)] + rows(30, 4)
    for number, row in enumerate(data):
        row["prompt"] += " " * (number % 5)
    settings = {"within_prompt": None}
    plain = rollouts(run(data, "plain", settings))
    passed: list[str] = []
    through = within_run.through_files
    monkeypatch.setattr(within_run, "through_files", lambda *given: (passed.append("files"), through(*given)))

    files = run(data, "files", settings, dedupe_gib=1e-6)

    assert passed == ["files"]
    columns = ("sample_id", "kind", "reason", "nearest", "similarity", "multiplicity")
    assert [[row[name] for name in columns] for row in rollouts(files)] == [[row[name] for name in columns] for row in plain]
    assert Counter(row["kind"] for row in plain)["duplicate"] > 5
    assert not (files / "scratch").exists()
