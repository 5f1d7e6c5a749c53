"""The rules that know no language, each by itself."""

from filters.coherence.language_free import cut_words, foreign_script, loops, mojibake
from filters.coherence.model import english
from filters.coherence.page import Findings, Page, lay_out
from filters.coherence.words import words_of


def spans(page: Page, findings: Findings) -> list[str]:
    return [page.text[a:b] for a, b in zip(findings.starts.tolist(), findings.ends.tolist(), strict=True)]


def test_mojibake_is_utf8_read_as_another_encoding() -> None:
    """And U+FFFD; a single accented letter is not."""
    page = lay_out(["a caf\u00c3\u00a9", "a caf\u00e9", "a \ufffd"])

    assert spans(page, mojibake(page)) == ["\ufffd", "\u00c3\u00a9"]


def test_another_script_in_latin_text_is_foreign() -> None:
    """Unless it is quoted, or Greek of fewer than three letters."""
    rest = "is one of the words that we have seen in the text of the book"
    word = "\u0441\u043b\u043e\u0432\u043e"
    page = lay_out([f"So {word} {rest}", f'So "{word}" {rest}', f"So \u03b1\u03b2 {rest}"])

    assert spans(page, foreign_script(page)) == [word]


def test_loops_repeat_every_word() -> None:
    """A list whose items start alike is not a loop; repeated letters are."""
    page = lay_out(["go home now " * 4, "the first of it, the second of it, the third of it, the fourth of it", "ha" * 12])

    found = spans(page, loops(page))
    assert found[0] == ("go home now " * 4).strip()
    assert found[-1] == "ha" * 12
    assert not any("second" in span for span in found)


def test_a_text_that_stops_inside_a_word_is_cut() -> None:
    """If it has twenty words and the last is not a word."""
    text = "We can see that the answer is what we have said of it because the sum of both is even and so we "
    page = lay_out([text + "conside", text + "consider", "So we conside"])
    words, _ = words_of(page, english())

    assert spans(page, cut_words(page, english(), words)) == ["conside"]
