"""The view of all samples: order, rewards and lists of verdicts."""

import json
from pathlib import Path

import pyarrow as pa

from helpers.small_run import small_run
from thresher.dataset.rollouts import rollouts
from thresher.pool import judged as pool
from thresher.pool.run import Run


def first_shard(run: Run) -> tuple[pa.Table, pa.Table, list[pool.FilterFacts]]:
    """The first shard: samples as judged, verdicts, filters."""
    verdicts, filters = pool.verdicts(run.store, 0)
    return pool.read_judged(run.store, 0), verdicts, filters


def test_rollouts_hold_every_sample_in_the_order_of_the_pool(tmp_path: Path) -> None:
    judged, verdicts, filters = first_shard(small_run(tmp_path, shard_prompts=5, corpus=True))

    view = rollouts(judged, verdicts, filters, "chat")

    assert view["sample_id"].to_pylist() == judged["sample_id"].to_pylist()
    assert view["index"].to_pylist() == [-1, 0, 1, 2, 3] * 5
    fates = [text.split()[0] for text in judged["completion"].to_pylist()]
    rewards = {"right": 1.0, "good": 1.0, "again": 1.0, "near": 1.0, "wrong": 0.0, "cut": None, "open": None}
    assert view["reward"].to_pylist() == [rewards[fate] for fate in fates]
    kinds = {"right": "hit", "good": "hit", "again": "duplicate", "near": "duplicate", "wrong": "miss"}
    assert view["kind"].to_pylist() == [kinds.get(fate) for fate in fates]


def test_rollouts_carry_the_verdicts_in_the_order_of_the_filters(tmp_path: Path) -> None:
    judged, verdicts, filters = first_shard(small_run(tmp_path))

    again = rollouts(judged, verdicts, filters, "chat").to_pylist()[2]

    assert [(v["filter"], v["version"], v["outcome"]) for v in again["verdicts"]] == [
        ("finished", "1", "keep"),
        ("answer", "1", "keep"),
        ("exact_duplicate", "1", "drop"),
    ]
    assert (again["failed_filter"], again["reason"]) == ("exact_duplicate", "duplicate")
    assert json.loads(again["verdicts"][2]["detail"]) == json.loads(again["detail"]) == {"found": "again"}


def test_unreadable_rows_are_rollouts(tmp_path: Path) -> None:
    plan = [("sums", ["torn", "torn"], None), ("sums", ["right", "torn", "wrong"], None)]
    judged, verdicts, filters = first_shard(small_run(tmp_path, plan, origin="brought"))

    view = rollouts(judged, verdicts, filters, "chat")

    assert view["outcome"].to_pylist() == ["undecided", "undecided", "keep", "undecided", "drop"]
    assert view["source_row"].to_pylist() == [0, 1, 100, 101, 102]
    assert view["logprobs"].null_count == view["sampling"].null_count == 5
