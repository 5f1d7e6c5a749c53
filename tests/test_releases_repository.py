"""What a repository holds: versions, shards, releases."""

import re
from typing import Any

import pytest

from schemas.release import Release, RepositoryManifest, Shard
from thresher.errors import PublishError
from thresher.releases.places.folder import Folder
from thresher.releases.repository import MANIFEST, lines_of, next_version, paths, read, rows_of


class Tagged(Folder):
    """A folder with tags, and one text."""

    def __init__(self, *tags: str, text: str | None = None) -> None:
        self.name, self._tags, self._text = "repository", tags, text

    def tags(self) -> dict[str, str]:
        return dict.fromkeys(self._tags, "revision")

    def text(self, revision: str, path: str) -> str | None:
        return self._text if path == MANIFEST else None


def release(version: str, *shards: str, **changes: Any) -> Release:
    views = {"sft": tuple(Shard(path=path, rows=2, memory_bytes=1, file_bytes=1) for path in shards)}
    fields = {"at": "", "run": version, "dataset": "d", "name": "sums", "thresher_version": "0", "figures": {}}
    return Release.model_validate(fields | {"version": version, "rows": {"sft": 2 * len(shards)}, "views": views} | changes)


def holding(*releases: Release) -> RepositoryManifest:
    return RepositoryManifest(columns={}, releases=releases)


@pytest.mark.parametrize(
    ("tags", "versions", "bumped", "expected"),
    [
        ((), "semantic", "minor", "v1.0.0"),
        (("v1.0.0", "v1.2.3"), "semantic", "minor", "v1.3.0"),
        (("v1.0.0", "v1.2.3"), "semantic", "patch", "v1.2.4"),
        (("v1.9.0", "v1.10.0", "other"), "semantic", "minor", "v1.11.0"),
    ],
)
def test_semantic_versions_go_on_from_the_highest_tag(tags: tuple[str, ...], versions: str, bumped: str, expected: str) -> None:
    assert next_version(Tagged(*tags), holding(), versions, bumped) == expected


def test_versions_are_dates_and_never_used_again() -> None:
    first = next_version(Tagged(), holding(), None, "minor")
    second = next_version(Tagged(first), holding(), None, "minor")

    assert re.fullmatch(r"v\d{4}\.\d\d\.\d\d\.1", first)
    assert second == first[:-1] + "2"


def test_a_repository_with_semantic_versions_keeps_to_them() -> None:
    assert next_version(Tagged("v1.0.0"), holding(release("v1.0.0")), None, "minor") == "v1.1.0"


def test_a_shard_of_two_releases_is_there_once() -> None:
    manifest = holding(release("v1", "sft/train/a.parquet"), release("v2", "sft/train/a.parquet", "sft/train/b.parquet"))

    assert paths(manifest) == {"sft/train/a.parquet", "sft/train/b.parquet"}


def test_merged_releases_name_the_release_that_holds_their_rows() -> None:
    manifest = holding(release("v3", "sft/train/a.parquet", merged=(release("v1"), release("v2"))), release("v4", forced=("me",)))

    assert [(row["version"], row["merged_into"], row["forced"]) for row in rows_of(manifest)] == [
        ("v1", "v3", False),
        ("v2", "v3", False),
        ("v3", None, False),
        ("v4", None, True),
    ]
    assert [line.split()[0] for line in lines_of(manifest)] == ["v1", "v2", "v3", "v4"]


def test_a_manifest_of_another_format_is_refused() -> None:
    assert read(Tagged(), "head") == holding()
    for text, words in (
        ('{"format": 99}', "format 99"),
        ('{"format": 1', "is not as it was written .*; restore it from an earlier commit"),
        ("[]", "is not as it was written"),
        ('{"format": 1, "columns": {}, "releases": [], "more": 1}', "more: Extra inputs .* written by a newer thresher"),
    ):
        with pytest.raises(PublishError, match=words):
            read(Tagged(text=text), "head")
