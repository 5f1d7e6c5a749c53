"""Shapes of older formats made into today's, as far as they go."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from schemas.manifest import RunManifest
from schemas.recipe import Recipe
from thresher.errors import StoreError

NEEDED = {"sample_id", "prompt_id", "row", "filter", "outcome"}
"""Columns without which nothing can be counted."""


def format_of(data: bytes) -> tuple[int | None, str]:
    """The pool version that a run.json names, and the version of thresher that wrote it; None where it names none."""
    given = _object(data)
    version = given.get("pool_version")
    return version if isinstance(version, int) else None, str(given.get("thresher_version", "unknown"))


def older_manifest(data: bytes) -> RunManifest:
    """The run.json of an older format: fields and settings that are not known today are left out, those that it lacks are filled
    in. Raises ValidationError where that makes no run."""
    given = {name: value for name, value in _object(data).items() if name in RunManifest.model_fields}
    filled = {"name": "run", "origin": "sampled", "sampling_key": "", "model": {}, "thresher_version": "unknown"} | given
    recipe = fitted({"name": filled["name"]} | dict(given.get("recipe") or {}))
    return RunManifest.model_validate(filled | {"recipe": recipe.model_dump(mode="json")})


def fitted(given: Mapping[str, Any]) -> Recipe:
    """A recipe of what is one today: settings that are refused are left out, again and again."""
    left: dict[str, Any] = json.loads(json.dumps(given))
    while True:
        try:
            return Recipe.model_validate(left)
        except ValidationError as error:
            wrong = error.errors()[0]
            loc = wrong["loc"][:-1] if wrong["type"] == "missing" else wrong["loc"]
            if not _left_out(left, loc):
                return Recipe(name="run")


def conformed(table: pa.Table, schema: pa.Schema, columns: list[str] | None, where: str) -> pa.Table:
    """A table of these columns of a schema (all, if none are named): what is missing is null, or blank where it may not be null.
    Raises StoreError without a column that is needed to count."""
    fields = [schema.field(name) for name in columns or schema.names]
    if lost := [field.name for field in fields if field.name in NEEDED and field.name not in table.column_names]:
        raise StoreError(f"{where}: has no column {', '.join(lost)}, without which nothing can be counted")
    try:
        made = [
            table[field.name].cast(field.type) if field.name in table.column_names else _blanks(field, table.num_rows)
            for field in fields
        ]
    except pa.ArrowException as error:
        raise StoreError(f"{where}: a column is of another type than today's: {error}") from error
    return pa.table(made, [field.name for field in fields])


# -- inside --------------------------------------------------------------------------------------------------------------


def _object(data: bytes) -> dict[str, Any]:
    """The JSON object of a file; an empty one where it is none."""
    try:
        given = json.loads(data)
    except ValueError:
        return {}
    return given if isinstance(given, dict) else {}


def _blanks(field: pa.Field, rows: int) -> pa.ChunkedArray:
    if field.nullable:
        return pa.chunked_array([pa.nulls(rows, field.type)])
    blank: Any = "" if pa.types.is_string(field.type) else [] if pa.types.is_list(field.type) else False
    return pa.chunked_array(
        [pa.repeat(pa.scalar(blank).cast(field.type) if blank is False else pa.scalar(blank, field.type), rows)]
    )


def _left_out(recipe: dict[str, Any], loc: tuple[int | str, ...]) -> bool:
    """Leave out what stands there; whether anything did. Steps that name an alternative and not a setting are passed."""
    place: Any = recipe
    last: tuple[Any, Any] | None = None
    step: Any
    for step in loc:
        if (isinstance(place, dict) and step in place) or (isinstance(place, list) and isinstance(step, int)):
            last = (place, step)
            place = place[step]
    if last is None:
        return False
    del last[0][last[1]]
    return True
