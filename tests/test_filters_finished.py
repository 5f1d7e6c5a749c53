"""finished: truncated, empty and aborted completions."""

from typing import Any

import pytest

from helpers.filter_tables import results, verdicts


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
        ({"completion": "Par", "finish_reason": "MAX_TOKENS"}, "truncated"),
        ({"completion": "Par", "finish_reason": "model_length"}, "truncated"),
        ({"completion": "Paris", "finish_reason": "end_turn"}, "keep"),
        ({"completion": "Par", "finish_reason": "SAFETY"}, "content_filter"),
        ({"completion": "Par", "finish_reason": "OTHER"}, "unknown_finish_reason"),
    ],
)
def test_truncated_empty_and_aborted_completions_are_distinguished(row: dict[str, Any], result: str) -> None:
    """Each has a reason of its own; an aborted completion is undecided, and one of which it is not known how it ended."""
    (verdict,) = verdicts("finished", {}, row)

    assert verdict["result"] == result
    assert (verdict["outcome"] == "undecided") == (result in ("aborted", "unknown_finish_reason"))
    assert verdict["detail"] == ({"finish_reason": "OTHER"} if result == "unknown_finish_reason" else {})


def test_truncated_completions_may_be_allowed() -> None:
    """By the parameter `allow_truncated`."""
    assert results("finished", {"allow_truncated": True}, {"completion": "Par", "finish_reason": "length"}) == ["keep"]
