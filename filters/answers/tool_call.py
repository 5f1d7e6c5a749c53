"""Keep answers that call the right tools: known names, arguments that fit the tool's JSON Schema, and the reference's calls."""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from filters.answers.tool_reference import BadReferenceError, BadToolsError, Expected, expected_calls, validators
from filters.base import Filter, Role, Scope, verdict_table
from filters.judging import stored_json
from schemas.sample import Verdict, to_json

KEPT = Verdict.keep()
VALUE_CHARS = 200
LONGEST = 1 << 18
"""Characters of the calls of an answer that are read."""
MOST_FOUND = 256
"""Calls of an answer that are compared with the reference."""


class Config(BaseModel):
    """Parameters of `tool_call`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True)

    expected: Literal["reference", "any"] = "reference"
    """`reference`: the calls must be those of the prompt's reference; an empty list there means that nothing may be called.
    `any`: at least one call, whose name and arguments fit the prompt's tools; no reference is read."""
    order: Literal["free", "fixed"] = "free"
    """Whether several calls must come in the order of the reference."""
    arguments: Literal["equal", "subset"] = "equal"
    """`equal`: a call has exactly the arguments of the reference; `subset`: it may have further ones."""
    case_sensitive: bool = True
    """Distinguish upper and lower case in the values of arguments. Names always do."""
    extra_calls: bool = False
    """Allow further calls beside those of the reference."""
    argument_schema: bool = Field(default=True, alias="schema")
    """Check arguments against the tool's JSON Schema, where the prompt has tools. `format` is an annotation and is not checked,
    and a `$ref` may only point into the schema."""


def build(config: Config) -> Filter:
    """Drop `no_call`, `unknown_tool`, `bad_arguments`, `wrong_call`, `wrong_arguments`, `extra_call`; undecided with
    `no_reference`, `bad_reference`, `bad_tools`."""

    @lru_cache(maxsize=4096)  # the samples of a prompt share its reference and its tools
    def wanted(reference: str) -> tuple[Expected, ...] | Verdict:
        try:
            return expected_calls(json.loads(reference))
        except BadReferenceError as error:
            return Verdict.undecided("bad_reference", error=str(error))

    @lru_cache(maxsize=4096)
    def known(tools: str) -> dict[str, Any] | Verdict:
        try:
            return validators(tools)
        except BadToolsError as error:
            return Verdict.undecided("bad_tools", error=str(error))

    def verdict(calls: str | None, tools: str | None, reference: str | None) -> Verdict:
        expected: tuple[Expected, ...] | None = None
        if config.expected == "reference":
            if reference is None or reference == "null":
                return Verdict.undecided("no_reference")
            read = wanted(reference)
            if isinstance(read, Verdict):
                return read
            expected = read
        by_name = None if tools is None else known(tools)
        if isinstance(by_name, Verdict):
            return by_name
        if calls is not None and len(calls) > LONGEST:
            return Verdict.drop("bad_arguments", error=f"the calls have {len(calls)} characters, more than {LONGEST}")
        try:
            found = [] if calls is None else json.loads(calls)
            if not found:
                return KEPT if expected == () else Verdict.drop("no_call")
            fault = _fault(found, by_name, check_schema=config.argument_schema)
            return fault or (KEPT if expected is None else _compared(found, expected, config))
        except RecursionError:
            return Verdict.drop("bad_arguments", error="nested too deep")

    def judge(table: pa.Table) -> pa.Table:
        columns = (table[name].to_pylist() for name in ("tool_calls", "tools", "reference"))
        triples = list(zip(*columns, strict=True))
        judged = {triple: verdict(*triple) for triple in set(triples)}  # equal calls to a prompt are judged once
        verdicts = [judged[triple] for triple in triples]
        return verdict_table(
            [one.outcome.value for one in verdicts],
            [one.reason for one in verdicts],
            detail=[None if one.detail is None else stored_json(one.detail) for one in verdicts],
        )

    columns = ("completion", "tool_calls", "tools", "reference")
    parameters = config.model_dump(mode="json", by_alias=True)
    by_reference = config.expected == "reference"
    gold, wrong = (_gold, _wrong) if by_reference else (_nothing, _nothing)
    return Filter(
        "tool_call", "1", Scope.SAMPLE, Role.VERIFIER, judge, columns, parameters, gold, wrong, cost_us=8.0, gold_in="tool_calls"
    )


# -- the calls of an answer ------------------------------------------------------------------------------------------------


def _fault(found: Sequence[Any], by_name: dict[str, Any] | None, *, check_schema: bool) -> Verdict | None:
    """A call of an unknown tool, or arguments that the tool does not take."""
    if by_name is not None:
        for call in found:
            if call["name"] not in by_name:
                return Verdict.drop("unknown_tool", tool=_short(call["name"]), tools=sorted(by_name)[:20])
    for call in found:
        arguments = call["arguments"]
        if not isinstance(arguments, dict):
            return Verdict.drop("bad_arguments", tool=_short(call["name"]), error="not a JSON object", found=_short(arguments))
        validator = by_name.get(call["name"]) if by_name is not None and check_schema else None
        try:
            error = None if validator is None or validator.is_valid(arguments) else next(validator.iter_errors(arguments))
        except ValueError as refused:  # nested too deep for the validator
            return Verdict.drop("bad_arguments", tool=_short(call["name"]), error=str(refused)[:VALUE_CHARS])
        if error is not None:
            path = "/".join(map(str, error.instance_path))
            return Verdict.drop("bad_arguments", tool=_short(call["name"]), path=path, error=error.message[:VALUE_CHARS])
    return None


