"""Read tool calls, the calls that a reference expects, and the tools of a prompt, in the forms in which data sets write them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import jsonschema_rs

MOST_CALLS = 64
"""Calls that a reference may expect."""


@dataclass(frozen=True, slots=True)
class Expected:
    """One expected call. `allowed`: for each argument the values that are right, where the reference lists several; an argument
    whose values include "" may be absent. Otherwise `arguments` are the right values."""

    name: str
    arguments: Mapping[str, Any]
    allowed: bool = False


class BadReferenceError(ValueError):
    """A reference that expects no calls that can be read; the message says why."""


class BadToolsError(ValueError):
    """The tools of a prompt that cannot be read; the message says why."""


def expected_calls(reference: Any) -> tuple[Expected, ...]:
    """The calls that a reference expects; an empty list expects that nothing is called. Raises BadReferenceError.

    A reference is a list of calls, one call, a message with `tool_calls`, or one of these as JSON text. A call is
    {name, arguments}, {function: {name, arguments}}, or {name: {argument: [right values]}}. `arguments` are an object, also as
    JSON text, and may be absent.
    """
    if isinstance(reference, str):
        try:
            reference = json.loads(reference)
        except (ValueError, RecursionError) as error:
            raise BadReferenceError("wanted calls, found a text that is not JSON") from error
    if isinstance(reference, dict) and isinstance(reference.get("tool_calls"), list):
        reference = reference["tool_calls"]
    calls = reference if isinstance(reference, list) else [reference]
    if len(calls) > MOST_CALLS:
        raise BadReferenceError(f"wanted at most {MOST_CALLS} calls, found {len(calls)}")
    return tuple(map(_expected, calls))


def validators(tools: str) -> dict[str, jsonschema_rs.Draft202012Validator | None]:
    """The validators of the arguments by the names of the tools, from their JSON text; None where a tool declares no parameters.

    A tool is {type: function, function: {name, parameters}} or {name, parameters}; `input_schema` stands for `parameters` too.
    `format` is not checked, patterns take linear time, and nothing is fetched. Raises BadToolsError.
    """
    found: dict[str, jsonschema_rs.Draft202012Validator | None] = {}
    entries = json.loads(tools)
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
        inner = entry.get("function", entry) if isinstance(entry, dict) else entry
        if not isinstance(inner, dict) or not isinstance(name := inner.get("name"), str):
            raise BadToolsError(f"tools[{number}]: wanted an object with a name, found {str(entry)[:60]}")
        schema = inner.get("parameters", inner.get("input_schema"))
        found[name] = None if schema is None else _validator(name, schema)
    return found


# -- inside --------------------------------------------------------------------------------------------------------------


def _expected(call: Any) -> Expected:
    inner = call.get("function", call) if isinstance(call, dict) else call
    if not isinstance(inner, dict):
        raise BadReferenceError(f"wanted a call {{name, arguments}}, found {str(call)[:60]}")
    if isinstance(inner.get("name"), str):
        arguments = inner.get("arguments")
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except (ValueError, RecursionError) as error:
                raise BadReferenceError(f"{inner['name']}: its arguments are not JSON") from error
        if not isinstance(arguments, dict | None):
            raise BadReferenceError(f"{inner['name']}: wanted arguments as an object, found {type(arguments).__name__}")
        return Expected(inner["name"], arguments or {})
    if len(inner) == 1:
        [(name, allowed)] = inner.items()
        if isinstance(allowed, dict) and all(isinstance(values, list) and values for values in allowed.values()):
            return Expected(name, allowed, allowed=True)
    raise BadReferenceError(f"wanted a call {{name, arguments}}, found an object with {sorted(inner)[:5]}")


def _validator(name: str, schema: Any) -> jsonschema_rs.Draft202012Validator:
    try:
        return jsonschema_rs.Draft202012Validator(
            schema, retriever=_refuse_to_fetch, pattern_options=jsonschema_rs.RegexOptions()
        )
    except ValueError as error:
        raise BadToolsError(f"{name}: its parameters are no JSON Schema: {str(error).splitlines()[0][:200]}") from error


def _refuse_to_fetch(uri: str) -> NoReturn:
    raise ValueError(f"{uri}: remote references are not fetched")
