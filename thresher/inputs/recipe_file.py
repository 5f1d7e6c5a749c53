"""Reads a recipe: YAML with line numbers, then overrides, the JSON Schema, and the frozen model.

Every error names file, line and key, what was wanted, what was found, and the closest valid key.
"""

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError as SchemaFault
from pydantic import ValidationError

from filters import trust
from schemas.recipe import Recipe
from schemas.suggest import did_you_mean
from thresher import credentials, yaml_text
from thresher.errors import RecipeError
from thresher.inputs.recipe_trust import refusals

Key = tuple[str | int, ...]

SECRETS = frozenset({"hf_token", "api_key", "authorization", "Authorization", "password", "secret"})
"""Names of an engine's options and of fields of its requests whose values are keys."""


@dataclass(frozen=True)
class Loaded:
    """A recipe and the file it was read from. Paths in the recipe are relative to `base`."""

    recipe: Recipe
    base: Path
    path: Path
    lines: dict[Key, int]
    number: int | None = None
    """The model that it stands for (`of_each_model`), from 0."""

    @property
    def home(self) -> Path:
        """The folder whose files the recipe may name, besides the working directory and the user's roots."""
        return trust.project_of(self.base)

    def of_each_model(self) -> tuple["Loaded", ...]:
        """The recipe as each of its models draws by it; itself where it names one model."""
        if not self.recipe.models:
            return (self,)
        return tuple(replace(self, recipe=recipe, number=number) for number, recipe in enumerate(self.recipe.of_each_model()))

    @property
    def label(self) -> str:
        """The model that it stands for, in words; empty where the recipe names one model."""
        return "" if self.number is None else f"models[{self.number}] {self.recipe.model.name}"

    def where(self, key: Key) -> str:
        """Return `file:line: key`, with the line of the key, or of the innermost key around it that has one. Keys of `model` are
        those of the list `models` where it stands for one of them."""
        if self.number is not None and key[:1] == ("model",):
            key = ("models", self.number, *key[1:])
        elif self.number is not None and key[:1] == ("engine",) and ("models", self.number, "engine") in self.lines:
            key = ("models", self.number, *key)
        line = next((self.lines[key[:n]] for n in range(len(key), -1, -1) if key[:n] in self.lines), 1)
        return f"{self.path}:{line}: {spelled(key)}" if key else f"{self.path}:{line}"


