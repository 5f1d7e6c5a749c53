"""Samplers: prompts in, completions out, in the order in which they finish."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from schemas.engines import Engine, HttpEngine, ReplayEngine
from schemas.sampling import Sampling
from thresher.estimators.calibration import Quota
from thresher.inputs.models import Model
from thresher.samplers.sampler import Sampler


def open_sampler(
    engine: Engine, model: Model, *, prompt_format: str, sampling: Sampling, base: Path, start: Callable[[], tuple[int, int]]
) -> AbstractContextManager[Sampler]:
    """Start a recipe's engine; leaving the context ends it.

    `start` is called at every start of an engine and gives its number in the run and its seed, so that an engine that is started
    again does not repeat its noise. `base` is the recipe's directory. Raises EngineError, ModelError or SourceError.
    """
    quota, seeds = Quota(sampling.calibration.standard_error), sampling.seeds
    if isinstance(engine, ReplayEngine):
        from thresher.samplers.replay import ReplaySampler

        return ReplaySampler(base / engine.path)
    if isinstance(engine, HttpEngine):
        from thresher.samplers.openai_http import HttpSampler

        return HttpSampler(engine, model.name, quota=quota, seeds=seeds, base=base)
    from thresher.samplers.vllm_offline import VllmSampler

    return VllmSampler(engine, model, prompt_format=prompt_format, quota=quota, seeds=seeds, start=start)
