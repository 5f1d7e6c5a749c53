"""What a run's samples say beyond counts, computed by DuckDB over the pool; docs/statistics.md has every formula.

Anchors count in nothing but the agreement with the anchor. A prompt's draws resemble each other, so every interval is a bootstrap
over prompts (thresher.estimators.intervals).
"""

import math
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thresher import ids
from thresher.audit.count_run import BLOCK
from thresher.audit.sql_tables import opened_tables, quoted, reading, whole_shards
from thresher.errors import StoreError
from thresher.estimators.intervals import RESAMPLES, expanded_tail, wilson
from thresher.executors.executor import Map, map_here
from thresher.pool.run import Run

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
    quantiles: tuple[float, ...]
    """5, 25, 50, 75 and 95 % of the prompts' own pass@k."""


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
    of: str
    """Which draws: all, passed, near_miss or miss."""
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
    truncated: float | None
    """Share that ran into max_tokens, of those of which it is known how they ended; null where that is known of none."""
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
    unmeasured: int
    """Samples whose tokens are unknown, where those of others are known: no length is of them."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        found: dict[str, Any] = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def statistics(run: Run, map_shards: Map = map_here) -> Statistics:
    """The statistics of a run, of the shards that are sampled and judged; empty where there are none. `map_shards` spreads them over
    the workers of an executor: each sorts the draws of some shards by prompt into a file of the run directory, then each sums up
    some of the prompts. What comes back is sums; the files are there for the while."""
    store, first = run.store, first_draws(run)
    seed = int(ids.digest("statistics", run.key), 16)
    shards = whole_shards(run)
    size = max(1, len(shards) if map_shards is map_here else min(BLOCK, -(-len(shards) // 16)), -(-len(shards) // PARTS))
    blocks = [tuple(shards[at : at + size]) for at in range(0, len(shards), size)]
    if len(blocks) < 2:
        with opened_tables(run, shards) as connection:
            connection.execute(f"create temp table drawn as {_drawn(run)}")
            return _finished(sums_of(connection, first), seed)
    mark, total = uuid.uuid4().hex, Sums()
    names = [f"{SCRATCH}-{mark}-{number:04d}.parquet" for number in range(len(blocks))]
    try:
        map_shards(_sort, [(run, block, len(blocks), name) for block, name in zip(blocks, names, strict=True)])
        for part in map_shards(_sum, [(run, names, number, first) for number in range(len(blocks))]):
            total.add(part)
    finally:
        for name in names:
            with suppress(StoreError, OSError):
                store.remove(name)
    return _finished(total, seed)


def first_draws(run: Run) -> int | None:
    """Of an adaptive run the draws of each prompt that are made whatever is found, by their `index`; None where all are."""
    sampling = run.recipe.sampling
    adaptive = run.sampled and sampling.target_hits is not None
    return sampling.samples_per_prompt * len(sampling.temperatures) if adaptive else None


PARTS = 256
"""Blocks of shards, and parts of the prompts, at most."""
SCRATCH = "statistics"
"""Files of a run directory that begin so are there while its statistics are computed."""


@dataclass(frozen=True)
class Sums:
    """What is summed up of some of the prompts, all draws of each; it can be added."""

    prompts: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    """Prompts by family, judged draws, draws that passed."""
    agreement: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Draws by family and what they have in common with the anchor."""
    entropy: Counter[tuple[str, str, float, str]] = field(default_factory=Counter)
    """By family, which draws, and the entropy of a prompt's answers to a thousandth of a nat: sum of those, prompts, draws."""
    similarity: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Near misses and duplicates by the twentieth of their similarity."""
    likely: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By what became of them: samples with log-probabilities, and the sums of those and of their tokens."""
    tokens: Counter[tuple[str, int, bool | None]] = field(default_factory=Counter)
    """Samples by what became of them, tokens, and whether they are truncated; null where nobody knows."""
    characters: Counter[tuple[str, int, bool | None]] = field(default_factory=Counter)
    """The same of those whose tokens are unknown."""

    def add(self, other: "Sums") -> None:
        """Add those of other prompts."""
        for one in fields(self):
            getattr(self, one.name).update(getattr(other, one.name))


