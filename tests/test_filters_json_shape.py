"""json_shape: which text is the answer, that the fast way of reading it is the strict one, and what a schema may hold."""

import contextlib
import json
import re
import time
from typing import Any

import jsonschema_rs
import orjson
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import filters
from filters import json_shape
from filters.base import FilterError
from filters.json_shape import RefusedError, extract
from filters.judging import judge
from schemas.sample import to_json

PERSON = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name"]}
ANNA = {"name": "Anna", "age": 31}
ONE, TWO = '{"a": 1}', '{"a": 2}'


def verdicts(parameters: dict[str, Any], *rows: tuple[str, Any]) -> list[dict[str, Any]]:
    """Of completions and their references; None is no reference."""
    columns = {
        "completion": pa.array([completion for completion, _ in rows], pa.string()),
        "reference": pa.array([None if wanted is None else to_json(wanted) for _, wanted in rows], pa.string()),
    }
    found = judge(filters.build("json_shape", parameters), pa.table(columns)).to_pylist()
    return [{**one, "said": one["reason"] or one["outcome"], "detail": json.loads(one["detail"] or "null")} for one in found]


def said(parameters: dict[str, Any], *rows: tuple[str, Any]) -> list[str]:
    return [one["said"] for one in verdicts(parameters, *rows)]


