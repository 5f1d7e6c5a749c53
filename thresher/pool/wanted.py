"""How many samples a shard is to have, and whether it has them."""

from typing import Any

from schemas.manifest import Entry
from schemas.recipe import Recipe
from schemas.sampling import Sampling

SHARD_TOKENS = 1 << 25
"""Most tokens of a shard, if every completion becomes max_tokens long: about 16 bytes each with log-probabilities and text."""
_BUDGET = ("samples_per_prompt", "target_hits", "max_samples_per_prompt", "give_up_below", "anchor")


def wanted(sampling: Sampling) -> dict[str, Any]:
    """The number of samples that the prompts of a shard are to have, as its entry notes it."""
    return {name: getattr(sampling, name) for name in _BUDGET}


def samples_of_shard(recipe: Recipe) -> int:
    """Most samples of a shard: its memory is bounded, however long they become."""
    return max(1, min(recipe.run.shard_samples, SHARD_TOKENS // recipe.sampling.max_tokens))


def complete(entry: Entry, sampling: Sampling) -> bool:
    """Whether a finished shard has the samples that the recipe wants. More is complete too: no sample is thrown away."""
    noted, wants = entry.facts["wanted"], wanted(sampling)
    if noted["target_hits"] != wants["target_hits"] or wants["target_hits"] is not None:
        return bool(noted == wants)
    return bool(noted["samples_per_prompt"] >= wants["samples_per_prompt"] and noted["anchor"] >= wants["anchor"])