def _compared(found: Sequence[Any], expected: Sequence[Expected], config: Config) -> Verdict:
    names, wanted_names = [call["name"] for call in found], [call.name for call in expected]
    if not expected or len(found) > MOST_FOUND:
        return Verdict.drop("extra_call", tool=_short(names[0] if not expected else names[-1]), calls=len(found))
    missing = _missing(wanted_names, names, in_order=config.order == "fixed")
    if missing is not None:
        return Verdict.drop("wrong_call", wanted=missing, found=names[:20], order=config.order)
    fits = [[_fits(call, want, config) for call in found] for want in expected]
    placed = _in_order(fits) if config.order == "fixed" else _matched(fits)
    if placed is not None:
        want = expected[placed]
        near = next(call["arguments"] for call in found if call["name"] == want.name)
        return Verdict.drop("wrong_arguments", tool=want.name, wanted=_short(dict(want.arguments)), found=_short(near))
    if len(found) > len(expected) and not config.extra_calls:
        return Verdict.drop("extra_call", tool=_short(names[-1]), calls=len(found), wanted=len(expected))
    return KEPT


def _missing(wanted: Sequence[str], names: Sequence[str], *, in_order: bool) -> str | None:
    """The first wanted name that the calls lack, or lack at its place."""
    left = list(names)
    for name in wanted:
        if name not in left:
            return name
        place = left.index(name)
        left = left[place + 1 :] if in_order else left[:place] + left[place + 1 :]
    return None


def _in_order(fits: Sequence[Sequence[bool]]) -> int | None:
    """The first expected call that has no fitting call after those of the calls before it; None if all have."""
    place = 0
    for number, row in enumerate(fits):
        place = next((at + 1 for at in range(place, len(row)) if row[at]), 0)
        if not place:
            return number
    return None


def _matched(fits: Sequence[Sequence[bool]]) -> int | None:
    """The first expected call that gets no call of its own, whichever way calls are given out; None if all get one."""
    owner: dict[int, int] = {}

    def give(number: int, tried: set[int]) -> bool:
        for at, fit in enumerate(fits[number]):
            if fit and at not in tried:
                tried.add(at)
                if at not in owner or give(owner[at], tried):
                    owner[at] = number
                    return True
        return False

    return next((number for number in range(len(fits)) if not give(number, set())), None)


def _fits(call: dict[str, Any], want: Expected, config: Config) -> bool:
    arguments: dict[str, Any] = call["arguments"]
    if call["name"] != want.name:
        return False
    if config.arguments == "equal" and not arguments.keys() <= want.arguments.keys():
        return False
    for key, value in want.arguments.items():
        right = value if want.allowed else [value]
        if key not in arguments:
            if not (want.allowed and "" in right):
                return False
        elif not any(_same(arguments[key], one, case_sensitive=config.case_sensitive) for one in right):
            return False
    return True


def _same(value: Any, wanted: Any, *, case_sensitive: bool) -> bool:
    """Equal in value and type. 1 and 1.0 are one number; True is not a number."""
    kind = type(wanted)
    if type(value) is not kind:
        return {kind, type(value)} == {int, float} and bool(value == wanted)
    if kind is dict:
        return value.keys() == wanted.keys() and all(
            _same(value[key], wanted[key], case_sensitive=case_sensitive) for key in wanted
        )
    if kind is list:
        return len(value) == len(wanted) and all(
            _same(left, right, case_sensitive=case_sensitive) for left, right in zip(value, wanted, strict=True)
        )
    if kind is str and not case_sensitive:
        return bool(value.casefold() == wanted.casefold())
    return bool(value == wanted)


def _short(value: Any) -> Any:
    """The value, or the start of its JSON text if that is long."""
    text = value if isinstance(value, str) else to_json(value)
    return value if len(text) <= VALUE_CHARS else text[:VALUE_CHARS]


# -- for `thresher check` --------------------------------------------------------------------------------------------------


def _gold(reference: Any) -> str | None:
    """The expected calls as JSON text, as the column tool_calls has them."""
    calls = _readable(reference)
    return None if calls is None else to_json([{"name": call.name, "arguments": _right(call)} for call in calls])


def _wrong(reference: Any) -> str | None:
    """The same with another name in the first call, or a call where none is expected."""
    calls = _readable(reference)
    if calls is None:
        return None
    first = f"not_{calls[0].name}" if calls else "some_tool"
    return to_json([{"name": first, "arguments": {}}, *({"name": c.name, "arguments": _right(c)} for c in calls[1:])])


def _readable(reference: Any) -> tuple[Expected, ...] | None:
    try:
        return None if reference is None else expected_calls(reference)
    except BadReferenceError:
        return None


def _right(call: Expected) -> dict[str, Any]:
    if not call.allowed:
        return dict(call.arguments)
    return {key: values[0] for key, values in call.arguments.items() if values[0] != ""}


def _nothing(_: Any) -> str | None:
    return None
