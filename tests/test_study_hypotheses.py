"""Verdicts where the truth is known."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from helpers import known
from helpers.studies import CHANGED, measures_of, simulated_measures
from thresher.study.bootstrap import FamilySample, spearman
from thresher.study.hypotheses import FEWEST, bimodal, hypotheses, valley_and_narrow
from thresher.study.measures import Measures
from thresher.study.results import Study, results


def verdicts(study: Study) -> dict[str, str]:
    return {hypothesis.name: hypothesis.verdict for hypothesis in study.hypotheses}


def test_true_hypotheses_are_supported_and_false_ones_refuted() -> None:
    best_at_1 = results(simulated_measures(60, 1, rate=lambda temperature: 0.5 if temperature == 1 else 0.2, near=0.6))
    assert verdicts(best_at_1) == {
        "bimodal": "supported", "valley": "supported", "narrow": "open", "rewording": "supported", "yield": "supported",
    }  # fmt: skip
    best_when_cool = results(
        simulated_measures(60, 2, rate=lambda temperature: 0.5 if temperature == 0.3 else 0.2, near=0.02, moved="against")
    )
    assert verdicts(best_when_cool) == {
        "bimodal": "supported", "valley": "refuted", "narrow": "open", "rewording": "refuted", "yield": "refuted",
    }  # fmt: skip
    assert best_when_cool.recommended["sampling.temperature"] == 0.3
    assert best_when_cool.recommended["sampling.calibration.expect"] == "declared"
    most_yield = next(hypothesis for hypothesis in best_when_cool.hypotheses if hypothesis.name == "yield")
    assert most_yield.statistic.endswith("at 1 - the same at 0.3")
    assert "better than 1: 0.3" in most_yield.remark
    assert known(most_yield.interval)[1] < 0
    assert most_yield.level == pytest.approx(1 - 0.05 / 2)


@pytest.mark.slow
def test_hypotheses_are_seldom_judged_if_temperature_has_no_effect() -> None:
    """Of 80 studies without an effect, at most 10 support or refute a hypothesis (4 are expected to)."""
    judged: Counter[str] = Counter()
    for seed in range(80):
        generator = np.random.default_rng(seed)
        flat = generator.multinomial(16, [1 / 3] * 3, size=(30, 4)).astype(float)
        model = replace(simulated_measures(30, seed, rate=lambda _: 0.3, moved="chance"), thirds=flat)
        sample = FamilySample(model, "one", np.arange(30), seed)
        judged.update(hypothesis.name for hypothesis in hypotheses(sample) if hypothesis.verdict != "open")
    assert max(judged.values(), default=0) <= 10, judged


def near_by_prompt(seed: int, prompts: int, *, correlated: bool) -> Measures:
    """Departing draws are near misses with a chance of their prompt's own, the same at every temperature. If `correlated`,
    prompts that depart at low temperature have smaller chances, so that pooled shares differ between temperatures."""
    generator = np.random.default_rng(seed)
    temperatures, draws = (0.0, 0.1, 0.2, 0.4, 1.0, 1.5), 16
    chance = generator.beta(0.5, 1.0, prompts)
    near = np.sort(generator.beta(0.3, 1.2, prompts))
    near = near[::-1][np.argsort(np.argsort(chance))] if correlated else generator.permutation(near)
    counts = {name: np.zeros((prompts, len(temperatures))) for name in ("departed", "departed_judged", "departed_near", "passed")}
    for t, temperature in enumerate(temperatures[1:], start=1):
        departed = generator.binomial(draws, np.clip(chance ** (1 / temperature), 0, 1))
        counts["departed"][:, t] = counts["departed_judged"][:, t] = departed
        counts["departed_near"][:, t] = generator.binomial(departed, near)
    counts["passed"][:] = 1
    return measures_of(prompts, temperatures, draws, counts=counts)


@pytest.mark.slow
@pytest.mark.parametrize("correlated", [False, True])
def test_valley_compares_within_prompts(correlated: bool) -> None:
    """Other prompts depart just above 0 than at 1, so pooled shares may differ although no prompt's own share does. Of 120 such
    studies at most 13 support or refute the hypothesis (6 are expected to)."""
    verdict, pooled = Counter[str](), []
    for seed in range(120):
        model = near_by_prompt(seed, 80, correlated=correlated)
        sample = FamilySample(model, "one", np.arange(80), seed)
        verdict.update([valley_and_narrow(sample)[0].verdict])
        near, departed = (model.counts[name] for name in ("departed_near", "departed_judged"))
        pooled.append(near[:, 1:4].sum() / departed[:, 1:4].sum() - near[:, 4].sum() / departed[:, 4].sum())
    assert verdict["open"] >= 107, verdict
    assert (np.mean(pooled) < -0.02) == correlated


def test_valley_is_mantel_and_haenszels_difference() -> None:
    """It is computed prompt by prompt here."""
    model = near_by_prompt(1, 40, correlated=True)
    valley = valley_and_narrow(FamilySample(model, "one", np.arange(40), 1))[0]
    numerator = denominator = 0.0
    for near, departed in zip(model.counts["departed_near"], model.counts["departed_judged"], strict=True):
        n, m = departed[1:4].sum(), departed[4]
        if n and m:
            numerator += n * m / (n + m) * (near[1:4].sum() / n - near[4] / m)
            denominator += n * m / (n + m)
    assert valley.value == pytest.approx(numerator / denominator)


def test_one_departing_draw_leaves_a_hypothesis_open() -> None:
    """One prompt contributes, however many prompts depart at 1."""
    counts = {name: np.zeros((30, 4)) for name in ("departed", "departed_judged", "departed_near", "departed_passed", "passed")}
    counts["departed"][:, 2] = counts["departed_judged"][:, 2] = 10
    counts["departed_near"][:, 2], counts["passed"][:] = 2, 1
    for name in ("departed", "departed_judged", "departed_near"):
        counts[name][0, 1] = 1
    by_name = {hypothesis.name: hypothesis for hypothesis in results(measures_of(30, counts=counts)).hypotheses}
    assert {by_name[name].verdict for name in ("valley", "narrow")} == {"open"}
    assert "1 prompts with 1 departing draws" in by_name["valley"].remark


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [((0.45, 0.1, 0.45), "supported"), ((0.1, 0.1, 0.8), "open"), ((0.2, 0.6, 0.2), "refuted"), ((0.02, 0.18, 0.8), "refuted")],
    ids=["two peaks", "one peak and a flat rest", "one peak in the middle", "one peak that falls off"],
)
def test_bimodal_wants_two_peaks(shares: tuple[float, ...], verdict: str) -> None:
    thirds = np.random.default_rng(5).multinomial(24, shares, size=(40, 4)).astype(float)
    assert bimodal(FamilySample(measures_of(40, thirds=thirds), "one", np.arange(40), 0)).verdict == verdict


def test_rewording_ignores_differences_between_families() -> None:
    """One family departs and moves more than the other; within each family the two are independent."""
    generator = np.random.default_rng(6)
    easy = np.repeat([0.1, 0.9], 40)
    counts = {"departed": np.repeat(generator.binomial(16, easy)[:, None], 4, axis=1).astype(float)}
    departed = generator.binomial(1, easy[:, None], (80, 8)).astype(float)
    model = measures_of(
        80, counts=counts, changed=dict.fromkeys(CHANGED, departed),
        families=np.repeat(["cold", "hot"], 40),
    )  # fmt: skip
    rewordings = [hypothesis for hypothesis in results(model).hypotheses if hypothesis.name == "rewording"]
    assert [hypothesis.verdict for hypothesis in rewordings if hypothesis.family == "all"] == ["open"]
    assert spearman(departed.mean(axis=1), counts["departed"][:, 1]) > 0.6


def test_too_few_prompts_are_not_judged() -> None:
    few = simulated_measures(FEWEST - 1, 1, rate=lambda temperature: 0.9 if temperature == 1 else 0.0, near=0.9)
    assert set(verdicts(results(few)).values()) == {"open"}
    rows = results(simulated_measures(1, 1, rate=lambda _: 0.5)).temperatures
    assert [(row.prompts, row.failure.interval) for row in rows] == [(1, None)] * 4
