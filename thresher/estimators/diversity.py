"""How different a run's hits are: distinct hits per prompt, how draws are spread over them, their n-grams, and near misses."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from filters.chunks import cuts, row_bytes, take
from filters.similarity.edits import tokens_of
from schemas.sample import Kind

Sums = Counter[tuple[str, str]]
"""By family and statistic, a sum over a shard; sums of shards add up."""
Mask = NDArray[np.bool_]
PART_BYTES = 16 << 20
"""Texts whose words are in memory at a time have this many bytes, or are one text: its words take 15 times as much."""


@dataclass(frozen=True)
class Diversity:
    """How different the hits of a family of prompts are, or those of the whole run; null where there are no hits."""

    family: str
    prompts_with_hits: int
    hits_per_prompt: float | None
    """Distinct hits per prompt, over the prompts that have any."""
    effective_solutions: float | None
    """Exponential of the entropy of the hits' shares of the draws (Hill number of order 1), mean over the same prompts: 3 hits
    drawn 98, 1 and 1 times are as different as 1.12 hits drawn equally often."""
    distinct_1: float | None
    """Different words / words of a prompt's hits, mean over prompts (distinct-n, Li et al. 2016)."""
    distinct_2: float | None
    """The same for pairs of words."""
    near_miss_share: float | None
    """Near misses / (near misses + misses)."""
    cluster_sizes: dict[str, int]
    """Hits by the number of their draws: 1, 2, 3-4, 5-8 and so on."""


def sums_of(judged: pa.Table) -> Sums:
    """Sum the statistics of a judged shard (thresher.pool.judged)."""
    sums: Sums = Counter()
    drawn = judged.filter(pc.invert(judged["anchor"]))
    for kind in (Kind.NEAR_MISS, Kind.MISS):
        _count(sums, drawn.filter(pc.equal(drawn["kind"], kind.value))["family"], kind.value)
    hits = drawn.filter(pc.equal(drawn["kind"], Kind.HIT.value))
    if not hits.num_rows:
        return sums
    prompts = hits["prompt_id"].combine_chunks().dictionary_encode()
    codes, draws = prompts.indices.to_numpy(), hits["multiplicity"].to_numpy().astype(np.float64)
    shares = draws / np.bincount(codes, weights=draws)[codes]
    effective = np.exp(-np.bincount(codes, weights=shares * np.log(shares)))
    _, first = np.unique(codes, return_index=True)
    families = hits["family"].take(pa.array(first))
    _count(sums, families, "prompts")
    _count(sums, hits["family"], "hits")
    for family, number in zip(families.to_pylist(), effective.tolist(), strict=True):
        sums[family, "effective"] += number
    steps = np.ceil(np.log2(draws)).astype(int)
    for family, step in zip(hits["family"].to_pylist(), steps.tolist(), strict=True):
        sums[family, f"cluster {step}"] += 1
    return sums


