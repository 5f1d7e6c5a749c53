"""Shingles, MinHash, duplicates and edit distances, against what they are by definition."""

import itertools
import random
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from filters.similarity import edits
from filters.similarity.duplicates import Clusters, among, similarities, within
from filters.similarity.signatures import Signed, estimate, jaccard, joined, signed

THRESHOLD = 0.7
WORDS = (
    "the of and a to in he have it that for they with as not on she at by this we you do but from or which one would all".split()
)
texts = st.lists(st.sampled_from(WORDS[:8]), max_size=14).map(" ".join)
anything = st.text(max_size=40)


def sign(*given_: str, guards: list[int] | None = None) -> Signed:
    return signed(pa.array(given_, pa.string()), np.array(guards or [0] * len(given_), np.uint64))


def bigrams(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return set(itertools.pairwise(words))


def prose(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) + str(rng.randrange(50)) for _ in range(words))


def found(clusters: Clusters) -> list[int]:
    return clusters.originals.tolist()


def in_one_group(given_: list[str], ranks: list[int] | None = None, guards: list[int] | None = None) -> list[int]:
    rank = np.array(ranks if ranks is not None else range(len(given_)), np.int64)
    return found(within(sign(*given_, guards=guards), np.zeros(len(given_), np.int64), rank, THRESHOLD))


# -- signatures ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(WORDS), min_size=8, max_size=40), st.lists(st.sampled_from(WORDS), min_size=8, max_size=40))
@settings(max_examples=60)
def test_similarity_is_jaccards_of_word_bigrams(one, other):
    a, b = bigrams(" ".join(one)), bigrams(" ".join(other))

    assert jaccard(sign(" ".join(one), " ".join(other)), 0, 1) == pytest.approx(len(a & b) / len(a | b))


@pytest.mark.slow
def test_short_texts_are_compared_by_four_characters():
    assert jaccard(sign("colour", "color"), 0, 1) == pytest.approx(1 / 4)  # colo | olou lour olor
    assert jaccard(sign("42", "42"), 0, 1) == 1
    assert jaccard(sign("42", "43"), 0, 1) == 0
    assert jaccard(sign("", ""), 0, 1) == 0


def test_estimates_are_within_their_standard_error():
    """Mean error 0, root mean square 0.04 at similarities round 0.75."""
    rng = random.Random(1)
    pairs = []
    for _ in range(400):
        words = prose(rng, 60).split()
        pairs += [" ".join(words), " ".join(words[:51] + prose(rng, 9).split())]
    signs = sign(*pairs)
    errors = [estimate(signs, at, at + 1) - jaccard(signs, at, at + 1) for at in range(0, 800, 2)]

    assert abs(np.mean(errors)) < 0.01
    assert 0.02 < np.std(errors) < 0.05


