"""One JSON object that fits a JSON Schema and holds the expected values.

The user's schema is checked by jsonschema, whose messages are made for people; samples are validated by jsonschema-rs, with
patterns in linear time and nothing fetched: a `$ref` may point into the schema only. Texts are read by orjson wherever it is
certain that the strict decoder would read the same, and by the strict one elsewhere; the rules are those of the strict one.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any, Literal, NoReturn

import jsonschema
import jsonschema_rs
import orjson
import pyarrow as pa
from jsonschema.exceptions import SchemaError
from pydantic import BaseModel, ConfigDict, Field, model_validator

from filters.base import Filter, FilterError, Role, Scope, verdict_table
from filters.judging import stored_json
from schemas.sample import Outcome, Verdict, to_json

TEXT_BYTES = 65536
STARTS = 16
DEPTH = 64
"""Deepest nesting taken: far below Python's own limit, which depends on how deep the caller already is."""
VALUE_CHARS = 200
KEPT = Verdict.keep()
_EXACT = 2.0**63
"""Below this orjson reads integers as integers; from 2**64 on it reads them as floats."""
_SPACE = " \t\n\r"
_BEGINS = frozenset('{["-0123456789tfnNI')
"""Characters that a text which the strict decoder takes begins with."""
_OPENING = re.compile(r"(`{3,8}|~{3,8})[^\n`]*\n")
_LINE_END_CHARS = 80

Read = tuple[dict[str, Any], bytes | None]
"""An object and, where orjson read it, its one text: two objects of one text are the same, type for type."""
Told = tuple[str, str, str | None]
"""Outcome, reason and detail of a verdict, as columns hold them."""


