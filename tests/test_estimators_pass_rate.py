"""The adaptive budget: its schedule, when a prompt stops, and that pass rates are unbiased although prompts stop."""

import itertools
from typing import Any

import numpy as np
import pytest

from helpers import known
from schemas.sampling import Sampling
from thresher.estimators import pass_rate

BUDGETS = [
    {"target_hits": 3, "max_samples_per_prompt": 64},
    {"target_hits": 2, "max_samples_per_prompt": 64, "give_up_below": 0.1},
    {"target_hits": 1, "max_samples_per_prompt": 32, "give_up_below": 0.2},
]


def adaptive(**changes: Any) -> Sampling:
    return Sampling(samples_per_prompt=4, **changes)


def drawn(sampling: Sampling, rate: float, random: np.random.Generator, texts: int = 5) -> tuple[float, float, int]:
    """Draw a prompt whose right answers are `texts` texts of unequal frequency; return estimate, plain share and draws."""
    weight = 1 / np.arange(1, texts + 1) if texts < 100 else np.ones(texts)
    passed = random.random(sampling.most) < rate
    which = random.choice(texts, sampling.most, p=weight / weight.sum())
    first = np.zeros(sampling.most, bool)
    first[[np.flatnonzero(passed & (which == t))[0] for t in range(texts) if (passed & (which == t)).any()]] = True
    total: int | None = sampling.samples_per_prompt
    while total is not None:
        n = total
        total = pass_rate.next_total(sampling, n, n, int(passed[:n].sum()), int(first[:n].sum()))
    estimate = pass_rate.pass_rate(sampling, passed[:n], first[:n])
    assert estimate is not None
    return estimate, float(passed[:n].mean()), n


@pytest.mark.parametrize("rate", [0.05, 0.3])
@pytest.mark.parametrize("changes", BUDGETS, ids=["target", "give_up", "one_hit"])
def test_pass_rates_are_unbiased_under_the_stopping_rule(rate: float, changes: dict[str, Any]) -> None:
    """Within four standard errors, although right answers repeat. The plain share is off by more, except in the mildest cases."""
    sampling, random = adaptive(**changes), np.random.default_rng(7)
    results = np.array([drawn(sampling, rate, random) for _ in range(1200)])
    error = results.std(axis=0) / np.sqrt(len(results))

    assert abs(results[:, 0].mean() - rate) < 4 * error[0]
    if rate > 0.1 and known(sampling.target_hits) > 1:
        assert results[:, 1].mean() - rate > 4 * error[1]


def test_where_all_hits_are_distinct_it_is_haldanes_estimator() -> None:
    """(r - 1) / (T - 1), with T the draw of the r-th hit; later draws of the wave do not count."""
    sampling = adaptive(target_hits=3, max_samples_per_prompt=64)
    passed = np.array([0, 1, 0, 0, 1, 0, 1, 1, 1], bool)

    assert pass_rate.pass_rate(sampling, passed, passed) == pytest.approx(2 / 6)


def test_a_fixed_number_of_samples_has_the_plain_share() -> None:
    """Without judged draws there is no pass rate."""
    passed = np.array([1, 0, 0, 1], bool)

    assert pass_rate.pass_rate(Sampling(), passed, passed) == 0.5
    assert pass_rate.pass_rate(Sampling(), passed[:0], passed[:0]) is None


def test_waves_grow_by_half_up_to_the_maximum() -> None:
    sampling = Sampling(samples_per_prompt=16, target_hits=4, max_samples_per_prompt=100)

    assert pass_rate.schedule(sampling) == (16, 24, 36, 54, 81, 100)
    assert pass_rate.schedule(Sampling(samples_per_prompt=16)) == (16,)


def test_a_prompt_stops_at_its_target_its_maximum_or_without_hope() -> None:
    sampling = Sampling(samples_per_prompt=16, target_hits=4, max_samples_per_prompt=1000, give_up_below=0.02)

    assert pass_rate.next_total(sampling, 16, 16, 9, 3) == 24
    assert pass_rate.next_total(sampling, 16, 16, 9, 4) is None
    assert pass_rate.next_total(sampling, 1000, 1000, 9, 3) is None
    assert pass_rate.next_total(sampling, 81, 81, 0, 0) == 121
    assert pass_rate.next_total(sampling, 121, 121, 0, 0) is None
    assert pass_rate.next_total(sampling, 121, 121, 1, 1) == 181


def test_patience_is_that_of_the_beta_posterior() -> None:
    """Against draws from the posterior: with the fewest draws P(rate > bound) is below 5 %, with one fewer it is not."""
    for rate in (0.005, 0.05, 0.3):
        sampling = adaptive(target_hits=1, max_samples_per_prompt=64, give_up_below=rate)
        n = next(decided for decided in itertools.count(1) if pass_rate.hopeless(sampling, decided, 0))
        random = np.random.default_rng(1)
        tail = [(random.beta(0.5, m + 0.5, 400_000) > rate).mean() for m in (n - 1, n)]
        assert tail[0] > 0.0485
        assert tail[1] < 0.0515


@pytest.mark.slow
def test_expected_draws_agree_with_simulation() -> None:
    """If every right answer is a new hit."""
    sampling, random = adaptive(target_hits=2, max_samples_per_prompt=64, give_up_below=0.1), np.random.default_rng(3)
    draws = [drawn(sampling, 0.1, random, texts=400)[2] for _ in range(800)]

    assert pass_rate.expected_draws(sampling, [0.1]) == pytest.approx(np.mean(draws), rel=0.08)
