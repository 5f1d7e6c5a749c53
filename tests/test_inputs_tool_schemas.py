"""Tools must be functions with JSON Schemas; arguments of a chat template must be an object."""

import json
from typing import Any

import pytest

from schemas.prompt_sets import TEMPLATE_ARGUMENTS_TAKEN
from thresher.inputs.chat_messages import RefusedError
from thresher.inputs.tool_schemas import read_arguments, read_tools

SCHEMA = {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}}
FUNCTION = {"name": "weather", "description": "The weather.", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}


@pytest.mark.parametrize(
    "value",
    [
        [TOOL],
        json.dumps([TOOL]),
        [FUNCTION],
        [FUNCTION | {"type": "function"}],
        [json.dumps(TOOL)],
        [{"function": dict(reversed(FUNCTION.items()))}],
        (TOOL,),
    ],
    ids=["openai", "text", "bare", "responses", "texts", "no type", "tuple"],
)
def test_every_form_of_tools_becomes_one(value: Any) -> None:
    """So that the same tools have one hash. Type and name come first; within the schema, keys keep their order."""
    assert read_tools(value, "x") == json.dumps([TOOL], separators=(",", ":"))


def test_no_tools_are_none() -> None:
    nothing: list[Any] = [None, [], "", "[]", "null"]

    assert [read_tools(value, "x") for value in nothing] == [None] * 5
    assert read_tools([{"name": "now"}], "x") == '[{"type":"function","function":{"name":"now"}}]'


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("weather", "x: wanted a list of {type: function, function: {name, description, parameters}}, or of"),
        (TOOL, "x: wanted a list of"),
        ([3], "x: tool 0: wanted a list of"),
        ([{"type": "function", "function": {"parameters": SCHEMA}}], "tool 0: wanted a list of"),
        ([{"type": "web_search"}], "tool 0: a tool of type 'web_search'; only functions are given to chat templates"),
        ([TOOL, TOOL], "x: two tools are named weather; give each its own name"),
        ([FUNCTION | {"parameters": {"type": "dict"}}], "of weather are no JSON Schema of an object: at type: 'dict' is"),
        ([FUNCTION | {"parameters": {"type": "array"}}], "no JSON Schema of an object: its type is 'array', not object"),
        ([FUNCTION | {"parameters": [1]}], "no JSON Schema of an object: found [1]"),
        ([FUNCTION | {"parameters": {"properties": {"a": {"minimum": "1"}}}}], "at properties.a.minimum: '1' is not of type"),
        ([FUNCTION | {"description": float("nan")}], "x: tool 0: nan is not a number in JSON"),
    ],
)
def test_tools_that_are_no_json_schema_are_refused(value: Any, message: str) -> None:
    with pytest.raises(RefusedError) as error:
        read_tools(value, "x")

    assert error.value.reason == "bad tools"
    assert message in str(error.value)


def test_template_arguments_are_an_object() -> None:
    assert read_arguments({"b": 1, "a": [None]}, "x") == '{"a":[null],"b":1}' == read_arguments('{"a": [null], "b": 1}', "x")
    assert read_arguments(None, "x") is read_arguments({}, "x") is read_arguments("", "x") is None
    for value, message in (
        ([1], r"^x: wanted an object of arguments for the chat template; found \[1\]"),
        ("think", "wanted an object of arguments for the chat template, or the JSON text of that"),
        ({"a": float("inf")}, "^x: inf is not a number in JSON"),
        *(({name: 1}, f"^x: {name} is set by thresher; remove it$") for name in TEMPLATE_ARGUMENTS_TAKEN),
    ):
        with pytest.raises(RefusedError, match=message) as error:
            read_arguments(value, "x")
        assert error.value.reason == "bad template arguments"