class Config(BaseModel):
    """Parameters of `json_shape`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True)

    json_schema: dict[str, Any] = Field(default_factory=lambda: {"type": "object"}, alias="schema")
    """JSON Schema that the object must fit, read as draft 2020-12 whatever `$schema` says. A `$ref` may only point into the
    schema itself (`#...`). `format` is an annotation there and not checked: say it by `pattern`, which takes linear time and so
    has no look-around and no back-references."""
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
    validator = _compiled(json.dumps(config.json_schema))

    def verdict(completion: str, wanted: bytes | None, reference: Callable[[], Any]) -> Verdict:
        if config.values == "reference" and (wanted is None or wanted.lstrip()[:1] != b"{"):
            return Verdict.undecided("no_reference", wanted="an object", found=type(reference()).__name__)
        try:
            value, written = _read(completion, wanted)
        except RefusedError as refused:
            return Verdict.drop(refused.args[0])
        if not validator.is_valid(value):
            fault = next(validator.iter_errors(value))
            path = "/".join(map(str, fault.instance_path))
            return Verdict.drop("schema_mismatch", path=path, message=fault.message[:VALUE_CHARS])
        if config.values == "ignore" or (written is not None and written == wanted):
            return KEPT
        return _compared(value, reference(), config.allow_extra)

    def judge(table: pa.Table) -> pa.Table:
        # Samples of a prompt share its reference, and easy prompts are answered alike: each is judged once.
        texts = table["reference"].to_pylist()
        read = lru_cache(maxsize=None)(lambda text: None if text is None else json.loads(text))
        wanted = {text: None if text is None else text.encode() for text in set(texts)}
        pairs = list(zip(table["completion"].to_pylist(), texts, strict=True))
        said = dict.fromkeys(pairs, _KEPT)
        for pair in said:
            completion, text = pair
            given = verdict(completion, wanted[text], partial(read, text))
            if given is not KEPT:
                said[pair] = (given.outcome, given.reason, _written(given.detail))
        told = [said[pair] for pair in pairs]
        return verdict_table([one[0] for one in told], [one[1] for one in told], detail=[one[2] for one in told])

    def gold(reference: Any) -> str | None:
        # Where values are ignored, a reference says nothing about what fits the schema.
        return json.dumps(reference) if isinstance(reference, dict) and config.values == "reference" else None

    def wrong(reference: Any) -> str | None:
        return json.dumps([reference]) if isinstance(reference, dict) else None

    columns = ("completion", "reference")
    parameters = config.model_dump(mode="json", by_alias=True)
    return Filter("json_shape", "3", Scope.SAMPLE, Role.VERIFIER, judge, columns, parameters, gold, wrong, cost_us=7.0)


def extract(text: str) -> dict[str, Any]:
    """The one JSON object of a text: the whole of it, or its one fenced block, or the one object that stands in it.

    Raises RefusedError with the reason: `too_long` above 64 KiB, `not_json`, `ambiguous_json` for several, `duplicate_key`.
    Two objects are ambiguous rather than the first: who sprays answers must not be rewarded. For the same reason no object
    within a list, or within an object that breaks off, is taken for the answer. Beside one fenced block that holds JSON,
    nothing else is looked at: which of them is judged does not depend on the reference.
    """
    return _read(text)[0]


def _read(text: str, wanted: bytes | None = None) -> Read:
    if len(text) > TEXT_BYTES or not (text.isascii() or len(text.encode("utf-8", "surrogatepass")) <= TEXT_BYTES):
        raise RefusedError("too_long")
    if text[:1] == "{" and (certain := _certain(text, wanted)):
        return certain
    if "{" not in text:
        raise RefusedError("not_json")
    fenced = _fenced(text) if "```" in text or "~~~" in text else []
    for candidate in (text, *(fenced if len(fenced) == 1 else [])):
        if candidate.lstrip(_SPACE)[:1] not in _BEGINS:
            continue
        if candidate is not text and (certain := _certain(candidate, wanted)):
            return certain
        try:
            value = _DECODER.decode(candidate)
        except (ValueError, RecursionError):
            continue  # the search below finds what is there, and why it is refused
        if isinstance(value, dict):
            return _storable(value, candidate), None
        raise RefusedError("not_json")
    begin, end = text.find("{"), text.rfind("}") + 1
    if 0 < begin < end and text.find("{", end) < 0 and (certain := _certain(text[begin:end], wanted)):
        if _in_a_list(text, begin, end):
            raise RefusedError("not_json")
        return certain
    return _searched(text), None


def _fenced(text: str) -> list[str]:
    """What stands in the fenced blocks, of backticks or tildes, whatever language they name; the last may be left open.

    A block ends where a line begins or ends with its fence. That cuts no JSON string, for none spans lines.
    """
    bare = text.rstrip("\n")
    if bare.count("`") == 6 and bare[:3] == "```" == bare[-3:] and "\n" in bare:  # nothing but one block, as most are
        return [bare[bare.find("\n") + 1 : -3]]
    found, at = [], 0
    while opening := _OPENING.search(text, at):
        fence, begin = opening[1], opening.end()
        if opening.start() and not (text[opening.start() - 1].isspace() or text[opening.start() - 1] == ":"):
            at = opening.end(1)  # within a word: the end of a span of code
            continue
        end = text.find(fence, begin)
        while end >= 0 and not _ends_a_block(text, begin, end, end + len(fence)):
            end = text.find(fence, end + 1)
        found.append(text[begin:] if end < 0 else text[begin:end])
        at = len(text) if end < 0 else end + len(fence)
    return found


def _ends_a_block(text: str, begin: int, fence: int, after: int) -> bool:
    before = text[max(begin, fence - _LINE_END_CHARS) : fence].rstrip(" \t")
    return before[-1:] in ("", "\n") or text[after : after + _LINE_END_CHARS].lstrip(" \t\r")[:1] in ("", "\n")


def _certain(text: str, wanted: bytes | None = None) -> Read | None:
    """What the strict decoder makes of a text that is an object as a whole; None wherever it might make something else of it.

    orjson takes the last of two equal keys. An object or text that is lost takes its quotes with it, and without \\u a value
    is written with as many quotes as it was read from. And it reads integers of more than 64 bits as floats, which it writes
    with an e+; not if the object is the `wanted` one and that has none.
    """
    if "\\" in text and "\\u" in text:
        return None
    try:
        value = orjson.loads(text)
        written = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    if type(value) is not dict or written.count(b'"') != text.count('"'):
        return None
    if written == wanted and b"e+" not in written:
        return (value, written) if written.count(b"{") + written.count(b"[") <= DEPTH else None
    return (value, written) if _is_exact(value.values(), 1) else None


def _is_exact(values: Iterable[Any], depth: int) -> bool:
    """Whether no float may have been an integer, and nothing is nested too deep."""
    for value in values:
        kind = type(value)
        if kind is float:
            if not -_EXACT < value < _EXACT:
                return False
        elif (kind is dict or kind is list) and (
            depth == DEPTH or not _is_exact(value.values() if kind is dict else value, depth + 1)
        ):
            return False
    return True


def _searched(text: str) -> dict[str, Any]:
    """The one object that stands in a text."""
    found: list[tuple[dict[str, Any], int, int]] = []
    broken: int | None = None
    at = text.find("{")
    for _ in range(STARTS):
        if at < 0:
            break
        try:
            value, end = _DECODER.raw_decode(text, at)
            found.append((value, at, end))
        except RefusedError:
            raise
        except json.JSONDecodeError as error:
            end = max(error.pos, at + 1)
            broken = at if broken is None else broken
        except (ValueError, RecursionError) as error:  # too many digits, too deep
            raise RefusedError("not_json") from error
        at = text.find("{", end)
    if len(found) != 1 or at >= 0:
        raise RefusedError("ambiguous_json" if found else "not_json")
    ((value, begin, end),) = found
    if broken is not None and text.count("{", broken, begin) > text.count("}", broken, begin):
        raise RefusedError("not_json")  # the object that broke off is still open here
    if _in_a_list(text, begin, end):
        raise RefusedError("not_json")
    return _storable(value, text)


def _in_a_list(text: str, begin: int, end: int) -> bool:
    """Whether the object that stands there is an element of a list, be it one that breaks off. LaTeX's `\\[` opens none."""
    before, after = text[:begin].rstrip(_SPACE), text[end:].lstrip(_SPACE)
    if before.endswith("[") and not before.endswith("\\[") and after[:1] in ("", ",", "]"):
        return True
    at = begin
    for _ in range(STARTS):
        at = text.rfind("[", 0, at)
        if at < 0:
            break
        try:
            if _DECODER.raw_decode(text, at)[1] > begin:
                return True
        except (ValueError, RecursionError):
            continue
    return False


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


