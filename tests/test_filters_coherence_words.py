"""The words of a page, and words that no list contains."""

from filters.coherence.model import english
from filters.coherence.page import Findings, Page, lay_out
from filters.coherence.words import unknown_words, words_of


def spans(page: Page, findings: Findings) -> list[str]:
    return [page.text[a:b] for a, b in zip(findings.starts.tolist(), findings.ends.tolist(), strict=True)]


def test_a_window_with_enough_function_words_is_prose() -> None:
    """Other languages are not; a possessive ending is not part of a word."""
    page = lay_out(["We read the reader's book in the evening.", "Die Bibliothek schlie\u00dft erst sehr sp\u00e4t am Abend."])
    words, prose = words_of(page, english())

    assert prose[page.window[page.starts]].tolist() == [True, False]
    assert page.text[page.word_starts[3] : words.ends[3]] == "reader"


def test_unknown_words_are_found_once_per_text() -> None:
    """A word that a text repeats is a name; a known word with a usual ending is known."""
    text = "We can see that the answer is xqzvkjwp because the sum of both is renumbered and the theanswer is even."
    page = lay_out([text, "The zorblax and the zorblax are what we have seen of it in the end."])
    words, _ = words_of(page, english())
    found = unknown_words(page, english(), words)

    assert "xqzvkjwp" in spans(page, found["letters"])
    assert "renumbered" not in spans(page, found["letters"])
    assert "zorblax" not in spans(page, found["letters"])
    assert spans(page, found["glued"]) == ["theanswer"]
