"""Opens the sampler of a recipe's engine."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from filters.reasoning import Marking
from schemas.engines import Engine, HttpEngine, ReplayEngine
from schemas.sampling import Sampling
from thresher.errors import EngineError
from thresher.estimators.calibration import Quota
from thresher.inputs.models import Model
from thresher.inputs.thinking import budget_marks
from thresher.samplers.declared import changes_distribution, temperature_fault
from thresher.samplers.http.claims import Note
from thresher.samplers.openai_http import HttpSampler
from thresher.samplers.replay import ReplaySampler
from thresher.samplers.sampler import Sampler
from thresher.samplers.vllm_offline import VllmSampler


def open_sampler(
    engine: Engine,
    model: Model,
    *,
    prompt_format: str,
    marking: Marking | None = None,
    tool_parser: str | None = None,
    sampling: Sampling,
    base: Path,
    start: Callable[[], tuple[int, int]],
    note: Note | None = None,
) -> AbstractContextManager[Sampler]:
    """Return the sampler of an engine, which starts in `with` and ends after it.

    `start` is called at each start of an engine and returns its number in the run and its seed, so that an engine that is started
    again does not repeat its noise. `note` compares what servers say of the model with what they said before. `base` is the
    recipe's directory. Raises EngineError, ModelError or SourceError.
    """
    quota, seeds = Quota(sampling.calibration.standard_error), sampling.seeds
    if isinstance(engine, ReplayEngine):
        return ReplaySampler(base / engine.path)
    if isinstance(engine, HttpEngine):
        base_model = None if model.adapter is None else model.name
        return HttpSampler(
            engine, model.served_name, quota=quota, seeds=seeds, base=base, note=note, base_model=base_model,
            tells_kind=changes_distribution(sampling),
        )  # fmt: skip
    if (fault := temperature_fault(sampling.temperatures)) is not None:
        raise EngineError(fault)
    return VllmSampler(
        engine,
        model,
        prompt_format=prompt_format,
        marking=marking,
        tool_parser=tool_parser,
        budget_marks=None if sampling.thinking_tokens is None else budget_marks(marking),
        quota=quota,
        seeds=seeds,
        start=start,
    )
