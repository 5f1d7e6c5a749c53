"""Canonical JSON, verdicts and their classes."""

import pytest

from schemas.sample import CLASSES, Outcome, Verdict, to_json, verdict_class


def test_json_is_canonical() -> None:
    assert to_json({"b": [1, None], "a": "é\n"}) == '{"a":"é\\n","b":[1,null]}'
    assert to_json({"a": 1, "b": 2}) == to_json({"b": 2, "a": 1})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_what_json_cannot_hold_is_an_error(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        to_json(value)


def test_only_a_kept_sample_has_no_reason() -> None:
    assert Verdict.keep(score=0.5) == Verdict(Outcome.KEEP, "", 0.5, None)
    assert Verdict.drop("too_long", found=7) == Verdict(Outcome.DROP, "too_long", None, {"found": 7})
    assert Verdict.undecided("timeout", seconds=2) == Verdict(Outcome.UNDECIDED, "timeout", None, {"seconds": 2})


@pytest.mark.parametrize(
    ("outcome", "reason", "expected"),
    [
        ("keep", "", "pass"),
        ("drop", "wrong_answer", "fail"),
        ("drop", "timeout", "fail"),
        ("undecided", "timeout", "timeout"),
        ("undecided", "filter_error", "verifier_error"),
        ("undecided", "no_reference", "unverifiable"),
        ("undecided", "pass", "unverifiable"),
    ],
)
def test_every_verdict_has_a_class(outcome: str, reason: str, expected: str) -> None:
    assert verdict_class(outcome, reason) == expected
    assert expected in CLASSES
