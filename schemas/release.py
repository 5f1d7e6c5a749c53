"""What a dataset repository holds, release by release: `thresher/manifest.json` in the repository itself.

It is committed together with the shards that it names, so at every commit it tells exactly what is there.
"""

from pydantic import BaseModel, ConfigDict

FORMAT = 1


class Shard(BaseModel):
    """One Parquet file of a view."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    path: str
    """In the repository: VIEW/SPLIT/HASH.parquet, by the hash of its content."""
    rows: int
    """Its rows."""
    memory_bytes: int
    """Their size in Arrow memory."""
    file_bytes: int
    """Size of the file."""


class Release(BaseModel):
    """What one run has in the dataset; or, after `thresher compact`, what several have."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    version: str
    """Tag of the commit that brought it, such as v2026.11.23.1 or v1.4.0."""
    at: str
    """When it was published, ISO 8601, UTC."""
    run: str
    """Hash of all that decides which samples the run draws: a run has one release at most. Empty after compaction."""
    dataset: str
    """Hash of what its dataset was made from: pool, verdicts and recipe. Empty after compaction."""
    name: str
    """The recipe's name."""
    thresher_version: str
    """Version that published it."""
    figures: dict[str, float | None]
    """samples, prompts, hits, pass_rate with its interval (pass_rate_low, pass_rate_high), undecided (share), hits_per_prompt,
    effective_solutions, near_miss_share, completion_tokens, device_seconds: what the next release is measured against."""
    forced: tuple[str, ...] = ()
    """Gates that it did not pass, and who published it all the same, knowing what."""
    rows: dict[str, int]
    """Rows of each view."""
    views: dict[str, tuple[Shard, ...]]
    """The shards of each view; none where they were merged into those of another entry."""
    merged: tuple["Release", ...] = ()
    """Releases whose rows were written into the shards of this one."""


class RepositoryManifest(BaseModel):
    """thresher/manifest.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: int = FORMAT
    """Of this file."""
    prompt_format: str = "chat"
    """`chat`: prompts and completions are messages; `text`: they are plain text. It never changes."""
    columns: dict[str, tuple[tuple[str, str], ...]]
    """Per view its columns and their types, which never change."""
    test_share: float = 0.0
    """Share of the prompts that are held out, which never changes: prompts would change sides."""
    releases: tuple[Release, ...]
    """Those whose rows are there, the oldest first."""
    revoked: tuple[Shard, ...] = ()
    """Shards of the config `revoked`: samples that were taken back, and whose rows are still in the other shards."""
    changes: tuple[str, ...] = ()
    """Every change since the first, the newest first: version and what it did, as the card lists them."""
