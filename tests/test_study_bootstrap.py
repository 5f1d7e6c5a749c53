"""Rank correlation, and intervals over prompts."""

import math
import random

import numpy as np
import pytest

from thresher.study.bootstrap import mean_over_prompts, spearman


def test_equal_values_share_their_rank() -> None:
    """Ranks are computed by counting here."""
    generator = random.Random(2)
    for _ in range(50):
        x, y = ([generator.randrange(4) for _ in range(12)] for _ in range(2))

        def ranks(values: list[int]) -> list[float]:
            return [sum(other < value for other in values) + (values.count(value) + 1) / 2 for value in values]

        if len(set(x)) > 1 and len(set(y)) > 1:
            wanted = np.corrcoef(ranks(x), ranks(y))[0, 1]
            assert spearman(np.array(x, np.float64), np.array(y, np.float64)) == pytest.approx(wanted)
    assert math.isnan(spearman(np.zeros(3), np.arange(3, dtype=np.float64)))


@pytest.mark.slow
def test_the_interval_of_a_mean_over_prompts_covers_it() -> None:
    """Of 600 intervals over 40 prompts with different rates, between 92 and 98 % contain the true mean."""
    generator = np.random.default_rng(3)
    inside = 0
    for number in range(600):
        mean = mean_over_prompts(generator.beta(0.5, 1.5, 40), seed=number)
        assert mean.interval is not None
        inside += mean.interval[0] <= 0.25 <= mean.interval[1]
    assert 0.92 < inside / 600 < 0.98
