"""The generated JSON Schemas that are committed under schemas/."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from schemas.manifest import Entry, RunManifest
from schemas.recipe import Recipe
from schemas.release import RepositoryManifest
from thresher.dataset import views
from thresher.dataset.view_schemas import arrow_types, json_schema

MODELS: dict[str, type[BaseModel]] = {
    "recipe.schema.json": Recipe,
    "run.schema.json": RunManifest,
    "entry.schema.json": Entry,
    "repository.schema.json": RepositoryManifest,
}


def texts() -> dict[Path, str]:
    """Path and expected text of each schema."""
    folder = Path(str(files("schemas")))
    text_of = {folder / name: json.dumps(_schema(model), indent=2) + "\n" for name, model in MODELS.items()}
    for view in views.COLUMNS:
        text_of[folder / f"views/{view}.schema.json"] = json.dumps(json_schema(view), indent=2) + "\n"
        text_of[folder / f"views/{view}.arrow.json"] = json.dumps(arrow_types(view), indent=1) + "\n"
    return text_of


def stale() -> list[Path]:
    """Paths of the committed schemas that differ from the models."""
    return [path for path, text in texts().items() if not path.is_file() or path.read_text("utf-8") != text]


def write() -> list[Path]:
    """Write the stale schemas; returns their paths."""
    changed = stale()
    for path in changed:
        path.parent.mkdir(exist_ok=True)
        path.write_text(texts()[path], "utf-8")
    return changed


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