def distinct_of(samples: pa.Table, hits: Mask) -> dict[str, list[float]]:
    """Return, by family, the number of prompts with hits, and the sums over them of distinct-1 and distinct-2.

    `hits` (S,) is a mask of the samples, which need prompt_id, family and completion.
    """
    rows = samples.select(["prompt_id", "family", "completion"]).filter(pa.array(hits))
    if not rows.num_rows:
        return {}
    codes = rows["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    words, pairs = (_Distinct(int(codes.max()) + 1) for _ in range(2))
    order, texts = np.argsort(codes, kind="stable"), rows.select(["completion"])
    for start, end in cuts(row_bytes(texts)[order], PART_BYTES):
        part = order[start:end]
        tokens = tokens_of(take(texts, part)["completion"])
        inside = np.repeat(np.arange(len(part)), np.diff(tokens.starts))
        of_words, values = codes[part][inside], tokens.tokens.astype(np.uint64)
        same = inside[1:] == inside[:-1]
        words.add(values, of_words)
        pairs.add((values[:-1] << np.uint64(32) | values[1:])[same], of_words[1:][same])
    ratios = (words.ratios(), pairs.ratios())
    _, first = np.unique(codes, return_index=True)
    by_family: dict[str, list[float]] = {}
    for family, distinct_1, distinct_2 in zip(rows["family"].take(pa.array(first)).to_pylist(), *ratios, strict=True):
        totals = by_family.setdefault(family, [0, 0.0, 0.0])
        totals[0] += 1
        totals[1] += float(distinct_1)
        totals[2] += float(distinct_2)
    return by_family


def diversities(sums: Sums, distinct: Mapping[str, list[float]]) -> list[Diversity]:
    """Return the diversity of each family and, if there are several, of all together (`all`).

    `sums` are those of `sums_of`, `distinct` those of `distinct_of`, added up over the shards.
    """
    by_family: dict[str, Counter[str]] = {family: Counter() for family in sorted({family for family, _ in sums})}
    everything: Counter[str] = Counter()
    for (family, statistic), value in sums.items():
        by_family[family][statistic] += value
        everything[statistic] += value
    steps = sorted(int(statistic.split()[1]) for statistic in everything if statistic.startswith("cluster"))
    ratios = {family: np.array(distinct.get(family, [0, 0.0, 0.0])) for family in by_family}
    rows = [_diversity(family, own, steps, ratios[family]) for family, own in by_family.items()]
    return rows if len(rows) < 2 else [*rows, _diversity("all", everything, steps, np.sum(list(ratios.values()), axis=0))]


def _diversity(name: str, total: Counter[str], steps: list[int], ratios: NDArray[np.float64]) -> Diversity:
    """The diversity of one family, or of all, from its sums by statistic."""
    prompts, failed = int(total["prompts"]), total[Kind.NEAR_MISS.value] + total[Kind.MISS.value]
    sizes = {_bucket(step): int(total[f"cluster {step}"]) for step in steps}
    return Diversity(
        family=name,
        prompts_with_hits=prompts,
        hits_per_prompt=total["hits"] / prompts if prompts else None,
        effective_solutions=total["effective"] / prompts if prompts else None,
        distinct_1=float(ratios[1] / ratios[0]) if ratios[0] else None,
        distinct_2=float(ratios[2] / ratios[0]) if ratios[0] else None,
        near_miss_share=total[Kind.NEAR_MISS.value] / failed if failed else None,
        cluster_sizes={size: count for size, count in sizes.items() if count},
    )


def _bucket(step: int) -> str:
    low, high = 2 ** (step - 1) + 1 if step else 1, 2**step
    return str(high) if low >= high else f"{low}-{high}"


def _count(sums: Sums, families: pa.ChunkedArray, statistic: str) -> None:
    for row in pc.value_counts(families).to_pylist():
        sums[row["values"], statistic] += row["counts"]


class _Distinct:
    """Counts the values and the different values of groups (count,), whose values are added in the order of the groups."""

    def __init__(self, count: int) -> None:
        self._all, self._different = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self._last, self._seen = -1, np.zeros(0, np.uint64)
        """The group that values were added to last, which may get more, and its different values."""

    def add(self, values: NDArray[np.uint64], groups: NDArray[np.int64]) -> None:
        """Add values (n,) of groups (n,)."""
        if not len(values):
            return
        order = np.lexsort((values, groups))
        values, groups = values[order], groups[order]
        self._all += np.bincount(groups, minlength=len(self._all))
        new = np.ones(len(values), bool)
        new[1:] = (values[1:] != values[:-1]) | (groups[1:] != groups[:-1])
        values, groups = values[new], groups[new]
        known = (groups == self._last) & np.isin(values, self._seen)
        self._different += np.bincount(groups[~known], minlength=len(self._different))
        last = int(groups[-1])
        own = values[groups == last]
        self._seen = np.union1d(self._seen, own) if last == self._last else own
        self._last = last

    def ratios(self) -> NDArray[np.float64]:
        """Different values / values of each group (count,); 1 for an empty group."""
        return np.where(self._all, self._different / np.maximum(self._all, 1), 1.0)