def spelled(key: Key) -> str:
    """Write a key as people do: filters[1].parameters.after."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return text.removeprefix(".")


def load(path: str | Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read and validate a recipe; `overrides` are texts like `sampling.max_tokens=64`. Code, and files elsewhere, that it names
    need the user's consent (filters.trust). Raises RecipeError."""
    path = Path(path)
    text = _text(path)
    try:
        document = yaml_text.load(text)
        node = yaml.compose(text, Loader=yaml_text.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(f"{path}:{line}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise RecipeError(f"{path}:1: wanted a mapping with name, prompts, ..., found {_shortened(document)}")
    lines: dict[Key, int] = {}
    for key, line, is_repeated in _marks(node, ()):
        if is_repeated:
            raise RecipeError(f"{path}:{line}: {spelled(key)}: given twice; keep one")
        lines[key] = line
    loaded = Loaded(Recipe(name="unread"), path.parent, path, lines)
    for override in overrides:
        document = override_key(document, override)
    if (odd := yaml_text.odd_value(document)) is not None:
        raise RecipeError(f"{loaded.where(odd[0])}: found {odd[1]}")
    recipe = _validate(document, loaded)
    _refuse_secrets(document, (), loaded)
    loaded = replace(loaded, recipe=recipe)
    _refuse_untrusted(loaded)
    return loaded


def _text(path: Path) -> str:
    """The text of a recipe. Raises RecipeError."""
    try:
        if path.exists() and not path.is_file():
            raise RecipeError(f"{path}: cannot read the recipe: it is no file but a directory, a pipe or a device")
        if (size := path.stat().st_size) > yaml_text.MOST_CHARACTERS:
            most = f"{yaml_text.MOST_CHARACTERS:,}"
            raise RecipeError(f"{path}: a recipe of {size:,} bytes, wanted at most {most}; keep prompts in a file of their own")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{path}: cannot read the recipe: {error.strerror}; give the path of a YAML file") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text (byte {error.start}); save the recipe as UTF-8") from error
    except ValueError as error:  # a path with the character 0
        raise RecipeError(f"{path}: cannot read the recipe: {error}; give the path of a YAML file") from error


def _refuse_secrets(value: object, key: Key, loaded: Loaded) -> None:
    """Raise RecipeError for an address with a password, wherever the recipe holds one, and for a key given to an engine."""
    if isinstance(value, str) and credentials.has_password(value):
        raise RecipeError(f"{loaded.where(key)}: {credentials.advice(value)}")
    if isinstance(value, str) and value and key[-1:] and key[-1] in SECRETS and {"engine", "extra_body"} & set(key):
        raise RecipeError(
            f"{loaded.where(key)}: holds a key, which would be written to run.json and to Prefect; leave it out, and set the "
            "environment variable HF_TOKEN for the Hub, or the one that engine.api_key_env names for a server"
        )
    if isinstance(value, dict | list):
        for part, inner in value.items() if isinstance(value, dict) else enumerate(value):
            _refuse_secrets(inner, (*key, part), loaded)


def _refuse_untrusted(loaded: Loaded) -> None:
    """Raise RecipeError for code, and for files elsewhere, that the recipe names and the user has not allowed."""
    try:
        refused = next(refusals(loaded.recipe, loaded.base, loaded.home), None)
    except trust.ConfigError as error:
        raise RecipeError(str(error)) from error
    if refused is not None:
        key, why = refused
        raise RecipeError(f"{loaded.where(key)}: {why}")


def override_key(document: dict[str, Any], text: str) -> dict[str, Any]:
    """Apply one `a.b=c` (list items by number: `prompts.0.limit=4`); the value is YAML. Raises RecipeError."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {text}: wanted key=value, such as sampling.max_tokens=64")
    document = copy.deepcopy(document)
    node: Any = document
    *path, last = key.split(".")
    if len(path) > yaml_text.DEEPEST:
        raise RecipeError(f"--set {text[:60]}...: the recipe has no such place (more than {yaml_text.DEEPEST} levels)")
    try:
        for part in path:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        node[int(last) if isinstance(node, list) else last] = yaml_text.load(value)
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise RecipeError(f"--set {text}: the recipe has no such place ({error})") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {text}: the value is not valid YAML") from error
    return document


@cache
def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe, as it is in the package."""
    schema: dict[str, Any] = json.loads(files("schemas").joinpath("recipe.schema.json").read_text("utf-8"))
    return schema


def _validate(document: dict[str, Any], loaded: Loaded) -> Recipe:
    faults = Draft202012Validator(recipe_schema()).iter_errors(document)
    messages = [message for fault in faults for message in _explain(fault, loaded)]
    if not messages and "model" in document and document.get("models"):
        messages = [
            f"{loaded.where(('model',))}: the recipe has `models` too; move this model into that list, and remove it here"
        ]
    if not messages:
        try:
            return Recipe.model_validate(document)
        except ValidationError as error:
            messages = [
                f"{loaded.where(tuple(fault['loc']))}: {fault['msg'].removeprefix('Value error, ')}".replace(": :", ":")
                for fault in error.errors()
            ]
    raise RecipeError("\n".join(messages))


def _explain(fault: SchemaFault, loaded: Loaded) -> Iterator[str]:
    """Yield the message of a fault; one in a union is followed into the alternative whose `kind` the recipe names, or into the
    only one besides null."""
    key: Key = tuple(fault.absolute_path)
    where = loaded.where(key)
    schema, limit, instance = (
        cast("dict[str, Any]", fault.schema),
        cast("Any", fault.validator_value),
        cast("Any", fault.instance),
    )
    if fault.validator == "oneOf" and "discriminator" in schema:
        kinds = schema["discriminator"]["mapping"]
        kind = instance.get("kind") if isinstance(instance, dict) else None
        if kind in kinds:
            branch = [alternative["$ref"] for alternative in schema["oneOf"]].index(kinds[kind])
            for inner in fault.context or ():
                if inner.schema_path[0] == branch:
                    yield from _explain(inner, loaded)
        else:
            actual = f"found {kind!r}" if kind is not None else "it is missing"
            yield f"{where}.kind: wanted one of {', '.join(kinds)}; {actual}{did_you_mean(kind, kinds)}"
    elif fault.validator == "anyOf" and isinstance(instance, dict) and (other := _only_other(schema["anyOf"])) is not None:
        for inner in fault.context or ():
            if inner.schema_path[0] == other:
                yield from _explain(inner, loaded)
    elif fault.validator == "additionalProperties":
        valid = list(schema.get("properties", {}))
        for name in instance:
            if name not in valid:
                yield f"{loaded.where((*key, name))}: no such key{did_you_mean(name, valid)}; valid here: {', '.join(valid)}"
    elif fault.validator == "required":
        missing = [name for name in limit if name not in instance]
        yield f"{where}: lacks the key {missing[0]}" if key else f"{where}: the recipe lacks the key {missing[0]}"
    else:
        allowed = schema.get("enum", [])
        hint = did_you_mean(instance, [str(value) for value in allowed])
        yield f"{where}: wanted {_wanted(schema)}, found {_shortened(instance)}{hint}"


def _only_other(alternatives: list[dict[str, Any]]) -> int | None:
    """The number of the one alternative to null; None where there are several."""
    others = [number for number, alternative in enumerate(alternatives) if alternative.get("type") != "null"]
    return others[0] if len(others) == 1 else None


def _wanted(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_wanted(_resolved(alternative)) for alternative in schema["anyOf"])
    if "$ref" in schema:
        return _wanted(_resolved(schema))
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return repr(schema["const"])
    words = {
        "object": "a mapping",
        "array": "a list",
        "string": "text",
        "integer": "a whole number",
        "boolean": "true or false",
    }
    text = words.get(schema.get("type", ""), schema.get("type", "something else"))
    limits = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
        "minItems": "items: at least",
        "minLength": "length at least",
        "maxLength": "length at most",
        "pattern": "matching",
    }
    bounds = [f"{words} {schema[name]}" for name, words in limits.items() if name in schema]
    return f"{text} ({', '.join(bounds)})" if bounds else text


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    resolved: dict[str, Any] = recipe_schema()["$defs"][name] if name else schema
    return resolved


def _shortened(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _marks(node: yaml.Node | None, key: Key) -> Iterator[tuple[Key, int, bool]]:
    """Yield (key, line from 1, whether the key is a repeat) of all keys and items below a YAML node."""
    names: set[str] = set()
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            inner = (*key, str(name.value))
            yield inner, name.start_mark.line + 1, name.value in names
            names.add(name.value)
            yield from _marks(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield (*key, number), value.start_mark.line + 1, False
            yield from _marks(value, (*key, number))
