"""Texts laid end to end: words, windows and hashes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from filters.coherence.page import WINDOW, Findings, lay_out, word_hashes


def test_words_lie_where_their_texts_lie() -> None:
    """An apostrophe between letters belongs to the word."""
    page = lay_out(["Don't go.", "", "Caf\u00e9 5"])
    words = [page.text[a:b] for a, b in zip(page.word_starts.tolist(), page.word_ends.tolist(), strict=True)]

    assert words == ["Don't", "go", "Caf\u00e9"]
    assert page.document[page.word_starts].tolist() == [0, 0, 2]
    assert [page.text[a:b] for a, b in zip(page.starts.tolist(), page.ends.tolist(), strict=True)] == [
        "Don't go.",
        "",
        "Caf\u00e9 5",
    ]


def test_long_paragraphs_are_cut_into_equal_windows() -> None:
    """A line that starts in lower case continues its paragraph."""
    page = lay_out(["word " * 100, "One line\nthat goes on\nThen another"])

    assert page.windows.tolist() == [-(-501 // WINDOW), 2]
    assert len(set(page.window[page.starts[0] : page.ends[0]].tolist())) == -(-501 // WINDOW)


def test_a_text_with_markup_in_several_places_is_technical() -> None:
    """One piece of code may be noise; line breaks are none."""
    page = lay_out(["Call `f` or `g` to start.", "Call `f` to\nstart\nit.", "Plain.\n\nProse.", ""])

    assert page.technical.tolist() == [True, False, False, False]


@given(st.lists(st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=8), min_size=1, max_size=5))
def test_hashes_do_not_depend_on_the_place_or_the_case(words: list[str]) -> None:
    """Equal words have equal hashes wherever they lie."""
    page = lay_out([" ".join(words), " ".join(reversed(words)).upper()])
    hashes = page.hashes(page.word_starts, page.word_ends)

    assert hashes[: len(words)].tolist() == hashes[len(words) :][::-1].tolist() == word_hashes(words).tolist()


def test_sure_findings_score_one() -> None:
    """Also if there are none."""
    assert Findings.sure([(1, 3)]).scores.tolist() == [1.0]
    assert Findings.sure([]).starts.dtype == np.int64
