"""Answers that the verifiers must not be fooled or stopped by."""

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import filters
from filters.judging import judge


def reason(name: str, parameters: dict[str, Any], completion: str, reference: str | None) -> str:
    """What a verifier says of one completion; `reference` is JSON text."""
    columns = {"completion": pa.array([completion]), "reference": pa.array([reference], pa.string())}
    return str(judge(filters.build(name, parameters), pa.table(columns))["reason"][0].as_py())


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ('{"a":"\\ud800"}', "not_json"),
        ('{"a":' + "[" * 70 + "]" * 70 + "}", "not_json"),
        ('{"b":2,"inner":{"a":1}', "not_json"),
        ('{"a":1}' + "{x" * 15 + '{"a":2}', "ambiguous_json"),
        ('NaN is no answer, this is: {"a":1}', ""),
        ('{"a":NaN,"inner":{"a":1}}', "not_json"),
    ],
    ids=["half-surrogate", "deep", "inner-of-broken", "beyond-16-starts", "prose-nan", "inner-of-nan"],
)
def test_json_shape_takes_one_whole_object_only(completion: str, expected: str) -> None:
    """A part of a broken object is not the answer, and nothing a model writes stops the filter."""
    parameters = {"schema": {"additionalProperties": {"anyOf": [{"type": "integer"}, {"pattern": "^a"}]}}}

    assert reason("json_shape", parameters, completion, '{"a":1}') == expected


@given(st.lists(st.sampled_from(['{"a":', "1", "}", "[", "]", '"\\ud800"', "NaN", "1e999", "```", "\n", "{", '"a"', ":", ","])))
@example(['{"a":', '"\\ud800"', "}"])
def test_json_shape_judges_any_text(pieces: list[str]) -> None:
    """A crash in the verifier would make wrong answers undecided."""
    found = reason("json_shape", {"schema": {"properties": {"a": {"pattern": "^a"}}}}, "".join(pieces), '{"a":1}')

    assert found != "filter_error"


def test_json_shape_keeps_long_values_out_of_its_details() -> None:
    """They are for reading."""
    columns = {"completion": [json.dumps({"a": "x" * 60000})], "reference": ['{"a":1}']}
    detail = judge(filters.build("json_shape", {}), pa.table(columns))["detail"][0].as_py()

    assert len(detail) < 300


def test_json_shape_has_no_gold_where_values_are_ignored() -> None:
    """A reference need not fit the schema then."""
    assert filters.build("json_shape", {"values": "ignore"}).gold({"a": 1}) is None  # type: ignore[misc]


@pytest.mark.parametrize(
    ("parameters", "completion", "reference", "expected"),
    [
        ({}, "", '""', "bad_reference"),
        ({"strip": "."}, "...", '"."', "bad_reference"),
        ({}, "null", "null", "no_reference"),
    ],
    ids=["empty", "strips-to-nothing", "null"],
)
def test_exact_answer_needs_a_reference_that_says_something(
    parameters: dict[str, Any], completion: str, reference: str, expected: str
) -> None:
    """Else an empty answer is right."""
    assert reason("exact_answer", parameters, completion, reference) == expected


@pytest.mark.parametrize("strip", ["", "x", "x0"], ids=["none", "x", "x0"])
def test_exact_answers_wrong_answer_is_wrong(strip: str) -> None:
    """Also where normalising takes its ending off."""
    wrong = filters.build("exact_answer", {"strip": strip}).wrong
    assert wrong is not None

    assert reason("exact_answer", {"strip": strip}, str(wrong("a")), '"a"') == "wrong_answer"
