"""Finds what a recipe may not do without the user's consent (filters.trust): code, options and paths that it names.

A recipe may use files in its own folder, in the working directory and in the user's `roots`. So may the recipe that a run holds,
in place of its own folder in that of the run.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from filters import engine_options, trust
from schemas.engines import Engine, HttpEngine, ModelSpec, ReplayEngine, VllmEngine
from schemas.executors import RayExecutorSpec
from schemas.prompt_sets import DatasetSource, JsonlSource, ParquetSource
from schemas.recipe import FilterSpec, Recipe

Key = tuple[str | int, ...]
_ENGINE: TypeAdapter[Any] = TypeAdapter(Engine)


def refusals(recipe: Recipe, base: Path, home: Path, *, drawn: bool = True) -> Iterator[tuple[Key, str]]:
    """Yield (key of the recipe, why it is refused and how to allow it). Relative paths start at `base`, and may lead to places
    in `home`, which is the same for a recipe that the user named. Nothing is imported or opened. Raises trust.ConfigError where
    the user's configuration cannot be read. `drawn`: also what only sampling uses, which the recipe of a finished run no longer
    does: prompts, models and engines to draw from."""
    if trust.trusts_all():
        return
    for number, spec in enumerate(recipe.filters):
        yield from _of_filter(spec, ("filters", number))
    for key, value in (*(_places_of_sampling(recipe, base) if drawn else ()), *_places_of_judging(recipe, base)):
        refused = trust.refused_path(base / value, home)
        if refused is not None:
            yield key, refused
    repo = recipe.publish.repo
    if repo is not None and not is_of_hub(repo) and (refused := trust.refused_place(repo, home)):
        yield ("publish", "repo"), refused
    if isinstance(recipe.executor, RayExecutorSpec) and (refused := trust.refused_cluster(recipe.executor.address)):
        yield ("executor", "address"), refused
    for key, engine in (*(_engines(recipe) if drawn else ()), *_semantic_engine(recipe)):
        yield from _of_engine(engine, key)


def is_of_hub(repo: str) -> bool:
    """Whether a repository's name is one of a Hub, ORG/NAME; otherwise it is a directory, or an fsspec URL."""
    is_path = "://" in repo or repo.startswith((".", "/", "~")) or Path(repo).is_dir()
    return not is_path and re.search("[^/]/[^/]", repo) is not None


def _of_filter(spec: FilterSpec, key: Key) -> Iterator[tuple[Key, str]]:
    if ":" in spec.name and (refused := trust.refused_code(spec.name)):
        yield (*key, "name"), refused
    if spec.name == "python":
        inner = FilterSpec(name=str(spec.parameters.get("build")), parameters=_mapping(spec.parameters.get("parameters")))
        for _, refused in _of_filter(inner, key):
            yield (*key, "parameters", "build"), refused
    try:
        engine = _ENGINE.validate_python({"kind": "vllm", **_mapping(spec.parameters.get("engine"))})
    except ValidationError:
        return  # of a filter with parameters of its own, or an error that the filter itself explains
    yield from _of_engine(engine, (*key, "parameters", "engine"))


def _of_engine(engine: Any, key: Key) -> Iterator[tuple[Key, str]]:
    if isinstance(engine, VllmEngine) and (option := engine_options.refused(engine.options)):
        yield (*key, "options", option[0]), option[1]
    if isinstance(engine, HttpEngine) and engine.api_key_env is not None:
        urls = engine.base_urls or (f"the servers of {engine.fleet}",)
        if refused := trust.refused_key(engine.api_key_env, urls):
            yield (*key, "api_key_env"), refused


def _places_of_sampling(recipe: Recipe, base: Path) -> Iterator[tuple[Key, str]]:
    """The local paths from which a recipe draws."""
    for number, prompts in enumerate(recipe.prompts):
        if isinstance(source := prompts.source, JsonlSource | ParquetSource) or (
            isinstance(source, DatasetSource) and _is_path(source.path, base)
        ):
            yield ("prompts", number, "source", "path"), source.path
    for key, engine in _engines(recipe):
        if isinstance(engine, ReplayEngine):
            yield (*key, "path"), engine.path
        elif isinstance(engine, HttpEngine) and engine.fleet is not None:
            yield (*key, "fleet"), engine.fleet
    models: list[tuple[Key, ModelSpec]] = [(("model",), recipe.model)]
    models += [(("models", number), entry) for number, entry in enumerate(recipe.models)]
    for key, model in models:
        yield from _places_of_model(model, key, base)


def _places_of_judging(recipe: Recipe, base: Path) -> Iterator[tuple[Key, str]]:
    """The local paths with which a recipe compares; those of filters are checked as the filters are built."""
    if recipe.dedupe is not None and recipe.dedupe.semantic is not None:
        yield from _places_of_model(recipe.dedupe.semantic.model, ("dedupe", "semantic", "model"), base)
    if recipe.dedupe is not None and recipe.dedupe.released is not None:
        yield ("dedupe", "released", "index"), recipe.dedupe.released.index
    if recipe.run.scratch is not None:
        yield ("run", "scratch"), recipe.run.scratch


def _places_of_model(model: ModelSpec, key: Key, base: Path) -> Iterator[tuple[Key, str]]:
    for name, value in (("name", model.name), ("adapter", model.adapter)):
        if value is not None and _is_path(value, base):
            yield (*key, name), os.path.expanduser(value)


def _engines(recipe: Recipe) -> Iterator[tuple[Key, Any]]:
    yield ("engine",), recipe.engine
    for number, entry in enumerate(recipe.models):
        if entry.engine is not None:
            yield ("models", number, "engine"), entry.engine


def _semantic_engine(recipe: Recipe) -> Iterator[tuple[Key, Any]]:
    if recipe.dedupe is not None and recipe.dedupe.semantic is not None:
        yield ("dedupe", "semantic", "engine"), recipe.dedupe.semantic.engine


def _is_path(name: str, base: Path) -> bool:
    """Whether a name of a model or dataset may be a path: ORG/NAME is one where a folder, or a link, of that name lies there."""
    return name.startswith((".", "/", "~")) or ".." in name.split("/") or os.path.lexists(base / name)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