def _written(detail: Mapping[str, Any] | None) -> str | None:
    """JSON text of a detail, by orjson unless it has an integer of more than 64 bits."""
    if detail is None:
        return None
    try:
        return orjson.dumps(detail, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError:
        return stored_json(detail)


def _short(value: Any) -> Any:
    """The value, or the start of its JSON text where that is long."""
    if value is None or isinstance(value, (int, float)) or (isinstance(value, str) and len(value) <= VALUE_CHARS):
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
    kind = type(wanted)
    if type(found) is not kind:
        return {kind, type(found)} == {int, float} and bool(found == wanted)
    if kind is dict:
        return found.keys() == wanted.keys() and all(_same(found[key], wanted[key]) for key in wanted)
    if kind is list:
        return len(found) == len(wanted) and all(map(_same, found, wanted))
    return bool(found == wanted)


@lru_cache(maxsize=64)
def _compiled(schema: str) -> jsonschema_rs.Draft202012Validator:
    """One validator per schema, however often a filter with it is built. It holds no state."""
    try:
        return jsonschema_rs.Draft202012Validator(
            json.loads(schema), retriever=_nothing_is_fetched, pattern_options=jsonschema_rs.RegexOptions()
        )
    except ValueError as error:
        said = str(error).splitlines()[0]
        why = "; patterns take linear time, so look-around and back-references are refused" if "regex" in said else ""
        raise FilterError(f"json_shape: parameters.schema: {said}{why}") from error


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
_KEPT: Told = (Outcome.KEEP.value, "", None)
