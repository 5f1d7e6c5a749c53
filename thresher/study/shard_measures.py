"""Measures one shard of a study's draws: counts, entropy and solutions of every prompt at every temperature.

P prompts, T temperatures (0, the greedy answer, first). A *cell* is a prompt at a temperature, numbered row by row. S samples of
the shard; M pairs of a text or solution and the cell in which it was drawn.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

import filters
from filters.judging import judge
from filters.similarity.edits import Tokens, nearest, tokens_of
from schemas.repeats import NearMissSpec
from schemas.sample import Kind, Outcome
from thresher.auditing.statistics import of_k

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

THIRDS = 3
LONG = 4
"""Fewest words of a greedy answer for which similarity to it means anything: between one-word answers it is 0 or 1."""
COUNTS = ("draws", "judged", "passed", "near", "departed", "departed_judged", "departed_passed", "departed_near", "again",
    "truncated", "incoherent", "tokens", "nats", "counted_nats", "alike", "compared")  # fmt: skip
"""`again`: departing draws whose text occurred more than once; `alike`: sum of similarities to the greedy answer, over the
`compared` draws."""


@dataclass(frozen=True)
class ShardMeasures:
    """The measures of a shard's prompts."""

    prompts: list[str]
    families: list[str]
    counts: dict[str, F64]
    """Each of COUNTS, (P, T)."""
    entropy: F64
    """(P, T)"""
    thirds: F64
    """(P, T, 3)"""
    times: I64
    """How often a solution was drawn in a cell (M,)."""
    cells: I64
    """The cells of `times` (M,)."""

    def solutions(self, volumes: tuple[int, ...]) -> F64:
        """Expected solutions among the first k draws (P, T, K); see Measures.solutions."""
        draws = self.counts["draws"].astype(np.int64)
        drawn = draws.ravel()[self.cells]
        chances = [expected_share(drawn, self.times, np.minimum(drawn, volume)) for volume in volumes]
        return np.stack([_sums(self.cells, chance, draws.size) for chance in chances], axis=-1).reshape(
            *draws.shape, len(volumes)
        )

    def pass_at_k(self, volumes: tuple[int, ...]) -> F64:
        """pass@k (P, T, K), NaN where fewer than k draws were judged."""
        judged, passed = (self.counts[name].astype(np.int64).ravel() for name in ("judged", "passed"))
        rates = np.full((judged.size, len(volumes)), np.nan)
        for column, k in enumerate(volumes):
            enough = judged >= k
            rates[enough, column] = of_k(judged[enough], passed[enough], k)
        return rates.reshape(*self.counts["judged"].shape, len(volumes))


def measure_shard(shard: pa.Table, temperatures: tuple[float, ...], near_miss: NearMissSpec | None) -> ShardMeasures:
    """Measure a judged shard (thresher.pool.judged) that holds whole prompts."""
    encoded = shard["prompt_id"].combine_chunks().dictionary_encode()
    prompts, prompt = encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)
    _, first = np.unique(prompt, return_index=True)
    shape = (len(prompts), len(temperatures))
    cells = shape[0] * shape[1]
    samples = _labelled(shard, prompt, temperatures, near_miss)
    values = _values(shard, samples)
    text_times, text_cells = _tallied(samples.cell[samples.drawn], samples.text[samples.drawn])
    solutions = solution_of(shard, samples.text)[samples.passed]
    times, solution_cells = _tallied(samples.cell[samples.passed], solutions)
    return ShardMeasures(
        prompts=prompts,
        families=shard["family"].take(pa.array(first)).to_pylist(),
        counts={name: _sums(samples.cell, values[name].astype(float), cells).reshape(shape) for name in COUNTS},
        entropy=chao_shen(text_times, text_cells, cells).reshape(shape),
        thirds=_thirds(samples, cells).reshape(*shape, THIRDS),
        times=times,
        cells=solution_cells,
    )


def chao_shen(counts: I64, cells: I64, size: int) -> F64:
    """Entropy in nats of each of `size` cells, from `counts` (M,) of the species seen in the cells `cells` (M,); 0 for an empty
    cell.

    Horvitz-Thompson over the species seen, their shares shrunk to the sample's coverage 1 - singletons / n (A. Chao, T.-J. Shen,
    Environmental and Ecological Statistics 10, 2003).
    """
    n = np.bincount(cells, weights=counts, minlength=size)
    singles = np.bincount(cells, weights=counts == 1, minlength=size)
    singles = np.where(singles == n, n - 1, singles)  # otherwise the coverage would be 0
    coverage = np.where(n > 1, 1 - singles / np.maximum(n, 1), 1.0)
    share = coverage[cells] * counts / n[cells]
    inclusion = -np.expm1(n[cells] * np.log1p(-np.minimum(share, 1 - 1e-12)))
    return _sums(cells, -share * np.log(share) / inclusion, size)