@pytest.mark.parametrize(
    ("one", "other"),
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
def test_form_does_not_count(one, other):
    signs = sign(one, other)

    assert signs.contents[0] == signs.contents[1]


@pytest.mark.parametrize(("one", "other"), [("x+1", "x-1"), ("ab c", "a bc"), ("a b", "ab"), ("1.5", "15"), ("\u00e9", "e")])
def test_what_counts_is_told_apart(one, other):
    signs = sign(one, other)

    assert signs.contents[0] != signs.contents[1]


def test_letters_without_spaces_between_are_words():
    japanese = "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3067\u3059\u3068\u3066\u3082\u9577\u3044"
    signs = sign(japanese, japanese + "\u306d", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01")

    assert signs.words.tolist()[:2] == [13, 14]
    assert signs.words[2] >= 8
    assert jaccard(signs, 0, 1) == pytest.approx(12 / 13)


@given(anything)
@example("\U0001f600 \U00020000\U00020001")
@example("\x00")
@settings(max_examples=100)
def test_words_are_those_of_unicode(text):
    """Runs of letters, digits and marks; a letter of a script without spaces is a word."""
    plain = unicodedata.normalize("NFKC", text).lower()
    if any(0x0E00 <= ord(c) < 0x20000 and not 0x1E00 <= ord(c) < 0x2E80 for c in plain) or any(ord(c) > 0xFFFF for c in plain):
        return  # those scripts have a test of their own
    spaced = "".join(c if unicodedata.category(c)[0] in "LNM" or c == "_" else " " for c in plain)

    assert sign(text).words[0] == len(spaced.split())


def test_signatures_do_not_depend_on_how_texts_are_cut_into_batches():
    rng = random.Random(2)
    some = [prose(rng, rng.randrange(30)) for _ in range(50)]
    whole, parts = sign(*some), joined([sign(*some[:7]), sign(*some[7:8]), sign(*some[8:])])

    for name in ("contents", "words", "bands", "sketches", "starts", "sizes", "shingles"):
        assert (getattr(whole, name) == getattr(parts, name)).all(), name


def test_slices_nulls_and_large_strings_are_read():
    some = pa.array(["zero", None, "The second", "third"])
    whole = signed(some, np.zeros(4, np.uint64))

    assert (signed(some.slice(2), np.zeros(2, np.uint64)).contents == whole.contents[2:]).all()
    assert (signed(some.cast(pa.large_string()), np.zeros(4, np.uint64)).contents == whole.contents).all()
    assert (signed(pa.chunked_array([some[:1], some[1:]]), np.zeros(4, np.uint64)).contents == whole.contents).all()


def test_a_megabyte_is_one_text():
    rng = random.Random(3)
    long = prose(rng, 150_000)
    signs = sign(long, long + " end", "a" * 1_000_000, "")

    assert jaccard(signs, 0, 1) > 0.999
    assert signs.words.tolist() == [150_000, 150_001, 1, 0]


# -- duplicates ----------------------------------------------------------------------------------------------------------


@given(st.lists(texts, max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=80)
def test_the_order_of_samples_does_not_matter(given_, rng):
    order = list(range(len(given_)))
    rng.shuffle(order)
    first = in_one_group(given_)
    shuffled = in_one_group([given_[at] for at in order], ranks=order)

    assert {order[at]: order[to] for at, to in enumerate(shuffled)} == dict(enumerate(first))


@given(st.lists(texts, max_size=12))
@settings(max_examples=150)
def test_what_is_kept_holds_no_duplicates_and_what_is_dropped_is_like_what_it_names(given_):
    originals = in_one_group(given_)
    kept = sorted(set(originals))

    assert in_one_group([given_[at] for at in kept]) == list(range(len(kept)))
    signs = sign(*given_)
    for at, to in enumerate(originals):
        assert originals[to] == to
        assert signs.contents[at] == signs.contents[to] or jaccard(signs, at, to) >= THRESHOLD


@given(st.lists(texts, min_size=1, max_size=10), st.integers(0, 9))
@settings(max_examples=150)
def test_a_further_copy_removes_nothing_else(given_, number):
    copy = given_[number % len(given_)].upper()

    assert in_one_group([*given_, copy])[:-1] == in_one_group(given_)


def test_chains_of_small_differences_do_not_merge_what_differs():
    """b is like a and c; a and c are not alike. Where a is best, c stays; where b is, both repeat it."""
    rng = random.Random(4)
    words = prose(rng, 40).split()
    a, b, c = (" ".join(words[shift : shift + 33]) for shift in (0, 4, 8))

    assert in_one_group([a, b, c], ranks=[0, 1, 2]) == [0, 0, 2]
    assert in_one_group([a, b, c], ranks=[1, 0, 2]) == [1, 1, 1]


def test_guards_keep_apart_what_reads_alike():
    assert in_one_group(["so it is 4", "so it is 4", "so it is 4"], guards=[1, 2, 1]) == [0, 1, 0]


def test_bands_find_what_all_pairs_find():
    """Of 3,000 texts with 1,000 copies of one to four words changed."""
    rng = random.Random(5)
    some = [prose(rng, rng.randrange(20, 60)) for _ in range(2_000)]
    for at in range(1_000):
        words = some[at].split()
        for _ in range(rng.randrange(1, 5)):
            words[rng.randrange(len(words))] = prose(rng, 1)
        some.append(" ".join(words))
    signs, rank = sign(*some), np.arange(len(some))
    exact, by_bands = found(within(signs, np.zeros(len(some), np.int64), rank, THRESHOLD)), found(among(signs, rank, THRESHOLD))

    differ = sum(a != b for a, b in zip(exact, by_bands, strict=True))
    assert sum(a != at for at, a in enumerate(exact)) > 750
    assert differ <= 8


@pytest.mark.slow
def test_a_million_equal_samples_are_one():
    some = signed(pa.repeat("As a language model I cannot answer that.", 1_000_000), np.zeros(1_000_000, np.uint64))

    assert (among(some, np.arange(1_000_000)[::-1].copy(), THRESHOLD).originals == 999_999).all()


def test_a_bucket_of_texts_that_only_begin_alike_costs_no_square():
    """20,000 texts that share half their shingles with each other, and each with nobody the rest."""
    rng = random.Random(6)
    boilerplate = prose(rng, 20)
    some = sign(*(f"{boilerplate} {prose(rng, 14)}" for _ in range(20_000)))

    clusters = among(some, np.arange(20_000), THRESHOLD)

    assert (clusters.originals == np.arange(20_000)).mean() > 0.99


def test_nothing_is_no_duplicate_of_anything():
    empty = sign()

    assert found(among(empty, np.zeros(0, np.int64), THRESHOLD)) == []
    assert found(within(empty, np.zeros(0, np.int64), np.zeros(0, np.int64), THRESHOLD)) == []


# -- edits ---------------------------------------------------------------------------------------------------------------


def levenshtein(one: list[str], other: list[str]) -> int:
    row = list(range(len(other) + 1))
    for line, a in enumerate(one, 1):
        diagonal, row[0] = row[0], line
        for column, b in enumerate(other, 1):
            diagonal, row[column] = row[column], min(diagonal + (a != b), row[column] + 1, row[column - 1] + 1)
    return row[-1]


words = st.lists(st.sampled_from("abcd"), max_size=14)


@given(words, words, st.integers(0, 8))
@settings(max_examples=150)
def test_distances_are_levenshteins(one, other, most):
    tokens = edits.tokens_of(pa.array([" ".join(one), " ".join(other)]))
    steps = levenshtein(one, other)

    assert edits.distance(tokens, 0, 1, most, np.empty(20, np.int32)) == min(steps, most + 1)
    assert edits.bin_difference(tokens, 0, 1) <= 2 * steps


@given(st.lists(st.tuples(words, st.booleans(), st.integers(0, 2)), max_size=12))
@settings(max_examples=100)
def test_the_nearest_is_the_nearest(samples):
    samples.sort(key=lambda one: one[2])
    said, passes = [one[0] for one in samples], np.array([one[1] for one in samples], bool)
    groups = np.array([one[2] for one in samples], np.int64)
    seekers, targets = np.flatnonzero(~passes), np.flatnonzero(passes)
    tokens = edits.tokens_of(pa.array([" ".join(one) for one in said], pa.string()))
    at, apart = edits.nearest(tokens, groups, seekers, targets, edits=3, share=0.1, common=0.5)

    for number, seeker in enumerate(seekers):
        near = []
        for target in targets[groups[targets] == groups[seeker]]:
            steps, longer = levenshtein(said[seeker], said[target]), max(len(said[seeker]), len(said[target]))
            if steps <= max(3, longer // 10) and steps <= longer / 2:
                near.append((steps, target))
        wanted = min(near, default=(-1, -1))
        assert (apart[number], at[number]) == wanted


@pytest.mark.slow
def test_a_prompt_of_a_hundred_thousand_samples():
    """Searched by band keys, and misses by exact distances: what is named is as near as is said, and no nearer one is missed."""
    rng = np.random.default_rng(0)
    vocabulary = [f"w{number}" for number in range(2000)]
    roots = [rng.choice(vocabulary, 30).tolist() for _ in range(3000)]
    said = []
    for row in range(100_000):
        one = list(roots[row % 3000])
        for at in rng.integers(0, 30, row % 4):
            one[at] = vocabulary[int(rng.integers(0, 2000))]
        said.append(" ".join(one))
    held, groups = pa.array(said), np.zeros(len(said), np.int64)
    made = signed(held, np.zeros(len(said), np.uint64))
    found = within(made, groups, np.arange(len(said)), 0.7)
    repeats = np.flatnonzero(found.originals != np.arange(len(said)))
    assert len(repeats) > 40_000
    assert similarities(made, repeats, found.originals[repeats]).min() >= 0.7

    right = rng.random(len(said)) < 0.3
    seekers, targets = np.flatnonzero(~right), np.flatnonzero(right)
    near, apart = edits.nearest(edits.tokens_of(held), groups, seekers, targets, edits=3, share=0.1, common=0.5)
    for at in rng.integers(0, len(seekers), 20).tolist():
        one = said[seekers[at]].split()
        same_root = targets[targets % 3000 == seekers[at] % 3000]
        best = min((levenshtein(one, said[other].split()) for other in same_root), default=99)
        assert (near[at] >= 0) == (best <= 3)
        assert near[at] < 0 or apart[at] == best
