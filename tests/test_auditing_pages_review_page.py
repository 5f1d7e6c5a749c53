"""Samples for a review by hand are chosen from all strata, and marks are kept."""

from pathlib import Path

import pytest

from helpers.small_run import Plan, small_run
from thresher.auditing.pages.review_page import review_page, write_review
from thresher.auditing.review import ReviewLine, read_review
from thresher.errors import AuditError

PLAN: Plan = [("sums", ["right", "right", "wrong", "wrong"], "right")] * 5 + [("words", ["right", "wrong"], None)] * 5


def test_both_halves_take_from_every_stratum(tmp_path: Path) -> None:
    run = small_run(tmp_path, PLAN)

    assert write_review(run, 8) == f"{run.root}/review.html"

    strata = [(line.verdict, line.stratum) for line in read_review(run.store)]
    assert len(strata) == 8
    assert {stratum: strata.count(stratum) for stratum in strata} == {
        ("passed", "sums"): 2,
        ("passed", "words"): 2,
        ("dropped", "sums / answer / wrong_answer"): 2,
        ("dropped", "words / answer / wrong_answer"): 2,
    }


def test_marks_are_kept_when_more_samples_are_chosen(tmp_path: Path) -> None:
    run = small_run(tmp_path, PLAN)
    write_review(run, 4)
    marked = [line.model_copy(update={"mark": "right"}) for line in read_review(run.store)]
    run.store.write_bytes("review.jsonl", "".join(line.model_dump_json() + "\n" for line in marked).encode())

    write_review(run, 8)

    marks = {line.sample_id: line.mark for line in read_review(run.store)}
    assert {sample_id for sample_id, mark in marks.items() if mark} == {line.sample_id for line in marked}
    assert len(marks) == 8


def test_a_review_needs_judged_samples(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="nothing was judged right or wrong yet"):
        write_review(small_run(tmp_path, [("sums", ["open"], None)]), 4)


def test_the_page_has_no_markup_of_the_samples() -> None:
    line = ReviewLine(
        sample_id="s",
        verdict="passed",
        stratum="sums",
        stands_for=1,
        prompt="</script><b>",
        completion="<img src=x>",
        reference=None,
        detail=None,
    )

    page = review_page("runs/small", [line])

    assert "<img src=x>" not in page
    assert "\\u003cimg src=x" in page
