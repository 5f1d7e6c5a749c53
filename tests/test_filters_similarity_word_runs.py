"""Runs of words that texts share with items, against a plain search."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from filters.similarity.word_runs import characters_of_run, indexed, numbered, shared_runs, words_of

texts = st.lists(st.lists(st.sampled_from("abc"), max_size=9), min_size=1, max_size=4)


@given(texts, texts, st.integers(1, 4))
def test_shared_runs_are_those_that_a_plain_search_finds(searched: list[list[str]], items: list[list[str]], size: int) -> None:
    """Every pair of places, in all texts and items, and none across the end of a text."""
    vocabulary = {word: number for number, word in enumerate("ab", 1)}
    words, item_words = numbered(searched, vocabulary), numbered(items, vocabulary)
    found = {tuple(pair) for pair in shared_runs(words, indexed(item_words, size), item_words).tolist()}

    def runs(texts: list[list[str]]) -> list[tuple[int, list[int]]]:
        starts, first = [], 0
        for text in texts:
            codes = [vocabulary.get(word, 0) for word in text]
            starts += [(first + offset, codes[offset : offset + size]) for offset in range(len(text) - size + 1)]
            first += len(text)
        return starts

    assert found == {(a, b) for (a, run), (b, item_run) in product(runs(searched), runs(items)) if run == item_run}


def test_characters_of_a_run_are_those_of_its_words() -> None:
    """Where folding changes the number of words, the whole text is named."""
    text = "It is -- so they SAY -- late."

    assert text[slice(*characters_of_run(text, 2, 3))] == "so they SAY"
    assert characters_of_run("\u33a8 \u2026 x", 0, 1) in ((0, 1), (0, 5))


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_text_has_the_words_of_any_text(text: str) -> None:
    """ASCII takes a faster path to the same words; a letter outside ASCII forces the general path."""
    assert [*words_of(text), "\u00e4"] == words_of(text + " \u00e4")
