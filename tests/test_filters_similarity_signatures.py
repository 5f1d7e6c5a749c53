"""Shingles, MinHash and hashes of texts, against their definitions."""

import itertools
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.similarity.signatures import estimate, jaccard, joined, ordered, signed
from helpers.prose import WORDS, prose, sign


def bigrams(text: str) -> set[tuple[str, ...]]:
    return set(itertools.pairwise(text.lower().split()))


@given(st.lists(st.sampled_from(WORDS), min_size=8, max_size=40), st.lists(st.sampled_from(WORDS), min_size=8, max_size=40))
@settings(max_examples=60)
def test_similarity_is_jaccards_of_word_bigrams(first: list[str], second: list[str]) -> None:
    """Shared bigrams by all bigrams."""
    a, b = bigrams(" ".join(first)), bigrams(" ".join(second))

    assert jaccard(sign(" ".join(first), " ".join(second)), 0, 1) == pytest.approx(len(a & b) / len(a | b))


@pytest.mark.slow
def test_short_texts_are_compared_by_four_characters() -> None:
    """A shorter text is a single run of characters."""
    assert jaccard(sign("colour", "color"), 0, 1) == pytest.approx(1 / 4)  # colo | olou lour olor
    assert jaccard(sign("42", "42"), 0, 1) == 1
    assert jaccard(sign("42", "43"), 0, 1) == 0
    assert jaccard(sign("", ""), 0, 1) == 0


def test_estimates_are_within_their_standard_error() -> None:
    """Mean error 0, root mean square 0.04 at similarities round 0.75."""
    rng = random.Random(1)
    pairs = []
    for _ in range(400):
        words = prose(rng, 60).split()
        pairs += [" ".join(words), " ".join(words[:51] + prose(rng, 9).split())]
    signs = sign(*pairs)
    errors = [estimate(signs, row, row + 1) - jaccard(signs, row, row + 1) for row in range(0, 800, 2)]

    assert abs(np.mean(errors)) < 0.01
    assert 0.02 < np.std(errors) < 0.05


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("The CAT", "the cat"),
        ("a  b\n\tc", "a b c"),
        ("\uff34\uff48\uff45 \uff11\uff12", "the 12"),
        ("cafe\u0301", "caf\u00e9"),
        ("STRASSE \u00c9T\u00c9", "strasse \u00e9t\u00e9"),
        ("\u0421\u041b\u041e\u0412\u041e", "\u0441\u043b\u043e\u0432\u043e"),
        ("\ufb01ne", "fine"),
    ],
)
def test_form_does_not_count(first: str, second: str) -> None:
    """Case, white space and compatibility forms."""
    signs = sign(first, second)

    assert signs.contents[0] == signs.contents[1]


@pytest.mark.parametrize(("first", "second"), [("x+1", "x-1"), ("ab c", "a bc"), ("a b", "ab"), ("1.5", "15"), ("\u00e9", "e")])
def test_signs_words_and_accents_count(first: str, second: str) -> None:
    """Texts that differ in them have different hashes."""
    signs = sign(first, second)

    assert signs.contents[0] != signs.contents[1]


def test_letters_without_spaces_between_are_words() -> None:
    """Of Japanese, Chinese and Thai."""
    japanese = "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3067\u3059\u3068\u3066\u3082\u9577\u3044"
    signs = sign(japanese, japanese + "\u306d", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01")

    assert signs.words.tolist()[:2] == [13, 14]
    assert signs.words[2] >= 8
    assert jaccard(signs, 0, 1) == pytest.approx(12 / 13)


def test_signatures_do_not_depend_on_how_texts_are_cut_into_batches() -> None:
    """Joined parts equal the whole."""
    rng = random.Random(2)
    texts = [prose(rng, rng.randrange(30)) for _ in range(50)]
    whole, parts = sign(*texts), joined([sign(*texts[:7]), sign(*texts[7:8]), sign(*texts[8:])])

    for name in ("contents", "words", "bands", "sketches", "starts", "sizes", "shingles"):
        assert (getattr(whole, name) == getattr(parts, name)).all(), name


def test_slices_nulls_and_large_strings_are_read() -> None:
    """Like the texts of a plain array."""
    texts = pa.array(["zero", None, "The second", "third"])
    whole = signed(texts, np.zeros(4, np.uint64))

    assert (signed(texts.slice(2), np.zeros(2, np.uint64)).contents == whole.contents[2:]).all()
    assert (signed(texts.cast(pa.large_string()), np.zeros(4, np.uint64)).contents == whole.contents).all()
    assert (signed(pa.chunked_array([texts[:1], texts[1:]]), np.zeros(4, np.uint64)).contents == whole.contents).all()
    assert (whole.take(np.array([3, 0])).contents == whole.contents[[3, 0]]).all()


def test_ordered_shingles_are_distinct() -> None:
    """Each distinct shingle once, in ascending order."""
    signs = sign("a b a b a b a b a b", "the of and a to in he have it")
    ordered(signs)

    assert signs.sizes.tolist() == [2, 8]
    assert signs.ordered.all()


def test_a_megabyte_is_one_text() -> None:
    """Long texts have no limit."""
    rng = random.Random(3)
    long = prose(rng, 150_000)
    signs = sign(long, long + " end", "a" * 1_000_000, "")

    assert jaccard(signs, 0, 1) > 0.999
    assert signs.words.tolist() == [150_000, 150_001, 1, 0]
