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

from filters.similarity.index import Index
from schemas.recipe import PublishSpec
from thresher import repeats, steps
from thresher.cli import main
from thresher.errors import PublishError, RecipeError
from thresher.opening import begin_brought
from thresher.progress import Progress
from thresher.recipes import load
from thresher.releases.publishing import publish
from thresher.releases.repository import releases

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
        data: Rows, name: str, dedupe: dict[str, Any] | None = None, publish: dict[str, Any] | None = None, **changes: Any
    ) -> Path:
        recipe = {
            "name": "released",
            "filters": [{"name": "exact_answer", "parameters": {"after": "A:"}}],
            "dedupe": {"released": {"index": "index"}} if dedupe is None else dedupe,
            "run": {"filter_workers": 0, "shard_samples": 4} | changes,
        } | ({} if publish is None else {"publish": publish})
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

    def made(name: str, data: Rows, repo: str | None, released: Any = "index") -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        index = None if released is None else {"index": released}
        return run(data, f"{name}/{data[0]['prompt'][:2]}", {"released": index}, publish=None if repo is None else {"repo": repo})

    return made


def rollouts(run: Path) -> Rows:
    read: Rows = load_dataset(str(run / "dataset"), "rollouts", split="train").to_list()
    return read


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
    after the other had looked, the release is refused, and the same run, tried again, drops it."""
    repo = str(tmp_path / "repo")
    machine("left", rows(10, 4), repo)
    second = machine("right", rows(12, 4, who="Berta"), repo)
    assert Counter(row["kind"] for row in rollouts(second)) == {"hit": 4, "duplicate": 4}

    third = machine("left", rows(16, 2), None)  # it looks, and is released later
    machine("right", rows(17, 2, who="Carla"), repo)
    with pytest.raises(PublishError, match=r"2 releases came there since .* run it again"):
        publish(third, PublishSpec(repo=repo))
    assert Counter(row["kind"] for row in rollouts(third)) == {"hit": 4}
    assert machine("left", rows(16, 2), repo) == third
    assert Counter(row["kind"] for row in rollouts(third)) == {"hit": 2, "duplicate": 2}
    assert len(releases(repo).releases) == 4
    assert load_dataset(repo, "sft", split="train").num_rows == 8 + 4 + 4 + 2
    known = [Index(tmp_path / name / "index", RULE).manifest.releases for name in ("left", "right")]
    assert (len(known[0]), known[1]) == (4, known[0][:3])


@pytest.mark.slow
def test_a_repository_without_an_index_gets_one(machine: Callable[..., Path], tmp_path: Path) -> None:
    repo = str(tmp_path / "repo")
    machine("left", rows(10, 4), repo, released=None)
    assert not (tmp_path / "left/index").exists()
    assert Counter(row["kind"] for row in rollouts(machine("right", rows(12, 4, who="Berta"), repo))) == {
        "hit": 4,
        "duplicate": 4,
    }


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
    through = repeats.through_files
    monkeypatch.setattr(repeats, "through_files", lambda *given: (passed.append("files"), through(*given)))

    files = run(data, "files", settings, dedupe_gib=1e-6)

    assert passed == ["files"]
    columns = ("sample_id", "kind", "reason", "nearest", "similarity", "multiplicity")
    assert [[row[name] for name in columns] for row in rollouts(files)] == [[row[name] for name in columns] for row in plain]
    assert Counter(row["kind"] for row in plain)["duplicate"] > 5
    assert not (files / "scratch").exists()
