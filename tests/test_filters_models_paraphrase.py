"""Answers in other words: the same value, and nothing that is not surely the same."""

import pytest

from filters.models.paraphrase import differ, in_other_notation, in_sentences, value_of


@pytest.mark.parametrize(
    ("answer", "written"),
    [
        ("42", ["forty-two", "42.0"]),
        ("-7", ["minus seven", "-7.0"]),
        ("0.5", ["zero point five", "1/2"]),
        ("1/2", ["zero point five", "0.5"]),
        ("1/3", []),
        ("2/6", ["1/3"]),
        ("1984", ["one thousand nine hundred and eighty-four"]),
        ("-1984", ["minus one thousand nine hundred and eighty-four", "-1984.0"]),
        ("23456", ["twenty-three thousand four hundred and fifty-six", "23456.0", "23,456"]),
        ("12,345", ["twelve thousand three hundred and forty-five", "12345.0", "12345"]),
        ("$5", ["five dollars"]),
        ("50%", ["fifty percent", "50/100"]),
        ("12 cm", ["twelve centimetres", "120 mm"]),
        ("1.5 hours", ["one point five hours", "90 minutes"]),
        ("Lima", []),
        ("3 apples", []),
        ("2/0", []),
        ("02139", []),
        ("007", []),
        ("0110", []),
        ("1011", []),
        ("5.10", []),
        ("05 cm", []),
        ("5.0%", []),
    ],
)
def test_numbers_and_measures_are_written_in_other_notations(answer: str, written: list[str]) -> None:
    """Text, units that are not known, and figures that may be codes, bits or rounded have none."""
    assert in_other_notation(answer) == written


@pytest.mark.parametrize("answer", ["42", "-7", "1.25", "3/4", "999999", "1,000", "0.0001"])
def test_other_notations_have_the_same_value(answer: str) -> None:
    """Those in figures; words are checked above."""
    values = {value_of(form) for form in in_other_notation(answer) if form[-1].isdigit()}

    assert values == {value_of(answer)}


def test_short_answers_are_put_into_sentences() -> None:
    """With the answer first or last; a long one, or one of several lines, has none."""
    written = in_sentences("Lima.")

    assert {"The answer is Lima.", "Lima is the answer."} < set(written)
    assert in_sentences("x" * 81) == in_sentences("first\nsecond") == in_sentences(" ") == []


@pytest.mark.parametrize(
    ("first", "second", "apart"),
    [
        ("42", "43", True),
        ("1/2", "0.50", False),
        ("4", "42", True),
        ("Paris", "Rome", True),
        ("Paris", "paris, France", False),
        ("!", "?", False),
        ("42", "forty", True),
    ],
)
def test_only_answers_of_different_value_differ(first: str, second: str, apart: bool) -> None:
    assert differ(first, second) is differ(second, first) is apart
