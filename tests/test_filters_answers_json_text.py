"""Which JSON object of a text is the answer, and that the fast reader agrees with the strict one."""

import contextlib
import json
import time
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import filters
from filters.answers import json_text
from filters.answers.json_text import RefusedError, extract
from filters.judging import judge
from schemas.sample import to_json

ONE, TWO = '{"a": 1}', '{"a": 2}'
REASONS = {"not_json", "ambiguous_json", "duplicate_key", "too_long"}


def strictly(text: str) -> Any:
    """The object or the reason that `extract` gives if orjson reads nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "certain_object", lambda text, wanted=None: None)
        return extracted(text)


def extracted(text: str) -> Any:
    """The object with the types of its values, or the reason."""
    try:
        return typed(extract(text))
    except RefusedError as refused:
        return refused.args[0]


def typed(value: Any) -> Any:
    """The value with the types of its parts, because 1 == 1.0 == True."""
    if isinstance(value, dict):
        return {key: typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [typed(inner) for inner in value]
    return type(value).__name__, repr(value)


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
    """The whole text, or the one fenced block, or the one object inside; never a part of another value. Both readers agree."""
    value = extracted(text)

    assert value == strictly(text)
    assert value == (expected if isinstance(expected, str) and expected in REASONS else {"a": typed(expected)})


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
    """Whatever is repeated, up to the longest text that is read."""
    start = time.process_time()
    extracted(text)

    assert time.process_time() - start < 1


@given(st.text())
def test_extraction_raises_nothing_else(text: str) -> None:
    """Any text has an object or a reason."""
    try:
        value: Any = extract(text)
    except RefusedError as refused:
        value = {refused.args[0]: None}
    assert isinstance(value, dict)


# -- the fast reader and the strict one ----------------------------------------------------------------------------------------

KEYS = st.sampled_from(['"a"', '"b"', '"\\u0061"', '"a\\""', '"\\\\"', '""', '"\u00e4"', '"\\ud83d\\ude00"', '"e+"'])
NUMBERS = st.one_of(
    st.integers().map(str),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from([2**63, 2**64, -(2**63), 10**25]).flatmap(lambda edge: st.integers(edge - 2, edge + 2).map(str)),
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
def test_the_fast_reader_reads_what_the_strict_one_reads(text: str) -> None:
    """The same object, type for type, or the same reason."""
    assert extracted(text) == strictly(text)


@settings(max_examples=50)
@given(TEXTS, _object(VALUES))
@example('{"a":100000000000000000001}', '{"a":1e+20}')
@example('{"a":-0.0}', '{"a":-0.0}')
def test_verdicts_do_not_depend_on_the_reader(text: str, wanted: str) -> None:
    """Verdict and detail are the same, also if the reference is the text itself or its object."""
    references = [wanted, text]
    with contextlib.suppress(RefusedError):
        references.append(to_json(extract(text)))
    references = [reference for reference in references if reference.isprintable() and _is_json(reference)]
    columns = {"completion": pa.array([text] * len(references), pa.string()), "reference": pa.array(references, pa.string())}
    fast = judge(filters.build("json_shape", {}), pa.table(columns)).to_pylist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "certain_object", lambda text, wanted=None: None)
        strict = judge(filters.build("json_shape", {}), pa.table(columns)).to_pylist()

    assert fast == strict


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@given(st.floats(min_value=2.0**63, allow_infinity=False), st.booleans())
def test_orjson_writes_floats_beyond_64_bits_with_an_exponent(number: float, negative: bool) -> None:
    """The exponent distinguishes them from floats that may have been integers."""
    assert b"e+" in orjson.dumps([-number if negative else number])
