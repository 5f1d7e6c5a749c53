"""Reads the tools of a prompt and the further arguments of its chat template; both become JSON text."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jsonschema
from jsonschema.exceptions import SchemaError

from schemas.prompt_sets import TEMPLATE_ARGUMENTS_TAKEN
from schemas.sample import to_json
from thresher.errors import SourceError
from thresher.inputs.chat_messages import RefusedError, short
from thresher.inputs.json_values import json_value, ordered_json

WANTED = "wanted a list of {type: function, function: {name, description, parameters}}, or of {name, parameters}"


def read_tools(value: Any, where: str) -> str | None:
    """Read the tools that a model may call, or the JSON text of them, as JSON text; None if there are none. Keys keep their
    order, because a template shows them in it, except that type comes before function, and name, description and parameters come
    first, as vLLM's server shows them.

    A tool is {type: function, function: {name, parameters}}, or {name, parameters}, which is put into that form. Raises
    RefusedError for anything else, for two tools of one name, and for parameters that are not the JSON Schema of an object.
    """
    value = _parsed(value, where, WANTED, "bad tools")
    if value is None or value in ([], ""):
        return None
    if not isinstance(value, list | tuple):
        raise RefusedError(f"{where}: {WANTED}; found {short(value)}", "bad tools")
    tools = [_tool(tool, f"{where}: tool {number}") for number, tool in enumerate(value)]
    names = [tool["function"]["name"] for tool in tools]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RefusedError(f"{where}: two tools are named {twice}; give each its own name", "bad tools")
    return ordered_json(tools)


def read_arguments(value: Any, where: str) -> str | None:
    """Read further arguments of a chat template, or the JSON text of them, as canonical JSON text; None if there are none. Raises
    RefusedError unless they are an object, and for arguments that thresher sets."""
    wanted = "wanted an object of arguments for the chat template"
    value = _parsed(value, where, wanted, "bad template arguments")
    if not value:
        return None
    if not isinstance(value, Mapping):
        raise RefusedError(f"{where}: {wanted}; found {short(value)}", "bad template arguments")
    if taken := sorted(value.keys() & set(TEMPLATE_ARGUMENTS_TAKEN)):
        raise RefusedError(f"{where}: {taken[0]} is set by thresher; remove it", "bad template arguments")
    return to_json(_as_json(value, where, "bad template arguments"))


def _parsed(value: Any, where: str, wanted: str, reason: str) -> Any:
    """The value of a JSON text; other values as they are."""
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{where}: {wanted}, or the JSON text of that; found {short(value)}", reason) from error


def _as_json(value: Any, where: str, reason: str) -> Any:
    try:
        return json_value(value, where)
    except SourceError as error:
        raise RefusedError(str(error), reason) from error


def _tool(tool: Any, where: str) -> dict[str, Any]:
    tool = _as_json(_parsed(tool, where, WANTED, "bad tools"), where, "bad tools")
    if not isinstance(tool, dict):
        raise RefusedError(f"{where}: {WANTED}; found {short(tool)}", "bad tools")
    function = tool.get("function", {name: value for name, value in tool.items() if name != "type"})
    if tool.get("type", "function") != "function":
        raise RefusedError(f"{where}: a tool of type {tool['type']!r}; only functions are given to chat templates", "bad tools")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise RefusedError(f"{where}: {WANTED}; found {short(tool)}", "bad tools")
    parameters = function.get("parameters")
    if parameters is not None:
        fault = _schema_fault(to_json(parameters))
        if fault is not None:
            raise RefusedError(
                f"{where}: the parameters of {function['name']} are no JSON Schema of an object: {fault}", "bad tools"
            )
    further = {name: value for name, value in tool.items() if name not in ("type", "function")} if "function" in tool else {}
    first = {name: function[name] for name in ("name", "description", "parameters") if name in function}
    return {"type": "function", "function": first | function, **further}


@lru_cache(maxsize=4096)
def _schema_fault(text: str) -> str | None:
    """What is wrong with a JSON Schema of parameters, None if nothing is. Tools repeat from row to row."""
    schema = json.loads(text)
    if not isinstance(schema, dict):
        return f"found {short(schema)}"
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        place = "".join(f".{part}" for part in error.absolute_path)
        return f"{f'at {place[1:]}: ' if place else ''}{error.message[:200]}"
    return None if schema.get("type", "object") == "object" else f"its type is {schema['type']!r}, not object"
