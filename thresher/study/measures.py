"""What a study tests, as arrays with one row per prompt: what was drawn at each temperature, and of each changed prompt.

Temperature 0 is the greedy answer (the anchor). A draw *passes* if every verifier kept it. It *departs* if its text differs from
that of the greedy answer. Passing draws that are duplicates of each other, at whatever temperature, are one *solution*. Every
result (thresher.study.results) is a sum over these rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thresher.pool import judged as pool
from thresher.pool.run import Run
from thresher.study.shard_measures import COUNTS, F64, ShardMeasures, measure_shard
from thresher.study.variant_measures import KnownAnswers, known_answers, measure_variants

_COLUMNS = ["sample_id", "prompt_id", "family", "temperature", "anchor", "answer", "completion_ids", "finish_reason",
    "cumulative_logprob", "messages", "error"]  # fmt: skip


@dataclass(frozen=True)
class Measures:
    """P prompts, T temperatures (0 first), K volumes, V changes of the prompt."""

    prompts: tuple[str, ...]
    families: NDArray[np.str_]
    """(P,)"""
    temperatures: tuple[float, ...]
    volumes: tuple[int, ...]
    """Draws per prompt: 1, 2, 4, ..., half of them, and all of them."""
    unit: str
    """Unit of lengths: `tokens`, or `characters` where the engine gave no tokens."""
    counts: Mapping[str, F64]
    """Each of COUNTS, (P, T)."""
    solutions: F64
    """Expected number of solutions among the first k draws (P, T, K): the sum over solutions of 1 - C(n - c, k) / C(n, k), where
    c of n draws gave the solution (S. Hurlbert, Ecology 52, 1971). An undecided draw is no solution."""
    pass_at_k: F64
    """(P, T, K); NaN where fewer than k draws were judged."""
    entropy: F64
    """Of the answers' texts, in nats (P, T); Chao and Shen's estimate."""
    thirds: F64
    """Draws whose similarity to the greedy answer lies in the lower, middle and upper third (P, T, 3); zeros where that answer
    has fewer than LONG words. Of m words, m + 1 similarities are possible; each counts for an equal part of 0 to 1, so that the
    thirds have equal size if all similarities are equally frequent."""
    changes: tuple[str, ...]
    changed: Mapping[str, F64]
    """Of the greedy answer to each changed prompt (P, V), NaN without such an answer: `departed` and `similarity`, compared with
    the greedy answer to the original prompt; `judged`, `passed`; `known`: whether its text was drawn at temperature 1."""
    near_looked: bool = True
    """Whether the recipe looks for near misses."""


def measure(draws: Run, variants: Run) -> Measures:
    """Read the two runs of a study, with one shard in memory at a time. Raises StoreError where one is damaged."""
    recipe = draws.recipe
    temperatures = (0.0, *sorted(recipe.sampling.temperatures))
    parts: list[ShardMeasures] = []
    known: dict[str, KnownAnswers] = {}
    unit = "characters"
    for shard in map(pool.as_read, pool.each_judged(draws.store, _COLUMNS)):
        parts.append(measure_shard(shard, temperatures, recipe.near_miss))
        known |= known_answers(shard)
        if shard["completion_ids"].null_count < shard.num_rows:
            unit = "tokens"
    volumes = _volumes(parts)
    prompts = [prompt for part in parts for prompt in part.prompts]
    changes, changed = measure_variants(variants, prompts, known)
    return Measures(
        prompts=tuple(prompts),
        families=np.array([family for part in parts for family in part.families]),
        temperatures=temperatures,
        volumes=volumes,
        unit=unit,
        counts={name: np.concatenate([part.counts[name] for part in parts]) for name in COUNTS},
        solutions=np.concatenate([part.solutions(volumes) for part in parts]),
        pass_at_k=np.concatenate([part.pass_at_k(volumes) for part in parts]),
        entropy=np.concatenate([part.entropy for part in parts]),
        thirds=np.concatenate([part.thirds for part in parts]),
        changes=changes,
        changed=changed,
        near_looked=recipe.near_miss is not None,
    )


def _volumes(parts: list[ShardMeasures]) -> tuple[int, ...]:
    most = max((int(part.counts["draws"][:, 1:].max(initial=1)) for part in parts), default=1)
    return tuple(sorted({*(2**power for power in range(most.bit_length()) if 2**power <= most), max(1, most // 2), most}))
