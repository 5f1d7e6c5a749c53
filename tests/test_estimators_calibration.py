"""The test that samples are draws from the model's own distribution: its sums, how often it errs, and which faults it detects.

data/top20.npz was recorded with SmolLM2-135M-Instruct on vLLM 0.32 (CPU): the top-20 log-probabilities at 3,000 positions of
completions of 24 prompts (`logprobs`), and the sums of whole runs with and without a fault (`names`, `tokens`, `sums`).
"""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from thresher.estimators import calibration
from thresher.estimators.calibration import (
    EVENTS,
    LEAST_VARIANCE,
    TOP_K,
    Quota,
    Sums,
    Total,
    calibrations,
    empty_sums,
    from_flat,
    merged,
    sums,
    whole,
)

Array = NDArray[np.float64]

with np.load(Path(__file__).parent / "data/top20.npz") as data:
    RECORDED = {name: data[name] for name in data.files}
LISTED = np.exp(RECORDED["logprobs"].astype(np.float64))
DRAWS = np.column_stack([LISTED, np.maximum(1 - LISTED.sum(axis=1), 0)])
"""(N, 21) probabilities of the listed tokens and, last, of all others together."""
DRAWS /= DRAWS.sum(axis=1, keepdims=True)


def events(draws: Array) -> Array:
    """The probabilities of the events (N, 6) from those of the listed tokens and the rest (N, 21), which may be another
    sampler's: the recorded distribution decides to which event a token belongs."""
    listed, own = DRAWS[:, 1:-1], draws[:, 1:-1]
    bins = [
        (own * inside).sum(axis=1)
        for inside in (
            listed >= 0.2,
            (listed < 0.2) & (listed >= 0.05),
            (listed < 0.05) & (listed >= 0.01),
            listed < 0.01,
        )
    ]
    return np.column_stack([draws[:, 0], *bins, draws[:, -1]])


def z_scores(draws: Array, tokens: int, runs: int, seed: int) -> tuple[Array, Array]:
    """z of simulated runs (runs, 6) of about `tokens` tokens by a sampler that draws by `draws`, and the variances (6,). The
    tokens are spread over at most 1,000 of the recorded positions, which is faster to simulate."""
    rng = np.random.default_rng(seed)
    positions = rng.permutation(len(DRAWS))[: min(tokens, 1000)]
    times = max(1, round(tokens / len(positions)))
    own, q = events(draws)[positions], events(DRAWS)[positions]
    own /= own.sum(axis=1, keepdims=True)
    variance = times * (q * (1 - q)).sum(axis=0)
    counts = rng.multinomial(times, own, size=(runs, len(positions))).sum(axis=1)
    return (counts - times * q.sum(axis=0)) / np.sqrt(variance), variance


def alarms(z: Array, variance: Array) -> float:
    """The share of runs in which any event exceeds its bound, as the module computes it."""
    event_sums = np.column_stack([np.zeros(len(EVENTS)), np.zeros(len(EVENTS)), variance])
    bounds = [math.inf if s.bound is None else s.bound for s in calibrations({("", ""): (1, event_sums)})[0].scores]
    return float((np.abs(z) > bounds).any(axis=1).mean())


# -- the sums --------------------------------------------------------------------------------------------------------------


def slow(drawn: list[int], listed: list[list[int]], logprobs: list[list[float]]) -> list[list[float]]:
    """The sums, in plain Python."""
    total = [[0.0, 0.0, 0.0] for _ in EVENTS]
    for token, tokens, values in zip(drawn, listed, logprobs, strict=True):
        predicted, came = [0.0] * len(EVENTS), EVENTS.index("tail")
        for rank, (other, value) in enumerate(zip(tokens, values, strict=True)):
            p = math.exp(value)
            event = 0 if rank == 0 else 1 if p >= 0.2 else 2 if p >= 0.05 else 3 if p >= 0.01 else 4
            predicted[event] += p
            if other == token:
                came = event
        predicted[-1] = 1 - sum(predicted)
        for event, q in enumerate(predicted):
            total[event][0] += event == came
            total[event][1] += q
            total[event][2] += max(0.0, q * (1 - q))
    return total


