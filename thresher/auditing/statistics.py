"""Statistics of a run's samples beyond counts; docs/statistics.md has every formula.

DuckDB sums up the draws (thresher.auditing.draw_sums), and the formulas here work on the sums. Anchors are used only for the
agreement with the anchor. Draws of one prompt resemble each other, so every interval is a bootstrap over prompts
(thresher.estimators.intervals).
"""

import math
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thresher import ids
from thresher.auditing.count_run import BLOCK
from thresher.auditing.draw_sums import (
    AGREEMENT_COUNTS,
    ANSWERS_OF,
    KINDS,
    SIMILARITY_BINS,
    DrawSums,
    draws_query,
    first_draws,
    sums_of,
)
from thresher.auditing.sql_tables import as_pattern, opened_tables, quoted, reading, whole_shards
from thresher.errors import StoreError
from thresher.estimators.intervals import RESAMPLES, expanded_tail, wilson
from thresher.executors.executor import Map, map_here
from thresher.pool.run import Run

Sizes = Counter[tuple[str, int, bool | None]]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PARTS = 256
"""Most blocks of shards, and most parts of the prompts, that are worked on separately."""
SCRATCH = "statistics"
"""Prefix of temporary files in the run directory; they are removed when the statistics are computed."""


@dataclass(frozen=True)
class PassAtK:
    """Probability that at least one of k draws passes: the mean over the prompts that have k judged draws or more."""

    family: str
    k: int
    value: float
    interval: tuple[float, float]
    prompts: int
    quantiles: tuple[float, ...]
    """5, 25, 50, 75 and 95 % quantiles of the pass@k of single prompts."""


@dataclass(frozen=True)
class Rates:
    """Histogram of the prompts of a family by pass rate: exactly 0, up to 10 %, ..., up to 100 %, exactly 1."""

    family: str
    none: int
    tenths: tuple[int, ...]
    every: int


@dataclass(frozen=True)
class Agreement:
    """How far the draws agree with the greedy answer, over the prompts whose anchor was judged."""

    family: str
    prompts: int
    same_text: float
    """Share of draws with the same text as the anchor."""
    same_outcome: float | None
    """Share of judged draws that pass if the anchor passes, or fail if it fails."""
    passed_where_anchor_passed: float | None
    """Pass rate of the draws of prompts whose greedy answer is right."""
    passed_where_anchor_failed: float | None
    """Pass rate of the draws of prompts whose greedy answer is wrong."""


@dataclass(frozen=True)
class AnswerEntropy:
    """How widely a prompt's draws spread over different texts: the mean over the prompts that have two draws or more."""

    family: str
    of: str
    """Which draws: all, passed, near_miss or miss."""
    prompts: int
    draws: int
    entropy: float
    """In nats."""
    interval: tuple[float, float] | None
    """Null if all prompts have the same value."""
    effective: float
    """exp(entropy): the number of equally frequent answers with the same entropy."""
    effective_interval: tuple[float, float] | None


@dataclass(frozen=True)
class Likelihood:
    """How likely the samples of one kind were under the model that drew them."""

    kind: str
    samples: int
    surprisal: float
    """Nats per token; over all draws at temperature 1 an estimate of the model's entropy per token."""
    logprob: float
    """Mean log-probability of a completion."""


@dataclass(frozen=True)
class Lengths:
    """Lengths of the answers, or of the reasoning, of one kind: in tokens, or in characters if no number of tokens is known."""

    kind: str
    samples: int
    quantiles: tuple[float, ...]
    """5, 25, 50, 75 and 95 %."""
    truncated: float | None
    """Of answers the share that reached max_tokens, among samples with a known finish reason; null if none is known. Of reasoning
    the share that the completion ended in."""
    unit: str