def strictly(text: str) -> Any:
    """What `extract` says where nothing is read by orjson: an object, or the reason."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_shape, "_certain", lambda text, wanted=None: None)
        return extracted(text)


def extracted(text: str) -> Any:
    try:
        return typed(extract(text))
    except RefusedError as refused:
        return refused.args[0]


def typed(value: Any) -> Any:
    """The value with the type of everything in it, for 1 == 1.0 == True."""
    if isinstance(value, dict):
        return {key: typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [typed(inner) for inner in value]
    return type(value).__name__, repr(value)


# -- verdicts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ('{"name": "Anna", "age": 31}', "keep"),
        ('{"age":31,"name":"Anna"}', "keep"),
        ('\n {"name": "Anna", "age": 31}\r\n', "keep"),
        ('Here: {"age": 31, "name": "Anna"} done', "keep"),
        ('```json\n{"name": "Anna", "age": 31}\n```', "keep"),
        ('{"name": "Anna", "age": 31.0}', "keep"),
        ('{"name": "Ann\\u0061", "age": 31}', "keep"),
        ('{"name": "Anna", "age": 32}', "wrong_value"),
        ('{"name": "anna", "age": 31}', "wrong_value"),
        ('{"name": "Anna", "age": "31"}', "schema_mismatch"),
        ('{"name": "Anna", "age": true}', "schema_mismatch"),
        ('{"name": "Anna"}', "missing_key"),
        ('{"name": "Anna", "age": 31, "city": "Rome"}', "extra_key"),
        ('{"age": 31}', "schema_mismatch"),
        ('{"name": "Anna", "age": 31} {"name": "Tom", "age": 31}', "ambiguous_json"),
        ('{"name": "Anna", "name": "Tom", "age": 31}', "duplicate_key"),
        ('{"name": "Anna", "age": 31, "\\u0061ge": 31}', "duplicate_key"),
        ('{"name": "Anna", "age": NaN}', "not_json"),
        ('{"name": "Anna", "age": -Infinity}', "not_json"),
        ('{"name": "Anna", "age": 1e999}', "not_json"),
        ("{'name': 'Anna', 'age': 31}", "not_json"),
        ('{"name": "Anna", "age": 31,}', "not_json"),
        ("[1]", "not_json"),
        ("Anna, 31", "not_json"),
        ("", "not_json"),
        ("x" * 70_000, "too_long"),
        ("\u00e4" * 40_000, "too_long"),
        ('{"a":' * 3000, "not_json"),
        ("9" * 5000, "not_json"),
        ('{"name": "Anna", "age": ' + "9" * 5000 + "}", "not_json"),
    ],
)
def test_json_shape(completion: str, reason: str) -> None:
    """One object, of the schema's shape and the reference's values."""
    assert said({"schema": PERSON}, (completion, ANNA)) == [reason]


def test_details_name_what_was_wanted_and_found() -> None:
    """For those who read the audit; integers of any size."""
    rows = [
        ('{"name": "Tom", "age": 31}', ANNA),
        ('{"name": "Anna"}', ANNA),
        ('{"name": "Anna", "age": 31, "city": 1}', ANNA),
        ('{"name": "Anna", "age": "31"}', ANNA),
        ('{"name": "Anna", "age": 1}', {**ANNA, "age": 10**30}),
        (ONE, [1]),
    ]

    assert [one["detail"] for one in verdicts({"schema": PERSON}, *rows)] == [
        {"key": "name", "wanted": "Anna", "found": "Tom"},
        {"key": "age"},
        {"key": "city"},
        {"path": "age", "message": '"31" is not of type "integer"'},
        {"key": "age", "wanted": 10**30, "found": 1},
        {"wanted": "an object", "found": "list"},
    ]


@pytest.mark.parametrize(
    ("completion", "wanted", "reason"),
    [
        ('{"a": true}', {"a": 1}, "wrong_value"),
        ('{"a": 1}', {"a": True}, "wrong_value"),
        ('{"a": [1]}', {"a": [True]}, "wrong_value"),
        ('{"a": {"b": 0}}', {"a": {"b": False}}, "wrong_value"),
        ('{"a": 1.0}', {"a": 1}, "keep"),
        ('{"a": 1}', {"a": 1.0}, "keep"),
        ('{"a": -0.0}', {"a": 0}, "keep"),
        ('{"a": null}', {"a": None}, "keep"),
        ('{"a": null}', {"a": False}, "wrong_value"),
        ('{"a": ""}', {"a": None}, "wrong_value"),
        ('{"a": [1, 2]}', {"a": [2, 1]}, "wrong_value"),
        ('{"a": 100000000000000000001}', {"a": 1e20}, "wrong_value"),
        ('{"a": 100000000000000000001}', {"a": 10**20 + 1}, "keep"),
        ('{"a": 1e20}', {"a": 10**20}, "keep"),
        ('{"a": 18446744073709551615}', {"a": 2**64 - 1}, "keep"),
        ('{"a": 9007199254740993}', {"a": 2.0**53}, "wrong_value"),
    ],
)
def test_values_are_compared_type_for_type(completion: str, wanted: Any, reason: str) -> None:
    """In Python True is 1; in JSON it is not. 1 and 1.0 are one number, and no integer is rounded."""
    assert said({}, (completion, wanted)) == [reason]


def test_an_integer_is_not_taken_for_the_float_that_orjson_makes_of_it() -> None:
    """Even where the reference was written as orjson writes it."""
    columns = {"completion": ['{"a": 100000000000000000001}', '{"a": 1e20}'], "reference": ['{"a":1e+20}'] * 2}
    found = judge(filters.build("json_shape", {}), pa.table(columns))["reason"].to_pylist()

    assert found == ["wrong_value", ""]


@given(st.floats(min_value=2.0**63, allow_infinity=False), st.booleans())
def test_orjson_writes_floats_beyond_64_bits_with_an_exponent(number: float, negative: bool) -> None:
    """By which they are told from what may have been an integer."""
    assert b"e+" in orjson.dumps([-number if negative else number])


def test_without_values_no_reference_is_needed() -> None:
    """The shape is enough then; otherwise a missing reference is undecided, never wrong."""
    assert said({"schema": PERSON, "values": "ignore"}, ('{"name": "x"}', None), ('{"name": "x"}', ANNA)) == ["keep", "keep"]
    assert said({"schema": PERSON}, ('{"name": "x"}', None), ('{"name": "x"}', "x")) == ["no_reference"] * 2


def test_verdicts_keep_their_order_where_answers_repeat() -> None:
    """Repeated pairs are judged once, and an answer is judged by its own reference."""
    rows = [(ONE, {"a": 1}), (ONE, {"a": 2}), (TWO, {"a": 2}), (ONE, {"a": 1}), ("no", {"a": 1}), (ONE, None)] * 3

    assert said({}, *rows) == ["keep", "wrong_value", "keep", "keep", "not_json", "no_reference"] * 3
    assert said({}) == []


# -- which text is the answer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # one fenced block
        (f"```json5\n{ONE}\n```", 1),
        (f"``` json\n{ONE}\n```", 1),
        (f"```c++ title=x\n{ONE}\n```", 1),
        (f"~~~json\n{ONE}\n~~~", 1),
        (f"````\n{ONE}\n````", 1),
        (f"```\r\n{ONE}\r\n```\r\n", 1),
        (f"```json\n{ONE}```", 1),
        (f"```json\n{ONE}", 1),
        (f"```json {ONE} ```", 1),
        (f"Not {TWO} but:\n```json\n{ONE}\n```\nas asked.", 1),
        (f"Not {TWO} but:\n~~~\n{ONE}\n~~~", 1),
        ('```json\n{"a": "x```y"}\n```', "x```y"),
        (f"Run ```\nls\n``` and see {ONE}", 1),
        ("```json\n[1]\n```", "not_json"),
        (f"```json\n[{ONE}]\n```", "not_json"),
        # several
        (f"```\n{ONE}\n```\n```\n{TWO}\n```", "ambiguous_json"),
        (f"```\n{ONE}\n```\n~~~\n{TWO}\n~~~", "ambiguous_json"),
        (f"```\n{ONE}\n```\n``` json\n{TWO}\n```", "ambiguous_json"),
        (f"```\n{ONE}\n```\n```json\n{TWO}", "ambiguous_json"),
        (f"``` json\n{TWO}\n```\n```\n{ONE}\n```", "ambiguous_json"),
        (f"{ONE} or {TWO}", "ambiguous_json"),
        (f"{ONE}{ONE}", "ambiguous_json"),
        (ONE * 20, "ambiguous_json"),
        # prose
        (f"\ufeff{ONE}", 1),
        (f"Sure, {ONE}, as you asked [1].", 1),
        (f"[1] says {ONE}", 1),
        (f"[Note: {ONE}]", 1),
        (f"\\[ {ONE} \\]", 1),
        (f"In {{x, y}} it is {ONE}", 1),
        (f"NaN is none: {ONE}", 1),
        (f"See ```x``` here\n{ONE}", 1),
        ('It is {"a": "}"}', "}"),
        ('It is {"a": "{"}', "{"),
        ('It is {"a": "\\"{"} here', '"{'),
        ("{" * 17 + ONE, "not_json"),
        # parts of something else
        (f"[{ONE}]", "not_json"),
        (f"Here: [{ONE}]", "not_json"),
        (f"Here: [{ONE},]", "not_json"),
        (f"Here: [{ONE}", "not_json"),
        (f"Here: [ 1, {ONE} ]", "not_json"),
        (f'Here: [["x"], [{ONE}, 2]]', "not_json"),
        (f"Here: [{ONE}, {TWO}]", "ambiguous_json"),
        (f'{{"b": None, "inner": {ONE}}}', "not_json"),
        (f'{{"b": "two\nlines", "inner": {ONE}}}', "not_json"),
        (f'{{"b": 2, "inner": {ONE}', "not_json"),
        (json.dumps(ONE), "not_json"),
        ('{"a": {"b": 1, "b": 2}}', "duplicate_key"),
        ('{"a": 1, "a": 1}', "duplicate_key"),
        ('{"a": 1} {"b": 1, "b": 2}', "duplicate_key"),
        ('{"a": 1, "a": 2, "b": "\\u0022\\u0022"}', "duplicate_key"),
        ('{"a": "\\ud800"}', "not_json"),
        ('{"a": ' + "[" * 64 + "]" * 64 + "}", "not_json"),
    ],
)
def test_the_one_object_of_a_text(text: str, expected: Any) -> None:
    """The whole, or one fenced block, or the one that stands there; never a part of something else. Strictly read or not."""
    found = extracted(text)

    assert found == strictly(text)
    assert found == (expected if isinstance(expected, str) and expected in REASONS else {"a": typed(expected)})


REASONS = {"not_json", "ambiguous_json", "duplicate_key", "too_long"}


@pytest.mark.parametrize(
    "text",
    [
        "`" * 60_000,
        "{" + "`" * 60_000 + "\n",
        "```\n" * 15_000 + "{",
        "{" + "``` x " * 10_000,
        "{\n```" + "a" * 60_000,
        "{\n```\n" + "```x" * 15_000,
        "{\n```\n" + " " * 60_000 + "x```",
        "[" * 60_000 + ONE,
        '["' * 30_000 + ONE,
        '{"' * 30_000,
        "{" * 60_000,
        '{"a": "' + "\\" * 60_000,
    ],
    ids=range(12),
)
def test_extraction_takes_linear_time(text: str) -> None:
    """Whatever is repeated up to the longest text that is read."""
    began = time.process_time()
    extracted(text)

    assert time.process_time() - began < 1


@given(st.text())
def test_extraction_never_fails_otherwise(text: str) -> None:
    """Any text gives an object or a reason."""
    try:
        value: Any = extract(text)
    except RefusedError as refused:
        value = {refused.args[0]: None}
    assert isinstance(value, dict)


# -- the fast way is the strict way ------------------------------------------------------------------------------------------

KEYS = st.sampled_from(['"a"', '"b"', '"\\u0061"', '"a\\""', '"\\\\"', '""', '"\u00e4"', '"\\ud83d\\ude00"', '"e+"'])
NUMBERS = st.one_of(
    st.integers().map(str),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from([2**63, 2**64, -(2**63), 10**25]).flatmap(lambda near: st.integers(near - 2, near + 2).map(str)),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.sampled_from(["-0", "-0.0", "01", "1.", ".5", "+1", "1e400", "-1e400", "1e-400", "1E5", "NaN", "-Infinity", "9" * 5000]),
)
STRINGS = st.one_of(
    st.text(max_size=4).map(json.dumps),
    st.text(max_size=4).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.sampled_from(['"\\ud800"', '"\\u0022"', '"\\/"', '"\\x"', '"\n"', '"\x7f"', '"\\u0000"', '"{"', '"]}"', "'a'"]),
)
SPACES = st.sampled_from(["", "", " ", "\n", "\t", "\u00a0", "\x0b"])


def _list(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds("[{}]".format, st.lists(inner, max_size=3).map(",".join))


def _object(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.builds("{}{}:{}".format, KEYS, SPACES, inner)
    return st.builds("{{{}{}}}".format, st.lists(pair, max_size=4).map(",".join), SPACES)


VALUES = st.recursive(
    st.one_of(NUMBERS, STRINGS, st.sampled_from(["true", "false", "null"])),
    lambda inner: st.one_of(_list(inner), _object(inner)),
    max_leaves=6,
)
TEXTS = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "", "", " ", "```json\n", "It is ", "[", "\ufeff", '{"b": None, ']),
    _object(VALUES),
    st.sampled_from(["", "", "", "\n", "\n```", " so.", "]", "}", ' {"a":1}']),
)


@pytest.mark.slow
@given(TEXTS)
@example('{"a":1,"a":2}')
@example('{"a":18446744073709551616}')
@example('{"a":[[1e400]]}')
@example('{"a":' + "[" * 63 + "]" * 63 + "}")
@example('{"a":' + "[" * 64 + "]" * 64 + "}")
@example('{"a":1,"a":2,"b":"\\u0022\\u0022"}')
def test_the_fast_way_reads_what_the_strict_way_reads(text: str) -> None:
    """The same object, type for type, or the same reason."""
    assert extracted(text) == strictly(text)


@settings(max_examples=50)
@given(TEXTS, _object(VALUES))
@example('{"a":100000000000000000001}', '{"a":1e+20}')
@example('{"a":-0.0}', '{"a":-0.0}')
def test_the_fast_way_judges_as_the_strict_way_does(text: str, wanted: str) -> None:
    """The same verdict and detail; also where the reference is the very text, or the object itself."""
    references = [wanted, text]
    with contextlib.suppress(RefusedError):
        references.append(to_json(extract(text)))
    references = [one for one in references if one.isprintable() and _is_json(one)]
    columns = {"completion": pa.array([text] * len(references), pa.string()), "reference": pa.array(references, pa.string())}
    fast = judge(filters.build("json_shape", {}), pa.table(columns)).to_pylist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_shape, "_certain", lambda text, wanted=None: None)
        strict = judge(filters.build("json_shape", {}), pa.table(columns)).to_pylist()

    assert fast == strict


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


# -- schemas -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "objekt"}, "schema.type: 'objekt' is not valid"),
        ({"$ref": "http://127.0.0.1:9/s.json"}, "points elsewhere; nothing is fetched"),
        ({"$dynamicRef": "http://127.0.0.1:9/s.json#x"}, "points elsewhere; nothing is fetched"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "points elsewhere"),
        ({"$id": "http://127.0.0.1:9/a/", "properties": {"a": {"$ref": "other.json"}}}, "points elsewhere"),
        ({"$ref": "#/$defs/none"}, "Pointer '/$defs/none' does not exist"),
        ({"pattern": "(?=a)b", "type": "string"}, "look-around and back-references are refused"),
        ({"pattern": "(?<!a)b"}, "look-around and back-references are refused"),
        ({"pattern": "(a)\\1"}, "look-around and back-references are refused"),
        ({"patternProperties": {"(?!a)b": {}}}, "look-around and back-references are refused"),
        ({"pattern": "(a"}, "regex"),
    ],
)
def test_a_schema_that_could_not_be_kept_is_refused(schema: dict[str, Any], message: str) -> None:
    """At build time, so before anything is sampled."""
    with pytest.raises(FilterError, match=re.escape(message)):
        filters.build("json_shape", {"schema": schema})


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """No `$schema`, `$id` or unknown keyword opens a socket or a file; a `$id` is only a name."""

    def never(*given_: Any, **named: Any) -> None:
        raise AssertionError(given_)

    monkeypatch.setattr("socket.socket.connect", never)
    monkeypatch.setattr("socket.getaddrinfo", never)
    inner = {"$id": "http://127.0.0.1:9/inner", "$schema": "http://127.0.0.1:9/draft", "type": "integer"}
    schema = {
        "$id": "http://127.0.0.1:9/root.json",
        "$schema": "http://127.0.0.1:9/meta",
        "$recursiveRef": "http://127.0.0.1:9/recursive",
        "$defs": {"inner": inner, "anchored": {"$anchor": "here", "type": "integer"}},
        "properties": {"a": {"$ref": "#/$defs/inner"}, "b": {"$ref": "#here"}, "c": {"$dynamicRef": "#here"}},
    }

    assert said({"schema": schema, "values": "ignore"}, (ONE, None), ('{"b": "x"}', None), ('{"c": "x"}', None)) == [
        "keep",
        "schema_mismatch",
        "schema_mismatch",
    ]
    with pytest.raises(ValueError, match="remote references are not fetched"):
        jsonschema_rs.Draft202012Validator({"$ref": "http://127.0.0.1:9/"}, retriever=json_shape._nothing_is_fetched)


@pytest.mark.parametrize("keyword", ["pattern", "patternProperties"])
def test_patterns_take_linear_time(keyword: str) -> None:
    """This pattern hangs a backtracking engine from 30 letters on; here it is 50,000."""
    text = "a" * 50_000 + "!"
    inner = {"properties": {"a": {"pattern": "^(a+)+$"}}}
    schema = inner if keyword == "pattern" else {"patternProperties": {"^(a+)+$": False}, "maxProperties": 0}
    completion = json.dumps({"a": text} if keyword == "pattern" else {text: 1})
    began = time.process_time()

    assert said({"schema": schema, "values": "ignore"}, (completion, None)) == ["schema_mismatch"]
    assert time.process_time() - began < 1


def test_format_is_an_annotation() -> None:
    """As draft 2020-12 has it: it says what a text is meant to be and refuses none."""
    schema = {"properties": {"a": {"format": "email"}, "b": {"format": "date-time"}, "c": {"format": "regex"}}}

    assert said({"schema": schema, "values": "ignore"}, ('{"a": "no", "b": "never", "c": "("}', None)) == ["keep"]


def test_a_schema_is_compiled_once() -> None:
    """However often a filter with it is built."""
    before = json_shape._compiled.cache_info().misses
    for _ in range(3):
        filters.build("json_shape", {"schema": {"title": "compiled once"}})

    assert json_shape._compiled.cache_info().misses == before + 1


def test_gold_is_kept_and_wrong_is_dropped() -> None:
    """So that a recipe can be checked before anything is sampled."""
    built = filters.build("json_shape", {"schema": PERSON})
    assert built.gold is not None
    assert built.wrong is not None
    gold, wrong = built.gold(ANNA), built.wrong(ANNA)
    assert gold is not None
    assert wrong is not None

    assert said({"schema": PERSON}, (gold, ANNA), (wrong, ANNA)) == ["keep", "not_json"]
    assert built.gold("x") is None
