"""What a run's samples say beyond counts, computed by DuckDB over the pool; docs/statistics.md has every formula.

Anchors count in nothing but the agreement with the anchor. A prompt's draws resemble each other, so every interval is a bootstrap
over prompts (thresher.audit.interval).
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from schemas.recipe import Recipe
from thresher import ids
from thresher.audit.interval import RESAMPLES, expanded_tail, wilson
from thresher.audit.older import opened
from thresher.audit.sql import connect
from thresher.store import Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

F64 = NDArray[np.float64]
RATE_BINS = tuple(number / 10 for number in range(11))
SIMILARITY_BINS = 20
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class PassAtK:
    """Chance that one of k draws passes: the mean over the prompts that have k judged draws or more."""

    family: str
    k: int
    value: float
    interval: tuple[float, float]
    prompts: int


@dataclass(frozen=True)
class Rates:
    """How many prompts of a family have which pass rate: none at all, up to 10 %, ..., up to 100 %, every one."""

    family: str
    none: int
    tenths: tuple[int, ...]
    every: int


@dataclass(frozen=True)
class Agreement:
    """How like the greedy answer the draws are, of the prompts whose anchor was judged."""

    family: str
    prompts: int
    same_text: float
    """Share of draws whose text is the anchor's."""
    same_outcome: float | None
    """Share of judged draws that pass as the anchor does, or fail as it does."""
    passed_where_anchor_passed: float | None
    passed_where_anchor_failed: float | None
    """Pass rates of the draws: where the greedy answer is right, and where it is wrong."""


@dataclass(frozen=True)
class AnswerEntropy:
    """How widely a prompt's draws spread over different texts: the mean over the prompts that have two draws or more."""

    family: str
    prompts: int
    draws: int
    entropy: float
    """Nats."""
    interval: tuple[float, float] | None
    """Null where all prompts have one value, of which nothing can be told."""
    effective: float
    """exp(entropy): so many answers that come equally often would be as uncertain."""
    effective_interval: tuple[float, float] | None


@dataclass(frozen=True)
class Likelihood:
    """How likely the model found what it drew, by what became of it."""

    kind: str
    samples: int
    surprisal: float
    """Nats per token; of all draws at temperature 1 together an estimate of the model's entropy per token."""
    logprob: float
    """Mean of the completions' log-probabilities."""


@dataclass(frozen=True)
class Lengths:
    """Completion lengths in tokens (characters where tokens are unknown), by what became of them."""

    kind: str
    samples: int
    quantiles: tuple[float, ...]
    """5, 25, 50, 75 and 95 %."""
    truncated: float
    """Share that ran into max_tokens."""
    unit: str


