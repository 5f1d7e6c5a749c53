"""The manifest of a dataset repository."""

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.release import FORMAT, Release, RepositoryManifest, Shard

SHARD = Shard(path="sft/train/ab.parquet", rows=3, memory_bytes=300, file_bytes=200)
RELEASE: dict[str, Any] = {
    "version": "v2026.11.23.1",
    "at": "2026-11-23T10:00:00+00:00",
    "run": "aa",
    "dataset": "bb",
    "name": "sums",
    "thresher_version": "1",
    "figures": {"hits": 3.0, "pass_rate": None},
    "rows": {"sft": 3},
    "views": {"sft": (SHARD,)},
}


def test_a_manifest_is_read_as_it_was_written() -> None:
    """With releases that were merged into others."""
    release = Release(**RELEASE, merged=(Release(**RELEASE),))
    manifest = RepositoryManifest(columns={"sft": (("prompt", "string"),)}, releases=(release,), revoked=(SHARD,))

    assert RepositoryManifest.model_validate_json(manifest.model_dump_json()) == manifest
    assert (manifest.format, manifest.prompt_format, manifest.test_share) == (FORMAT, "chat", 0)


def test_unknown_keys_are_refused() -> None:
    """A newer version may have written them, with a meaning that this one does not know."""
    with pytest.raises(ValidationError, match="Extra inputs"):
        Release.model_validate(RELEASE | {"priority": 1})
