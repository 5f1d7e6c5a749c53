"""majority: agreement among the samples of a prompt."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.answers.majority import canonical_maths, canonical_text
from helpers.filter_tables import results, verdicts
from schemas.sample import to_json


def votes(*answers: str, **parameters: Any) -> list[dict[str, Any]]:
    """Verdicts on one prompt's samples."""
    return verdicts("majority", parameters, *({"completion": answer} for answer in answers))


def test_the_majority_is_kept_and_named() -> None:
    """Answers vote in their canonical form; every detail has the vote."""
    verdicts = votes(
        "\\boxed{42}", "The answer is 42.0", "#### 1,000", "\\boxed{42}", "I do not know what it might be at all, sorry"
    )

    assert [verdict["result"] for verdict in verdicts] == ["keep", "keep", "minority_answer", "keep", "unparsed"]
    assert {to_json({k: v for k, v in verdict["detail"].items() if k != "found"}) for verdict in verdicts} == {
        '{"margin":0.5,"of":4,"pseudo_reference":"42","votes":3}'
    }
    assert [verdict["score"] for verdict in verdicts] == [0.75, 0.75, 0.25, 0.75, None]


def test_ties_small_leads_and_few_votes_are_undecided() -> None:
    """The order of the samples does not matter."""
    assert {verdict["result"] for verdict in votes("1", "2", "1", "2")} == {"no_majority"}
    assert {verdict["result"] for verdict in votes("1", "1")} == {"no_majority"}
    assert {verdict["result"] for verdict in votes("1", "1", "1", "2", "2", margin=0.3)} == {"no_majority"}
    assert [verdict["result"] for verdict in votes("2", "1", "1", "1", "2", margin=0.1)] == [
        "minority_answer",
        *["keep"] * 3,
        "minority_answer",
    ]


def test_each_prompt_votes_by_itself() -> None:
    """Two prompts may have different majorities."""
    rows = [{"prompt_id": "pq"[row % 2], "completion": "12"[row % 2]} for row in range(8)]

    assert results("majority", {}, *rows) == ["keep"] * 8


@given(st.text())
def test_canonical_forms_are_stable(text: str) -> None:
    """Any text has a form or none; a form has a form in turn."""
    canonical_maths(text)
    form = canonical_text(text)
    assert form is None or canonical_text(form) is not None


def test_whole_texts_may_vote() -> None:
    """Ignoring case and white space."""
    assert results("majority", {"answer": "text"}, *({"completion": text} for text in ("Paris", "paris ", " PARIS", "Rome"))) == [
        *["keep"] * 3,
        "minority_answer",
    ]


@pytest.mark.slow
def test_an_answer_that_may_be_the_majority_is_no_minority() -> None:
    """`50` may be meant as `50 %`, in any order of the samples; `7` is another answer."""
    answers = ["\\boxed{50\\%}"] * 3 + ["\\boxed{50}", "\\boxed{7}"]
    expected = ["keep"] * 3 + ["unverifiable", "minority_answer"]

    assert [verdict["result"] for verdict in votes(*answers)] == expected
    assert [verdict["result"] for verdict in votes(*reversed(answers))] == expected[::-1]
