"""A shard is counted from its rows, and files that contradict each other are reported."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from helpers import known
from helpers.small_run import FILTERS, READABLE, small_run, write_shard
from schemas.sample import SAMPLES
from thresher.auditing.audit import check
from thresher.auditing.count_run import count
from thresher.auditing.counting.count_shard import count_shard
from thresher.errors import AuditError
from thresher.pool.store import Store


def rewrite(store: Store, name: Any, change: Any) -> None:
    """Write a changed table with an entry that fits it."""
    entry = known(store.entry(name))
    store.write_table(name, change(store.read_table(name)), key=entry.key, facts=entry.facts)


def replaced(table: pa.Table, column: Any, values: Any) -> Any:
    at = table.schema.get_field_index(column)
    return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))


def test_counts_of_shards_can_be_added(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    total, problems = count_shard(run, 0)
    assert problems == []
    for shard in (1, 2):
        total.add(count_shard(run, shard)[0])

    audit = count(run)

    assert total.samples.total() == audit.samples + audit.anchors == 25
    assert total.likely == {True: 20}
    assert sum(number for (_, label, *_), number in total.verdicts.items() if label == "answer") == audit.filters[1].seen


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
    assert [filter_counts["seen"] for filter_counts in found["filters"]] == [20, 7, 12]


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
