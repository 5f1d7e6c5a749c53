"""Confidence intervals cover the truth as often as their level says, also with few prompts or a single rate."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import known
from thresher.estimators.intervals import expanded_tail, pass_rate_interval, wilson


def prompts_of(random: Any, prompts: Any, each: Any) -> Any:
    """(decided, passed) of prompts whose rates are Beta(0.5, 1.5): most are hard, and the mean rate is 0.25."""
    return Counter((each, int(passed)) for passed in random.binomial(each, random.beta(0.5, 1.5, prompts)))


@pytest.mark.parametrize("prompts", [15, 60])
def test_intervals_cover_the_true_rate_at_their_level(prompts: int) -> None:
    random = np.random.default_rng(5)
    runs = 500
    intervals = [known(pass_rate_interval(prompts_of(random, prompts, 6), run, resamples=500)) for run in range(runs)]

    covered = sum(low <= 0.25 <= high for low, high in intervals) / runs

    # Three standard errors of 500 runs are 2.9 points, and fifteen prompts so skewed cost two more.
    assert 0.90 < covered < 0.985


@pytest.mark.slow
def test_interval_equals_that_of_a_plain_bootstrap() -> None:
    random = np.random.default_rng(3)
    cells = prompts_of(random, 200, 8)
    each = np.array([pair for pair, count in cells.items() for _ in range(count)])
    drawn = each[random.integers(0, len(each), (20_000, len(each)))].sum(axis=1)
    tail = expanded_tail(200)

    plain = np.quantile(drawn[:, 1] / drawn[:, 0], [tail, 1 - tail])

    assert pass_rate_interval(cells, 1, resamples=20_000) == pytest.approx(tuple(plain), abs=0.003)


def test_prompts_of_one_rate_fall_back_to_wilson() -> None:
    assert pass_rate_interval({(4, 0): 10, (7, 0): 10, (0, 0): 99}, 1) == wilson(0.0, 20)
    assert wilson(0.0, 20) == pytest.approx((0, 0.1611), abs=1e-4)
    assert wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_no_decided_prompt_has_no_interval() -> None:
    assert pass_rate_interval({(0, 0): 3}, 1) is None
    assert pass_rate_interval({}, 1) is None


def test_expanded_tail_is_that_of_student() -> None:
    # Phi(-sqrt(10/9) * t(0.975, 9) = 2.2622) and, for very many prompts, the 2.5 % of the plain percentile interval.
    assert expanded_tail(10) == pytest.approx(0.00855, abs=2e-4)
    assert expanded_tail(10**6) == pytest.approx(0.025, abs=1e-5)


@given(st.dictionaries(st.tuples(st.integers(1, 9), st.integers(0, 9)), st.integers(1, 50), min_size=1, max_size=6))
@settings(max_examples=50)
def test_interval_lies_within_0_and_1_and_is_reproducible(cells: dict[tuple[float, float], int]) -> None:
    cells = {(decided, min(decided, passed)): count for (decided, passed), count in cells.items()}

    low, high = known(pass_rate_interval(cells, 1, resamples=100))

    assert 0 <= low <= high <= 1
    assert pass_rate_interval(dict(reversed(cells.items())), 1, resamples=100) == (low, high)
