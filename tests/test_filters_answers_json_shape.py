"""json_shape: verdicts, comparison with the reference, and which schemas are accepted."""

import json
import re
import time
from typing import Any

import jsonschema_rs
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import filters
from filters.answers import json_shape
from filters.base import FilterError
from filters.judging import judge
from helpers.filter_tables import verdicts_of
from schemas.sample import to_json

PERSON = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name"]}
ANNA = {"name": "Anna", "age": 31}
ONE, TWO = '{"a": 1}', '{"a": 2}'


def verdicts(parameters: dict[str, Any], *rows: tuple[str, Any]) -> list[dict[str, Any]]:
    """Verdicts on completions and their references; None is no reference."""
    columns = {
        "completion": pa.array([completion for completion, _ in rows], pa.string()),
        "reference": pa.array([None if reference is None else to_json(reference) for _, reference in rows], pa.string()),
    }
    return verdicts_of("json_shape", parameters, pa.table(columns))


def results(parameters: dict[str, Any], *rows: tuple[str, Any]) -> list[str]:
    return [verdict["result"] for verdict in verdicts(parameters, *rows)]


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
    assert results({"schema": PERSON}, (completion, ANNA)) == [reason]


def test_details_name_what_was_wanted_and_found() -> None:
    """The audit shows them; integers may have any size."""
    rows = [
        ('{"name": "Tom", "age": 31}', ANNA),
        ('{"name": "Anna"}', ANNA),
        ('{"name": "Anna", "age": 31, "city": 1}', ANNA),
        ('{"name": "Anna", "age": "31"}', ANNA),
        ('{"name": "Anna", "age": 1}', {**ANNA, "age": 10**30}),
        (ONE, [1]),
    ]

    assert [verdict["detail"] for verdict in verdicts({"schema": PERSON}, *rows)] == [
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
    assert results({}, (completion, wanted)) == [reason]


def test_an_integer_does_not_equal_the_float_that_orjson_reads() -> None:
    """Even if the reference is written as orjson writes it."""
    columns = {"completion": ['{"a": 100000000000000000001}', '{"a": 1e20}'], "reference": ['{"a":1e+20}'] * 2}
    reasons = judge(filters.build("json_shape", {}), pa.table(columns))["reason"].to_pylist()

    assert reasons == ["wrong_value", ""]


def test_without_values_no_reference_is_needed() -> None:
    """With `values: ignore` only the shape counts; otherwise a missing reference is undecided, never wrong."""
    assert results({"schema": PERSON, "values": "ignore"}, ('{"name": "x"}', None), ('{"name": "x"}', ANNA)) == ["keep", "keep"]
    assert results({"schema": PERSON}, ('{"name": "x"}', None), ('{"name": "x"}', "x")) == ["no_reference"] * 2


def test_verdicts_keep_their_order_where_answers_repeat() -> None:
    """Repeated pairs are judged once, each answer by its own reference."""
    rows = [(ONE, {"a": 1}), (ONE, {"a": 2}), (TWO, {"a": 2}), (ONE, {"a": 1}), ("no", {"a": 1}), (ONE, None)] * 3

    assert results({}, *rows) == ["keep", "wrong_value", "keep", "keep", "not_json", "no_reference"] * 3
    assert results({}) == []


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ('{"a":"\\ud800"}', "not_json"),
        ('{"a":' + "[" * 70 + "]" * 70 + "}", "not_json"),
        ('{"b":2,"inner":{"a":1}', "not_json"),
        ('{"a":1}' + "{x" * 15 + '{"a":2}', "ambiguous_json"),
        ('NaN is no answer, this is: {"a":1}', "keep"),
        ('{"a":NaN,"inner":{"a":1}}', "not_json"),
    ],
    ids=["half-surrogate", "deep", "inner-of-broken", "beyond-16-starts", "prose-nan", "inner-of-nan"],
)
def test_json_shape_takes_one_whole_object_only(completion: str, expected: str) -> None:
    """A part of a broken object is not the answer, and no text stops the filter."""
    parameters = {"schema": {"additionalProperties": {"anyOf": [{"type": "integer"}, {"pattern": "^a"}]}}}

    assert results(parameters, (completion, {"a": 1})) == [expected]


@given(st.lists(st.sampled_from(['{"a":', "1", "}", "[", "]", '"\\ud800"', "NaN", "1e999", "```", "\n", "{", '"a"', ":", ","])))
@example(['{"a":', '"\\ud800"', "}"])
def test_json_shape_judges_any_text(pieces: list[str]) -> None:
    """A crash in the filter would make wrong answers undecided."""
    assert results({"schema": {"properties": {"a": {"pattern": "^a"}}}}, ("".join(pieces), {"a": 1})) != ["filter_error"]


def test_json_shape_keeps_long_values_out_of_its_details() -> None:
    """Details are for people to read."""
    [verdict] = verdicts({}, (json.dumps({"a": "x" * 60000}), {"a": 1}))

    assert len(json.dumps(verdict["detail"])) < 300


def test_json_shape_has_no_gold_where_values_are_ignored() -> None:
    """A reference need not fit the schema in that case."""
    assert filters.build("json_shape", {"values": "ignore"}).gold({"a": 1}) is None  # type: ignore[misc]


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
def test_a_schema_that_cannot_be_honoured_is_refused(schema: dict[str, Any], message: str) -> None:
    """When the filter is built, so before any sampling."""
    with pytest.raises(FilterError, match=re.escape(message)):
        filters.build("json_shape", {"schema": schema})


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """No `$schema`, `$id` or unknown keyword opens a socket or a file; an `$id` is only a name."""

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

    assert results({"schema": schema, "values": "ignore"}, (ONE, None), ('{"b": "x"}', None), ('{"c": "x"}', None)) == [
        "keep",
        "schema_mismatch",
        "schema_mismatch",
    ]
    with pytest.raises(ValueError, match="remote references are not fetched"):
        jsonschema_rs.Draft202012Validator({"$ref": "http://127.0.0.1:9/"}, retriever=json_shape._refuse_to_fetch)


@pytest.mark.parametrize("keyword", ["pattern", "patternProperties"])
def test_patterns_take_linear_time(keyword: str) -> None:
    """This pattern hangs a backtracking engine from 30 letters on; the text here has 50,000."""
    text = "a" * 50_000 + "!"
    inner = {"properties": {"a": {"pattern": "^(a+)+$"}}}
    schema = inner if keyword == "pattern" else {"patternProperties": {"^(a+)+$": False}, "maxProperties": 0}
    completion = json.dumps({"a": text} if keyword == "pattern" else {text: 1})
    start = time.process_time()

    assert results({"schema": schema, "values": "ignore"}, (completion, None)) == ["schema_mismatch"]
    assert time.process_time() - start < 1


def test_format_is_an_annotation() -> None:
    """As in draft 2020-12: it describes a text and refuses none."""
    schema = {"properties": {"a": {"format": "email"}, "b": {"format": "date-time"}, "c": {"format": "regex"}}}

    assert results({"schema": schema, "values": "ignore"}, ('{"a": "no", "b": "never", "c": "("}', None)) == ["keep"]


def test_gold_is_kept_and_wrong_is_dropped() -> None:
    """`thresher check` uses both before sampling."""
    built = filters.build("json_shape", {"schema": PERSON})
    assert built.gold is not None
    assert built.wrong is not None
    gold, wrong = built.gold(ANNA), built.wrong(ANNA)
    assert gold is not None
    assert wrong is not None

    assert results({"schema": PERSON}, (gold, ANNA), (wrong, ANNA)) == ["keep", "not_json"]
    assert built.gold("x") is None
