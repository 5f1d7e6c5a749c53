"""Clusters of duplicates: what is kept, what is dropped, and that the order of texts does not matter."""

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.similarity.duplicates import Clusters, among, similarities, within
from filters.similarity.signatures import jaccard, signed
from helpers.prose import SHORT_TEXTS, prose, sign

THRESHOLD = 0.7


def originals_of(clusters: Clusters) -> list[int]:
    originals: list[int] = clusters.originals.tolist()
    return originals


def in_one_group(texts: list[str], ranks: list[int] | None = None, guards: list[int] | None = None) -> list[int]:
    """What each text of a group repeats."""
    rank = np.array(ranks if ranks is not None else range(len(texts)), np.int64)
    return originals_of(within(sign(*texts, guards=guards), np.zeros(len(texts), np.int64), rank, THRESHOLD))


@pytest.mark.slow
@given(st.lists(SHORT_TEXTS, max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=80)
def test_the_order_of_samples_does_not_matter(texts: list[str], rng: random.Random) -> None:
    """Only their ranks do."""
    order = list(range(len(texts)))
    rng.shuffle(order)
    plain = in_one_group(texts)
    shuffled = in_one_group([texts[row] for row in order], ranks=order)

    assert {order[row]: order[original] for row, original in enumerate(shuffled)} == dict(enumerate(plain))


@given(st.lists(SHORT_TEXTS, max_size=12))
@settings(max_examples=150)
def test_kept_texts_are_unlike_and_dropped_ones_like_what_they_name(texts: list[str]) -> None:
    """Directly, and not through a chain."""
    originals = in_one_group(texts)
    kept = sorted(set(originals))

    assert in_one_group([texts[row] for row in kept]) == list(range(len(kept)))
    signs = sign(*texts)
    for row, original in enumerate(originals):
        assert originals[original] == original
        assert signs.contents[row] == signs.contents[original] or jaccard(signs, row, original) >= THRESHOLD


@given(st.lists(SHORT_TEXTS, min_size=1, max_size=10), st.integers(0, 9))
@settings(max_examples=150)
def test_a_further_copy_removes_nothing_else(texts: list[str], number: int) -> None:
    """It only is a duplicate itself."""
    copy = texts[number % len(texts)].upper()

    assert in_one_group([*texts, copy])[:-1] == in_one_group(texts)


def test_chains_of_small_differences_do_not_merge_different_texts() -> None:
    """b is like a and c; a and c are not alike. If a is best, c stays; if b is best, both repeat it."""
    rng = random.Random(4)
    words = prose(rng, 40).split()
    a, b, c = (" ".join(words[shift : shift + 33]) for shift in (0, 4, 8))

    assert in_one_group([a, b, c], ranks=[0, 1, 2]) == [0, 0, 2]
    assert in_one_group([a, b, c], ranks=[1, 0, 2]) == [1, 1, 1]


def test_texts_with_different_guards_are_no_duplicates() -> None:
    """Even if they are equal."""
    assert in_one_group(["so it is 4", "so it is 4", "so it is 4"], guards=[1, 2, 1]) == [0, 1, 0]


def test_bands_find_what_all_pairs_find() -> None:
    """In 3,000 texts, 1,000 of which are copies with one to four words changed."""
    rng = random.Random(5)
    texts = [prose(rng, rng.randrange(20, 60)) for _ in range(2_000)]
    for row in range(1_000):
        words = texts[row].split()
        for _ in range(rng.randrange(1, 5)):
            words[rng.randrange(len(words))] = prose(rng, 1)
        texts.append(" ".join(words))
    signs, rank = sign(*texts), np.arange(len(texts))
    exact = originals_of(within(signs, np.zeros(len(texts), np.int64), rank, THRESHOLD))
    by_bands = originals_of(among(signs, rank, THRESHOLD))

    differ = sum(a != b for a, b in zip(exact, by_bands, strict=True))
    assert sum(original != row for row, original in enumerate(exact)) > 750
    assert differ <= 8


@pytest.mark.slow
def test_a_million_equal_samples_are_one() -> None:
    """A refusal that occurs a million times."""
    signs = signed(pa.repeat("As a language model I cannot answer that.", 1_000_000), np.zeros(1_000_000, np.uint64))

    assert (among(signs, np.arange(1_000_000)[::-1].copy(), THRESHOLD).originals == 999_999).all()


def test_a_bucket_of_texts_with_a_common_start_takes_linear_time() -> None:
    """20,000 texts that share half of their shingles, and none of the rest."""
    rng = random.Random(6)
    boilerplate = prose(rng, 20)
    signs = sign(*(f"{boilerplate} {prose(rng, 14)}" for _ in range(20_000)))

    clusters = among(signs, np.arange(20_000), THRESHOLD)

    assert (clusters.originals == np.arange(20_000)).mean() > 0.99


def test_no_texts_have_no_duplicates() -> None:
    """Empty arrays are searched too."""
    empty = sign()

    assert originals_of(among(empty, np.zeros(0, np.int64), THRESHOLD)) == []
    assert originals_of(within(empty, np.zeros(0, np.int64), np.zeros(0, np.int64), THRESHOLD)) == []


@pytest.mark.slow
def test_a_prompt_of_a_hundred_thousand_samples() -> None:
    """It is searched by band keys, and every duplicate is as similar as the threshold requires."""
    rng = np.random.default_rng(0)
    vocabulary = [f"w{number}" for number in range(2000)]
    roots = [rng.choice(vocabulary, 30).tolist() for _ in range(3000)]
    texts = []
    for row in range(100_000):
        words = list(roots[row % 3000])
        for index in rng.integers(0, 30, row % 4):
            words[index] = vocabulary[int(rng.integers(0, 2000))]
        texts.append(" ".join(words))
    signs, rows = signed(pa.array(texts), np.zeros(len(texts), np.uint64)), np.arange(len(texts))
    originals = within(signs, np.zeros(len(texts), np.int64), rows, THRESHOLD).originals
    repeats = np.flatnonzero(originals != rows)

    assert len(repeats) > 40_000
    assert similarities(signs, repeats, originals[repeats]).min() >= THRESHOLD
