"""Models and engines among a filter's parameters, whose local paths are relative to the recipe."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

from schemas.engines import Engine, ModelSpec, ReplayEngine


def resolved_model(model: ModelSpec, base: Path | None) -> ModelSpec:
    """Return a model whose name is an absolute path if it is a folder relative to `base`; a Hub id is unchanged."""
    if base is not None and (folder := (base / model.name).expanduser()).is_dir():
        return model.model_copy(update={"name": str(folder.absolute())})
    return model


def _model(model: ModelSpec, info: ValidationInfo) -> ModelSpec:
    base = (info.context or {}).get("base")
    return resolved_model(model, None if base is None else Path(base))


def _engine(engine: Engine, info: ValidationInfo) -> Engine:
    base = (info.context or {}).get("base")
    if base is not None and isinstance(engine, ReplayEngine):
        return engine.model_copy(update={"path": str(Path(base) / engine.path)})
    return engine


LocalModel = Annotated[ModelSpec, AfterValidator(_model)]
"""A model whose path, if it is a folder, is relative to the recipe."""
LocalEngine = Annotated[Engine, AfterValidator(_engine)]
"""An engine whose path, if it replays a file, is relative to the recipe."""
