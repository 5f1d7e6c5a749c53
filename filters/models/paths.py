"""Models and engines among a filter's parameters, whose local paths are relative to the recipe."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

from filters.base import local_path
from schemas.engines import Engine, HttpEngine, ModelSpec, ReplayEngine


def resolved_model(model: ModelSpec, base: Path | None) -> ModelSpec:
    """Return a model whose name is an absolute path if it is a folder relative to `base`; a Hub id is unchanged."""
    if base is not None and (folder := (base / model.name).expanduser()).is_dir():
        return model.model_copy(update={"name": str(folder.absolute())})
    return model


def _model(model: ModelSpec, info: ValidationInfo) -> ModelSpec:
    base = (info.context or {}).get("base")
    for name in (model.name, model.adapter):
        if name is not None and (name.startswith((".", "/", "~")) or os.path.lexists(Path(base or "", name))):
            local_path(str(Path(name).expanduser()), info)
    return resolved_model(model, None if base is None else Path(base))


def _engine(engine: Engine, info: ValidationInfo) -> Engine:
    if isinstance(engine, ReplayEngine):
        return engine.model_copy(update={"path": local_path(engine.path, info)})
    if isinstance(engine, HttpEngine) and engine.fleet is not None:
        return engine.model_copy(update={"fleet": local_path(engine.fleet, info)})
    return engine


LocalModel = Annotated[ModelSpec, AfterValidator(_model)]
"""A model whose path, if it is a folder, is relative to the recipe."""
LocalEngine = Annotated[Engine, AfterValidator(_engine)]
"""An engine whose path, of answers to replay or of a fleet, is relative to the recipe."""
