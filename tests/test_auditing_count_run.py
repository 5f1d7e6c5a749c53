import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import known
from helpers.small_run import small_run
from thresher.auditing.audit import check
from thresher.auditing.count_run import count
from thresher.errors import AuditError, StoreError
from thresher.pool.run import open_run

# -- numbers -------------------------------------------------------------------------------------------------------------


def test_whole_run_adds_up(tmp_path: Path) -> None:
    found = count(small_run(tmp_path, corpus=True)).to_dict()

    assert found["problems"] == []
    assert found["complete"] is True
    assert found["shards"] == {"planned": 3, "sampled": 3, "judged": 3}
    assert (found["samples"], found["anchors"]) == (20, 5)
    assert found["outcomes"] == {"keep": 4, "drop": 10, "undecided": 6}
    assert found["kinds"] == {"hit": 4, "near_miss": 0, "miss": 6, "duplicate": 2}
    assert [(f["name"], f["seen"], f["kept"], f["dropped"], f["undecided"]) for f in found["filters"]] == [
        ("finished", 20, 18, {"truncated": 2}, {}),
        ("answer", 18, 6, {"wrong_answer": 6}, {"no_reference": 6}),
        ("exact_duplicate", 6, 5, {"duplicate": 1}, {}),
        ("near", 5, 4, {"near_duplicate": 1}, {}),
    ]
    assert found["tokens"] == {"prompt": 30, "completion": 90, "per_hit": 22.5}
    assert found["seconds"] == {"sampling": 4.5, "filtering": 3.0, "devices": 4.5}
    assert json.loads(json.dumps(found)) == found


def test_imported_run_counts_unreadable_rows_as_undecided(tmp_path: Path) -> None:
    plan = [("sums", ["torn", "right"], None), ("sums", ["torn", "torn", "torn"], None)]

    found = count(small_run(tmp_path, plan, origin="brought")).to_dict()

    assert found["problems"] == []
    readable = found["filters"][0]
    assert (readable["name"], readable["seen"], readable["kept"]) == ("readable", 5, 1)
    assert readable["undecided"] == {"unreadable_row": 4}
    assert (found["total"]["prompts"], found["total"]["samples"], found["total"]["pass_rate"]) == (1, 5, 1.0)


fates = st.sampled_from(["right", "again", "wrong", "cut", "open", "near"])


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b"]), st.lists(fates, min_size=3, max_size=3), fates), min_size=1, max_size=5),
    st.integers(1, 5),
)
@settings(max_examples=15)
@pytest.mark.slow
def test_numbers_do_not_depend_on_how_the_run_is_cut(
    tmp_path_factory: pytest.TempPathFactory, plan: Any, shard_prompts: Any
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    whole = count(small_run(folder / "whole", plan, shard_prompts=len(plan))).to_dict()

    cut = count(small_run(folder / "cut", plan, shard_prompts=shard_prompts)).to_dict()

    same = ("samples", "anchors", "outcomes", "kinds", "families", "total", "problems")
    assert {name: cut[name] for name in same} == {name: whole[name] for name in same}
    assert whole["problems"] == []
    assert sum(whole["outcomes"].values()) == whole["samples"] == 3 * len(plan)
    kinds = Counter(what for _, samples, _ in plan for what in samples)
    assert whole["kinds"]["hit"] == kinds["right"] + kinds["near"]


def test_numbers_do_not_depend_on_how_the_count_is_spread(tmp_path: Path) -> None:
    """Parts that other processes counted, sent as JSON, add up to the count of one process."""
    import pickle

    run = small_run(tmp_path, shard_prompts=1, corpus=True)

    def apart(function: Any, items: Any) -> Any:
        return [pickle.loads(pickle.dumps(function(*pickle.loads(pickle.dumps(item))))) for item in items]

    assert count(run, apart).to_dict() == count(run).to_dict()


# -- problems ------------------------------------------------------------------------------------------------------------


def test_unfinished_run_is_counted_as_far_as_it_is(tmp_path: Path) -> None:
    result = count(small_run(tmp_path, stop_after=1))

    assert result.complete is False
    assert (result.shards.planned, result.shards.judged, result.samples) == (3, 1, 8)
    assert len(result.problems) == 1
    with pytest.raises(AuditError, match="3 shards planned, 1 sampled and 1 judged; run `thresher run` again"):
        check(result)


def test_run_without_a_plan_is_unfinished(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    run.store.remove("prompts.json")

    result = count(run)

    assert (result.complete, result.samples) == (False, 0)
    assert "nothing is planned yet" in result.problems[0]


def test_corpus_filter_that_is_half_done_is_unfinished(tmp_path: Path) -> None:
    run = small_run(tmp_path, corpus=True)
    run.store.remove("corpus/00-00002.json")

    result = count(run)

    assert (result.complete, result.shards.judged) == (False, 2)


def test_recipe_with_more_filters_than_verdicts_is_a_problem(tmp_path: Path) -> None:
    run = small_run(tmp_path, corpus=True)
    for shard in range(3):
        run.store.remove(f"corpus/00-0000{shard}.json")

    assert "the recipe has 4 filters, but there are verdicts of 3" in count(run).problems[0]


def test_directory_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"it has no run\.json"):
        count(open_run(tmp_path))


@pytest.mark.parametrize("name", ["samples/00001", "verdicts/00001"])
def test_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    run = small_run(tmp_path)
    path = tmp_path / f"{name}.parquet"
    path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)

    problems = count(run).problems

    assert any(f"{name}.parquet: damaged" in problem for problem in problems)


def test_shards_judged_by_different_filters_are_a_problem(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    entry = known(run.store.entry("verdicts/00001"))
    entry.facts["filters"][1]["key"] = "older"
    run.store.write_model("verdicts/00001.json", entry)

    assert any("judged by other filters or settings" in problem for problem in count(run).problems)
