"""Views for preference training, written by whole runs."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.own_samples import ANSWERS, Rows, related_samples, view_rows
from helpers.runs import filter_rows


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Filter rows by a recipe, changed by keywords; returns the run's directory."""

    def filtered(rows: Rows, name: str = "run", **recipe: Any) -> Path:
        return filter_rows(tmp_path, rows, recipe, name)

    return filtered


def test_pairs_are_a_near_miss_against_its_nearest_hit(run: Callable[..., Path]) -> None:
    done = run(related_samples())
    rollouts = {row["sample_id"]: row for row in view_rows(done, "rollouts")}
    pairs = view_rows(done, "preference")

    assert len(pairs) == 12
    for pair in pairs:
        chosen, rejected = rollouts[pair["chosen_id"]], rollouts[pair["rejected_id"]]
        assert (chosen["kind"], rejected["kind"], rejected["nearest"]) == ("hit", "near_miss", pair["chosen_id"])
        assert (pair["chosen"], pair["rejected"]) == (chosen["completion"], rejected["completion"])
        assert pair["prompt"] == chosen["prompt"]
        assert pair["reason"] == "wrong_answer"


@pytest.mark.slow
def test_pairs_are_few_and_the_nearest_first(run: Callable[..., Path]) -> None:
    """No text twice, no more pairs than asked for, and none of very different lengths."""
    right = ANSWERS[0].format(a=1, b=2, c=3)
    off = [right.replace("A: 3", "A: 4"), right.replace("the tens", "these tens").replace("A: 3", "A: 5")]
    wrong = [off[0], *off, right.replace("A: 3", "A: 6") + " " + "x" * 200]
    rows = [{"prompt": "1+2?", "reference": "3", "completion": text} for text in (right, *wrong)]

    assert [pair["rejected"][0]["content"] for pair in view_rows(run(rows), "preference")] == [wrong[0], wrong[2]]
    few = run(rows, "few", dataset={"preference": {"pairs_per_prompt": 1}})
    assert [pair["rejected"][0]["content"] for pair in view_rows(few, "preference")] == [wrong[0]]
    long = run(rows, "long", dataset={"preference": {"length_ratio": 9}})
    assert len(view_rows(long, "preference")) == 3


def test_pairs_that_differ_in_form_only_are_asked_for(run: Callable[..., Path]) -> None:
    rows = [{"prompt": "yes?", "reference": "Yes, it is so", "completion": text} for text in ("Yes, it is so", "yes it is so!")]
    by_form = {"filters": [{"name": "exact_answer"}]}

    assert view_rows(run(rows, **by_form), "rollouts")[1]["kind"] == "near_miss"
    assert len(view_rows(run(rows, "form", **by_form, dataset={"preference": {"form": True}}), "preference")) == 1
    assert not (run(rows, "none", **by_form) / "dataset" / "preference").exists()


@pytest.mark.slow
def test_near_misses_that_differ_in_a_sign_are_pairs(run: Callable[..., Path]) -> None:
    """In a sign, an operator, a comparison, a unit, an order, a date or a negation: all that tells duplicates apart."""
    pairs = [
        ("The answer is 5.", "The answer is -5."),
        ("x = a + b", "x = a - b"),
        ("if a < b:", "if a <= b:"),
        ("a == b", "a != b"),
        ("It is 3 m long.", "It is 3 km long."),
        ("First 3, then 5.", "First 5, then 3."),
        ("It came on 2024-03-05.", "It came on 2024-05-03."),
        ("5 %", "5"),
        ("It is not so.", "It is so."),
    ]
    before = "We go step by step and look at each part of it. "
    rows = [
        {"prompt": f"{number}?", "reference": before + right, "completion": before + text}
        for number, (right, wrong) in enumerate(pairs)
        for text in (right, wrong)
    ]
    views = view_rows(run(rows, filters=[{"name": "exact_answer"}]), "preference")

    assert [tuple(pair[side][0]["content"].removeprefix(before) for side in ("chosen", "rejected")) for pair in views] == pairs


def test_near_misses_that_differ_in_indentation_are_pairs(run: Callable[..., Path]) -> None:
    right, wrong = "for x in y:\n    z += x\nreturn z", "for x in y:\n    z += x\n    return z"
    rows = [{"prompt": "z?", "completion": text} for text in (right, wrong)]
    views = view_rows(run(rows, filters=[{"name": "regex", "parameters": {"pattern": r"\nreturn z"}}]), "preference")

    assert [(pair["chosen"][0]["content"], pair["rejected"][0]["content"]) for pair in views] == [(right, wrong)]


def test_unpaired_samples_have_labels_and_can_be_balanced(run: Callable[..., Path]) -> None:
    rows = view_rows(run(related_samples()), "unpaired")
    balanced = view_rows(run(related_samples(), "balanced", dataset={"unpaired": {"balance": True}}), "unpaired")

    hits, near, far = (("hit", True), 12), (("near_miss", False), 12), (("miss", False), 6)
    assert Counter((row["kind"], row["label"]) for row in rows) == dict((hits, near, far))
    assert Counter((row["kind"], row["label"]) for row in balanced) == dict((hits, near))
