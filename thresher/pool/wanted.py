"""How many samples a shard is to have, and whether it has them."""

from typing import Any

from schemas.manifest import Entry
from schemas.sampling import Sampling


def wanted(sampling: Sampling) -> dict[str, Any]:
    """How many samples the prompts of a shard are to have, as its entry notes it."""
    names = ("samples_per_prompt", "target_hits", "max_samples_per_prompt", "give_up_below", "anchor")
    return {name: getattr(sampling, name) for name in names}


def complete(entry: Entry, sampling: Sampling) -> bool:
    """Whether a finished shard holds what the recipe wants. More than that is complete too: nothing drawn is thrown away."""
    has, wants = entry.facts["wanted"], wanted(sampling)
    if has["target_hits"] != wants["target_hits"] or wants["target_hits"] is not None:
        return bool(has == wants)
    return bool(has["samples_per_prompt"] >= wants["samples_per_prompt"] and has["anchor"] >= wants["anchor"])