@st.composite
def positions(draw: st.DrawFn) -> tuple[list[int], list[list[int]], list[list[float]]]:
    """Some tokens, each with the k likeliest of a distribution, padded to k."""
    k, drawn, listed, logprobs = draw(st.integers(1, 8)), [], [], []
    for _ in range(draw(st.integers(1, 6))):
        weights = draw(st.lists(st.floats(0.001, 1000), min_size=1, max_size=k))
        rest = draw(st.floats(0, 1000))
        values = sorted((math.log(weight / (sum(weights) + rest)) for weight in weights), reverse=True)
        padding = k - len(values)
        tokens = draw(st.permutations(range(20)))[: len(values)]
        listed.append(tokens + [-1] * padding)
        logprobs.append(values + [-math.inf] * padding)
        drawn.append(draw(st.integers(0, 20)))
    return drawn, listed, logprobs


@settings(max_examples=50)
@given(positions())
def test_sums_agree_with_plain_python(position: tuple[list[int], list[list[int]], list[list[float]]]) -> None:
    """The events are a partition, too: every token is counted once, and predicted once."""
    event_sums = sums(*map(np.array, position))

    assert event_sums == pytest.approx(np.array(slow(*position)), abs=1e-9)
    assert event_sums[:, 0].sum() == len(position[0])
    assert event_sums[:, 1].sum() == pytest.approx(len(position[0]))


def test_no_token_is_no_sum() -> None:
    """As for a request without a completion."""
    event_sums = sums(np.zeros(0, np.int32), np.zeros((0, 20), np.int32), np.zeros((0, 20)))

    assert np.array_equal(event_sums, empty_sums())


def test_padding_changes_nothing() -> None:
    """Token -1 without probability, where an engine lists fewer than k."""
    drawn, listed, logprobs = np.array([7, 8]), np.array([[7, 3], [7, 3]]), np.log([[0.5, 0.3], [0.6, 0.1]])
    padded = sums(
        drawn,
        np.pad(listed, ((0, 0), (0, 3)), constant_values=-1),
        np.pad(logprobs, ((0, 0), (0, 3)), constant_values=-math.inf),
    )

    assert np.array_equal(padded, sums(drawn, listed, logprobs))


def test_rounding_below_zero_is_kept() -> None:
    """Without a tail, float32 leaves slightly more or less than 0; clipping the negative half would be a bias."""
    logprobs = np.log(np.array([[0.75, 0.25]])) + np.array([[1e-6], [-1e-6]])
    event_sums = sums(np.array([1, 1]), np.array([[1, 2], [1, 2]]), logprobs)

    assert event_sums[-1, 1] == pytest.approx(0, abs=1e-11)
    assert (event_sums[:, 2] >= 0).all()


def test_equally_likely_tokens_are_distinguished_by_identity() -> None:
    """bfloat16 logits tie, also at rank k: an unlisted token that ties with the last listed one is outside."""
    event_sums = sums(np.array([5, 9]), np.array([[1, 5], [1, 5]]), np.log([[0.4, 0.2], [0.4, 0.2]]))

    assert event_sums[:, 0].tolist() == [0, 1, 0, 0, 0, 1]


# -- from vLLM -------------------------------------------------------------------------------------------------------------


