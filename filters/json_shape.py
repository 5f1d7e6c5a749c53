"""One JSON object that fits a JSON Schema and holds the expected values.

The user's schema is checked by jsonschema, whose messages are made for people; samples are validated by jsonschema-rs, with
patterns in linear time and nothing fetched: a `$ref` may point into the schema only.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Literal, NoReturn

import jsonschema
import jsonschema_rs
from jsonschema.exceptions import SchemaError
from pydantic import BaseModel, ConfigDict, Field, model_validator

from filters.base import Filter, FilterError, Role, Scope
from filters.judging import one_by_one
from schemas.sample import Sample, Verdict

TEXT_BYTES = 65536
STARTS = 16
_FENCE = re.compile(r"```[a-zA-Z0-9]*[ \t]*\n(.*?)```", re.DOTALL)


class Config(BaseModel):
    """Parameters of `json_shape`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True)

    json_schema: dict[str, Any] = Field(default_factory=lambda: {"type": "object"}, alias="schema")
    """JSON Schema (draft 2020-12) that the object must fit. A `$ref` may only point into the schema itself (`#...`)."""
    values: Literal["reference", "ignore"] = "reference"
    """`reference`: the object must hold the reference's values, type for type; `ignore`: the shape is enough."""
    allow_extra: bool = False
    """Allow keys that the reference lacks."""

    @model_validator(mode="after")
    def _schema_holds(self) -> "Config":
        for ref in _refs(self.json_schema):
            if not str(ref).startswith("#"):
                raise ValueError(
                    f"schema: $ref {ref!r} points elsewhere; nothing is fetched, so put it under $defs and use #/$defs/..."
                )
        try:
            jsonschema.Draft202012Validator.check_schema(self.json_schema)
        except SchemaError as error:
            raise ValueError(f"schema.{'.'.join(map(str, error.absolute_path))}: {error.message}") from error
        return self


class RefusedError(ValueError):
    """A text that is no acceptable JSON; its first argument is the reason."""


def build(config: Config) -> Filter:
    """Drop `not_json`, `ambiguous_json`, `duplicate_key`, `too_long`, `schema_mismatch`, `missing_key`, `extra_key`,
    `wrong_value`; undecided with `no_reference`."""
    try:
        validator = jsonschema_rs.Draft202012Validator(
            config.json_schema, retriever=_nothing_is_fetched, pattern_options=jsonschema_rs.RegexOptions()
        )
    except ValueError as error:
        raise FilterError(
            f"json_shape: parameters.schema: {str(error).splitlines()[0]}; look-around in patterns is not linear"
        ) from error

    def judge(sample: Sample) -> Verdict:
        if config.values == "reference" and not isinstance(sample.reference, dict):
            return Verdict.undecided("no_reference", wanted="an object")
        try:
            value = extract(sample.completion)
        except RefusedError as refused:
            return Verdict.drop(refused.args[0])
        fault = next(validator.iter_errors(value), None) if not validator.is_valid(value) else None
        if fault is not None:
            return Verdict.drop("schema_mismatch", path="/".join(map(str, fault.instance_path)), message=fault.message[:200])
        if config.values == "ignore":
            return Verdict.keep()
        return _compared(value, sample.reference, config.allow_extra)

    def gold(reference: Any) -> str | None:
        return json.dumps(reference) if isinstance(reference, dict) else None

    def wrong(reference: Any) -> str | None:
        return f"not {json.dumps(reference)[1:-1]}" if isinstance(reference, dict) else None

    columns = ("completion", "reference")
    parameters = config.model_dump(mode="json", by_alias=True)
    judges = one_by_one(judge, columns)
    return Filter("json_shape", "1", Scope.SAMPLE, Role.VERIFIER, judges, columns, parameters, gold, wrong)


def extract(text: str) -> dict[str, Any]:
    """The one JSON object of a text: the whole of it, or its one fenced block, or the one object that stands in it.

    Raises RefusedError with the reason: `too_long` above 64 KiB, `not_json`, `ambiguous_json` for several, `duplicate_key`.
    Two different objects are ambiguous rather than the first: who sprays answers must not be rewarded.
    """
    if len(text) > TEXT_BYTES or len(text.encode("utf-8", "surrogatepass")) > TEXT_BYTES:
        raise RefusedError("too_long")
    fenced = _FENCE.findall(text)
    for candidate in (text, *(fenced if len(fenced) == 1 else [])):
        try:
            value = _DECODER.decode(candidate)
        except RefusedError:
            raise
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
        raise RefusedError("not_json")
    found: list[dict[str, Any]] = []
    at = text.find("{")
    for _ in range(STARTS):
        if at < 0:
            break
        try:
            value, end = _DECODER.raw_decode(text, at)
            found.append(value)
        except RefusedError:
            raise
        except (ValueError, RecursionError):
            end = at + 1
        at = text.find("{", end)
    if len(found) != 1:
        raise RefusedError("ambiguous_json" if found else "not_json")
    return found[0]


def _compared(value: dict[str, Any], reference: dict[str, Any], allow_extra: bool) -> Verdict:
    for key, wanted in reference.items():
        if key not in value:
            return Verdict.drop("missing_key", key=key)
        if not _same(value[key], wanted):
            return Verdict.drop("wrong_value", key=key, wanted=wanted, found=value[key])
    extra = sorted(value.keys() - reference.keys())
    return Verdict.drop("extra_key", key=extra[0]) if extra and not allow_extra else Verdict.keep()


def _same(found: Any, wanted: Any) -> bool:
    """Equal in value and type; 1 and 1.0 are one number, True is none."""
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    if isinstance(wanted, dict):
        return isinstance(found, dict) and found.keys() == wanted.keys() and all(_same(found[k], wanted[k]) for k in wanted)
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(_same, found, wanted))
    if isinstance(wanted, int | float):
        return isinstance(found, int | float) and found == wanted
    return type(found) is type(wanted) and bool(found == wanted)


def _refs(schema: Any) -> Iterator[Any]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                yield value
            else:
                yield from _refs(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _refs(value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise RefusedError("duplicate_key")
    return made


def _no_constant(name: str) -> NoReturn:
    raise RefusedError("not_json", name)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise RefusedError("not_json", text)
    return value


def _nothing_is_fetched(uri: str) -> NoReturn:
    raise ValueError(f"{uri}: remote references are not fetched")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
