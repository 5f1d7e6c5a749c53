"""Edit distances and nearest texts, against the plain algorithm."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.similarity import edits
from helpers.prose import levenshtein

WORDS = st.lists(st.sampled_from("abcd"), max_size=14)


@given(WORDS, WORDS, st.integers(0, 8))
@settings(max_examples=150)
def test_distances_are_levenshteins(first: list[str], second: list[str], most: int) -> None:
    """Up to the largest distance that is asked for; the bins give a lower bound."""
    tokens = edits.tokens_of(pa.array([" ".join(first), " ".join(second)]))
    steps = levenshtein(first, second)

    assert edits.distance(tokens, 0, 1, most, np.empty(20, np.int32)) == min(steps, most + 1)
    assert edits.bin_difference(tokens, 0, 1) <= 2 * steps


@given(st.lists(st.tuples(WORDS, st.booleans(), st.integers(0, 2)), max_size=12))
@settings(max_examples=100)
def test_the_nearest_target_of_the_group_is_found(samples: list[tuple[list[str], bool, int]]) -> None:
    """The first of several, if it is near enough."""
    samples.sort(key=lambda sample: sample[2])
    texts, passes = [words for words, _, _ in samples], np.array([passed for _, passed, _ in samples], bool)
    groups = np.array([group for _, _, group in samples], np.int64)
    seekers, targets = np.flatnonzero(~passes), np.flatnonzero(passes)
    tokens = edits.tokens_of(pa.array([" ".join(words) for words in texts], pa.string()))
    rows, distances = edits.nearest(tokens, groups, seekers, targets, edits=3, share=0.1, common=0.5)

    for number, seeker in enumerate(seekers):
        near = []
        for target in targets[groups[targets] == groups[seeker]]:
            steps, longer = levenshtein(texts[seeker], texts[target]), max(len(texts[seeker]), len(texts[target]))
            if steps <= max(3, longer // 10) and steps <= longer / 2:
                near.append((steps, target))
        assert (distances[number], rows[number]) == min(near, default=(-1, -1))


@pytest.mark.slow
def test_a_hundred_thousand_samples_have_exact_distances() -> None:
    """The target that is found is as near as reported, and no nearer one is missed."""
    rng = np.random.default_rng(0)
    vocabulary = [f"w{number}" for number in range(2000)]
    roots = [rng.choice(vocabulary, 30).tolist() for _ in range(3000)]
    texts = []
    for row in range(100_000):
        words = list(roots[row % 3000])
        for index in rng.integers(0, 30, row % 4):
            words[index] = vocabulary[int(rng.integers(0, 2000))]
        texts.append(" ".join(words))
    groups, right = np.zeros(len(texts), np.int64), rng.random(len(texts)) < 0.3
    seekers, targets = np.flatnonzero(~right), np.flatnonzero(right)
    tokens = edits.tokens_of(pa.array(texts))
    rows, distances = edits.nearest(tokens, groups, seekers, targets, edits=3, share=0.1, common=0.5)

    for number in rng.integers(0, len(seekers), 20).tolist():
        words = texts[seekers[number]].split()
        same_root = targets[targets % 3000 == seekers[number] % 3000]
        least = min((levenshtein(words, texts[target].split()) for target in same_root), default=99)
        assert (rows[number] >= 0) == (least <= 3)
        assert rows[number] < 0 or distances[number] == least