def flat(*position: list[tuple[int, float]]) -> tuple[list[int], list[float], list[int]]:
    """token_ids, logprobs and start_indices, as in FlatLogprobs."""
    starts = [sum(map(len, position[:i])) for i in range(len(position))]
    return [token for pairs in position for token, _ in pairs], [value for pairs in position for _, value in pairs], starts


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        pytest.param([(5, -1.0), (4, -0.5), (5, -1.0), (6, -3.0)], [4, 5, 6], id="listed, so there twice"),
        pytest.param([(4, -0.5), (4, -0.5), (5, -1.0), (6, -3.0)], [4, 5, 6], id="the likeliest"),
        pytest.param([(9, -7.0), (4, -0.5), (5, -1.0), (6, -3.0)], [4, 5, 6], id="outside"),
        pytest.param([(9, -3.0), (4, -0.5), (5, -1.0), (6, -3.0)], [4, 5, 6], id="outside, tied with the last"),
        pytest.param([(5, -1.0), (4, -0.5), (6, -3.0)], [4, 5, 6], id="once a dict, so there once"),
        pytest.param([(5, -1.0), (4, -1.0), (6, -3.0)], [4, 5, 6], id="once a dict, tied for the first place"),
        pytest.param([(5, -1.0), (5, -1.0), (4, -1.0), (6, -3.0)], [4, 5, 6], id="tied for the first place"),
        pytest.param([(5, -1.0), (4, -0.5), (5, -1.0)], [4, 5, -1], id="a vocabulary of two"),
        pytest.param([(5, -1.0), (4, -0.5), (5, -1.0), (6, -math.inf)], [4, 5, 6], id="a masked token"),
        pytest.param([(5, -1.0)], [5, -1, -1], id="alone"),
    ],
)
def test_flat_logprobs_are_split_into_drawn_and_listed_tokens(position: list[tuple[int, float]], expected: list[int]) -> None:
    """The list and its order are the same whichever of its tokens was drawn."""
    values = dict(position)
    other = [(1, -0.1), (1, -0.1), (2, -4.0), (3, -5.0)]
    drawn, listed, logprobs = from_flat(flat(other, position, other), k=3)

    assert drawn.tolist() == [1, position[0][0], 1]
    assert listed.tolist() == [[1, 2, 3], expected, [1, 2, 3]]
    assert logprobs[1].tolist() == [values.get(token, -math.inf) for token in expected]


def test_lists_of_full_length_are_ranked_as_all_others_are() -> None:
    """Lists that vLLM has ranked take a shorter way, unless tokens are equally likely."""
    random = np.random.default_rng(4)
    logprobs = -np.sort(np.round(random.exponential(2.0, (300, 5)), 1), axis=1)
    listed = np.array([random.permutation(40)[:5] for _ in range(300)])
    rank = random.integers(0, 7, 300)  # 5 and 6: the drawn token is not listed
    drawn = np.where(rank < 5, listed[np.arange(300), np.minimum(rank, 4)], 99)
    own = np.where(rank < 5, logprobs[np.arange(300), np.minimum(rank, 4)], -20.0)
    tokens, values = np.column_stack([drawn, listed]).ravel(), np.column_stack([own, logprobs]).ravel()
    starts = np.arange(300) * 6
    full = from_flat((tokens.tolist(), values.tolist(), starts.tolist()), k=5)
    general = from_flat(([*tokens.tolist(), 7], [*values.tolist(), -1.0], [*starts.tolist(), 1800]), k=5)

    for short, long in zip(full, general, strict=True):
        assert np.array_equal(short, long[:300])
    assert (np.diff(full[2], axis=1) == 0).any()


def test_flat_logprobs_of_no_token() -> None:
    """An empty completion."""
    drawn, listed, logprobs = from_flat(([], [], []))

    assert (drawn.shape, listed.shape, logprobs.shape) == ((0,), (0, TOP_K), (0, TOP_K))


def test_a_position_without_logprobs_is_an_error() -> None:
    """vLLM has none for the first token of a prompt; every token of a completion has some."""
    with pytest.raises(ValueError, match="position 1 has no log-probability"):
        from_flat(([1, 2], [-1.0, -2.0], [0, 2]), k=3)


