import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.small_run import small_run
from schemas.manifest import RunManifest
from schemas.sample import PROMPTS, SAMPLES, VERDICTS
from thresher.dataset import views
from thresher.pool import judged as pool
from thresher.pool import prompt_counts
from thresher.pool.run import Run

RESERVED_BY_TRL = {
    *("input_ids", "labels", "completion_mask", "assistant_masks", "tools", "margin", "label", "seq_lengths"),
    *("environment", "ref_chosen_logps", "ref_rejected_logps", "images", "image", "messages", "text"),
}


def first_shard(run: Run) -> pa.Table:
    """The samples of the first shard as judged."""
    return pool.read_judged(run.store, 0)


def test_sft_holds_the_hits_and_no_anchor(tmp_path: Path) -> None:
    judged = first_shard(small_run(tmp_path))

    rows = views.sft(judged, "chat").to_pylist()

    assert [row["completion"][0]["content"] for row in rows] == ["right answer 0 to 0"]
    assert rows[0]["prompt"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Question 0?"},
    ]
    assert rows[0]["completion"][0]["role"] == "assistant"
    assert (rows[0]["completion_tokens"], rows[0]["cumulative_logprob"]) == (3, -1.5)


def test_text_format_gives_plain_strings(tmp_path: Path) -> None:
    judged = first_shard(small_run(tmp_path, prompt_format="text"))

    for view in (views.sft(judged, "text"), views.prompts(judged, "text")):
        assert view["prompt"][0].as_py() == "Be brief.\n\nQuestion 0?"
    assert views.sft(judged, "text")["completion"][0].as_py() == "right answer 0 to 0"


def test_prompts_count_samples_without_the_anchor(tmp_path: Path) -> None:
    judged = first_shard(small_run(tmp_path, shard_prompts=5))
    names = ["samples", "decided", "passed", "hits", "duplicates", "undecided", "pass_rate", "anchor_passed"]

    rows = [tuple(row[name] for name in names) for row in views.prompts(judged, "chat").to_pylist()]

    assert rows == [
        (4, 4, 2, 1, 1, 0, 0.5, True),
        (4, 4, 0, 0, 0, 0, 0.0, False),
        (4, 3, 3, 3, 0, 1, 1.0, False),
        (4, 3, 1, 1, 0, 1, pytest.approx(1 / 3), None),
        (4, 0, 0, 0, 0, 4, None, False),
    ]


def test_prompt_without_anchor_has_null_there(tmp_path: Path) -> None:
    judged = first_shard(small_run(tmp_path, [("sums", ["right", "wrong"], None)]))

    assert views.prompts(judged, "chat")["anchor_passed"].to_pylist() == [None]


def test_reference_is_its_text_or_its_json(tmp_path: Path) -> None:
    plan = [("sums", ["right"], None)] * 5
    judged = first_shard(small_run(tmp_path, plan, shard_prompts=5))

    assert views.prompts(judged, "chat")["reference"].to_pylist() == ["0", '{"n":1}', None, "null", "1.5"]


def test_unreadable_rows_are_in_no_prompt(tmp_path: Path) -> None:
    plan = [("sums", ["torn", "torn"], None), ("sums", ["right", "torn", "wrong"], None)]
    judged = first_shard(small_run(tmp_path, plan, origin="brought"))

    assert views.prompts(judged, "chat")["samples"].to_pylist() == [2]
    assert views.sft(judged, "chat")["completion_tokens"].to_pylist() == [None]


def test_a_shard_without_hits_gives_an_empty_table(tmp_path: Path) -> None:
    judged = first_shard(small_run(tmp_path, [("sums", ["wrong"], "wrong")]))

    made = views.sft(judged, "chat")

    assert made.num_rows == 0
    assert made.schema.equals(views.schema("sft", "chat"))


@pytest.mark.parametrize("view", views.COLUMNS)
def test_no_column_has_a_name_that_trl_reserves(view: Any) -> None:
    of_tokens = {"input_ids", "completion_mask"}
    meant = {"unpaired": {"label"}, "distill": of_tokens, "tokens": {*of_tokens, "labels"}}.get(view, set())
    assert not (RESERVED_BY_TRL - meant) & set(views.schema(view, "chat").names)


@pytest.mark.parametrize("wanted", [["sft"], ["prompts"], ["sft", "prompts"]], ids="+".join)
def test_columns_that_are_not_read_are_not_needed(tmp_path: Path, wanted: list[str]) -> None:
    run = small_run(tmp_path)
    samples = run.store.read_table("samples/00000")
    judged = pool.judged(samples.drop_columns(sorted(views.unread(wanted))), *pool.verdicts(run.store, 0))

    for view in wanted:
        assert getattr(views, view)(judged, "chat").num_rows


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.lists(st.none() | st.dictionaries(st.text(max_size=4), json_values, max_size=3), max_size=4))
@settings(max_examples=60)
def test_json_survives_but_for_integers_beyond_64_bits(values: Any) -> None:
    def shortened(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: shortened(one) for name, one in value.items()}
        if isinstance(value, list):
            return [shortened(entry) for entry in value]
        beyond = type(value) is int and not -(2**63) <= value < 2**64
        return str(value) if beyond else value

    column = pa.chunked_array([[None if value is None else json.dumps(value) for value in values]], pa.string())

    made = views.json_column(column)

    assert made.type == pa.json_()
    read_back = [None if text is None else json.loads(text) for text in made.cast(pa.string()).to_pylist()]
    assert read_back == [shortened(value) for value in values]


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["hit", "duplicate", "miss", None]), st.booleans())))
@settings(max_examples=60)
def test_counts_of_prompts_add_up_to_the_samples(rows: Any) -> None:
    outcome = ["keep" if kind == "hit" else "undecided" if kind is None else "drop" for _, kind, _ in rows]
    judged = pa.table(
        {
            "prompt_id": pa.chunked_array([[str(prompt) for prompt, _, _ in rows]], pa.string()),
            "kind": pa.chunked_array([[kind for _, kind, _ in rows]], pa.string()),
            "outcome": pa.chunked_array([outcome], pa.string()),
            "anchor": pa.chunked_array([[anchor for _, _, anchor in rows]], pa.bool_()),
        }
    )

    first, prompt, counts = prompt_counts.prompt_counts(judged)

    drawn = [kind for _, kind, anchor in rows if not anchor]
    assert counts["samples"].sum() == len(drawn)
    assert counts["passed"].sum() == sum(kind in ("hit", "duplicate") for kind in drawn)
    assert counts["undecided"].sum() == drawn.count(None)
    assert np.all(np.diff(first) > 0)
    assert [rows[at][0] for at in first[prompt]] == [row[0] for row in rows]


# -- docs/formats.md -----------------------------------------------------------------------------------------------------


def documented(heading: Any) -> Any:
    text = (Path(__file__).parents[1] / "docs" / "formats.md").read_text()
    section = text.split(f"\n### {heading}\n")[1].split("\n#")[0]
    return [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        ("prompts.parquet", PROMPTS.names),
        ("samples/*.parquet", SAMPLES.names),
        ("verdicts/*.parquet, corpus/*.parquet", VERDICTS.names),
        ("run.json", [*RunManifest.model_fields, "digest"]),
        *((view, [name for name, _, _ in columns]) for view, columns in views.COLUMNS.items()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_column_is_documented(heading: Any, names: Any) -> None:
    assert documented(heading) == names
