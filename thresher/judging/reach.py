"""Finds out before a run whether what a recipe needs is there: packages, engine options, models and servers of filters."""

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

import filters
from schemas.engines import Engine, HttpEngine, ModelSpec, ReplayEngine, VllmEngine
from schemas.recipe import Recipe
from thresher.errors import EngineError, SourceError, ThresherError
from thresher.estimators.calibration import Quota
from thresher.inputs import models
from thresher.judging.build import Built
from thresher.samplers.declared import temperature_fault
from thresher.samplers.openai_http import HttpSampler
from thresher.samplers.replay import ReplaySampler
from thresher.samplers.vllm_process import check_options, unknown_options

INSTALL = "pip install 'thresher[cpu]', or 'thresher[gpu]' on a GPU"
VLLM_MISSING = f"vLLM is not installed; {INSTALL}"

_ENGINE: TypeAdapter[Any] = TypeAdapter(Engine)


def engine_faults(recipe: Recipe, base: Path) -> tuple[list[str], list[str]]:
    """What is wrong with a recipe's engine, without starting it or asking a server, and what could not be found out."""
    engine = recipe.engine
    try:
        if isinstance(engine, ReplayEngine):
            _read_table(base / engine.path, "engine.path")
        if isinstance(engine, VllmEngine):
            check_options(engine)
            if (fault := temperature_fault(recipe.sampling.temperatures)) is not None:
                return [fault], []
            if importlib.util.find_spec("vllm") is None:
                return [], [f"the engine and its options: {VLLM_MISSING}"]
            return unknown_options(engine), []
    except ThresherError as error:
        return [str(error)], []
    except ImportError as error:
        return [f"vLLM cannot be imported: {error}; {INSTALL}"], []
    return [], []


def missing_packages(built: Sequence[Built]) -> dict[str, str]:
    """What is missing on this machine, by the label of the filter that needs it."""
    missing = {item.label: words for item in built if (words := filters.missing_package(item.spec.name)) is not None}
    if importlib.util.find_spec("vllm") is None:
        in_process = (label for label, engine, _ in _models(built) if isinstance(engine, VllmEngine))
        missing |= dict.fromkeys(in_process, f"its model runs on vLLM; {VLLM_MISSING}")
    return missing


def model_faults(recipe: Recipe, built: Sequence[Built]) -> list[str]:
    """What is wrong with the models that filters ask: a model that is not there, a server that does not answer, options that vLLM
    does not know. Nothing is asked of the models themselves."""
    asked = list(_models(built))
    if recipe.dedupe is not None and (semantic := recipe.dedupe.semantic) is not None:
        asked.append(("dedupe.semantic", semantic.engine, semantic.model))
    faults = []
    for label, engine, model in asked:
        try:
            faults += [f"{label}: {fault}" for fault in _unreachable(engine, model)]
        except ThresherError as error:
            faults.append(f"{label}: {error}")
    return faults


# -- inside --------------------------------------------------------------------------------------------------------------


def _models(built: Sequence[Built]) -> Iterator[tuple[str, Engine, ModelSpec]]:
    """Label, engine and model of each filter that asks a model: those whose parameters have both."""
    for item in built:
        engine, model = item.filter.parameters.get("engine"), item.filter.parameters.get("model")
        if isinstance(engine, dict) and isinstance(model, dict):
            yield item.label, _ENGINE.validate_python(engine), ModelSpec.model_validate(model)


def _unreachable(engine: Engine, model: ModelSpec) -> list[str]:
    if isinstance(engine, HttpEngine):
        with HttpSampler(engine, model.name, quota=Quota(0), seeds="engine"):
            return []
    if isinstance(engine, ReplayEngine):
        _read_table(Path(engine.path), "parameters.engine.path")
        return []
    models.resolve(model.name, model.revision, base=Path())
    check_options(engine)
    try:
        return unknown_options(engine)
    except ImportError as error:
        return [] if importlib.util.find_spec("vllm") is None else [f"vLLM cannot be imported: {error}; {INSTALL}"]


def _read_table(path: Path, key: str) -> None:
    try:
        ReplaySampler(path)
    except (SourceError, OSError) as error:
        raise EngineError(f"{key}: the table of answers cannot be read: {error}") from error