def sums_of(connection: "DuckDBPyConnection", first: int | None = None) -> Sums:
    """Sum up a table `drawn`; of an adaptive run only the `first` draws of each prompt count for pass@k, agreement and entropy,
    whose number does not hang on what was found."""
    some = "" if first is None else f'and "index" < {first}'

    def rows(query: str) -> list[Any]:
        found: list[Any] = connection.execute(query).fetchall()
        return found

    found = Sums()
    for *key, prompts in rows(_PROMPTS.format(some=some)):
        found.prompts[tuple(key)] += prompts
    for family, *sums in rows(_AGREEMENT.format(some=some)):
        found.agreement.update({(family, name): n for name, n in zip(_ALIKE, sums, strict=True)})
    for family, of, cell, *sums in rows(_ENTROPY.format(some=some)):
        found.entropy.update({(family, of, cell, name): n for name, n in zip(("sum", "prompts", "draws"), sums, strict=True)})
    for *key, samples in rows(_SIMILARITY):
        found.similarity[tuple(key)] += samples
    for kind, *sums in rows(_LIKELY):
        found.likely.update({(kind, name): n for name, n in zip(("samples", "logprob", "tokens"), sums, strict=True)})
    for kind, tokens, characters, truncated, samples in rows(_LENGTHS):
        if tokens is not None:
            found.tokens[kind, tokens, truncated] += samples
        else:
            found.characters[kind, characters, truncated] += samples
    return found


def _finished(sums: Sums, seed: int) -> Statistics:
    cells = prompt_cells(sums)
    return Statistics(
        tuple(pass_at_k(cells, seed)),
        tuple(_rates(cells)),
        tuple(_agreement(sums)),
        tuple(answer_entropies(sums, seed)),
        _histogram(sums, "near_miss"),
        _histogram(sums, "duplicate"),
        tuple(_likelihoods(sums)),
        tuple(_lengths(sums)),
        sums.characters.total() if sums.tokens else 0,
    )


def _sort(run: Run, shards: Sequence[int], parts: int, name: str) -> None:
    """Write the draws of some shards to a file of the run, sorted by the part that their prompt is of."""
    store = run.store
    with opened_tables(run, shards) as connection:
        query = f"select *, (hash(prompt_id) % {parts})::integer as part from ({_drawn(run)}) order by part"
        connection.execute(f"copy ({query}) to {quoted(store, name)} (format parquet)")


def _sum(run: Run, names: Sequence[str], part: int, first: int | None) -> Sums:
    """Sum up one part of the prompts."""
    store = run.store
    with reading(store) as connection:
        files = ", ".join(quoted(store, name) for name in names)
        connection.execute(f"create temp table drawn as select * from read_parquet([{files}]) where part = {part}")
        return sums_of(connection, first)


Cells = Mapping[str, Counter[tuple[int, int]]]
"""Prompts of each family, and of `all`, by (judged draws, draws that passed)."""


def prompt_cells(sums: Sums) -> Cells:
    """The prompts of each family, and of all where there are several."""
    found: dict[str, Counter[tuple[int, int]]] = {}
    for (family, n, c), prompts in sums.prompts.items():
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
            spread = tuple(_quantiles(values, prompts))
            yield PassAtK(family, k, mean, mean_interval(values, prompts, seed), int(prompts.sum()), spread)
            k *= 2


def of_k(n: NDArray[np.int64], c: NDArray[np.int64], k: int) -> F64:
    """1 - C(n - c, k) / C(n, k), as a product (m,)."""
    steps = np.arange(k)
    factors = np.maximum(n[:, None] - c[:, None] - steps, 0) / (n[:, None] - steps)
    found: F64 = 1 - factors.prod(axis=1)
    return found


