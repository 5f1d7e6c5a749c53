"""Runs of imported samples do not repeat what earlier runs released."""

import functools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from helpers.released_runs import RULE, apples, asking_run, rollouts, run_on_machine
from thresher.cli import main
from thresher.dedupe.index import Index
from thresher.dedupe.index_search import Similar
from thresher.errors import PublishError, RecipeError


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    return functools.partial(asking_run, tmp_path)


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Path]:
    return functools.partial(run_on_machine, tmp_path)


def test_samples_of_an_earlier_release_are_not_released_again(run: Callable[..., Path], tmp_path: Path) -> None:
    first = run(apples(10, 4), "first")
    second = run(apples(12, 4, who="Berta"), "second")

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
def test_a_repeated_run_gives_the_same_verdicts_and_adds_nothing(run: Callable[..., Path], tmp_path: Path) -> None:
    first = run(apples(10, 3), "first")
    before = [(row["sample_id"], row["kind"]) for row in rollouts(first)]
    run(apples(11, 3), "second")
    manifest = (tmp_path / "index" / "index.json").read_text()

    assert [(row["sample_id"], row["kind"]) for row in rollouts(run(apples(10, 3), "first"))] == before
    assert (tmp_path / "index" / "index.json").read_text() == manifest
    (first / "released.json").unlink()  # as after a crash between the dataset and the index
    run(apples(10, 3), "first")
    assert sorted(Index(tmp_path / "index", RULE).manifest.releases) == sorted(json.loads(manifest)["releases"])
    other = run(apples(10, 3), "first", {"released": {"index": "index"}, "within_run": None})
    assert [(row["sample_id"], row["kind"]) for row in rollouts(other)] == before


@pytest.mark.slow
def test_an_index_can_be_rebuilt_from_the_dataset(
    run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(apples(10, 4), "first")
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
    assert Counter(row["kind"] for row in rollouts(run(apples(12, 4, who="Berta"), "second", asked))) == {
        "hit": 4,
        "duplicate": 4,
    }

    assert main(["index", str(first / "dataset"), "--out", str(again)]) == 1
    assert "is an index already" in capsys.readouterr().err
    (tmp_path / "plain.jsonl").write_text('{"completion": "x"}\n')
    assert main(["index", str(tmp_path / "plain.jsonl"), "--out", str(tmp_path / "no")]) == 1
    assert "wanted a dataset that thresher wrote" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_release_during_the_comparison_is_compared_on_the_next_try(
    machine: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run is released to the same index after this run has noted what the index knows."""
    repo = str(tmp_path / "repo")
    ask = Index.ask

    def release_another_and_ask(index: Index, *arguments: Any, **settings: Any) -> Similar:
        monkeypatch.setattr(Index, "ask", ask)
        machine("left", apples(21, 3), repo)
        return ask(index, *arguments, **settings)

    monkeypatch.setattr(Index, "ask", release_another_and_ask)
    with pytest.raises(PublishError, match="4 samples of this run repeat"):
        machine("left", apples(20, 3), repo)
    found = machine("left", apples(20, 3), repo)
    assert Counter(row["kind"] for row in rollouts(found)) == {"hit": 2, "duplicate": 4}


def test_an_index_with_another_rule_stops_the_run_before_it_starts(run: Callable[..., Path]) -> None:
    run(apples(10, 2), "first")
    with pytest.raises(RecipeError, match=r"second.yaml.*index.json: the index was made with the rule .*rebuild it"):
        run(apples(10, 2), "second", {"released": {"index": "index"}, "guard": "none"})
