"""instruction: scores, unknown instructions and bad references. The checks have tests of their own."""

import pytest

import filters
from filters.base import FilterError
from helpers.filter_tables import results, verdicts


def test_the_share_of_instructions_followed_is_the_score() -> None:
    """The detail names the instructions that were not followed."""
    checks: dict[str, dict[str, str]] = {"punctuation:no_comma": {}, "change_case:english_lowercase": {}}
    (verdict,) = verdicts("instruction", {"checks": checks}, {"completion": "A b"})

    assert (verdict["score"], verdict["detail"]) == (0.5, {"failed": ["change_case:english_lowercase"]})


def test_unknown_instructions_are_refused() -> None:
    """In the recipe when the filter is built, in a prompt as a bad reference; so are bad arguments."""
    with pytest.raises(FilterError, match="no instruction is called 'punctuation:none'"):
        filters.build("instruction", {"checks": {"punctuation:none": {}}})
    with pytest.raises(FilterError, match="KeyError"):
        filters.build("instruction", {"checks": {"length_constraints:number_words": {}}})
    bad = [
        {"instruction_id_list": ["x:y"], "kwargs": [{}]},
        {"instruction_id_list": []},
        "text",
        {"instruction_id_list": ["punctuation:no_comma"], "kwargs": []},
    ]
    reasons = results("instruction", {}, *({"completion": "a", "reference": reference} for reference in bad), {"completion": "a"})
    assert reasons == ["bad_reference", "bad_reference", "bad_reference", "keep", "no_reference"]