def test_draws_from_the_listed_distribution_pass_through_flat_logprobs() -> None:
    """As a sampler does it: the drawn token first, then the top-k; 30,000 tokens from the recorded distributions."""
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(len(DRAWS)), 10)
    rank = (rng.random((len(rows), 1)) > DRAWS.cumsum(axis=1)[rows, :-1]).sum(axis=1)
    logprobs = np.log(np.maximum(DRAWS[rows], 1e-300))
    own = np.take_along_axis(logprobs, rank[:, None], axis=1)
    tokens = np.column_stack([rank, np.tile(np.arange(TOP_K), (len(rows), 1))])
    flat_logprobs = np.column_stack([own, logprobs[:, :-1]])
    starts = range(0, tokens.size, TOP_K + 1)
    event_sums = sums(*from_flat((tokens.ravel().tolist(), flat_logprobs.ravel().tolist(), list(starts))))

    assert event_sums[:, 1] == pytest.approx(10 * events(DRAWS).sum(axis=0))
    assert not calibrations({("", ""): (len(rows), event_sums)})[0].exceeds


# -- how often it errs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "runs"), [(500, 1500), (1000, 1000), (3000, 1000), (10_000, 1000), (60_000, 1000)])
def test_a_clean_run_passes_99_times_in_100(tokens: int, runs: int) -> None:
    """At any size, on recorded distributions. ALARM is below 1 %, so the simulation's own error does not fail the test."""
    assert alarms(*z_scores(DRAWS, tokens, runs, seed=tokens)) <= 0.01


