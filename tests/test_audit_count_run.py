import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import known
from helpers.small_run import FILTERS, READABLE, small_run, write_shard
from schemas.sample import SAMPLES
from thresher.audit.audit import check
from thresher.audit.count_run import count
from thresher.errors import AuditError, StoreError
from thresher.pool.run import open_run
from thresher.pool.store import Store


def rewrite(store: Store, name: Any, change: Any) -> None:
    """Write a changed table with an entry that fits it."""
    entry = known(store.entry(name))
    store.write_table(name, change(store.read_table(name)), key=entry.key, facts=entry.facts)


def replaced(table: pa.Table, column: Any, values: Any) -> Any:
    at = table.schema.get_field_index(column)
    return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))


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


def test_families_count_right_answers_with_duplicates_and_anchors_apart(tmp_path: Path) -> None:
    found = count(small_run(tmp_path)).to_dict()
    names = ("family", "prompts", "samples", "passed", "undecided", "hits", "anchors", "anchors_passed", "truncated")

    assert [tuple(family[name] for name in names) for family in found["families"]] == [
        ("sums", 3, 12, 5, 1, 4, 3, 1, 1),
        ("words", 2, 8, 1, 5, 1, 2, 0, 1),
    ]
    assert [family["pass_rate"] for family in found["families"]] == [5 / 11, 1 / 3]
    assert found["total"]["pass_rate"] == 6 / 14
    low, high = found["total"]["interval"]
    assert 0 <= low <= 6 / 14 <= high <= 1


def test_funnels_of_families_add_up_and_reasons_are_ranked(tmp_path: Path) -> None:
    filters = [FILTERS[0], FILTERS[1] | {"families": ["words"]}, FILTERS[2]]
    for found in (count(small_run(tmp_path / "all", corpus=True)), count(small_run(tmp_path / "some", filters=filters))):
        for one in found.filters:
            mine = [each for family in found.families for each in family.filters if each.name == one.name]
            assert sum(each.seen for each in mine) == one.seen
            assert sum((Counter(each.dropped) for each in mine), Counter()) == Counter(one.dropped)
            assert sum((Counter(each.undecided) for each in mine), Counter()) == Counter(one.undecided)
            assert all(each.seen == each.kept + sum(each.dropped.values()) + sum(each.undecided.values()) for each in mine)
        assert [one.name for one in found.total.filters] == [one.name for one in found.filters]
        assert [one.samples for one in found.reasons] == sorted((one.samples for one in found.reasons), reverse=True)
        assert sum(one.samples for one in found.reasons) == found.outcomes["drop"] + found.outcomes["undecided"]
    assert [one.name for one in found.families[0].filters] == ["finished", "exact_duplicate"]
    assert (found.reasons[0].filter, found.reasons[0].share) == ("answer", found.reasons[0].samples / 20)


def test_nothing_decided_has_no_rate(tmp_path: Path) -> None:
    found = count(small_run(tmp_path, [("sums", ["open", "open"], None)])).to_dict()

    assert found["total"]["pass_rate"] is None
    assert found["total"]["interval"] is None
    assert found["tokens"]["per_hit"] is None
    assert found["problems"] == []


def test_brought_run_counts_unreadable_rows_as_undecided(tmp_path: Path) -> None:
    plan = [("sums", ["torn", "right"], None), ("sums", ["torn", "torn", "torn"], None)]

    found = count(small_run(tmp_path, plan, origin="brought")).to_dict()

    assert found["problems"] == []
    readable = found["filters"][0]
    assert (readable["name"], readable["seen"], readable["kept"]) == ("readable", 5, 1)
    assert readable["undecided"] == {"unreadable_row": 4}
    assert (found["total"]["prompts"], found["total"]["samples"], found["total"]["pass_rate"]) == (1, 5, 1.0)


def test_shard_without_a_row_is_fine(tmp_path: Path) -> None:
    plan = [("sums", ["right", "torn"], None), ("sums", ["right"], None)]
    run = small_run(tmp_path, plan, origin="brought", shard_prompts=1)
    filters = [READABLE, *FILTERS]
    write_shard(run.store, 1, SAMPLES.empty_table(), fates=[], filters=filters)

    result = count(run)

    assert (result.problems, result.samples, result.total.hits) == ((), 2, 1)