def answer_entropies(sums: Sums, seed: int) -> Iterator[AnswerEntropy]:
    """The entropy of each prompt's answers, estimated from few draws: A. Chao & T.-J. Shen, Environmental and Ecological
    Statistics 10, 2003. Of n draws x_i fell on text i, and f texts came once. Good and Turing's estimate of the probability of
    all texts that were seen is C = 1 - f / n (f = n is taken for n - 1, or all would be unseen); with p_i = C x_i / n each text
    counts by Horvitz and Thompson for those that were not seen:

        H = - sum_i p_i ln p_i / (1 - (1 - p_i)^n)

    For the interval prompts whose entropy is the same to a thousandth of a nat are one."""
    found: dict[tuple[str, str], list[tuple[float, int, int]]] = {}
    for family, of, cell in sorted({key[:3] for key in sums.entropy}):
        total, prompts, draws = (sums.entropy[family, of, cell, name] for name in ("sum", "prompts", "draws"))
        found.setdefault((family, of), []).append((total / prompts, prompts, draws))
    families = sorted({family for family, _ in found})
    if len(families) > 1:
        for of in {of for _, of in found}:
            found["all", of] = sorted(cell for family in families for cell in found.get((family, of), []))
    order = [(family, of) for family in (*families, "all") for of in ANSWERS_OF if (family, of) in found]
    for family, of in order if len(families) > 1 else [one for one in order if one[0] in families]:
        cells = found[family, of]
        values, weights = np.array([cell[0] for cell in cells]), np.array([cell[1] for cell in cells], np.int64)
        prompts, mean = int(weights.sum()), float(values @ weights / weights.sum())
        varies = float(np.ptp(values)) > 5e-4  # sums of equal terms may differ in their last digits
        interval = mean_interval(values, weights, seed) if varies else None
        effective = None if interval is None else (math.exp(interval[0]), math.exp(interval[1]))
        yield AnswerEntropy(family, of, prompts, int(sum(cell[2] for cell in cells)), mean, interval, math.exp(mean), effective)


