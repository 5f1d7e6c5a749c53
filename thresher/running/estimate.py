"""Draws a small probe of a recipe and says what the whole run will bring and cost, before anybody pays for it.

The probe samples some prompts of each family, spread evenly over the plan, into a directory of its own that is removed; the run's
own samples are not touched. Its intervals are those of a bootstrap over prompts (95 %), so they speak of how well so few prompts
stand for all, and not of a machine that is busy later. The speed is that of the probe: an engine that the probe does not fill is
faster in the run. Hits are an upper bound: the more is drawn of a prompt the more of what passes is a repeat, which a probe of a
few samples does not see.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from thresher.errors import SourceError
from thresher.estimators import pass_rate as budget
from thresher.inputs.prompts import plan
from thresher.inputs.recipe_file import Loaded
from thresher.pool import judged as pool
from thresher.pool.prompt_counts import pass_rates, prompt_counts
from thresher.pool.wanted import answers
from thresher.running.probe import Probe, naming, probe

PROBE_PROMPTS = 16
PROBE_SAMPLES = 8
RESAMPLES = 1000


@dataclass(frozen=True)
class Range:
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """The expected yield and cost of a run, from one probe: `probe_samples` of `probe_prompts` prompts in `probe_s` seconds."""

    prompts: int
    samples: Range
    tokens: Range
    """Completion tokens, anchors included."""
    seconds: Range
    """Wall time of sampling at the probe's speed, without the start of the engine."""
    hits_per_1000_tokens: Range
    hits: Range
    pass_rate: Range
    tokens_per_s: float
    start_s: float
    probe_prompts: int
    probe_samples: int
    probe_s: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per estimated quantity: `of`, `value`, `low`, `high`."""
        return [{"of": name} | asdict(estimated) for name, estimated, _ in self._quantities()]

    def lines(self) -> list[str]:
        """Return the probe and the estimates as lines of text, rounded."""
        return [
            (
                f"probe: {self.probe_samples} samples of {self.probe_prompts} prompts in {self.probe_s:.1f} s, "
                f"{self.tokens_per_s:,.0f} tokens/s, after {self.start_s:.1f} s for the engine to start"
            ),
            f"the whole run, {self.prompts} prompts (95 % interval over prompts):",
            *(
                f"  {name:22} {estimated.value:{form}} [{estimated.low:{form}}, {estimated.high:{form}}]"
                for name, estimated, form in self._quantities()
            ),
        ]

    def _quantities(self) -> tuple[tuple[str, Range, str], ...]:
        """Name, estimate and number format of each estimated quantity."""
        return (
            ("samples", self.samples, ",.0f"),
            ("tokens", self.tokens, ",.0f"),
            ("seconds of sampling", self.seconds, ",.0f"),
            ("pass rate", self.pass_rate, ".3f"),
            ("hits, at most", self.hits, ",.0f"),
            ("hits per 1,000 tokens", self.hits_per_1000_tokens, ".2f"),
        )


def estimate_each(loaded: Loaded, *, prompts: int = PROBE_PROMPTS, samples: int = PROBE_SAMPLES) -> dict[str, Estimate]:
    """Probe each model of a recipe with prompts that it answers, one after the other; by its name, which is empty where the
    recipe names one model. Raises what a run raises."""
    estimates = {}
    for one in loaded.of_each_model():
        with naming(one.label) if one.label else nullcontext():
            estimates[one.label] = estimate(one, prompts=prompts, samples=samples)
    return estimates


def in_total(estimates: Mapping[str, Estimate]) -> str:
    """The samples, tokens, seconds and hits of all models together, in a line."""
    samples, tokens, seconds, hits = (
        sum(getattr(estimated, name).value for estimated in estimates.values())
        for name in ("samples", "tokens", "seconds", "hits")
    )
    return (
        f"all {len(estimates)} models, one after the other: {samples:,.0f} samples, {tokens:,.0f} tokens, {seconds:,.0f} s of "
        f"sampling, at most {hits:,.0f} hits"
    )


def estimate(loaded: Loaded, *, prompts: int = PROBE_PROMPTS, samples: int = PROBE_SAMPLES) -> Estimate:
    """Probe `prompts` prompts of a recipe with one model, with `samples` samples each. Raises what a run raises."""
    recipe = loaded.recipe
    planned = [prompt for prompt in plan(recipe, loaded.base) if answers(recipe.model, prompt.prompt_id, prompt.family)]
    if not planned:
        raise SourceError("the model answers none of the prompts; raise its share, or name other families")
    numbers = np.unique(np.linspace(0, len(planned) - 1, min(prompts, len(planned))).round().astype(int))
    chosen = [planned[number] for number in numbers]
    with probe(loaded, chosen, samples_per_prompt=min(samples, recipe.sampling.samples_per_prompt)) as probed:
        columns = ["prompt_id", "family", "index", "anchor", "completion_ids", "logprobs", "unreadable", "error"]
        judged = pa.concat_tables(pool.each_judged(probed.run.store, columns))
    return _estimate(loaded, len(planned), judged, probed)


# -- inside --------------------------------------------------------------------------------------------------------------


def _estimate(loaded: Loaded, prompts: int, judged: pa.Table, probed: Probe) -> Estimate:
    sampling = loaded.recipe.sampling
    first, prompt, counts = prompt_counts(judged)
    length = pc.coalesce(pc.list_value_length(judged["completion_ids"]), pc.list_value_length(judged["logprobs"]), pa.scalar(0))
    tokens = np.bincount(prompt, weights=length.to_numpy(), minlength=len(first)) / np.bincount(prompt, minlength=len(first))
    rates = np.array([rate or 0.0 for rate in pass_rates(judged)])
    passed = np.maximum(counts["passed"], 1)
    distinct = counts["hits"] / passed  # of what passes, the share that is new
    speed = probed.tokens / probed.sampling_s
    draws = len(sampling.temperatures) * np.array([budget.expected_draws(sampling, [float(rate)]) for rate in rates])

    def whole(rows: Any) -> list[float]:
        """Samples, tokens, seconds, hits per 1,000 tokens, hits and pass rate of a run whose prompts are like these."""
        each = draws[rows] + sampling.anchor
        hits = draws[rows] * rates[rows] * distinct[rows]
        share = 1.0
        if sampling.target_rows is not None and hits.mean() > 0:
            share = min(1.0, sampling.target_rows / (prompts * hits.mean()))
        all_tokens = share * prompts * (each * tokens[rows]).mean()
        all_hits = share * prompts * hits.mean()
        per = 1000 * all_hits / all_tokens if all_tokens else 0.0
        seconds = all_tokens / speed if speed else share * prompts * each.mean() / max(probed.samples / probed.sampling_s, 1e-9)
        return [share * prompts * each.mean(), all_tokens, seconds, per, all_hits, rates[rows].mean()]

    random = np.random.default_rng(0)
    middle = whole(np.arange(len(first)))
    drawn = np.array([whole(random.integers(0, len(first), len(first))) for _ in range(RESAMPLES)])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    ranges = [Range(float(v), float(a), float(b)) for v, a, b in zip(middle, low, high, strict=True)]
    estimates = dict(zip(("samples", "tokens", "seconds", "hits_per_1000_tokens", "hits", "pass_rate"), ranges, strict=True))
    return Estimate(
        prompts=prompts,
        **estimates,
        tokens_per_s=speed,
        start_s=probed.start_s,
        probe_prompts=len(first),
        probe_samples=probed.samples,
        probe_s=probed.sampling_s,
    )
