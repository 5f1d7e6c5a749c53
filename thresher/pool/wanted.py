"""How prompts are cut into shards, which of them a model answers, how many samples a shard is to have of it, and whether it has
them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.engines import ModelEntry, ModelSpec
from schemas.manifest import Entry
from schemas.recipe import Recipe
from schemas.sample import Prompt, to_json
from schemas.sampling import Sampling
from thresher.estimators.pass_rate import schedule

SHARD_TOKENS = 1 << 25
"""Most tokens of a shard, if every completion becomes max_tokens long: about 16 bytes each with log-probabilities and text."""
TOKEN_BYTES = 4
"""Bytes of a token of a completion, about, as text."""
_BUDGET = ("samples_per_prompt", "target_hits", "max_samples_per_prompt", "give_up_below", "anchor")


def wanted(sampling: Sampling, spec: ModelSpec | None = None) -> dict[str, Any]:
    """The number of samples that the prompts of a shard are to have, as its entry notes it; of one of several models also which
    prompts it answers."""
    budget = {name: getattr(sampling, name) for name in _BUDGET}
    if isinstance(spec, ModelEntry):
        budget |= {"families": None if spec.families is None else list(spec.families), "share": spec.share}
    return budget


def samples_of_shard(recipe: Recipe) -> int:
    """Most samples of a shard: its memory is bounded, however long they become."""
    return max(1, min(recipe.run.shard_samples, SHARD_TOKENS // recipe.sampling.max_tokens))


def shards_of(prompts: Iterable[Prompt], recipe: Recipe) -> Iterator[tuple[list[Prompt], int]]:
    """Cut prompts into shards, in order, each with the most bytes of text that it may have: a shard holds whole prompts, at most
    samples_of_shard samples and run.shard_bytes of text, or one prompt. Memory holds one shard."""
    sampling, models = recipe.sampling, max(1, len(recipe.models))
    draws = (sampling.samples_per_prompt * len(sampling.temperatures) + sampling.anchor) * models
    most = (schedule(sampling)[-1] * len(sampling.temperatures) + sampling.anchor) * models
    rows, shard, size = max(1, samples_of_shard(recipe) // draws), list[Prompt](), 0
    for prompt in prompts:
        added = most * _text_bytes(prompt) + draws * TOKEN_BYTES * sampling.max_tokens
        if shard and (len(shard) == rows or size + added > recipe.run.shard_bytes):
            yield shard, size
            shard, size = [], 0
        shard.append(prompt)
        size += added
    if shard:
        yield shard, size


def complete(entry: Entry, sampling: Sampling, spec: ModelSpec | None = None, *, key: str = "", first: str = "") -> bool:
    """Whether a finished shard has the samples that the recipe wants of a model. More is complete too: no sample is thrown away.
    `key` is the model's, where the run has several; `first` is that of the model with which the run began."""
    noted, wants = noted_of(entry.facts["wanted"], key, first), wanted(sampling, spec)
    if noted is None or not _covers(noted, wants):
        return False
    if noted["target_hits"] != wants["target_hits"] or wants["target_hits"] is not None:
        return all(noted[name] == wants[name] for name in _BUDGET)
    return bool(noted["samples_per_prompt"] >= wants["samples_per_prompt"] and noted["anchor"] >= wants["anchor"])


def noted_of(noted: Mapping[str, Any], key: str, first: str) -> Mapping[str, Any] | None:
    """What an entry notes of a model; None where it has not drawn its samples. A run that began with one model notes nothing but
    its numbers."""
    if "models" in noted:
        of_model: Mapping[str, Any] | None = noted["models"].get(key)
        return of_model
    return noted if key == first else None


def noted_with(before: Mapping[str, Any] | None, budget: dict[str, Any], key: str, first: str) -> dict[str, Any]:
    """What an entry notes once a model has drawn its samples. `before` is what it noted before, `key` is empty where the run has
    one model."""
    if not key:
        return budget
    earlier = {} if before is None else before.get("models", {first: before})
    return {"models": {**earlier, key: budget}}


def answers(spec: ModelSpec, prompt_id: str, family: str) -> bool:
    """Whether a model answers a prompt."""
    return bool(answered(spec, pa.table({"prompt_id": [prompt_id], "family": [family]}))[0])


def answered(spec: ModelSpec, prompts: pa.Table) -> NDArray[np.bool_]:
    """Which prompts (n,) of a table with prompt_id and family a model answers. A share goes by other digits of the hash than the
    split `test` does, so that the test rows are not those of one model."""
    mask = np.ones(prompts.num_rows, bool)
    if not isinstance(spec, ModelEntry):
        return mask
    if spec.families is not None:
        mask &= pc.is_in(prompts["family"], pa.array(spec.families, pa.string())).to_numpy(zero_copy_only=False)
    if spec.share is not None:
        bound = spec.share * 2**32
        mask &= np.array([int(prompt_id[8:16], 16) < bound for prompt_id in prompts["prompt_id"].to_pylist()], bool)
    return mask


# -- inside --------------------------------------------------------------------------------------------------------------


def _text_bytes(prompt: Prompt) -> int:
    """Bytes of the text that each sample of a prompt repeats (schemas.sample.REPEATED)."""
    parts = [part for message in prompt.messages for part in message.parts.values()]
    parts += [prompt.family, prompt.tools or "", prompt.template or "", to_json(prompt.reference), to_json(dict(prompt.metadata))]
    return sum(len(part) if part.isascii() else len(part.encode()) for part in parts)


def _covers(noted: Mapping[str, Any], wants: Mapping[str, Any]) -> bool:
    """Whether the prompts that were answered include those that are to be."""
    families, share = noted.get("families"), noted.get("share")
    wanted_families, wanted_share = wants.get("families"), wants.get("share")
    if families is not None and (wanted_families is None or not set(wanted_families) <= set(families)):
        return False
    return share is None or (wanted_share is not None and wanted_share <= share)
