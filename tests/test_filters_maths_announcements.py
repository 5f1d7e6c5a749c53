"""Announcements of an answer: headings, sentences and other languages, in linear time."""

import time

import pytest

from filters.maths.announcements import MARKER, first_mark


@pytest.mark.parametrize(
    "text",
    [
        "The answer is 12",
        "ANSWER: 12",
        "ans: 12",
        "#### 12",
        "### 4. Final Answer\n12",
        "__Answer:__ 12",
        "The correct option is 12",
        "答案是12",
        "答\uff1a12",
        "정답은 12",
        "उत्तर: 12",
        "الجواب هو 12",
        "Ответ: 12",
        "Die Antwort lautet 12",
        "La réponse est donc 12",
        "La respuesta final es 12",
        "Đáp án: 12",
    ],
)
def test_the_answer_stands_after_the_marker(text: str) -> None:
    found = MARKER.search(text)

    assert first_mark(text.lower()) == 0
    assert found is not None
    assert text[found.end() :].strip() == "12"


@pytest.mark.parametrize("text", ["The answers are short.", "An optional choice of words", "The answer may be 12"])
def test_other_sentences_announce_nothing(text: str) -> None:
    assert MARKER.search(text) is None


def test_long_space_costs_no_more_than_its_length() -> None:
    start = time.process_time()

    assert MARKER.search("answer" + " " * 60_000) is None
    assert time.process_time() - start < 0.5