def solution_of(shard: pa.Table, text: I64) -> I64:
    """A number for each sample's solution (S,): that of the text at the end of its chain of duplicates, or of its own text.

    `text` (S,) numbers the texts.
    """
    original = pc.index_in(shard["nearest"], shard["sample_id"].combine_chunks())
    duplicate = pc.fill_null(pc.equal(shard["kind"], Kind.DUPLICATE.value), fill_value=False).to_numpy(zero_copy_only=False)
    row = pc.fill_null(original, -1).to_numpy()
    target = np.where(duplicate & (row >= 0), row, np.arange(shard.num_rows))
    while not np.array_equal(target[target], target):
        target = target[target]
    solutions: I64 = text[target]
    return solutions


def expected_share(n: I64, c: I64, k: I64) -> F64:
    """1 - C(n - c, k) / C(n, k) for each row (M,): the chance that k of n draws contain one of c."""
    chances = np.zeros(len(n))
    for size in np.unique(k).tolist():
        rows = k == size
        chances[rows] = of_k(n[rows], c[rows], size) if size else 0.0
    return chances


def similarity_thirds(edits: I64, longer: I64) -> F64:
    """How much of each draw (S,) lies in each third of similarity (S, 3); rows sum to 1.

    Of `longer` = m words, m + 1 similarities are possible; each stands for an equal part of 0 to 1.
    """
    low, high = (longer - edits) / (longer + 1), (longer - edits + 1) / (longer + 1)
    ends = np.arange(THIRDS + 1) / THIRDS
    overlap = np.minimum(high[:, None], ends[1:]) - np.maximum(low[:, None], ends[:-1])
    masses: F64 = np.maximum(overlap, 0) * (longer + 1)[:, None]
    return masses


# -- samples -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Samples:
    """The samples of a shard, as arrays (S,)."""

    prompt: I64
    cell: I64
    text: I64
    """Equal numbers are equal completions."""
    anchor: Bools
    drawn: Bools
    """Completed without an error."""
    judged: Bools
    passed: Bools
    near: Bools
    departed: Bools
    """The text differs from that of the prompt's greedy answer."""
    edits: I64
    """Word edits between the sample and the prompt's greedy answer; -1 where there is none."""
    longer: I64
    """Words of the longer of the two."""
    greedy_words: I64
    """Words of the prompt's greedy answer."""


