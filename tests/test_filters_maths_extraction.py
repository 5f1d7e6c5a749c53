"""The final answer of a completion."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.maths.extraction import SCANNED_CHARS, final_answer, hedged


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("\\boxed{5", "a box that is not closed"),
        ("\\boxed{1}. Then \\boxed{2", "the last box is not closed"),
        ("\\boxed{5} or \\boxed{6}", "several boxes in one sentence"),
        ("The answer is 5.\nNo, the answer is 6.", "markers announce different answers"),
        ("\\boxed{}", "an empty answer"),
        ("We add the numbers and then divide by two as asked", "no box, no marker, and the completion is more than an answer"),
    ],
)
def test_the_reason_for_no_answer_is_named(text: str, why: str) -> None:
    """Verdicts show it."""
    assert final_answer(text)[:2] == (None, why)


def test_only_the_end_of_a_long_completion_is_read() -> None:
    """A box before that does not count."""
    assert final_answer("\\boxed{1}" + "x" * SCANNED_CHARS + "\nAnswer: 2").answer == "2"


@pytest.mark.parametrize(
    ("answer", "doubtful"), [("5 or 6", True), ("maybe 5", True), ("5?", True), ("\\or", False), ("5", False)]
)
def test_hedges_are_recognised(answer: str, doubtful: bool) -> None:
    """Words inside a command are not words."""
    assert hedged(answer) is doubtful


@given(st.text(st.sampled_from("\\boxed{}15. #answeris\n<>/"), max_size=60))
def test_a_candidate_has_no_surrounding_space(text: str) -> None:
    """Or there is no candidate and a reason."""
    candidate = final_answer(text)

    assert candidate.why if candidate.answer is None else candidate.answer == candidate.answer.strip()
