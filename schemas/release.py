"""What a dataset repository holds, release by release: `thresher/manifest.json` in the repository itself.

It is committed together with the shards that it names, so at every commit it tells exactly what is there.
"""

from pydantic import BaseModel, ConfigDict

FORMAT = 1


class Shard(BaseModel):
    """One Parquet file of a view."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    path: str
    """In the repository: VIEW/train/HASH.parquet, by the hash of its content."""
    rows: int
    """Its rows."""
    memory_bytes: int
    """Their size in Arrow memory."""
    file_bytes: int
    """Size of the file."""


class Release(BaseModel):
    """What one run has in the dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    version: str
    """Tag of the commit that brought it, such as v2026.11.23.1."""
    run: str
    """Hash of all that decides which samples the run draws: a run has one release at most."""
    dataset: str
    """Hash of what its dataset was made from: pool, verdicts and recipe."""
    name: str
    """The recipe's name."""
    thresher_version: str
    """Version that published it."""
    figures: dict[str, float | None]
    """pass_rate, undecided (share), hits_per_prompt, effective_solutions: what the next release is measured against."""
    forced: tuple[str, ...] = ()
    """Gates that it did not pass, and the reason that was given for publishing it all the same."""
    views: dict[str, tuple[Shard, ...]]
    """The shards of each view."""


class RepositoryManifest(BaseModel):
    """thresher/manifest.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: int = FORMAT
    """Of this file."""
    columns: dict[str, tuple[tuple[str, str], ...]]
    """Per view its columns and their types, which never change."""
    test_share: float = 0.0
    """Share of the prompts that are held out, which never changes: prompts would change sides."""
    releases: tuple[Release, ...]
    """Those whose shards are there, the oldest first."""
    changes: tuple[str, ...] = ()
    """Every change since the first, the newest first: version and what it did, as the card lists them."""
