"""The estimators of a shard's measures, against other ways to compute them."""

import itertools
import math

import numpy as np
import pytest

from thresher.study.shard_measures import THIRDS, chao_shen, expected_share, similarity_thirds


def test_entropy_is_chao_and_shens() -> None:
    """It equals their formula in a loop, and is closer to the truth than the entropy of the observed shares."""

    def by_hand(counts: list[int]) -> float:
        n, singles = sum(counts), sum(count == 1 for count in counts)
        singles = n - 1 if singles == n else singles
        coverage = 1 - singles / n if n > 1 else 1.0
        shares = [coverage * count / n for count in counts]
        return -sum(p * math.log(p) / (1 - (1 - p) ** n) for p in shares if p < 1)

    shares = 1 / np.arange(1, 41)
    shares /= shares.sum()
    truth, generator = float(-(shares * np.log(shares)).sum()), np.random.default_rng(1)
    plain, estimates = [], []
    for _ in range(400):
        counts = generator.multinomial(24, shares)
        counts = counts[counts > 0]
        (estimate,) = chao_shen(counts, np.zeros(len(counts), int), 1)
        assert estimate == pytest.approx(by_hand(counts.tolist()))
        estimates.append(estimate)
        plain.append(float(-(counts / 24 * np.log(counts / 24)).sum()))
    assert abs(np.mean(estimates) - truth) < 0.35 * abs(np.mean(plain) - truth)
    cells = chao_shen(np.array([3, 1, 5]), np.array([0, 0, 2]), 4)
    assert cells.tolist() == pytest.approx([by_hand([3, 1]), 0, 0, 0])


def test_solutions_of_fewer_draws_are_what_subsets_have() -> None:
    """They equal the mean over all subsets of k of 7 draws, of which 3 gave solution 0, 2 gave solution 1, and 2 were wrong."""
    draws = [0, 0, 0, 1, 1, None, None]
    for k in range(1, 8):
        subsets = [len(set(subset) - {None}) for subset in itertools.combinations(draws, k)]
        chances = expected_share(np.array([7, 7]), np.array([3, 2]), np.array([k, k]))
        assert chances.sum() == pytest.approx(np.mean(subsets))


def test_thirds_are_equal_if_every_number_of_edits_is_equally_likely() -> None:
    """Answers of 4 or 7 words have 5 or 8 possible similarities, which do not split evenly into three."""
    for words in (4, 5, 7, 20):
        edits = np.arange(words + 1)
        masses = similarity_thirds(edits, np.full(words + 1, words))
        assert masses.sum(axis=1) == pytest.approx(np.ones(words + 1))
        assert masses.sum(axis=0) == pytest.approx(np.full(THIRDS, (words + 1) / 3))
    assert similarity_thirds(np.array([0, 4]), np.array([4, 4])) == pytest.approx(np.array([[0, 0, 1], [1, 0, 0]]))