@pytest.mark.parametrize("tests", [6, 60, 600, 6000])
@pytest.mark.parametrize("variance", [LEAST_VARIANCE, 50, 100, 1000])
def test_rare_events_do_not_raise_the_rate_of_alarms(tests: int, variance: float) -> None:
    """Poisson counts are the most skewed sums; this is exact, for any number of engines. With the normal bound, 60 tests at the
    least variance would alarm in 1.2 % of runs, 6,000 in 4.2 %."""
    event_sums = empty_sums()
    event_sums[:, 2] = variance
    tested = {(str(number), ""): (1, event_sums) for number in range(tests // len(EVENTS))}
    limit = calibrations(tested)[0].scores[0].bound
    assert limit is not None

    counts = np.arange(int(variance + 20 * math.sqrt(variance)))
    factorials = np.log(np.maximum(counts, 1)).cumsum()
    chance = np.exp(counts * math.log(variance) - variance - factorials)
    exceeding = float(chance[np.abs(counts - variance) > limit * math.sqrt(variance)].sum())

    assert tests * exceeding <= calibration.ALARM


@pytest.mark.parametrize("tests", [1, 6, 384])
def test_the_bound_is_bonferronis(tests: int) -> None:
    """Two-sided, over all tests of a run together."""
    chance = 2 * (1 - NormalDist().cdf(calibration.bound(tests)))

    assert chance * tests == pytest.approx(calibration.ALARM)


# -- what it catches -------------------------------------------------------------------------------------------------------


def temperature(value: float) -> Array:
    """The rest is assumed to be tokens an eighth as likely as the last listed one."""
    pieces = np.maximum(1, np.ceil(8 * DRAWS[:, -1] / DRAWS[:, -2]))
    last: Array = pieces * (DRAWS[:, -1] / pieces) ** (1 / value)
    return np.column_stack([DRAWS[:, :-1] ** (1 / value), last])


def top_k(value: int) -> Array:
    return np.where(np.arange(TOP_K + 1) < value, DRAWS, 0)


def top_p(value: float) -> Array:
    before = DRAWS.cumsum(axis=1) - DRAWS
    kept = np.where(before < value, DRAWS, 0)
    kept[:, -1] = np.minimum(DRAWS[:, -1], np.maximum(0, value - DRAWS[:, :-1].sum(axis=1)))
    return kept


def min_p(value: float) -> Array:
    return np.where(np.column_stack([DRAWS[:, :-1], DRAWS[:, -2]]) >= value * DRAWS[:, :1], DRAWS, 0)


def tail(factor: float) -> Array:
    return np.column_stack([DRAWS[:, :-1], factor * DRAWS[:, -1]])


@pytest.mark.parametrize(
    ("spoiled", "tokens"),
    [
        pytest.param(top_k(5), 400, id="top_k 5"),
        pytest.param(top_k(20), 400, id="top_k 20"),
        pytest.param(min_p(0.05), 400, id="min_p 0.05"),
        pytest.param(temperature(0.8), 500, id="temperature 0.8"),
        pytest.param(temperature(0.9), 1500, id="temperature 0.9"),
        pytest.param(temperature(1.05), 6000, id="temperature 1.05"),
        pytest.param(top_p(0.9), 1500, id="top_p 0.9"),
        pytest.param(top_p(0.95), 5000, id="top_p 0.95"),
        pytest.param(top_p(0.99), 80_000, id="top_p 0.99"),
        pytest.param(tail(1.1), 40_000, id="a tail drawn a tenth too often"),
    ],
)
def test_a_fault_is_caught(spoiled: Array, tokens: int) -> None:
    """In 99 of 100 runs, at this many tokens; the table of docs/calibration.md."""
    own = spoiled / spoiled.sum(axis=1, keepdims=True)

    assert alarms(*z_scores(own, tokens, 200, seed=tokens)) >= 0.99


@pytest.mark.parametrize("number", range(len(RECORDED["names"])), ids=RECORDED["names"].tolist())
def test_recorded_runs_without_a_fault_pass_and_the_others_fail(number: int) -> None:
    tokens, event_sums = int(RECORDED["tokens"][number]), RECORDED["sums"][number]
    test = calibrations({("vllm", ""): (tokens, event_sums)})[0]

    assert bool(test.exceeds) != RECORDED["names"][number].startswith("clean")


# -- the sources of a run --------------------------------------------------------------------------------------------------


def source_sums(tokens: int, share: float, observed: int) -> Sums:
    """Sums of a source whose likeliest tokens have a probability of `share` and were drawn `observed` times."""
    event_sums = empty_sums()
    event_sums[0] = observed, tokens * share, tokens * share * (1 - share)
    event_sums[-1] = tokens - observed, tokens * (1 - share), tokens * share * (1 - share)
    return event_sums


def test_all_sources_share_the_bound() -> None:
    """Two events of each of two sources are tested; events that are too rare are not, and have no z."""
    tests = calibrations(
        {("b", ""): (10_000, source_sums(10_000, 0.5, 5600)), ("a", ""): (10_000, source_sums(10_000, 0.5, 5050))}
    )

    assert [test.source for test in tests] == ["a", "b"]
    assert {test.bound for test in tests} == {calibration.bound(4)}
    assert [[score.event for score in test.exceeds] for test in tests] == [[], ["top1", "tail"]]
    assert (tests[0].scores[1].z, tests[0].scores[1].bound) == (None, None)
    assert tests[0].scores[0].z == 1.0


def test_a_list_is_whole_with_all_tokens_or_all_of_the_probability() -> None:
    infinite = -np.inf
    lists = np.log([[0.5, 0.3, 0.1], [0.6, 0.4, 1e-300], [0.5, 0.3, 0.1]])
    lists[1, 2], lists[2, 1:] = infinite, infinite

    assert whole(lists).tolist() == [True, True, False]


def test_what_the_engine_did_not_list_is_named() -> None:
    [test] = calibrations({("engine", ""): Total(100, empty_sums(), 7)})

    assert test.status == "not tested: too few tokens; masked: 7 tokens that the engine did not list whole"


def test_a_calibration_is_written_as_json() -> None:
    """With the names of the events that exceed their bound."""
    values = calibrations({("a", "top_p 0.9"): (10_000, source_sums(10_000, 0.5, 5600))})[0].to_dict()

    assert json.loads(json.dumps(values))["exceeds"] == ["top1", "tail"]
    assert (values["source"], values["declared"], values["tokens"]) == ("a", "top_p 0.9", 10_000)
    assert values["scores"][0] == {
        "event": "top1",
        "observed": 5600,
        "expected": 5000.0,
        "variance": 2500.0,
        "z": 12.0,
        "bound": pytest.approx(calibration.bound(2), abs=0.05),
    }


def test_no_source_is_no_calibration() -> None:
    """A run that was not calibrated."""
    assert calibrations({}) == []


def test_parts_of_a_source_add_up() -> None:
    """By source and by what the recipe declares."""
    part = source_sums(100, 0.5, 40)
    totals = merged([("a", "", 100, part.tolist()), ("a", "", 100, part), ("a", "top_p 0.9", 100, part), ("b", "", 100, part)])

    assert {key: total.tokens for key, total in totals.items()} == {("a", ""): 200, ("a", "top_p 0.9"): 100, ("b", ""): 100}
    assert np.array_equal(totals["a", ""][1], 2 * part)


# -- how many requests are calibrated --------------------------------------------------------------------------------------


def draw_until_enough(quota: Quota, source: str, share: float, *, in_flight: int = 1, size: int = 100) -> int:
    """Requests that a quota takes when `in_flight` requests run concurrently."""
    requests, running = 0, 0
    while True:
        while running < in_flight and quota.take(source, size):
            requests, running = requests + 1, running + 1
        if not running:
            return requests
        quota.settle(source, size, size, source_sums(size, share, 0))
        running -= 1


@pytest.mark.parametrize(("share", "expected"), [(0.5, 625), (0.9, 225), (0.99, 25)])
def test_a_quota_stops_at_its_standard_error(share: float, expected: int) -> None:
    """sqrt(p (1 - p) / tokens) <= 0.02, in requests of 100 tokens: a sharp model needs fewer."""
    assert draw_until_enough(Quota(0.02), "a", share, size=1) == expected


def test_a_quota_counts_requests_in_flight() -> None:
    """An engine with many sequences calibrates few more requests than needed."""
    few, many = (draw_until_enough(Quota(0.02), "a", 0.5, in_flight=n) for n in (1, 500))

    assert (few, many) == (7, 7)


def test_each_source_has_a_quota_of_its_own() -> None:
    """A restarted engine is tested again."""
    quota = Quota(0.02)
    draw_until_enough(quota, "a", 0.5)

    assert not quota.take("a", 100)
    assert quota.take("b", 100)


def test_requests_without_calibration_are_replaced() -> None:
    """A request that failed leaves the quota as it was."""
    quota = Quota(0.5)

    assert [quota.take("a", 1), quota.take("a", 1)] == [True, False]
    quota.settle("a", 1, 0, None)
    assert quota.take("a", 1)


def test_without_a_standard_error_nothing_is_calibrated() -> None:
    """0 turns it off."""
    assert not Quota(0).take("a", 100)


def test_a_quota_is_safe_in_threads() -> None:
    """Eight threads take no more than one would, and lose no result."""
    quota = Quota(0.01)

    def work(_: int) -> int:
        return draw_until_enough(quota, "a", 0.5, size=10)

    with ThreadPoolExecutor(8) as pool:
        taken = sum(pool.map(work, range(8)))

    assert taken == 250


def test_stopping_at_a_token_does_not_bias_the_sums() -> None:
    """A completion ends when a certain token is drawn: a stopping time, which leaves a martingale's mean at 0. Leaving out the
    completions that did not end in time is a bias."""
    rng = np.random.default_rng(0)
    p, longest, completions = 0.1, 8, 40_000
    ends = rng.random((completions, longest)) < p
    ended: NDArray[np.bool_] = np.any(ends, axis=1)
    length = np.where(ended, ends.argmax(axis=1) + 1, longest)

    def z(of: NDArray[np.bool_]) -> float:
        tokens = int(length[of].sum())
        return (int(ended[of].sum()) - p * tokens) / math.sqrt(tokens * p * (1 - p))

    assert abs(z(length > 0)) < 3
    assert z(ended) > 50
