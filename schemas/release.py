"""The releases in a dataset repository: `thresher/manifest.json` in the repository itself.

It is committed together with the shards that it names, so it is exact at every commit.
"""

from pydantic import BaseModel, ConfigDict

from schemas.part import InnerPath

FORMAT = 1


class LogEntry(BaseModel):
    """One commit of a repository in a folder: `thresher/log/000001.json`. Sealed (schemas.manifest.seal)."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    message: str = ""
    """What was committed."""
    texts: dict[str, str]
    """The small files, by path."""
    files: list[str]
    """The paths of the large files."""
    tags: dict[str, str]
    """The number of the commit of each tag."""


class Shard(BaseModel):
    """One Parquet file of a view."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    path: InnerPath
    """Path in the repository: VIEW/SPLIT/HASH.parquet, named by the hash of its content."""
    rows: int
    """Number of rows."""
    memory_bytes: int
    """Size of the rows in Arrow memory, in bytes."""
    file_bytes: int
    """Size of the file, in bytes."""


class Release(BaseModel):
    """The rows of one run in the dataset; after `thresher compact`, of several runs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    version: str
    """Tag of the commit that added it, such as v2026.11.23.1 or v1.4.0."""
    at: str
    """Time of publication, ISO 8601, UTC."""
    run: str
    """Hash of everything that decides which samples the run draws. A run has at most one release. Empty after compaction."""
    dataset: str
    """Hash of the pool, verdicts and recipe that its dataset was made from. Empty after compaction."""
    name: str
    """The recipe's name."""
    thresher_version: str
    """Version of thresher that published it."""
    figures: dict[str, float | None]
    """samples, prompts, hits, pass_rate with its interval (pass_rate_low, pass_rate_high), undecided (share), hits_per_prompt,
    effective_solutions, near_miss_share, completion_tokens, device_seconds. The next release is compared with them."""
    forced: tuple[str, ...] = ()
    """If it was published with --force: who forced it and why, and the gates that it did not pass."""
    rows: dict[str, int]
    """Number of rows of each view."""
    views: dict[str, tuple[Shard, ...]]
    """The shards of each view; empty if they were merged into those of another release."""
    merged: tuple["Release", ...] = ()
    """Releases whose rows were merged into the shards of this one."""


class RepositoryManifest(BaseModel):
    """The content of thresher/manifest.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: int = FORMAT
    """Version of the format of this file."""
    prompt_format: str = "chat"
    """`chat`: prompts and completions are messages; `text`: they are plain text. Fixed by the first release."""
    columns: dict[str, tuple[tuple[str, str], ...]]
    """Columns and types of each view. Fixed by the first release."""
    test_share: float = 0.0
    """Share of the prompts that are held out. Fixed by the first release, because prompts would change their split."""
    releases: tuple[Release, ...]
    """The releases whose rows are in the repository, oldest first."""
    revoked: tuple[Shard, ...] = ()
    """Shards of the config `revoked`: samples that were revoked, with rows that are still in the other shards."""
    changes: tuple[str, ...] = ()
    """Every change since the first release, newest first: version and description, as the card lists them."""
