"""Counts of what became of each prompt's samples, and pass rates from them."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.sample import Kind, Outcome
from schemas.sampling import Sampling
from thresher.estimators import pass_rate

Ints = NDArray[np.int64]


def prompt_counts(judged: pa.Table) -> tuple[Ints, Ints, dict[str, Ints]]:
    """Count each prompt's samples without the anchor: samples, passed, hits, duplicates, undecided (int64, one per prompt).

    Also returns the first row of each prompt, in order, and the number of each row's prompt.
    """
    encoded = as_array(judged["prompt_id"]).dictionary_encode()
    prompt = encoded.indices.to_numpy()
    first = np.full(len(encoded.dictionary), len(prompt), np.int64)
    np.minimum.at(first, prompt, np.arange(len(prompt)))
    drawn = ~judged["anchor"].to_numpy()

    def count(mask: pa.ChunkedArray | None = None) -> Ints:
        chosen = drawn if mask is None else drawn & pc.fill_null(mask, False).to_numpy()
        return np.bincount(prompt[chosen], minlength=len(first))

    hits = count(pc.equal(judged["kind"], Kind.HIT.value))
    duplicates = count(pc.equal(judged["kind"], Kind.DUPLICATE.value))
    undecided = count(pc.equal(judged["outcome"], Outcome.UNDECIDED.value))
    counts = {
        "samples": count(),
        "passed": hits + duplicates,
        "hits": hits,
        "duplicates": duplicates,
        "undecided": undecided,
    }
    return first, prompt, counts


@dataclass(frozen=True)
class PromptCount:
    """What became of the samples of a prompt, without the anchor; `failed` could not be drawn and are undecided."""

    drawn: int
    decided: int
    passed: int
    hits: int
    failed: int


def prompt_count(judged: pa.Table) -> dict[str, PromptCount]:
    """The counts of each prompt, by prompt_id."""
    first, prompt, counts = prompt_counts(judged)
    failed = np.bincount(prompt[pc.is_valid(judged["error"]).to_numpy()], minlength=len(first))
    prompt_ids = judged["prompt_id"].take(pa.array(first)).to_pylist()
    drawn, decided = counts["samples"], counts["samples"] - counts["undecided"]
    columns = (drawn, decided, counts["passed"], counts["hits"], failed)
    return {name: PromptCount(*map(int, row)) for name, row in zip(prompt_ids, zip(*columns, strict=True), strict=True)}


def pass_rates(judged: pa.Table, sampling: Sampling | None = None, models: Ints | None = None) -> list[float | None]:
    """Each prompt's pass rate, in the order of `prompt_counts`: passed / decided, corrected where drawing stopped because of the
    verdicts (thresher.estimators.pass_rate); None where nothing was decided. `models` (n,) has the number of the model that drew
    each row, where there are several: then the draws of each are corrected by themselves, and the rate is the mean of theirs."""
    first, prompt, counts = prompt_counts(judged)
    decided = counts["samples"] - counts["undecided"]
    if sampling is None or sampling.target_hits is None:
        return [int(p) / int(d) if d else None for p, d in zip(counts["passed"], decided, strict=True)]
    if models is not None:
        return _means_over_models(judged, sampling, models, prompt)
    draws = ~judged["anchor"].to_numpy() & pc.not_equal(judged["outcome"], Outcome.UNDECIDED.value).to_numpy()
    rows = np.flatnonzero(draws)
    rows = rows[np.lexsort((judged["index"].to_numpy()[rows], prompt[rows]))]
    hit = pc.fill_null(pc.equal(judged["kind"], Kind.HIT.value), False).to_numpy()[rows]
    passed = hit | pc.fill_null(pc.equal(judged["kind"], Kind.DUPLICATE.value), False).to_numpy()[rows]
    ends = np.cumsum(np.bincount(prompt[rows], minlength=len(first)))
    return [pass_rate.pass_rate(sampling, passed[a:b], hit[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def _means_over_models(judged: pa.Table, sampling: Sampling, models: Ints, prompt: Ints) -> list[float | None]:
    """The mean over models of each prompt's corrected pass rates. A model stopped at its own hits, so its first draw of an answer
    counts as a hit although another model drew that answer too."""
    rates: list[list[float]] = [[] for _ in range(int(prompt.max(initial=-1)) + 1)]
    kinds = judged["kind"]
    cluster = pc.if_else(pc.equal(kinds, Kind.DUPLICATE.value), judged["nearest"], judged["sample_id"])
    passed = pc.fill_null(pc.is_in(kinds, pa.array([Kind.HIT.value, Kind.DUPLICATE.value])), False).to_numpy()
    codes = as_array(pa.chunked_array(cluster)).dictionary_encode().indices.fill_null(-1).to_numpy()
    draws = ~judged["anchor"].to_numpy() & pc.not_equal(judged["outcome"], Outcome.UNDECIDED.value).to_numpy()
    rows = np.flatnonzero(draws & (models >= 0))
    rows = rows[np.lexsort((judged["index"].to_numpy()[rows], models[rows], prompt[rows]))]
    groups = prompt[rows] * (int(models.max(initial=0)) + 1) + models[rows]
    for of_group in np.split(rows, np.flatnonzero(np.diff(groups)) + 1) if len(rows) else []:
        first = np.zeros(len(of_group), bool)
        first[np.unique(codes[of_group], return_index=True)[1]] = True
        rate = pass_rate.pass_rate(sampling, passed[of_group], passed[of_group] & first)
        if rate is not None:
            rates[int(prompt[of_group[0]])].append(rate)
    return [sum(of_prompt) / len(of_prompt) if of_prompt else None for of_prompt in rates]


def as_array(column: pa.ChunkedArray) -> pa.Array:
    """One array of all chunks; an empty one where there are none."""
    return column.combine_chunks() if column.num_chunks else pa.array([], column.type)