def test_filter_of_some_families_sees_only_those(tmp_path: Path) -> None:
    filters = [FILTERS[0], FILTERS[1] | {"families": ["words"]}, FILTERS[2]]

    found = count(small_run(tmp_path, filters=filters)).to_dict()

    assert found["problems"] == []
    assert [one["seen"] for one in found["filters"]] == [20, 7, 12]


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


def test_numbers_do_not_depend_on_who_counts(tmp_path: Path) -> None:
    """Parts counted apart, and travelled, come to what one process counts."""
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


def drop_first(table: pa.Table) -> Any:
    return table.slice(1)


def repeat_first(table: pa.Table) -> Any:
    return pa.concat_tables([table, table.slice(0, 1)])


def repeat_ended(table: pa.Table) -> Any:
    ended = table.filter(pc.not_equal(table["outcome"], "keep")).slice(0, 1)
    return pa.concat_tables([table, replaced(ended, "filter", ["answer"])])


def change_outcome(table: pa.Table) -> Any:
    return replaced(table, "outcome", [table["outcome"][0].as_py(), "perhaps", *table["outcome"].to_pylist()[2:]])


def keep_dropped(table: pa.Table) -> Any:
    return replaced(table, "outcome", ["keep"] * table.num_rows)


def move_outside(table: pa.Table) -> Any:
    return replaced(table, "row", [99, *table["row"].to_pylist()[1:]])


def name_another_sample(table: pa.Table) -> Any:
    return replaced(table, "sample_id", ["0", *table["sample_id"].to_pylist()[1:]])


def name_another_filter(table: pa.Table) -> Any:
    return replaced(table, "filter", ["stranger", *table["filter"].to_pylist()[1:]])


def judge_by_others_first(table: pa.Table) -> Any:
    return table.filter(pc.not_equal(table["filter"], "finished"))


WRONG_VERDICTS = [
    (drop_first, "finished should have seen 10 samples, those every filter before it kept; 1 of them have no verdict"),
    (repeat_first, "finished judged 1 samples more than once"),
    (repeat_ended, "1 samples were dropped or undecided more than once"),
    (change_outcome, "saw 20 samples, but kept, dropped and undecided add up to 19"),
    (keep_dropped, "exact_duplicate should have seen 8 samples, those every filter before it kept; 6 of them have no"),
    (move_outside, "1 verdicts on rows outside the shard's 10"),
    (name_another_sample, "1 verdicts name a different sample than their row"),
    (name_another_filter, "1 verdicts of filters that its entry does not name"),
    (judge_by_others_first, "finished should have seen 10 samples"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_VERDICTS, ids=lambda value: getattr(value, "__name__", ""))
def test_verdicts_that_contradict_the_pool_are_problems(tmp_path: Path, change: Any, message: Any) -> None:
    run = small_run(tmp_path)
    rewrite(run.store, "verdicts/00000", change)

    result = count(run)

    assert any(message in problem for problem in result.problems), result.problems
    with pytest.raises(AuditError, match="run the same command again"):
        check(result)


WRONG_SAMPLES = [
    (drop_first, "10 samples planned (2 prompts, 5 each), 9 found; 1 prompts have too few"),
    (
        lambda t: replaced(t, "prompt_id", ["0", *t["prompt_id"].to_pylist()[1:]]),
        "2 prompts have too few, or are not in the plan",
    ),
    (lambda t: replaced(t, "sample_id", ["0", "0", *t["sample_id"].to_pylist()[2:]]), "1 sample ids occur twice"),
    (lambda t: replaced(t, "anchor", [False] * 10), "10 samples found, 8 noted in samples/00000.json"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_SAMPLES, ids=["missing", "foreign", "twice", "no_anchors"])
def test_samples_that_contradict_the_plan_are_problems(tmp_path: Path, change: Any, message: Any) -> None:
    run = small_run(tmp_path)
    rewrite(run.store, "samples/00000", change)

    problems = count(run).problems

    assert any(message in problem for problem in problems), problems


def test_entry_that_counts_other_rows_is_a_problem(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    run.store.write_model("samples/00000.json", known(run.store.entry("samples/00000")).model_copy(update={"rows": 11}))

    assert any("10 rows found, 11 noted" in problem for problem in count(run).problems)


def test_shards_judged_by_different_filters_are_a_problem(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    entry = known(run.store.entry("verdicts/00001"))
    entry.facts["filters"][1]["key"] = "older"
    run.store.write_model("verdicts/00001.json", entry)

    assert any("judged by other filters or settings" in problem for problem in count(run).problems)
