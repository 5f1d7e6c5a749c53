"""Keep completions with one JSON object that fits a JSON Schema and holds the reference's values.

jsonschema checks the user's schema, because its messages are written for people. jsonschema-rs validates samples, with patterns
in linear time. Nothing is fetched: a `$ref` may only point into the schema. filters.answers.json_text finds the object.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any, Literal, NoReturn

import jsonschema
import jsonschema_rs
import orjson
import pyarrow as pa
from jsonschema.exceptions import SchemaError
from pydantic import BaseModel, ConfigDict, Field, model_validator

from filters.answers.json_text import RefusedError, read_object
from filters.base import Filter, FilterError, Role, Scope, verdict_table
from filters.judging import stored_json
from schemas.sample import Outcome, Verdict, to_json

VALUE_CHARS = 200
KEPT = Verdict.keep()
Row = tuple[str, str, str | None]
"""Outcome, reason and detail of a verdict, as columns hold them."""
_KEPT_ROW: Row = (Outcome.KEEP.value, "", None)


class Config(BaseModel):
    """Parameters of `json_shape`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True)

    json_schema: dict[str, Any] = Field(default_factory=lambda: {"type": "object"}, alias="schema")
    """JSON Schema that the object must fit, read as draft 2020-12 whatever `$schema` names. A `$ref` may only point into the
    schema itself (`#...`). `format` is an annotation and is not checked: use `pattern`, which takes linear time and so has no
    look-around and no back-references."""
    values: Literal["reference", "ignore"] = "reference"
    """`reference`: the object must hold the reference's values, type for type; `ignore`: only the shape counts."""
    allow_extra: bool = False
    """Allow keys that the reference lacks."""

    @model_validator(mode="after")
    def _is_a_schema(self) -> "Config":
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


def build(config: Config) -> Filter:
    """Drop `not_json`, `ambiguous_json`, `duplicate_key`, `too_long`, `schema_mismatch`, `missing_key`, `extra_key`,
    `wrong_value`; undecided with `no_reference`."""
    validator = _validator(config.json_schema)

    def verdict(completion: str, wanted: bytes | None, reference: Callable[[], Any]) -> Verdict:
        if config.values == "reference" and (wanted is None or wanted.lstrip()[:1] != b"{"):
            return Verdict.undecided("no_reference", wanted="an object", found=type(reference()).__name__)
        try:
            value, written = read_object(completion, wanted)
        except RefusedError as refused:
            return Verdict.drop(refused.args[0])
        if not validator.is_valid(value):
            fault = next(validator.iter_errors(value))
            path = "/".join(map(str, fault.instance_path))
            return Verdict.drop("schema_mismatch", path=path, message=fault.message[:VALUE_CHARS])
        if config.values == "ignore" or (written is not None and written == wanted):
            return KEPT
        return _compared(value, reference(), allow_extra=config.allow_extra)

    def judge(table: pa.Table) -> pa.Table:
        # Samples of a prompt share its reference, and easy prompts get equal answers: each pair is judged once.
        references = table["reference"].to_pylist()
        parsed = lru_cache(maxsize=None)(lambda text: None if text is None else json.loads(text))
        wanted = {text: None if text is None else text.encode() for text in set(references)}
        pairs = list(zip(table["completion"].to_pylist(), references, strict=True))
        verdicts = dict.fromkeys(pairs, _KEPT_ROW)
        for pair in verdicts:
            completion, text = pair
            judged = verdict(completion, wanted[text], partial(parsed, text))
            if judged is not KEPT:
                verdicts[pair] = (judged.outcome, judged.reason, _detail_text(judged.detail))
        rows = [verdicts[pair] for pair in pairs]
        return verdict_table([row[0] for row in rows], [row[1] for row in rows], detail=[row[2] for row in rows])

    def gold(reference: Any) -> str | None:
        # If values are ignored, the reference need not fit the schema.
        return json.dumps(reference) if isinstance(reference, dict) and config.values == "reference" else None

    def wrong(reference: Any) -> str | None:
        return json.dumps([reference]) if isinstance(reference, dict) else None

    columns = ("completion", "reference")
    parameters = config.model_dump(mode="json", by_alias=True)
    return Filter("json_shape", "3", Scope.SAMPLE, Role.VERIFIER, judge, columns, parameters, gold, wrong, cost_us=7.0)


def _validator(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    """A validator of the schema, or a FilterError that names its fault."""
    try:
        return jsonschema_rs.Draft202012Validator(
            schema, retriever=_refuse_to_fetch, pattern_options=jsonschema_rs.RegexOptions()
        )
    except ValueError as error:
        fault = str(error).splitlines()[0]
        why = "; patterns take linear time, so look-around and back-references are refused" if "regex" in fault else ""
        raise FilterError(f"json_shape: parameters.schema: {fault}{why}") from error


def _refuse_to_fetch(uri: str) -> NoReturn:
    raise ValueError(f"{uri}: remote references are not fetched")


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


def _detail_text(detail: Mapping[str, Any] | None) -> str | None:
    """JSON text of a detail, by orjson unless it has an integer of more than 64 bits."""
    if detail is None:
        return None
    try:
        return orjson.dumps(detail, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError:
        return stored_json(detail)


def _compared(value: dict[str, Any], reference: dict[str, Any], *, allow_extra: bool) -> Verdict:
    for key, wanted in reference.items():
        if key not in value:
            return Verdict.drop("missing_key", key=key)
        if not _same(value[key], wanted):
            return Verdict.drop("wrong_value", key=key, wanted=_short(wanted), found=_short(value[key]))
    if allow_extra or len(value) == len(reference):
        return KEPT
    return Verdict.drop("extra_key", key=min(value.keys() - reference.keys())[:VALUE_CHARS])


def _short(value: Any) -> Any:
    """The value, or the start of its JSON text if that is long."""
    if value is None or isinstance(value, (int, float)) or (isinstance(value, str) and len(value) <= VALUE_CHARS):
        return value
    text = to_json(value)
    return value if len(text) <= VALUE_CHARS else text[:VALUE_CHARS]


def _same(value: Any, wanted: Any) -> bool:
    """Equal in value and type. 1 and 1.0 are one number; True is not a number."""
    kind = type(wanted)
    if type(value) is not kind:
        return {kind, type(value)} == {int, float} and bool(value == wanted)
    if kind is dict:
        return value.keys() == wanted.keys() and all(_same(value[key], wanted[key]) for key in wanted)
    if kind is list:
        return len(value) == len(wanted) and all(map(_same, value, wanted))
    return bool(value == wanted)