@dataclass(frozen=True)
class Statistics:
    """The statistics of a run."""

    pass_at_k: tuple[PassAtK, ...]
    rates: tuple[Rates, ...]
    agreement: tuple[Agreement, ...]
    answers: tuple[AnswerEntropy, ...]
    near_miss_similarity: tuple[int, ...]
    """Near misses by their similarity to the nearest hit, in twentieths of 0 to 1."""
    duplicate_similarity: tuple[int, ...]
    likelihoods: tuple[Likelihood, ...]
    lengths: tuple[Lengths, ...]
    """Of the answers."""
    reasoning: tuple[Lengths, ...]
    """Of the reasoning of the samples that have one."""
    unmeasured: int
    """Samples with an unknown number of tokens, if it is known for others; `lengths` leaves them out."""
    pass_at_k_of_models: tuple[PassAtK, ...] = ()
    """pass@k of each model, where there are several; `family` is its name. Elsewhere a prompt that several models answer counts
    once for each."""

    def to_dict(self) -> dict[str, Any]:
        """Return the statistics as JSON values."""
        document: dict[str, Any] = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in document.items()}


def statistics(run: Run, map_shards: Map = map_here) -> Statistics:
    """Compute the statistics of the shards that are sampled and judged; empty if there are none. `map_shards` spreads the work
    over the workers of an executor: each sorts the draws of some shards by prompt into a temporary file of the run directory,
    then each sums up some of the prompts. Only sums are returned."""
    store, first = run.store, first_draws(run)
    seed = int(ids.digest("statistics", run.key), 16)
    shards = whole_shards(run)
    size = max(1, len(shards) if map_shards is map_here else min(BLOCK, -(-len(shards) // 16)), -(-len(shards) // PARTS))
    blocks = [tuple(shards[start : start + size]) for start in range(0, len(shards), size)]
    if len(blocks) < 2:
        with opened_tables(run, shards) as connection:
            connection.execute(f"create temp table drawn as {draws_query(run)}")
            return _of_sums(run, sums_of(connection, first, by_model=len(run.models) > 1), seed)
    unique, total = uuid.uuid4().hex, DrawSums()
    names = [f"{SCRATCH}-{unique}-{number:04d}.parquet" for number in range(len(blocks))]
    try:
        map_shards(sort_by_prompt, [(run, block, len(blocks), name) for block, name in zip(blocks, names, strict=True)])
        for sums in map_shards(sum_part, [(run, names, number, first) for number in range(len(blocks))]):
            total.add(sums)
    finally:
        for name in names:
            with suppress(StoreError, OSError):
                store.remove(name)
    return _of_sums(run, total, seed)


def sort_by_prompt(run: Run, shards: Sequence[int], parts: int, name: str) -> None:
    """Write the draws of some shards to a file of the run directory, sorted by the part that their prompt belongs to."""
    with opened_tables(run, shards) as connection:
        query = f"select *, (hash(prompt_id) % {parts})::integer as part from ({draws_query(run)}) order by part"
        connection.execute(f"copy ({query}) to {quoted(run.store, name)} (format parquet)")


def sum_part(run: Run, names: Sequence[str], part: int, first: int | None) -> DrawSums:
    """Sum up one part of the prompts from the sorted files."""
    with reading(run.store) as connection:
        files = ", ".join(as_pattern(run.store, name) for name in names)
        connection.execute(f"create temp table drawn as select * from read_parquet([{files}]) where part = {part}")
        return sums_of(connection, first, by_model=len(run.models) > 1)


# -- formulas ------------------------------------------------------------------------------------------------------------

Cells = Mapping[str, Counter[tuple[int, int]]]
"""Prompts of each family, and of `all`, by (judged draws, draws that passed)."""


def prompt_cells(sums: DrawSums) -> Cells:
    """The prompts of each family, and of `all` if there are several families."""
    by_family: dict[str, Counter[tuple[int, int]]] = {}
    for (family, n, c), prompts in sums.prompts.items():
        by_family.setdefault(family, Counter())[n, c] += prompts
    families = dict(sorted(by_family.items()))
    if len(families) > 1:
        families["all"] = sum(families.values(), Counter())
    return families


def pass_at_k(cells: Cells, seed: int) -> Iterator[PassAtK]:
    """Unbiased pass@k (M. Chen et al., Evaluating Large Language Models Trained on Code, 2021): 1 - C(n - c, k) / C(n, k) for
    each prompt with n judged draws, c of them passed; k = 1, 2, 4, ... as long as at least half of the prompts have k draws."""
    for family, prompts_of in cells.items():
        for figures in _passes(tuple(sorted(prompts_of.items())), seed):
            yield PassAtK(family, *figures)


@lru_cache(maxsize=1_024)  # many small families have equal cells
def _passes(cells: tuple[tuple[tuple[int, int], int], ...], seed: int) -> tuple[tuple[Any, ...], ...]:
    """k, pass@k, its interval, prompts and quantiles of the prompts (n, c), each with how many there are, for each k."""
    n, c, weight = (np.array(column) for column in zip(*((n, c, w) for (n, c), w in cells), strict=True))
    figures, k = list[tuple[Any, ...]](), 1
    while True:
        enough = n >= k
        if weight[enough].sum() * 2 < weight.sum():
            return tuple(figures)
        values, prompts = of_k(n[enough], c[enough], k), weight[enough]
        mean = float(values @ prompts / prompts.sum())
        figures.append((k, mean, mean_interval(values, prompts, seed), int(prompts.sum()), _quantiles(values, prompts)))
        k *= 2


def of_k(n: I64, c: I64, k: int) -> F64:
    """1 - C(n - c, k) / C(n, k) of each prompt (m,), as a product."""
    steps = np.arange(k)
    factors = np.maximum(n[:, None] - c[:, None] - steps, 0) / (n[:, None] - steps)
    values: F64 = 1 - factors.prod(axis=1)
    return values


def answer_entropies(sums: DrawSums, seed: int) -> Iterator[AnswerEntropy]:
    """The entropy of each prompt's answers, estimated from few draws: A. Chao & T.-J. Shen, Environmental and Ecological
    Statistics 10, 2003. Of n draws, x_i have text i, and f texts occur once. Good and Turing estimate the probability of all
    texts that were seen by C = 1 - f / n (with n - 1 for f if f = n, or all would count as unseen). With p_i = C x_i / n, each
    text is weighted by Horvitz and Thompson to account for texts that were not seen:

        H = - sum_i p_i ln p_i / (1 - (1 - p_i)^n)

    For the interval, prompts whose entropies agree to a thousandth of a nat are treated as equal."""
    cells_of: dict[tuple[str, str], list[tuple[float, int, int]]] = {}
    for family, of, cell in sorted({key[:3] for key in sums.entropy}):
        total, prompts, draws = (sums.entropy[family, of, cell, name] for name in ("sum", "prompts", "draws"))
        cells_of.setdefault((family, of), []).append((total / prompts, prompts, draws))
    families = sorted({family for family, _ in cells_of})
    if len(families) > 1:
        for of in {of for _, of in cells_of}:
            cells_of["all", of] = sorted(cell for family in families for cell in cells_of.get((family, of), []))
        families.append("all")
    for family, of in [(family, of) for family in families for of in ANSWERS_OF if (family, of) in cells_of]:
        cells = cells_of[family, of]
        prompts = int(sum(cell[1] for cell in cells))
        mean = sum(cell[0] * cell[1] for cell in cells) / prompts
        interval = None
        if max(cells)[0] - min(cells)[0] > 5e-4:  # sums of equal terms may differ in their last digits
            values, weights = np.array([cell[0] for cell in cells]), np.array([cell[1] for cell in cells], np.int64)
            interval = mean_interval(values, weights, seed)
        effective = None if interval is None else (math.exp(interval[0]), math.exp(interval[1]))
        yield AnswerEntropy(family, of, prompts, int(sum(cell[2] for cell in cells)), mean, interval, math.exp(mean), effective)


def mean_interval(values: F64, weights: I64, seed: int, *, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % interval of a mean over prompts; `weights` (m,) is the number of prompts with each of the `values` (m,). Bootstrap
    with expanded percentiles. If all values are equal the bootstrap has no spread: then Wilson's interval for a share, and the
    value itself for other figures."""
    n = int(weights.sum())
    if np.all(values == values[0]):
        value = float(values[0])
        return wilson(value, n) if 0 <= value <= 1 else (value, value)
    random = np.random.default_rng(seed)
    means = np.concatenate(
        [random.multinomial(n, weights / n, size=min(50, resamples - start)) @ values / n for start in range(0, resamples, 50)]
    )
    tail = expanded_tail(n)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


# -- inside --------------------------------------------------------------------------------------------------------------


def _of_sums(run: Run, sums: DrawSums, seed: int) -> Statistics:
    cells = prompt_cells(sums)
    by_model = {one.label: Counter[tuple[int, int]]() for one in run.models}
    for (number, n, c), prompts in sums.models.items():
        by_model[run.models[int(number)].label][n, c] += prompts
    return Statistics(
        tuple(pass_at_k(cells, seed)),
        tuple(_rates(cells)),
        tuple(_agreement(sums)),
        tuple(answer_entropies(sums, seed)),
        _histogram(sums, "near_miss"),
        _histogram(sums, "duplicate"),
        tuple(_likelihoods(sums)),
        tuple(_lengths(sums.tokens, sums.characters)),
        tuple(_lengths(sums.reasoning_tokens, sums.reasoning_characters)),
        sums.characters.total() if sums.tokens else 0,
        tuple(pass_at_k({label: cell for label, cell in by_model.items() if cell}, seed)),
    )


def _rates(cells: Cells) -> Iterator[Rates]:
    for family, prompts_of in cells.items():
        all_failed = sum(w for (_, c), w in prompts_of.items() if c == 0)
        all_passed = sum(w for (n, c), w in prompts_of.items() if c == n)
        tenths = [0] * 10
        for (n, c), w in prompts_of.items():
            if 0 < c < n:
                tenths[-(-10 * c // n) - 1] += w
        yield Rates(family, all_failed, tuple(tenths), all_passed)


def _agreement(sums: DrawSums) -> Iterator[Agreement]:
    families = sorted({family for family, _ in sums.agreement})
    for name in [*families, "all"] if len(families) > 1 else families:
        n = {
            count: sum(sums.agreement[family, count] for family in families if name in (family, "all"))
            for count in AGREEMENT_COUNTS
        }
        yield Agreement(
            name,
            n["prompts"],
            n["same"] / n["draws"],
            n["agree"] / n["judged"] if n["judged"] else None,
            n["passed_where_passed"] / n["where_passed"] if n["where_passed"] else None,
            n["passed_where_failed"] / n["where_failed"] if n["where_failed"] else None,
        )


def _histogram(sums: DrawSums, kind: str) -> tuple[int, ...]:
    return tuple(sums.similarity[kind, number] for number in range(SIMILARITY_BINS))


def _likelihoods(sums: DrawSums) -> Iterator[Likelihood]:
    present = [kind for kind in KINDS if sums.likely[kind, "samples"]]
    for name in [*present, "all"] if present else []:
        n, logprob, tokens = (
            sum(sums.likely[kind, figure] for kind in present if name in (kind, "all"))
            for figure in ("samples", "logprob", "tokens")
        )
        yield Likelihood(name, n, -logprob / tokens, logprob / n)


def _lengths(tokens: Sizes, characters: Sizes) -> Iterator[Lengths]:
    table, unit = (tokens, "tokens") if tokens else (characters, "characters")
    for kind in KINDS:
        of_kind = {(size, truncated): n for (other_kind, size, truncated), n in table.items() if other_kind == kind}
        sizes, finished = Counter[int](), Counter[bool]()
        for (size, truncated), n in of_kind.items():
            sizes[size] += n
            if truncated is not None:
                finished[truncated] += n
        if samples := sizes.total():
            values, weights = (np.array(column) for column in zip(*sizes.items(), strict=True))
            share = finished[True] / finished.total() if finished else None
            yield Lengths(kind, samples, _quantiles(values.astype(float), weights), share, unit)


def _quantiles(values: F64, weights: I64) -> tuple[float, ...]:
    """QUANTILES of values (m,) of which each occurs as often as its weight (m,); linear between two values."""
    order = values.argsort()
    values, ends = values[order], weights[order].cumsum()
    ranks = [q * (int(ends[-1]) - 1) for q in QUANTILES]
    floors = [math.floor(rank) for rank in ranks]
    places = ends.searchsorted([*floors, *map(math.ceil, ranks)], side="right")
    found = values[places].tolist()
    between = zip(found[: len(ranks)], found[len(ranks) :], ranks, floors, strict=True)
    return tuple(low + (high - low) * (rank - floor) for low, high, rank, floor in between)
