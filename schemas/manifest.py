"""What a run has finished: one run manifest, and one entry per finished file.

An entry is written after its file, so what has an entry is whole; what has none does not count. Entries are files of their own
(`samples/00042.json` beside `samples/00042.parquet`), so that any number of workers can finish shards without sharing one.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.recipe import Recipe
from schemas.sample import POOL_VERSION


class Entry(BaseModel):
    """One finished file. Fields that another version wrote are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    path: str
    """Relative to the run."""
    rows: int
    """Rows of the file."""
    bytes: int
    """Size of the file."""
    sha256: str
    """Of the file's bytes."""
    key: str
    """Hash of what the file was made from; a file made from something else is made again."""
    facts: dict[str, Any] = Field(default_factory=dict)
    """Counts, seconds, and the engine's seed and version, as the stage knows them."""


class RunManifest(BaseModel):
    """`run.json`: what this run is. Written once, before the first prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    pool_version: int = POOL_VERSION
    """Meaning of the pool's columns."""
    name: str
    """The recipe's name."""
    origin: Literal["sampled", "brought"]
    """`sampled` from an engine, or `brought` along by `thresher filter`."""
    sampling_key: str
    """Hash of all that decides which samples are drawn: prompts, model, sampling, salt."""
    recipe: Recipe
    """The recipe in full, defaults filled in."""
    base: str = ""
    """The recipe's directory, as it was named: paths in the recipe are relative to it. It stays on this machine."""
    model: dict[str, Any]
    """The model as resolved: name, revision, licence, chat template hash, prompt format."""
    thresher_version: str
    """Version that began the run."""
