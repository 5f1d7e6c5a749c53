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
import pyarrow as pa
from jsonschema.exceptions import SchemaError
from pydantic import BaseModel, ConfigDict, Field, model_validator

from filters.base import Filter, FilterError, Role, Scope
from schemas.sample import Verdict, to_json

TEXT_BYTES = 65536
STARTS = 16
DEPTH = 64
"""Deepest nesting taken: far below Python's own limit, which depends on how deep the caller already is."""
VALUE_CHARS = 200
KEPT = Verdict.keep()
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

    def verdict(completion: str, reference: Any) -> Verdict:
        if config.values == "reference" and not isinstance(reference, dict):
            return Verdict.undecided("no_reference", wanted="an object", found=type(reference).__name__)
        try:
            value = extract(completion)
        except RefusedError as refused:
            return Verdict.drop(refused.args[0])
        if not validator.is_valid(value):
            fault = next(validator.iter_errors(value))
            path = "/".join(map(str, fault.instance_path))
            return Verdict.drop("schema_mismatch", path=path, message=fault.message[:VALUE_CHARS])
        return KEPT if config.values == "ignore" else _compared(value, reference, config.allow_extra)

    def judge(table: pa.Table) -> list[Verdict]:
        texts = table["reference"].to_pylist()
        parsed = {text: None if text is None else json.loads(text) for text in set(texts)}
        completions = table["completion"].to_pylist()
        return [verdict(completion, parsed[text]) for completion, text in zip(completions, texts, strict=True)]

    def gold(reference: Any) -> str | None:
        # Where values are ignored, a reference says nothing about what fits the schema.
        return json.dumps(reference) if isinstance(reference, dict) and config.values == "reference" else None

    def wrong(reference: Any) -> str | None:
        return json.dumps([reference]) if isinstance(reference, dict) else None

    columns = ("completion", "reference")
    parameters = config.model_dump(mode="json", by_alias=True)
    return Filter("json_shape", "2", Scope.SAMPLE, Role.VERIFIER, judge, columns, parameters, gold, wrong)


def extract(text: str) -> dict[str, Any]:
    """The one JSON object of a text: the whole of it, or its one fenced block, or the one object that stands in it.

    Raises RefusedError with the reason: `too_long` above 64 KiB, `not_json`, `ambiguous_json` for several, `duplicate_key`.
    Two objects are ambiguous rather than the first: who sprays answers must not be rewarded. For the same reason an object
    that breaks off is passed over up to where it broke, so that no object within it is taken for the answer.
    """
    if len(text) > TEXT_BYTES or len(text.encode("utf-8", "surrogatepass")) > TEXT_BYTES:
        raise RefusedError("too_long")
    fenced = _FENCE.findall(text)
    for candidate in (text, *(fenced if len(fenced) == 1 else [])):
        try:
            value = _DECODER.decode(candidate)
        except (ValueError, RecursionError):
            continue  # the search below finds what is there, and why it is refused
        if isinstance(value, dict):
            return _storable(value, candidate)
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
        except json.JSONDecodeError as error:
            end = max(error.pos, at + 1)
        except (ValueError, RecursionError) as error:  # too many digits, too deep
            raise RefusedError("not_json") from error
        at = text.find("{", end)
    if len(found) != 1 or at >= 0:
        raise RefusedError("ambiguous_json" if found else "not_json")
    return _storable(found[0], text)


def _storable(value: dict[str, Any], text: str) -> dict[str, Any]:
    """The value, unless it is nested too deep or holds half a surrogate pair, which no library takes."""
    if text.count("{") + text.count("[") > DEPTH and _depth(value) > DEPTH:
        raise RefusedError("not_json")
    if "\\u" in text:
        try:
            to_json(value).encode()
        except UnicodeEncodeError as error:
            raise RefusedError("not_json") from error
    return value


def _depth(value: Any) -> int:
    """Levels of objects and lists. A loop: recursion is what it guards against."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


def _short(value: Any) -> Any:
    """The value, or the start of its JSON text where that is long."""
    if isinstance(value, int | float | None) or (isinstance(value, str) and len(value) <= VALUE_CHARS):
        return value
    text = to_json(value)
    return value if len(text) <= VALUE_CHARS else text[:VALUE_CHARS]


def _compared(value: dict[str, Any], reference: dict[str, Any], allow_extra: bool) -> Verdict:
    for key, wanted in reference.items():
        if key not in value:
            return Verdict.drop("missing_key", key=key)
        if not _same(value[key], wanted):
            return Verdict.drop("wrong_value", key=key, wanted=_short(wanted), found=_short(value[key]))
    if allow_extra or len(value) == len(reference):
        return KEPT
    return Verdict.drop("extra_key", key=min(value.keys() - reference.keys())[:VALUE_CHARS])


def _same(found: Any, wanted: Any) -> bool:
    """Equal in value and type; 1 and 1.0 are one number, True is none."""
    if type(found) is type(wanted) is str:
        return bool(found == wanted)
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