def mean_interval(values: F64, weights: NDArray[np.int64], seed: int, *, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % interval of the mean of prompts, of which `weights` have each of the `values` (m,): bootstrap with expanded
    percentiles; Wilson's where all have one value, of which the bootstrap knows no spread, and the value itself where that is no
    share."""
    n = int(weights.sum())
    if np.all(values == values[0]):
        one = float(values[0])
        return wilson(one, n) if 0 <= one <= 1 else (one, one)
    random = np.random.default_rng(seed)
    means = np.concatenate(
        [random.multinomial(n, weights / n, size=min(50, resamples - at)) @ values / n for at in range(0, resamples, 50)]
    )
    tail = expanded_tail(n)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


# -- inside --------------------------------------------------------------------------------------------------------------

_DRAWN = """
select prompt_id, family, "index", anchor, outcome, kind, similarity, finish_reason, cumulative_logprob as logprob,
    {tokens} as tokens, len(completion) as characters, hash(completion) as text, error is not null as failed
from samples where unreadable is null
"""


def _drawn(run: Run) -> str:
    # Log-probabilities are many bytes: they are read only where nothing else may tell the number of tokens.
    return _DRAWN.format(tokens="len(completion_ids)" if run.sampled else "coalesce(len(completion_ids), len(logprobs))")


_BECAME = "case when outcome = 'undecided' then 'undecided' when kind is null then 'unfit' else kind end"
KINDS = ("hit", "duplicate", "near_miss", "miss", "unfit", "undecided", "all")
"""What became of samples; `unfit` was dropped for its form."""

_PROMPTS = """
select family, n, c, count(*) from (
    select family, prompt_id, count(*) as n, count(*) filter (kind in ('hit', 'duplicate')) as c
    from drawn where not anchor and outcome <> 'undecided' {some} group by all
) group by all
"""
_ALIKE = (
    "prompts", "draws", "same", "judged", "agree", "where_passed", "passed_where_passed", "where_failed", "passed_where_failed",
)  # fmt: skip
_AGREEMENT = """
with anchors as (
    select prompt_id, any_value(text) as text, any_value(kind in ('hit', 'duplicate')) as passed
    from drawn where anchor and outcome <> 'undecided' group by all
), draws as (
    select d.family, d.prompt_id, d.text = a.text as same, coalesce(a.passed, false) as greedy,
        d.outcome <> 'undecided' as judged, coalesce(d.kind in ('hit', 'duplicate'), false) as passed
    from drawn d join anchors a using (prompt_id) where not d.anchor {some}
)
select family, count(distinct prompt_id), count(*), count(*) filter (same), count(*) filter (judged),
    count(*) filter (judged and passed = greedy), count(*) filter (judged and greedy),
    count(*) filter (judged and greedy and passed), count(*) filter (judged and not greedy),
    count(*) filter (judged and not greedy and passed)
from draws group by family
"""
ANSWERS_OF = ("all", "passed", "near_miss", "miss")
_ENTROPY = """
with counted as (
    select family, prompt_id, text, case when kind in ('hit', 'duplicate') then 'passed' else kind end as of,
        count(*)::double as x
    from drawn where not anchor and not failed {some} group by all
), texts as (
    select family, prompt_id, 'all' as of, sum(x) as x from counted group by family, prompt_id, text
    union all select family, prompt_id, of, x from counted where of is not null
), prompts as (
    select family, prompt_id, of, sum(x) as n, 1 - least(count(*) filter (x = 1), sum(x) - 1) / sum(x) as seen
    from texts group by all having sum(x) > 1
), each as (
    select family, of, any_value(n) as n,
        sum(-(seen * x / n) * ln(seen * x / n) / (1 - pow(1 - seen * x / n, n))) as entropy
    from texts join prompts using (family, prompt_id, of) group by family, prompt_id, of
)
select family, of, round(entropy, 3), sum(entropy), count(*), sum(n) from each group by all
"""
_SIMILARITY = f"""
select kind, least({SIMILARITY_BINS - 1}, floor({SIMILARITY_BINS} * similarity))::integer, count(*) from drawn
where kind in ('near_miss', 'duplicate') and similarity is not null and not anchor group by all
"""
_LIKELY = f"""
select {_BECAME}, count(*), sum(logprob), sum(tokens)::bigint from drawn
where not anchor and logprob is not null and tokens > 0 group by all
"""
_LENGTHS = f"""
select {_BECAME}, tokens, case when tokens is null then characters end, finish_reason = 'length', count(*)
from drawn where not anchor and (tokens is not null or characters is not null) group by all
"""


def _rates(cells: Cells) -> Iterator[Rates]:
    for family, counted in cells.items():
        none = sum(w for (_, c), w in counted.items() if c == 0)
        every = sum(w for (n, c), w in counted.items() if c == n)
        tenths = [0] * 10
        for (n, c), w in counted.items():
            if 0 < c < n:
                tenths[-(-10 * c // n) - 1] += w
        yield Rates(family, none, tuple(tenths), every)


def _agreement(sums: Sums) -> Iterator[Agreement]:
    families = sorted({family for family, _ in sums.agreement})
    for name in [*families, "all"] if len(families) > 1 else families:
        n = {one: sum(sums.agreement[family, one] for family in families if name in (family, "all")) for one in _ALIKE}
        yield Agreement(
            name,
            n["prompts"],
            n["same"] / n["draws"],
            n["agree"] / n["judged"] if n["judged"] else None,
            n["passed_where_passed"] / n["where_passed"] if n["where_passed"] else None,
            n["passed_where_failed"] / n["where_failed"] if n["where_failed"] else None,
        )


def _histogram(sums: Sums, kind: str) -> tuple[int, ...]:
    return tuple(sums.similarity[kind, number] for number in range(SIMILARITY_BINS))


def _likelihoods(sums: Sums) -> Iterator[Likelihood]:
    there = [kind for kind in KINDS if sums.likely[kind, "samples"]]
    for name in [*there, "all"] if there else []:
        n, logprob, tokens = (
            sum(sums.likely[kind, one] for kind in there if name in (kind, "all")) for one in ("samples", "logprob", "tokens")
        )
        yield Likelihood(name, n, -logprob / tokens, logprob / n)


def _lengths(sums: Sums) -> Iterator[Lengths]:
    counted, unit = (sums.tokens, "tokens") if sums.tokens else (sums.characters, "characters")
    for kind in KINDS:
        mine = Counter[int]()
        for (became, size, _), samples in counted.items():
            if became == kind:
                mine[size] += samples
        if samples := mine.total():
            ended = Counter[bool]()
            for (became, _, cut), n in counted.items():
                if became == kind and cut is not None:
                    ended[cut] += n
            truncated = ended[True] / ended.total() if ended else None
            sizes, times = (np.array(column) for column in zip(*mine.items(), strict=True))
            yield Lengths(kind, samples, tuple(_quantiles(sizes.astype(float), times)), truncated, unit)


def _quantiles(values: F64, weights: NDArray[np.int64]) -> Iterator[float]:
    """QUANTILES of values (m,) that came so often, linear between two."""
    order = np.argsort(values)
    values, ends = values[order], np.cumsum(weights[order])
    for q in QUANTILES:
        at = q * (int(ends[-1]) - 1)
        low, high = (float(values[np.searchsorted(ends, place, side="right")]) for place in (math.floor(at), math.ceil(at)))
        yield low + (high - low) * (at - math.floor(at))
