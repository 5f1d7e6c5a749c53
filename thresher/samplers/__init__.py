"""Samplers: prompts in, completions out, in the order in which they finish."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from schemas.recipe import Recipe, ReplayEngine
from thresher.models import Model
from thresher.samplers.base import Sampler


def open_sampler(recipe: Recipe, model: Model, *, base: Path, seed: Callable[[int], int]) -> AbstractContextManager[Sampler]:
    """Start the recipe's engine; leaving the context ends it.

    `seed` gives the engine's seed from the number of its start, 0 for the first, so that an engine that is started again does
    not repeat its noise. `base` is the recipe's directory. Raises EngineError, ModelError or SourceError.
    """
    if isinstance(recipe.engine, ReplayEngine):
        from thresher.samplers.replay import ReplaySampler

        return ReplaySampler(base / recipe.engine.path)
    from thresher.samplers.vllm_offline import VllmSampler

    return VllmSampler(recipe.engine, model, prompt_format=recipe.model.prompt_format, seed=seed)
