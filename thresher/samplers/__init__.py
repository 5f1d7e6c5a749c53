"""Samplers: prompts in, completions out, in the order in which they finish."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from schemas.recipe import HttpEngine, Recipe, ReplayEngine
from thresher.calibration import Quota
from thresher.models import Model
from thresher.samplers.base import Sampler


def open_sampler(
    recipe: Recipe, model: Model, *, base: Path, start: Callable[[], tuple[int, int]]
) -> AbstractContextManager[Sampler]:
    """Start the recipe's engine; leaving the context ends it.

    `start` is called at every start of an engine and gives its number in the run and its seed, so that an engine that is started
    again does not repeat its noise. `base` is the recipe's directory. Raises EngineError, ModelError or SourceError.
    """
    quota, seeds = Quota(recipe.sampling.calibration.standard_error), recipe.sampling.seeds
    if isinstance(recipe.engine, ReplayEngine):
        from thresher.samplers.replay import ReplaySampler

        return ReplaySampler(base / recipe.engine.path)
    if isinstance(recipe.engine, HttpEngine):
        from thresher.samplers.openai_http import HttpSampler

        return HttpSampler(recipe.engine, model.name, quota=quota, seeds=seeds)
    from thresher.samplers.vllm_offline import VllmSampler

    return VllmSampler(recipe.engine, model, prompt_format=recipe.model.prompt_format, quota=quota, seeds=seeds, start=start)
