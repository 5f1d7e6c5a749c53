"""Who stays: the registered filters, and how a filter named in a recipe is built.

To add a filter that comes with thresher, add a line to FILTERS. Somebody else's is named `module:build` and needs no line.
"""

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from filters.base import Filter, FilterError
from schemas.sample import SAMPLES
from schemas.suggest import did_you_mean

FILTERS: dict[str, str] = {
    "finished": "filters.finished",
    "exact_answer": "filters.answers.exact_answer",
    "json_shape": "filters.answers.json_shape",
    "math_answer": "filters.math_answer",
    "code_tests": "filters.code_tests",
    "reasoning_gym": "filters.reasoning_gym",
    "regex": "filters.answers.regex",
    "instruction": "filters.answers.instruction",
    "coherence": "filters.coherence.coherence",
    "decontaminate": "filters.decontaminate",
    "python": "filters.python",
    "majority": "filters.answers.majority",
    "judge": "filters.judge",
    "reward": "filters.reward",
    "exact_duplicate": "filters.exact_duplicate",
}


def build(name: str, parameters: Mapping[str, Any], base: Path | None = None) -> Filter:
    """Build the filter a recipe names; paths among its parameters are relative to `base`.

    Raises FilterError that says what was wanted, what was found and what is near.
    """
    module, function = _located(name)
    config = getattr(module, "Config", None)
    given: Any = dict(parameters)
    filled = given
    if isinstance(config, type) and issubclass(config, BaseModel):
        # Whether or not somebody else's Config forbids unknown keys: a misspelt one must not pass for a default.
        strange = [key for key in given if key not in _keys(config)] if config.model_config.get("extra") != "allow" else []
        faults = [{"type": "extra_forbidden", "loc": (key,)} for key in strange]
        try:
            if not faults:
                given = config.model_validate(given, context={"base": base})
                filled = given.model_dump(mode="json", by_alias=True)
        except ValidationError as error:
            raise FilterError("; ".join(_explained(name, config, fault) for fault in error.errors())) from error
        if faults:
            raise FilterError("; ".join(_explained(name, config, fault) for fault in faults))
    try:
        made = function(given)
    except (ValueError, TypeError, KeyError, ImportError, OSError) as error:
        raise FilterError(f"{name}: cannot be built: {type(error).__name__}: {error}") from error
    if not isinstance(made, Filter):
        raise FilterError(f"{name}: build must return a filters.base.Filter, it returned {type(made).__name__}")
    unknown = sorted(set(made.columns) - set(SAMPLES.names))
    if unknown:
        raise FilterError(
            f"{name}: asks for the column {unknown[0]}{did_you_mean(unknown[0], SAMPLES.names)}; samples have {SAMPLES.names}"
        )
    # The key of a verdict holds the parameters: without them, verdicts under other parameters would pass for these.
    made = replace(made, parameters={**filled, **made.parameters})
    try:
        made.key  # noqa: B018 - it has one only if the parameters have JSON text
    except (TypeError, ValueError) as error:
        raise FilterError(f"{name}: parameters must be JSON values: {error}") from error
    return made


def parameters_schema(name: str) -> dict[str, Any]:
    """JSON Schema of a filter's parameters."""
    module, _ = _located(name)
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and issubclass(config, BaseModel)):
        raise FilterError(f"{name}: declares no Config, so its parameters have no schema")
    return config.model_json_schema()


def _located(name: str) -> tuple[Any, Any]:
    path, colon, attribute = name.partition(":")
    if not colon:
        if name not in FILTERS:
            raise FilterError(
                f"no filter is called {name!r}{did_you_mean(name, FILTERS)}; registered are {', '.join(FILTERS)}; "
                "name your own as module:build"
            )
        path, attribute = FILTERS[name], "build"
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        raise FilterError(f"{name}: cannot import {path}: {error}; is it on the path (PYTHONPATH) or installed?") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise FilterError(f"{name}: {path} has no function {attribute!r}{did_you_mean(attribute, dir(module))}")
    return module, function


def _explained(name: str, config: type[BaseModel], fault: Any) -> str:
    key = ".".join(map(str, fault["loc"]))
    valid = [field.alias or field_name for field_name, field in config.model_fields.items()]
    if fault["type"] == "extra_forbidden":
        return f"{name}: parameters.{key}: no such key{did_you_mean(key, valid)}; valid here: {', '.join(valid) or 'none'}"
    said = fault["msg"].removeprefix("Value error, ")
    return f"{name}: parameters{'.' + key if key else ''}: {said}, found {str(fault['input'])[:60]!r}"


def _keys(config: type[BaseModel]) -> set[str]:
    """Every spelling of a key that the model takes, its own check of them coming after."""
    aliases = {field.alias for field in config.model_fields.values() if field.alias}
    return aliases | set(config.model_fields)