def _labelled(shard: pa.Table, prompt: I64, temperatures: tuple[float, ...], near_miss: NearMissSpec | None) -> _Samples:
    anchor = shard["anchor"].to_numpy(zero_copy_only=False)
    temperature = np.where(anchor, 0, np.searchsorted(np.array(temperatures), shard["temperature"].to_numpy()))
    drawn = pc.is_null(shard["error"]).to_numpy(zero_copy_only=False)
    text = shard["completion"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    outcome, kind = (shard[name].to_numpy(zero_copy_only=False) for name in ("outcome", "kind"))
    judged = drawn & (outcome != Outcome.UNDECIDED.value)
    passed = np.isin(kind.astype(str), [Kind.HIT.value, Kind.DUPLICATE.value]) & judged
    missed = np.isin(kind.astype(str), [Kind.MISS.value, Kind.NEAR_MISS.value]) & judged
    words = tokens_of(shard["completion"])
    near = (kind == Kind.NEAR_MISS.value) & judged
    near |= _near_anchors(words, prompt, missed & anchor, passed, near_miss)
    greedy = anchor & drawn
    greedy_text, greedy_words = np.full(prompt.max(initial=-1) + 1, -1), np.zeros(prompt.max(initial=-1) + 1, np.int64)
    greedy_text[prompt[greedy]] = text[greedy]
    greedy_words[prompt[greedy]] = np.diff(words.starts)[greedy]
    edits, longer = _edits_from_greedy(words, prompt, greedy)
    return _Samples(
        prompt=prompt,
        cell=prompt * len(temperatures) + temperature,
        text=text,
        anchor=anchor,
        drawn=drawn,
        judged=judged,
        passed=passed,
        near=near,
        departed=drawn & (text != greedy_text[prompt]) & (greedy_text[prompt] >= 0),
        edits=edits,
        longer=longer,
        greedy_words=greedy_words[prompt],
    )


def _values(shard: pa.Table, samples: _Samples) -> dict[str, NDArray[np.float64] | Bools]:
    """What each sample adds to each of COUNTS (S,)."""
    drawn, departed = samples.drawn, samples.departed
    length = pc.coalesce(pc.list_value_length(shard["completion_ids"]), pc.utf8_length(shard["completion"])).to_numpy()
    logprob = shard["cumulative_logprob"].to_numpy()
    truncated = pc.fill_null(pc.equal(shard["finish_reason"], "length"), fill_value=False).to_numpy(zero_copy_only=False)
    coherence = judge(filters.build("coherence", {}), shard)["outcome"].to_numpy(zero_copy_only=False)
    compared = drawn & (samples.edits >= 0)
    return {
        "draws": drawn,
        "judged": samples.judged,
        "passed": samples.passed,
        "near": samples.near,
        "departed": departed,
        "departed_judged": departed & samples.judged,
        "departed_passed": departed & samples.passed,
        "departed_near": departed & samples.near,
        "again": departed & _repeated(samples),
        "truncated": truncated & drawn,
        "incoherent": (coherence == Outcome.DROP.value) & drawn,
        "tokens": length * drawn,
        "nats": np.nan_to_num(-logprob),
        "counted_nats": length * ~np.isnan(logprob),
        "alike": np.where(compared, 1 - samples.edits / np.maximum(samples.longer, 1), 0.0),
        "compared": compared,
    }


def _near_anchors(words: Tokens, prompt: I64, missed: Bools, passed: Bools, spec: NearMissSpec | None) -> Bools:
    """Which of the `missed` greedy answers are near misses by the rule of the filter near_miss, which judges draws only."""
    near = np.zeros(len(prompt), bool)
    if spec is not None:
        order = np.argsort(prompt, kind="stable")
        seekers, targets = order[missed[order]], order[passed[order]]
        match, _ = nearest(words, prompt, seekers, targets, edits=spec.edits, share=spec.share, common=spec.common)
        near[seekers[match >= 0]] = True
    return near


def _edits_from_greedy(words: Tokens, prompt: I64, greedy: Bools) -> tuple[I64, I64]:
    """Word edits between each sample and its prompt's greedy answer, and words of the longer one; -1 and 0 without an answer."""
    sizes, order = np.diff(words.starts), np.argsort(prompt, kind="stable")
    match, distance = nearest(words, prompt, order, order[greedy[order]], edits=2**31 - 1, share=1.0, common=0.0)
    edits, longer = np.full(len(prompt), -1, np.int64), np.zeros(len(prompt), np.int64)
    edits[order] = np.where(match >= 0, distance, -1)
    longer[order] = np.maximum(sizes[order], sizes[np.maximum(match, 0)])
    return edits, longer


def _repeated(samples: _Samples) -> Bools:
    """Which draws have a text that was drawn more than once in their cell."""
    _, pair, times = np.unique(np.stack([samples.cell, samples.text]), axis=1, return_inverse=True, return_counts=True)
    pair = pair.ravel()
    repeated: Bools = (np.bincount(pair[samples.drawn], minlength=len(times)) > 1)[pair] & samples.drawn
    return repeated


def _thirds(samples: _Samples, cells: int) -> F64:
    """Draws in each third of similarity to the greedy answer (cells, 3), where that has LONG words or more."""
    counted = samples.drawn & (samples.edits >= 0) & ~samples.anchor & (samples.greedy_words >= LONG)
    masses = similarity_thirds(samples.edits[counted], samples.longer[counted])
    return np.stack([_sums(samples.cell[counted], masses[:, third], cells) for third in range(THIRDS)], axis=-1)


def _sums(cells: I64, values: F64, size: int) -> F64:
    """Sums of values (M,) by cell (size,)."""
    return np.bincount(cells, weights=values, minlength=size).astype(np.float64)


def _tallied(cells: I64, values: I64) -> tuple[I64, I64]:
    """How often each value occurs in each cell (M,), and those cells (M,)."""
    pairs, times = np.unique(np.stack([cells, values]), axis=1, return_counts=True)
    return times.astype(np.int64), pairs[0].astype(np.int64)
