"""The state of a run: one manifest of the run, and one entry for each finished file.

An entry is written after its file, so a file with an entry is complete, and a file without one does not count. Each entry is a
file of its own (`samples/00042.json` beside `samples/00042.parquet`), so any number of workers can finish shards without sharing
one. Manifest and entries are sealed: a `digest` of all other fields tells a damaged one from what was written.
"""

import hashlib
import json
from functools import lru_cache, partial
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.recipe import Recipe
from schemas.sample import POOL_VERSION, to_json

Sealed = TypeVar("Sealed", bound=BaseModel)


class Entry(BaseModel):
    """One finished file. Unknown fields, which another version may write, are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    path: str
    """Path of the file, relative to the run."""
    rows: int
    """Number of rows."""
    bytes: int
    """Size of the file, in bytes."""
    sha256: str
    """SHA-256 of the file."""
    key: str
    """Hash of the inputs of the file. A file with another key is outdated and is written again."""
    facts: dict[str, Any] = Field(default_factory=dict)
    """Counts, seconds, and the engine's seed and version, as far as the stage knows them."""


class ServerClaims(BaseModel):
    """`servers/*.json`: what a server says of a model, in GET /v1/models, /version and, for vLLM, /weight_info. Null is what it
    does not say."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    model: str
    """The name by which it serves the model."""
    root: str | None = None
    """The model behind the name: for vLLM the directory or Hub id it was started with."""
    parent: str | None = None
    """For an adapter: the name of its base model."""
    owned_by: str | None = None
    """Who owns the model; `vllm` for vLLM."""
    max_model_len: int | None = None
    """Tokens of the longest prompt plus completion."""
    weight_version: str | None = None
    """The version of the weights, which changes when they are updated in a running server."""
    versions: tuple[str, ...] = ()
    """The versions of its software, the present one last."""
    left_out: tuple[str, ...] = ()
    """Fields that its requests lacked, because it refuses them and the recipe's values are the neutral ones; `n` if each asked
    for one completion."""


class RunManifest(BaseModel):
    """`run.json`: the identity of a run. Written once, before the first prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    pool_version: int = POOL_VERSION
    """Version of the meaning of the pool's columns."""
    name: str
    """The recipe's name."""
    origin: Literal["sampled", "brought"]
    """`sampled` from an engine, or `brought`: imported by `thresher filter`."""
    sampling_key: str
    """Hash of everything that decides which samples are drawn: prompts, model, sampling, salt."""
    recipe: Recipe
    """The complete recipe, with defaults filled in."""
    base: str = ""
    """Directory of the recipe as the user named it. Paths in the recipe are relative to it. It is not published."""
    model: dict[str, Any]
    """The resolved model: name, revision, licence, hash of the chat template, prompt format."""
    thresher_version: str
    """Version of thresher that started the run."""


def seal(model: BaseModel) -> str:
    """The JSON text of a model with the digest of its fields."""
    fields = json.loads(model.model_dump_json())
    return json.dumps({**fields, "digest": _digest(fields)}, indent=1, ensure_ascii=False)


def unseal(kind: type[Sealed], text: bytes) -> Sealed:
    """The model of such a text; one of an earlier version has no digest, and is taken as it is. Raises ValueError, in words,
    where it is not what was written, or no text of this model."""
    try:
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError(f"wanted an object, found {type(fields).__name__}")  # noqa: TRY004 - as all that is wrong with a text
        if (noted := fields.pop("digest", None)) is not None and noted != _digest(fields):
            raise ValueError("it is not what was written: its digest differs")
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ValueError(f"{key + ': ' if key else ''}{first['msg']}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


unseal_entry = lru_cache(maxsize=64)(partial(unseal, Entry))
"""The same for an entry; nobody changes its facts. A shard's are read several times in a row."""


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(to_json(fields).encode("utf-8", "surrogatepass")).hexdigest()[:16]
