"""exact_answer: the whole answer equals the reference after normalisation."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import filters
from filters.answers.exact_answer import Config, normalise
from helpers.filter_tables import results


@pytest.mark.parametrize(
    ("parameters", "completion", "reference", "result"),
    [
        ({}, "Paris", "Paris", "keep"),
        ({}, " Paris\n", "Paris", "keep"),
        ({}, "Paris.", "Paris", "wrong_answer"),
        ({"strip": "."}, "Paris.", "Paris", "keep"),
        ({}, "paris", "Paris", "wrong_answer"),
        ({"case_sensitive": False}, "STRASSE", "straße", "keep"),
        ({}, "New  Delhi", "New Delhi", "keep"),
        ({"collapse_whitespace": False}, "New  Delhi", "New Delhi", "wrong_answer"),
        ({}, "\uff14\uff12", "42", "keep"),
        ({"nfkc": False}, "\uff14\uff12", "42", "wrong_answer"),
        ({}, "The capital is Paris", "Paris", "wrong_answer"),
        ({"after": "Answer:"}, "No. Answer: 4 Answer: 5", 5, "keep"),
        ({"after": "Answer:"}, "5", 5, "no_answer"),
        ({}, "5.0", 5.0, "keep"),
        ({}, "Rome", ["Roma", "Rome"], "keep"),
        ({}, "Oslo", ["Roma", "Rome"], "wrong_answer"),
        ({}, "x", None, "no_reference"),
        ({}, "x", {"a": 1}, "bad_reference"),
        ({}, "true", True, "bad_reference"),
        ({}, "", [], "bad_reference"),
        ({}, "", "", "bad_reference"),
        ({"strip": "."}, "...", ".", "bad_reference"),
    ],
)
def test_exact_answer(parameters: dict[str, Any], completion: str, reference: Any, result: str) -> None:
    """The whole answer counts, never a part of it. A reference that is empty after normalisation would accept an empty answer."""
    assert results("exact_answer", parameters, {"completion": completion, "reference": reference}) == [result]


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    """So references and answers meet in one form."""
    config = Config(case_sensitive=True, strip=".!")

    assert normalise(normalise(text, config), config) == normalise(text, config)


@pytest.mark.parametrize("strip", ["", "x", "x0"], ids=["none", "x", "x0"])
def test_the_wrong_answer_for_checks_is_wrong(strip: str) -> None:
    """Even where normalising removes its ending."""
    wrong = filters.build("exact_answer", {"strip": strip}).wrong
    assert wrong is not None

    assert results("exact_answer", {"strip": strip}, {"completion": str(wrong("a")), "reference": "a"}) == ["wrong_answer"]