@dataclass(frozen=True)
class Statistics:
    """All of them."""

    pass_at_k: tuple[PassAtK, ...]
    rates: tuple[Rates, ...]
    agreement: tuple[Agreement, ...]
    answers: tuple[AnswerEntropy, ...]
    near_miss_similarity: tuple[int, ...]
    """Near misses by their similarity to the nearest hit, in twentieths of 0 to 1."""
    duplicate_similarity: tuple[int, ...]
    likelihoods: tuple[Likelihood, ...]
    lengths: tuple[Lengths, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        found: dict[str, Any] = asdict(self)
        return {name: [dict(one) if isinstance(one, dict) else one for one in value] for name, value in found.items()}


def statistics(store: Store) -> Statistics:
    """The statistics of a run, of the shards that are sampled and judged; empty where there are none."""
    manifest, connection = opened(store), connect(store)
    try:
        sampling = Recipe.model_validate(manifest.recipe).sampling
        adaptive = manifest.origin == "sampled" and sampling.target_hits is not None
        first = sampling.samples_per_prompt * len(sampling.temperatures)
        connection.execute(_DRAWN)
        seed = int(ids.digest("statistics", manifest.sampling_key), 16)
        limit = first if adaptive else None
        cells = prompt_cells(connection, limit)
        return Statistics(
            tuple(pass_at_k(cells, seed)),
            tuple(_rates(cells)),
            tuple(_agreement(connection)),
            tuple(answer_entropies(connection, seed, limit)),
            _histogram(connection, "near_miss"),
            _histogram(connection, "duplicate"),
            tuple(_likelihoods(connection)),
            tuple(_lengths(connection)),
        )
    finally:
        connection.close()


Cells = Mapping[str, Counter[tuple[int, int]]]
"""Prompts of each family, and of `all`, by (judged draws, draws that passed)."""


def prompt_cells(connection: "DuckDBPyConnection", first: int | None = None) -> Cells:
    """Count the prompts; of an adaptive run only the `first` draws of each, whose number does not hang on what was found."""
    where = "" if first is None else f'and "index" < {first}'
    rows = connection.execute(
        f"""
        select family, n, c, count(*) from (
            select family, prompt_id, count(*) as n, count(*) filter (kind in ('hit', 'duplicate')) as c
            from drawn where not anchor and outcome <> 'undecided' {where} group by all
        ) group by all
        """
    ).fetchall()
    found: dict[str, Counter[tuple[int, int]]] = {}
    for family, n, c, prompts in rows:
        found.setdefault(family, Counter())[n, c] += prompts
    families = dict(sorted(found.items()))
    if len(families) > 1:
        families["all"] = sum(families.values(), Counter())
    return families


def pass_at_k(cells: Cells, seed: int) -> Iterator[PassAtK]:
    """Unbiased pass@k (M. Chen et al., Evaluating Large Language Models Trained on Code, 2021): 1 - C(n - c, k) / C(n, k) for
    each prompt of n judged draws of which c passed; k = 1, 2, 4, ... as long as half of the prompts have so many draws."""
    for family, counted in cells.items():
        n, c, weight = (np.array(column) for column in zip(*((n, c, w) for (n, c), w in sorted(counted.items())), strict=True))
        k = 1
        while True:
            there = n >= k
            if weight[there].sum() * 2 < weight.sum():
                break
            values, prompts = of_k(n[there], c[there], k), weight[there]
            mean = float(values @ prompts / prompts.sum())
            yield PassAtK(family, k, mean, mean_interval(values, prompts, seed), int(prompts.sum()))
            k *= 2


def of_k(n: NDArray[np.int64], c: NDArray[np.int64], k: int) -> F64:
    """1 - C(n - c, k) / C(n, k), as a product (m,)."""
    steps = np.arange(k)
    factors = np.maximum(n[:, None] - c[:, None] - steps, 0) / (n[:, None] - steps)
    found: F64 = 1 - factors.prod(axis=1)
    return found


def answer_entropies(connection: "DuckDBPyConnection", seed: int, first: int | None = None) -> Iterator[AnswerEntropy]:
    """The entropy of each prompt's answers, estimated from few draws: A. Chao & T.-J. Shen, Environmental and Ecological
    Statistics 10, 2003. Of n draws x_i fell on text i, and f texts came once. Good and Turing's estimate of the probability of
    all texts that were seen is C = 1 - f / n (f = n is taken for n - 1, or all would be unseen); with p_i = C x_i / n each text
    counts by Horvitz and Thompson for those that were not seen:

        H = - sum_i p_i ln p_i / (1 - (1 - p_i)^n)

    Of an adaptive run only the `first` draws of each prompt count. For the interval prompts whose entropy is the same to a
    thousandth of a nat are one."""
    where = "" if first is None else f'and "index" < {first}'
    rows = connection.execute(
        f"""
        with texts as (
            select family, prompt_id, count(*)::double as x from drawn where not anchor and not failed {where}
            group by family, prompt_id, text
        ), prompts as (
            select family, prompt_id, sum(x) as n, 1 - least(count(*) filter (x = 1), sum(x) - 1) / sum(x) as seen
            from texts group by all having sum(x) > 1
        ), each as (
            select family, any_value(n) as n,
                sum(-(seen * x / n) * ln(seen * x / n) / (1 - pow(1 - seen * x / n, n))) as entropy
            from texts join prompts using (family, prompt_id) group by family, prompt_id
        )
        select family, avg(entropy), count(*), sum(n) from each group by family, round(entropy, 3) order by 1, 2
        """
    ).fetchall()
    found: dict[str, list[tuple[float, int, int]]] = {}
    for family, *cell in rows:
        found.setdefault(family, []).append(tuple(cell))
    if len(found) > 1:
        found["all"] = sorted(cell for cells in found.values() for cell in cells)
    for family, cells in found.items():
        values, weights = np.array([cell[0] for cell in cells]), np.array([cell[1] for cell in cells], np.int64)
        prompts, mean = int(weights.sum()), float(values @ weights / weights.sum())
        varies = float(np.ptp(values)) > 5e-4  # sums of equal terms may differ in their last digits
        interval = mean_interval(values, weights, seed) if varies else None
        effective = None if interval is None else (math.exp(interval[0]), math.exp(interval[1]))
        yield AnswerEntropy(family, prompts, int(sum(cell[2] for cell in cells)), mean, interval, math.exp(mean), effective)


def mean_interval(values: F64, weights: NDArray[np.int64], seed: int, *, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % interval of the mean of prompts, of which `weights` have each of the `values` (m,): bootstrap with expanded
    percentiles; Wilson's where all are 0 or all are 1, and the value itself where all are another one."""
    n = int(weights.sum())
    if np.all(values == values[0]):
        one = float(values[0])
        return wilson(one, n) if one in (0.0, 1.0) else (one, one)
    random = np.random.default_rng(seed)
    means = np.concatenate(
        [random.multinomial(n, weights / n, size=min(50, resamples - at)) @ values / n for at in range(0, resamples, 50)]
    )
    tail = expanded_tail(n)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


# -- inside --------------------------------------------------------------------------------------------------------------

_DRAWN = """
create temp table drawn as
select prompt_id, family, "index", anchor, outcome, kind, similarity, finish_reason, cumulative_logprob as logprob,
    len(completion_ids) as tokens, len(completion) as characters, hash(completion) as text, error is not null as failed
from samples where unreadable is null
"""
_BECAME = "case when outcome = 'undecided' then 'undecided' when kind is null then 'unfit' else kind end"
KINDS = ("hit", "duplicate", "near_miss", "miss", "unfit", "undecided", "all")
"""What became of samples; `unfit` was dropped for its form."""


def _rates(cells: Cells) -> Iterator[Rates]:
    for family, counted in cells.items():
        none = sum(w for (_, c), w in counted.items() if c == 0)
        every = sum(w for (n, c), w in counted.items() if c == n)
        tenths = [0] * 10
        for (n, c), w in counted.items():
            if 0 < c < n:
                tenths[-(-10 * c // n) - 1] += w
        yield Rates(family, none, tuple(tenths), every)


def _agreement(connection: "DuckDBPyConnection") -> Iterator[Agreement]:
    rows = connection.execute(
        """
        with anchors as (
            select prompt_id, any_value(text) as text, any_value(kind in ('hit', 'duplicate')) as passed
            from drawn where anchor and outcome <> 'undecided' group by all
        ), draws as (
            select d.family, d.prompt_id, d.text = a.text as same, coalesce(a.passed, false) as greedy,
                d.outcome <> 'undecided' as judged, coalesce(d.kind in ('hit', 'duplicate'), false) as passed
            from drawn d join anchors a using (prompt_id) where not d.anchor
        )
        select coalesce(family, 'all'), count(distinct prompt_id), avg(same::double),
            avg((passed = greedy)::double) filter (judged), avg(passed::double) filter (judged and greedy),
            avg(passed::double) filter (judged and not greedy), grouping(family)
        from draws group by grouping sets ((family), ()) having count(*) > 0 order by 7, 1
        """
    ).fetchall()
    for *row, _ in rows if len(rows) > 2 else rows[:1]:
        yield Agreement(*row)


def _histogram(connection: "DuckDBPyConnection", kind: str) -> tuple[int, ...]:
    rows = connection.execute(
        f"select least({SIMILARITY_BINS - 1}, floor({SIMILARITY_BINS} * similarity))::int, count(*) from drawn "
        "where kind = ? and similarity is not null and not anchor group by all",
        [kind],
    ).fetchall()
    found = dict(rows)
    return tuple(int(found.get(number, 0)) for number in range(SIMILARITY_BINS))


def _likelihoods(connection: "DuckDBPyConnection") -> Iterator[Likelihood]:
    rows = connection.execute(
        f"""
        select coalesce({_BECAME}, 'all'), count(*), -sum(logprob) / sum(tokens), avg(logprob) from drawn
        where not anchor and logprob is not null and tokens > 0 group by grouping sets (({_BECAME}), ()) having count(*) > 0
        """
    ).fetchall()
    yield from (Likelihood(*row) for row in _ordered(rows))


def _lengths(connection: "DuckDBPyConnection") -> Iterator[Lengths]:
    (known,) = connection.execute("select count(tokens) > 0 from drawn").fetchone() or (False,)
    size, unit = ("tokens", "tokens") if known else ("characters", "characters")
    rows = connection.execute(
        f"""
        select {_BECAME}, count(*), quantile_cont({size}, {list(QUANTILES)}),
            avg((finish_reason is not distinct from 'length')::double)
        from drawn where not anchor and {size} is not null group by all
        """
    ).fetchall()
    for kind, samples, quantiles, truncated in _ordered(rows):
        yield Lengths(kind, samples, tuple(map(float, quantiles)), truncated, unit)


def _ordered(rows: Sequence[Any]) -> list[Any]:
    return sorted(rows, key=lambda row: KINDS.index(row[0]))
