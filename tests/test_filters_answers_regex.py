"""regex: patterns that must match, must not match, or hold the answer."""

from typing import Any

import pytest

import filters
from filters.base import FilterError
from helpers.filter_tables import results, verdicts


@pytest.mark.parametrize(
    ("parameters", "completion", "result"),
    [
        ({"pattern": r"\d+"}, "it is 42", "keep"),
        ({"pattern": r"\d+"}, "none", "no_match"),
        ({"pattern": r"\d+", "where": "whole"}, "it is 42", "no_match"),
        ({"pattern": r"\d+", "where": "whole"}, "42", "keep"),
        ({"pattern": r"Total: \d+", "where": "last_line"}, "a\nTotal: 3\n", "keep"),
        ({"pattern": r"Total: \d+", "where": "last_line"}, "Total: 3\nb", "no_match"),
        ({"pattern": "(?i)as an ai", "forbid": True}, "As an AI I", "forbidden_match"),
        ({"pattern": "(?i)as an ai", "forbid": True}, "fine", "keep"),
        ({"pattern": r"= (?P<answer>-?\d+)$"}, "6 * 7 = 42", "keep"),
        ({"pattern": r"= (?P<answer>-?\d+)$"}, "6 * 7 = 43", "wrong_answer"),
        ({"pattern": r"= (?P<answer>-?\d+)$"}, "6 * 7", "no_match"),
        ({"pattern": "\u00e4+"}, "b\u00e4\u00e4h", "keep"),
    ],
)
def test_regex(parameters: dict[str, Any], completion: str, result: str) -> None:
    """A part, the whole or the last line; forbidden patterns; answers compared with the reference."""
    assert results("regex", parameters, {"completion": completion, "reference": 42}) == [result]


def test_regex_offsets_are_characters() -> None:
    """The detail's start and end enclose the span, outside ASCII too."""
    text = "\u00e4\u00f6\u00fc \U0001f600 bad end"
    (verdict,) = verdicts("regex", {"pattern": "bad", "forbid": True}, {"completion": text})
    detail = verdict["detail"]

    assert text[detail["start"] : detail["end"]] == detail["span"] == "bad"


def test_regex_takes_linear_time_and_refuses_other_patterns() -> None:
    """The pattern hangs a backtracking engine; look-around is refused when the filter is built."""
    assert results("regex", {"pattern": "^(a+)+$"}, {"completion": "a" * 5000 + "!"}) == ["no_match"]
    with pytest.raises(FilterError, match=r"parameters\.pattern"):
        filters.build("regex", {"pattern": "(?=a)b"})
    with pytest.raises(FilterError, match="group named answer"):
        filters.build("regex", {"pattern": "(?P<answer>a)", "forbid": True})


def test_regex_without_a_reference_to_compare_is_undecided() -> None:
    """Whether the prompt has none or one that is not a text."""
    pattern = {"pattern": "(?P<answer>a)"}
    assert results("regex", pattern, {"completion": "a"}, {"completion": "a", "reference": {"b": 1}}) == [
        "no_reference",
        "bad_reference",
    ]
