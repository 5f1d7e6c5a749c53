"""References and tools in the forms in which data sets write them."""

import json
from typing import Any

import pytest

from filters.answers.tool_reference import BadReferenceError, BadToolsError, Expected, expected_calls, validators

ADD = Expected("add", {"x": 1})


@pytest.mark.parametrize(
    "reference",
    [
        [{"name": "add", "arguments": {"x": 1}}],
        {"name": "add", "arguments": {"x": 1}},
        [{"name": "add", "arguments": '{"x": 1}'}],
        [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}}],
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add", "arguments": {"x": 1}}}]},
        '[{"name": "add", "arguments": {"x": 1}}]',
    ],
    ids=["list", "single", "arguments as text", "OpenAI", "message", "JSON text"],
)
def test_a_reference_may_have_the_form_of_its_data_set(reference: Any) -> None:
    assert expected_calls(reference) == (ADD,)


def test_several_right_values_may_be_listed() -> None:
    """The possible answers of the Berkeley function calling leaderboard."""
    assert expected_calls([{"add": {"x": [1, 2]}}]) == (Expected("add", {"x": [1, 2]}, allowed=True),)


def test_an_empty_list_expects_no_call() -> None:
    assert expected_calls([]) == ()
    assert expected_calls([{"name": "now"}]) == (Expected("now", {}),)


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("Paris", "not JSON"),
        (7, "wanted a call"),
        ({"answer": 7}, "found an object with ['answer']"),
        ([{"name": "add", "arguments": [1]}], "wanted arguments as an object, found list"),
        ([{"name": "add", "arguments": "x = 1"}], "add: its arguments are not JSON"),
        ([{"name": "add"}] * 65, "at most 64 calls, found 65"),
    ],
)
def test_another_reference_is_refused_with_the_reason(reference: Any, why: str) -> None:
    with pytest.raises(BadReferenceError) as raised:
        expected_calls(reference)

    assert why in str(raised.value)


def test_tools_have_validators_by_name() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    tools = [
        {"type": "function", "function": {"name": "add", "parameters": schema}},
        {"name": "sub", "input_schema": schema},
        {"name": "now"},
    ]
    found = validators(json.dumps(tools))

    add, sub = found["add"], found["sub"]
    assert add is not None
    assert sub is not None
    assert found["now"] is None
    assert [add.is_valid({"x": 1}), sub.is_valid({"x": "1"}), add.is_valid({})] == [True, False, False]


@pytest.mark.parametrize(
    ("tools", "why"),
    [
        ([{"name": "add", "parameters": {"type": "dict"}}], "add: its parameters are no JSON Schema"),
        ([{"name": "add", "parameters": {"$ref": "https://example.com/x"}}], "remote references are not fetched"),
        (["add"], "tools[0]: wanted an object with a name, found add"),
    ],
)
def test_tools_that_are_no_schemas_are_refused(tools: Any, why: str) -> None:
    with pytest.raises(BadToolsError) as raised:
        validators(json.dumps(tools))

    assert why in str(raised.value)
