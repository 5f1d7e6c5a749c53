"""How different a run's hits are: distinct ones per prompt, how draws are spread over them, their n-grams, and near misses."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from filters.similarity.edits import tokens_of
from schemas.sample import Kind

Sums = Counter[tuple[str, str]]
"""Sums of a shard by family and statistic; they add up over shards."""
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Diversity:
    """How different the hits of a family of prompts are, or of the whole run; null where there is nothing to tell of."""

    family: str
    prompts_with_hits: int
    hits_per_prompt: float | None
    """Mean of distinct hits, of the prompts that have any."""
    effective_solutions: float | None
    """Mean over the same prompts of the exponential of the entropy of the shares that its hits have of the draws (Hill number of
    order 1): 3 hits that came 98, 1 and 1 times are as different as 1.12 that come equally often."""
    distinct_1: float | None
    """Mean over prompts of different words / words of its hits (distinct-n, Li et al. 2016)."""
    distinct_2: float | None
    """The same of pairs of words."""
    near_miss_share: float | None
    """Near misses / (near misses + misses)."""
    cluster_sizes: dict[str, int]
    """Hits by the number of draws that fell on them: 1, 2, 3-4, 5-8 and so on."""


def sums_of(judged: pa.Table) -> Sums:
    """What is summed of one judged shard (thresher.pool.judged.judged)."""
    found: Sums = Counter()
    drawn = judged.filter(pc.invert(judged["anchor"]))
    for kind in (Kind.NEAR_MISS, Kind.MISS):
        _count(found, drawn.filter(pc.equal(drawn["kind"], kind.value))["family"], kind.value)
    hits = drawn.filter(pc.equal(drawn["kind"], Kind.HIT.value))
    if not hits.num_rows:
        return found
    prompts = hits["prompt_id"].combine_chunks().dictionary_encode()
    codes, draws = prompts.indices.to_numpy(), hits["multiplicity"].to_numpy().astype(np.float64)
    shares = draws / np.bincount(codes, weights=draws)[codes]
    effective = np.exp(-np.bincount(codes, weights=shares * np.log(shares)))
    _, first = np.unique(codes, return_index=True)
    families = hits["family"].take(pa.array(first))
    _count(found, families, "prompts")
    _count(found, hits["family"], "hits")
    for family, number in zip(families.to_pylist(), effective.tolist(), strict=True):
        found[family, "effective"] += number
    steps = np.ceil(np.log2(draws)).astype(int)
    for family, step in zip(hits["family"].to_pylist(), steps.tolist(), strict=True):
        found[family, f"cluster {step}"] += 1
    return found


def distinct_of(samples: pa.Table, hits: Mask) -> dict[str, list[float]]:
    """By family: prompts with hits, and the sums over them of distinct-1 and distinct-2. Needs prompt_id, family, completion."""
    rows = samples.filter(pa.array(hits))
    if not rows.num_rows:
        return {}
    tokens = tokens_of(rows["completion"])
    codes = rows["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    sizes = np.diff(tokens.starts)
    prompt = np.repeat(codes, sizes)
    words = tokens.tokens.astype(np.uint64)
    inside = np.repeat(np.arange(len(sizes)), sizes)
    pairs = (words[:-1] << np.uint64(32) | words[1:])[inside[1:] == inside[:-1]]
    prompt_of_pairs = prompt[1:][inside[1:] == inside[:-1]]
    count = int(codes.max()) + 1
    ratios = [_distinct(values, groups, count) for values, groups in ((words, prompt), (pairs, prompt_of_pairs))]
    _, first = np.unique(codes, return_index=True)
    found: dict[str, list[float]] = {}
    for at, family in enumerate(rows["family"].take(pa.array(first)).to_pylist()):
        mine = found.setdefault(family, [0, 0.0, 0.0])
        mine[0] += 1
        mine[1] += float(ratios[0][at])
        mine[2] += float(ratios[1][at])
    return found


def diversities(sums: Sums, distinct: Mapping[str, list[float]], *, multiplicities: bool = True) -> list[Diversity]:
    """Of each family, and of all together where there are several. Without `multiplicities`, as in older formats, nobody knows
    how draws fell on hits, nor looked for near misses."""
    families = sorted({family for family, _ in sums})
    made = [_of(family, [family], sums, distinct) for family in families]
    made += [_of("all", families, sums, distinct)] if len(families) > 1 else []
    return (
        made
        if multiplicities
        else [replace(one, effective_solutions=None, near_miss_share=None, cluster_sizes={}) for one in made]
    )


def _of(name: str, families: list[str], sums: Sums, distinct: Mapping[str, list[float]]) -> Diversity:
    def total(statistic: str) -> float:
        return sum(sums[family, statistic] for family in families)

    told = np.array([distinct.get(family, [0, 0.0, 0.0]) for family in families]).sum(axis=0)
    prompts, failed = int(total("prompts")), total(Kind.NEAR_MISS.value) + total(Kind.MISS.value)
    steps = sorted({int(statistic.split()[1]) for _, statistic in sums if statistic.startswith("cluster")})
    sizes = {_bucket(step): int(total(f"cluster {step}")) for step in steps}
    return Diversity(
        family=name,
        prompts_with_hits=prompts,
        hits_per_prompt=total("hits") / prompts if prompts else None,
        effective_solutions=total("effective") / prompts if prompts else None,
        distinct_1=float(told[1] / told[0]) if told[0] else None,
        distinct_2=float(told[2] / told[0]) if told[0] else None,
        near_miss_share=total(Kind.NEAR_MISS.value) / failed if failed else None,
        cluster_sizes={size: count for size, count in sizes.items() if count},
    )


def _bucket(step: int) -> str:
    low, high = 2 ** (step - 1) + 1 if step else 1, 2**step
    return str(high) if low >= high else f"{low}-{high}"


def _count(found: Sums, families: pa.ChunkedArray, statistic: str) -> None:
    for one in pc.value_counts(families).to_pylist():
        found[one["values"], statistic] += one["counts"]


def _distinct(values: NDArray[np.uint64], groups: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Different values / values of each group; 1 where it has none."""
    order = np.lexsort((values, groups))
    values, groups = values[order], groups[order]
    new = np.ones(len(values), bool)
    new[1:] = (values[1:] != values[:-1]) | (groups[1:] != groups[:-1])
    every = np.bincount(groups, minlength=count)
    return np.where(every, np.bincount(groups[new], minlength=count) / np.maximum(every, 1), 1.0)
