"""The filters that come with thresher, and the contract they are held to."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import filters
from filters.base import Filter, FilterError, Role, Scope, verdict_table
from filters.coherence.coherence import Fault
from filters.judging import judge, judge_corpus, one_by_one, per_prompt
from schemas.sample import SAMPLES, Sample, Verdict, to_json


def table(*rows: dict[str, Any]) -> pa.Table:
    """Pool rows with what a filter reads; everything else is neutral."""
    base = {"family": "f", "anchor": False, "messages": [], "metadata": "{}", "finish_reason": "stop", "prompt_id": "p"}
    made = [
        {**base, "sample_id": f"s{number}", "index": number, **row, "reference": reference(row)}
        for number, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(made, schema=SAMPLES)


def reference(row: dict[str, Any]) -> str | None:
    return None if row.get("reference") is None else to_json(row["reference"])


def shaky(sample: Sample) -> Verdict:
    if sample.completion == "boom":
        raise ZeroDivisionError("boom")
    return Verdict.keep(score=0.5)


def make(function: Any, scope: Scope = Scope.SAMPLE) -> Filter:
    return Filter("mine", "1", scope, Role.QUALITY, function, ("prompt_id", "completion"))


@pytest.mark.slow
@given(st.lists(st.sampled_from(["ok", "boom"]), max_size=20))
def test_a_failure_is_the_failing_samples_alone(texts: list[str]) -> None:
    """Bisected, in order, and named."""
    given_ = judge(make(one_by_one(shaky, ("completion",))), table(*({"completion": text} for text in texts))).to_pylist()

    assert [one["outcome"] for one in given_] == ["undecided" if text == "boom" else "keep" for text in texts]
    assert {one["detail"] for one in given_ if one["outcome"] == "undecided"} <= {'{"error":"ZeroDivisionError: boom"}'}


def test_in_scope_prompt_a_failure_is_its_prompts() -> None:
    """A prompt's samples are judged together, so they fail together; the other prompt is judged."""

    def judge_prompt(samples: Sequence[Sample]) -> Sequence[Verdict]:
        return [shaky(sample) for sample in samples]

    built = make(per_prompt(judge_prompt, ("prompt_id", "completion")), Scope.PROMPT)
    rows = [
        {"prompt_id": "p", "completion": "ok"},
        {"prompt_id": "q", "completion": "boom"},
        {"prompt_id": "p", "completion": "x"},
    ]
    rows.append({"prompt_id": "q", "completion": "ok"})

    assert judge(built, table(*rows))["outcome"].to_pylist() == ["keep", "undecided", "keep", "undecided"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda rows: [], "wanted 1 verdicts, one per sample, found 0"),
        (lambda rows: verdict_table(["maybe"], [""]), "outcomes must be"),
        (lambda rows: verdict_table(["drop"], [""]), "snake_case"),
        (lambda rows: verdict_table(["drop"], ["Too Bad"]), "snake_case word, found 'Too Bad'"),
        (lambda rows: verdict_table(["keep"], ["why"]), "a kept sample has no reason"),
        (lambda rows: ["keep"], "must return Verdict objects"),
    ],
)
def test_a_broken_contract_is_named(answer: Any, message: str) -> None:
    """The filter, what was wanted, what was found."""
    with pytest.raises(FilterError, match=f"mine: .*{message}"):
        judge(make(answer), table({"completion": "x"}))


def test_a_corpus_filter_that_fails_leaves_the_rest_undecided() -> None:
    """What it had judged stays judged."""

    def fails(batches: Any) -> Any:
        for number, batch in enumerate(batches):
            if number == 1:
                raise OSError("gone")
            yield [Verdict.keep()] * batch.num_rows

    batches = [table({"completion": "a"}), table({"completion": "b"}), table({"completion": "c"})]
    given_ = [one["outcome"].to_pylist() for one in judge_corpus(make(fails, Scope.CORPUS), batches)]

    assert given_ == [["keep"], ["undecided"], ["undecided"]]


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("exact_anser", {}, "did you mean exact_answer"),
        ("exact_duplicate", {}, "exact_duplicate: no such filter any more: the recipe's dedupe finds duplicates"),
        ("exact_duplicate", {}, "write `dedupe: {within_prompt: 1, within_run: null}`"),
        ("exact_answer", {"case_sensitiv": True}, "parameters.case_sensitiv: no such key; did you mean case_sensitive"),
        ("exact_answer", {"nfkc": "perhaps"}, "parameters.nfkc"),
        ("nowhere.module:build", {}, "cannot import nowhere.module"),
        ("filters.finished:biuld", {}, "has no function 'biuld'; did you mean build"),
    ],
)
def test_a_filter_that_cannot_be_built_says_why(name: str, parameters: dict[str, Any], message: str) -> None:
    """Key, what was found, what is near."""
    with pytest.raises(FilterError, match=re.escape(message)):
        filters.build(name, parameters)


def test_the_key_changes_with_version_and_parameters() -> None:
    """Verdicts of one key were made by one rule."""
    keys = {filters.build("exact_answer", {"strip": strip}).key for strip in ("", ".", "!")}

    assert len(keys) == 3
    assert filters.build("exact_answer", {}).key == filters.build("exact_answer", {"strip": ""}).key


def test_every_reason_stands_in_the_docs() -> None:
    """docs/verdicts.md says what each means and what to do."""
    source = "".join(path.read_text() for path in [*Path("filters").rglob("*.py"), Path("thresher/judging/winnow.py")])
    reasons = set(re.findall(r'(?:drop|undecided|RefusedError)\("([a-z_]+)"', source))
    reasons |= (
        set(re.findall(r'(?:DROP|UNDECIDED), "([a-z_]+)"', source))
        | set(re.findall(r'"([a-z_]+)": (?:DROP|UNDECIDED)\b', source))
        | {"contaminated", *get_args(Fault)}
        | {"truncated", "empty", "aborted", "exact_duplicate", "near_duplicate", "semantic_duplicate", "near_miss"}
    )
    reasons |= {"filter_error", "unreadable_row", "not_sampled"}

    documented = set(re.findall(r"^\| `([a-z_]+)`", Path("docs/verdicts.md").read_text(), re.MULTILINE))
    assert reasons == documented
