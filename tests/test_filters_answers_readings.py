"""Sentences and words of a text, in every reading."""

import pytest

from filters.answers.readings import decided, of_sentences, of_words, sentences, words


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("One. Two! Three?", {3}),
        ("Dr. Smith came. He left.", {2, 3}),
        ("A heading\n\nA sentence.", {1, 2}),
        ('He said "no." She left.', {2}),
        ("It costs 3.5 dollars.", {1}),
        ("Wait... what? Yes.", {2, 3}),
        ("", {0}),
    ],
)
def test_a_text_falls_into_sentences_in_several_ways(text: str, counts: set[int]) -> None:
    assert {len(reading) for reading in sentences(text)} == counts


def test_words_are_between_spaces_or_runs_of_letters() -> None:
    assert words("Don't stop, well-known!") == [["Don't", "stop", "well-known"], ["Don", "t", "stop", "well", "known"]]
    assert words("plain words") == [["plain", "words"]]


def test_what_readings_do_not_agree_on_is_undecided() -> None:
    assert decided([True, True]) is True and decided([True, False]) is None and decided([]) is None
    assert of_sentences("Dr. Smith came.", lambda parts: len(parts) == 1) is None
    assert of_words("a b", lambda found: len(found) == 2) is True


@pytest.mark.slow
def test_a_long_text_is_split_in_linear_time() -> None:
    assert {len(reading) for reading in sentences("It is so. " * 100_000)} == {100_000}
