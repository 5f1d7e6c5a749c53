"""instruction: scores, unknown instructions and bad references. The checks have tests of their own."""

from typing import Any

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


def test_an_instruction_that_is_named_twice_is_checked_twice() -> None:
    names = ["keywords:frequency", "keywords:frequency"]
    arguments = [{"keyword": "cat", "frequency": 3}, {"keyword": "dog", "frequency": 1}]
    reference = {"instruction_id_list": names, "kwargs": arguments}

    assert results("instruction", {}, {"completion": "a dog and a cat", "reference": reference}) == ["instruction_not_followed"]


@pytest.mark.parametrize("kwargs", ["x", {"a": 1}, ["x"], [[1]], [3]])
def test_arguments_of_any_form_are_a_bad_reference(kwargs: Any) -> None:
    reference = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": kwargs}

    assert results("instruction", {}, {"completion": "yes", "reference": reference}) == ["bad_reference"]


@pytest.mark.parametrize("name", [["a"], 3, None, {}])
def test_names_of_any_form_are_a_bad_reference(name: Any) -> None:
    reference = {"instruction_id_list": [name], "kwargs": [{}]}

    assert results("instruction", {}, {"completion": "yes", "reference": reference}) == ["bad_reference"]
