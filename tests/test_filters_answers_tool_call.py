"""tool_call: the calls of an answer against the prompt's tools and the reference."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import filters
from filters.judging import judge
from helpers.filter_tables import pool_table, results, verdicts
from schemas.sample import to_json
from thresher.inputs import recipe_file
from thresher.judging.check import check_recipe

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "number"}, "snow": {"type": "boolean"}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    },
    {"type": "function", "function": {"name": "now"}},
]


def call(name: str = "weather", /, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def row(calls: list[Any] | None, reference: Any = None, **columns: Any) -> dict[str, Any]:
    """A sample with calls; its answer is empty, as a server gives it."""
    text = None if calls is None else json.dumps(calls)
    return {"completion": "", "tool_calls": text, "reference": reference, "tools": to_json(TOOLS), **columns}


PARIS, ROME = call(city="Paris"), call(city="Rome")


@pytest.mark.parametrize(
    ("calls", "reference", "result"),
    [
        ([PARIS], [PARIS], "keep"),
        (None, [PARIS], "no_call"),
        ([], [PARIS], "no_call"),
        (None, [], "keep"),
        ([PARIS], [], "extra_call"),
        ([call("wether", city="Paris")], [PARIS], "unknown_tool"),
        ([call("now")], [PARIS], "wrong_call"),
        ([ROME], [PARIS], "wrong_arguments"),
        ([call(city="Paris", days=3)], [PARIS], "wrong_arguments"),
        ([PARIS], [call(city="Paris", days=3)], "wrong_arguments"),
        ([call(town="Paris")], [PARIS], "bad_arguments"),
        ([call(city=1)], [PARIS], "bad_arguments"),
        ([{"name": "weather", "arguments": '{"city": "Par'}], [PARIS], "bad_arguments"),
        ([PARIS, ROME], [PARIS], "extra_call"),
        ([PARIS, PARIS], [PARIS], "extra_call"),
        ([PARIS], [PARIS, ROME], "wrong_call"),
        ([ROME, PARIS], [PARIS, ROME], "keep"),
        ([PARIS], None, "no_reference"),
        ([PARIS], "Paris", "bad_reference"),
    ],
)
def test_each_fault_has_its_reason(calls: list[Any] | None, reference: Any, result: str) -> None:
    assert results("tool_call", {}, row(calls, reference)) == [result]


@pytest.mark.parametrize(
    ("found", "wanted", "same"),
    [
        ({"days": 1}, {"days": 1.0}, True),
        ({"days": 1.0}, {"days": 1}, True),
        ({"snow": True}, {"snow": 1}, False),
        ({"days": 1}, {"days": True}, False),
        ({"city": "paris"}, {"city": "Paris"}, False),
        ({"city": "1"}, {"city": 1}, False),
        ({"list": [1, {"a": None}]}, {"list": [1.0, {"a": None}]}, True),
        ({"list": [1, 2]}, {"list": [2, 1]}, False),
    ],
)
def test_values_are_compared_by_type(found: Any, wanted: Any, same: bool) -> None:
    """Numbers as numbers; true is no number; the order of a list counts."""
    sample = row([{"name": "any", "arguments": found}], {"name": "any", "arguments": wanted}, tools=None)
    assert results("tool_call", {}, sample) == ["keep" if same else "wrong_arguments"]


def test_the_order_of_calls_may_be_fixed() -> None:
    rows = [row([ROME, PARIS], [PARIS, ROME]), row([PARIS, ROME], [PARIS, ROME]), row([call("now"), PARIS], [PARIS, call("now")])]
    assert results("tool_call", {"order": "fixed"}, *rows) == ["wrong_arguments", "keep", "wrong_call"]


def test_further_calls_and_arguments_may_be_allowed() -> None:
    """A call that fits two expected ones is given to the one that has no other."""
    both = row([call(city="Paris", days=3), PARIS], [PARIS, call(city="Paris", days=3)])
    assert results("tool_call", {"arguments": "subset"}, row([call(city="Paris", days=3)], [PARIS]), both) == ["keep", "keep"]
    more = row([ROME, PARIS], [PARIS])
    assert results("tool_call", {"extra_calls": True}, more, row([ROME], [])) == ["keep", "extra_call"]
    assert results("tool_call", {"extra_calls": True, "order": "fixed"}, more) == ["keep"]
    assert results("tool_call", {"case_sensitive": False}, row([call(city="PARIS")], [PARIS])) == ["keep"]
    assert results("tool_call", {"schema": False}, row([call(town="Paris")], [call(town="Paris")])) == ["keep"]


def test_possible_answers_list_the_right_values() -> None:
    """An argument whose values include an empty text may be absent."""
    reference = [{"weather": {"city": ["Paris", "Paris, France"], "days": [1, ""]}}]
    rows = [row([call(city="Paris, France")], reference), row([call(city="Paris", days=1)], reference)]
    wrong = row([call(city="Paris", days=2)], reference)
    assert results("tool_call", {}, *rows, wrong, row([call(days=1, city="Rome")], reference)) == [
        *("keep", "keep"),
        *("wrong_arguments", "wrong_arguments"),
    ]


def test_without_a_reference_the_tools_decide() -> None:
    rows = [row([ROME]), row(None), row([call("x")]), row([call(city=2)]), row([call("x", y=1)], tools=None)]
    assert results("tool_call", {"expected": "any"}, *rows) == ["keep", "no_call", "unknown_tool", "bad_arguments", "keep"]


def test_details_say_what_was_wanted_and_found() -> None:
    wrong, bad, unknown = verdicts("tool_call", {}, row([ROME], [PARIS]), row([call(city=1)], [PARIS]), row([call("x")], [PARIS]))
    assert wrong["detail"] == {"tool": "weather", "wanted": {"city": "Paris"}, "found": {"city": "Rome"}}
    assert bad["detail"]["path"] == "city"
    assert "is not of type" in bad["detail"]["error"]
    assert unknown["detail"] == {"tool": "x", "tools": ["now", "weather"]}


def test_bad_input_is_no_exception() -> None:
    """Tools that are no schemas, calls without an end, values that no schema validator takes."""
    deep = f'[{{"name": "weather", "arguments": {{"city": {"[" * 50_000}{"]" * 50_000}}}}}]'
    broken = to_json([{"name": "weather", "parameters": {"type": "dict"}}])
    anything = to_json([{"name": "weather", "parameters": {"type": "object"}}])
    rows = [
        row([PARIS], [PARIS], tools=broken),
        row([PARIS] * 9000, [PARIS]),
        row([PARIS], [PARIS], tools=anything, tool_calls=deep),
        row([call(city="\ud800")], [PARIS]),
        row([PARIS] * 300, [PARIS]),
    ]
    expected = ["bad_tools", "bad_arguments", "bad_arguments", "wrong_arguments", "extra_call"]
    assert results("tool_call", {}, *rows) == expected


def test_a_completion_that_ended_inside_its_reasoning_is_undecided() -> None:
    table = pool_table(row(None, [PARIS], answer=None))
    assert judge(filters.build("tool_call", {}), table)["reason"].to_pylist() == ["cut_while_thinking"]


def test_an_answer_that_only_calls_tools_is_not_empty() -> None:
    assert results("finished", {}, row([PARIS]), row(None), row([])) == ["keep", "empty", "empty"]


def test_check_tries_the_calls_of_references(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """A right reference is kept, another name refused; a reference that its own tools refuse is a fault."""
    file = tmp_path / "calls.jsonl"
    rows = [
        {"question": "Weather in Paris?", "calls": [PARIS]},
        {"question": "Weather in Rome?", "calls": [{"weather": {"city": ["Rome"], "days": ["", 1]}}]},
        {"question": "Hello?", "calls": []},
    ]
    file.write_text("".join(f"{json.dumps(one)}\n" for one in rows))
    source = {
        "family": "calls",
        "source": {"kind": "jsonl", "path": str(file)},
        "template": "{{ question }}",
        "reference": "calls",
    }
    report = check_recipe(recipe_file.load(recipe(prompts=[source], filters=[{"name": "tool_call"}])))

    [trial] = report.trials
    assert (trial.gold_kept, trial.wrong_dropped, trial.wrong_tried, report.faults) == (3, 3, 3, ())
