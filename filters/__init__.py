"""The registered filters, and how a filter named in a recipe is built.

A filter that ships with thresher has a line in FILTERS. A third-party filter is named `module:build` and needs no line, but the
user's consent (filters.trust), without which nothing of it is imported.
"""

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ValidationError

from filters import trust
from filters.base import Filter, FilterError
from filters.tools import Tools
from schemas.sample import SAMPLES
from schemas.suggest import did_you_mean

FILTERS: dict[str, str] = {
    "finished": "filters.finished",
    "exact_answer": "filters.answers.exact_answer",
    "json_shape": "filters.answers.json_shape",
    "math_answer": "filters.maths.math_answer",
    "code_tests": "filters.code.tests",
    "reasoning_gym": "filters.reasoning_gym",
    "regex": "filters.answers.regex",
    "instruction": "filters.answers.instruction",
    "coherence": "filters.coherence.coherence",
    "coherence_model": "filters.coherence.coherence_model",
    "decontaminate": "filters.decontaminate",
    "python": "filters.python",
    "majority": "filters.answers.majority",
    "tool_call": "filters.answers.tool_call",
    "judge": "filters.models.judge",
    "reward": "filters.models.reward",
}
REMOVED: dict[str, str] = {
    "exact_duplicate": "the recipe's dedupe finds duplicates; for equal texts of a prompt write "
    "`dedupe: {within_prompt: 1, within_run: null}`, for equal texts of the whole run "
    "`dedupe: {within_prompt: 1, within_run: 1, run_characters: 0}`",
}
"""Former filters, and what to write instead."""
PACKAGES: dict[str, tuple[str, str]] = {"math_answer": ("math_verify", "maths"), "reasoning_gym": ("reasoning_gym", "reasoning")}
"""The package that a filter imports when it judges, and thresher's extra with it."""


def build(name: str, parameters: Mapping[str, Any], tools: Tools | None = None) -> Filter:
    """Build the filter that a recipe names; paths among its parameters are relative to `tools.base`.

    Without `tools` the filter gets a Tools of its own, without models, whose processes end when the filter is collected. Raises
    FilterError, whose message says what was wanted, what was found and which valid name is similar.
    """
    tools = Tools() if tools is None else tools
    function, config_class = _located(name)
    config: Any = dict(parameters)
    recorded = config
    if config_class is not None:
        config = _validated(name, config_class, parameters, tools)
        recorded = config.model_dump(mode="json", by_alias=True)
    try:
        built = function(config, tools=tools) if _takes_tools(function) else function(config)
    except (ValueError, TypeError, KeyError, ImportError, OSError) as error:
        raise FilterError(f"{name}: cannot be built: {type(error).__name__}: {error}") from error
    if not isinstance(built, Filter):
        raise FilterError(f"{name}: build must return a filters.base.Filter, it returned {type(built).__name__}")
    unknown = sorted(set(built.columns) - set(SAMPLES.names))
    if unknown:
        raise FilterError(
            f"{name}: asks for the column {unknown[0]}{did_you_mean(unknown[0], SAMPLES.names)}; samples have {SAMPLES.names}"
        )
    # A verdict's key includes the parameters; without them, verdicts made with other parameters would be reused.
    built = replace(built, parameters={**recorded, **built.parameters})
    try:
        built.key  # noqa: B018 - computing it fails unless the parameters have JSON text
    except (TypeError, ValueError) as error:
        raise FilterError(f"{name}: parameters must be JSON values: {error}") from error
    return built


def missing_package(name: str) -> str | None:
    """Return what to install before a filter can judge; None if nothing is missing."""
    package, extra = PACKAGES.get(name, ("filters", ""))
    if importlib.util.find_spec(package) is not None:
        return None
    return f"its package {package} is not installed; pip install 'thresher[{extra}]'"


def parameters_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of a filter's parameters."""
    _, config_class = _located(name)
    if config_class is None:
        raise FilterError(f"{name}: declares no Config, so its parameters have no schema")
    return config_class.model_json_schema()


def _located(name: str) -> tuple[Callable[..., Any], type[BaseModel] | None]:
    """Find a filter's build function and its Config, if it has one."""
    path, colon, attribute = name.partition(":")
    if not name.isprintable() or path.startswith("."):
        raise FilterError(f"no filter is called {name!r}; name your own as module:build")
    if not colon:
        if name in REMOVED:
            raise FilterError(f"{name}: no such filter any more: {REMOVED[name]}")
        if name not in FILTERS:
            raise FilterError(
                f"no filter is called {name!r}{did_you_mean(name, FILTERS)}; registered are {', '.join(FILTERS)}; "
                "name your own as module:build"
            )
        path, attribute = FILTERS[name], "build"
    elif refused := _refused(name):
        raise FilterError(refused)
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        raise FilterError(f"{name}: cannot import {path}: {error}; is it on the path (PYTHONPATH) or installed?") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise FilterError(f"{name}: {path} has no function {attribute!r}{did_you_mean(attribute, dir(module))}")
    config_class = getattr(module, "Config", None)
    is_model = isinstance(config_class, type) and issubclass(config_class, BaseModel)
    return function, config_class if is_model else None


def _refused(name: str) -> str | None:
    """Why the code of a third-party filter may not be imported; None if it may."""
    try:
        return trust.refused_code(name)
    except trust.ConfigError as error:
        return str(error)


def _takes_tools(function: Callable[..., Any]) -> bool:
    """Whether a build function has a parameter `tools`; filters that need none take the config only."""
    try:
        return "tools" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some callables written in C have no signature
        return False


def _validated(name: str, config_class: type[BaseModel], parameters: Mapping[str, Any], tools: Tools) -> BaseModel:
    """Validate parameters. A misspelt key is an error even where a third-party Config would ignore it."""
    allows_any = config_class.model_config.get("extra") == "allow"
    unknown = [] if allows_any else [key for key in parameters if key not in _keys(config_class)]
    faults: list[Any] = [{"type": "extra_forbidden", "loc": (key,)} for key in unknown]
    try:
        if not faults:
            return config_class.model_validate(dict(parameters), context={"base": tools.base, "home": tools.home})
    except ValidationError as error:
        raise FilterError("; ".join(_explained(name, config_class, fault) for fault in error.errors())) from error
    raise FilterError("; ".join(_explained(name, config_class, fault) for fault in faults))


def _explained(name: str, config_class: type[BaseModel], fault: Any) -> str:
    key = ".".join(map(str, fault["loc"]))
    valid = [field.alias or field_name for field_name, field in config_class.model_fields.items()]
    if fault["type"] == "extra_forbidden":
        return f"{name}: parameters.{key}: no such key{did_you_mean(key, valid)}; valid here: {', '.join(valid) or 'none'}"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{name}: parameters{'.' + key if key else ''}: {message}, found {str(fault['input'])[:60]!r}"


def _keys(config_class: type[BaseModel]) -> set[str]:
    """Every spelling of a key that the model may accept: field names and aliases."""
    aliases = {field.alias for field in config_class.model_fields.values() if field.alias}
    return aliases | set(config_class.model_fields)
