"""finished: truncated, empty and aborted completions."""

from typing import Any

import pytest

from helpers.filter_tables import results


@pytest.mark.parametrize(
    ("row", "result"),
    [
        ({"completion": "Paris"}, "keep"),
        ({"completion": "Paris", "finish_reason": None}, "keep"),
        ({"completion": "Par", "finish_reason": "length"}, "truncated"),
        ({"completion": " \n"}, "empty"),
        ({"completion": "", "finish_reason": "length"}, "truncated"),
        ({"completion": "Par", "finish_reason": "abort"}, "aborted"),
        ({"completion": "Par", "finish_reason": "content_filter"}, "content_filter"),
        ({"completion": "", "finish_reason": "content_filter"}, "content_filter"),
    ],
)
def test_truncated_empty_and_aborted_completions_are_distinguished(row: dict[str, Any], result: str) -> None:
    """Each has a reason of its own; an aborted or withheld completion is undecided."""
    assert results("finished", {}, row) == [result]


def test_truncated_completions_may_be_allowed() -> None:
    """By the parameter `allow_truncated`."""
    assert results("finished", {"allow_truncated": True}, {"completion": "Par", "finish_reason": "length"}) == ["keep"]
