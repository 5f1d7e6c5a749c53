"""What a repository holds: its manifest, the shards that it names, and the versions."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schemas.release import FORMAT, RepositoryManifest, Shard
from thresher import __version__
from thresher.errors import PublishError
from thresher.releases.places.open_place import open_place
from thresher.releases.places.place import Change, Place, again

MANIFEST, INDEX = "thresher/manifest.json", "index"
INDEXED = f"{INDEX}/index.json"
SEMANTIC = re.compile(r"v(\d+)\.(\d+)\.(\d+)$")


def read(place: Place, revision: str) -> RepositoryManifest:
    """The manifest at a revision; an empty one where there is none."""
    text = place.text(revision, MANIFEST)
    if text is None:
        return RepositoryManifest(columns={}, releases=())
    given = json.loads(text)
    if given.get("format") != FORMAT:
        raise PublishError(
            f"{place.name}: {MANIFEST} has format {given.get('format')}, this thresher ({__version__}) reads {FORMAT}; "
            "use a newer one"
        )
    return RepositoryManifest.model_validate(given)


def releases(repo: str) -> RepositoryManifest:
    """What a repository holds. Raises PublishError where there is none."""
    place = open_place(repo)
    with place.explained():
        return again(place, lambda: read(place, place.head()))


def shards(manifest: RepositoryManifest) -> dict[str, Shard]:
    """Every shard by its path; one that two releases brought is there once."""
    every = [shard for release in manifest.releases for shards in release.views.values() for shard in shards]
    return {shard.path: shard for shard in (*every, *manifest.revoked)}


def paths(manifest: RepositoryManifest) -> set[str]:
    return set(shards(manifest))


def dumped(manifest: RepositoryManifest) -> bytes:
    return (manifest.model_dump_json(indent=1) + "\n").encode()


def change(there: RepositoryManifest, then: RepositoryManifest, text: str, files: Mapping[str, Path]) -> Change:
    """What makes of one manifest the other: its new shards, from `files`, and the small files."""
    known, wanted = paths(there), paths(then)
    adds: dict[str, Path | bytes] = {path: files[path] for path in sorted(wanted - known)}
    adds |= {MANIFEST: dumped(then), "README.md": text.encode()}
    return Change(adds=adds, deletes=tuple(sorted(known - wanted)))


def next_version(place: Place, there: RepositoryManifest, versions: str | None, bumped: str) -> str:
    """The version of the next commit. A tag that is taken is never used again, whatever was rolled back."""
    taken = set(place.tags()) | {one.version for one in there.releases}
    numbers = [tuple(map(int, found.groups())) for tag in taken if (found := SEMANTIC.match(tag))]
    last = there.releases[-1].version if there.releases else None
    if versions == "semantic" or (versions is None and last is not None and SEMANTIC.match(last)):
        if not numbers:
            return "v1.0.0"
        major, minor, patch = max(numbers)
        return f"v{major}.{minor + 1}.0" if bumped == "minor" else f"v{major}.{minor}.{patch + 1}"
    day = datetime.now(UTC).strftime("v%Y.%m.%d")
    return next(version for number in range(1, 100_000) if (version := f"{day}.{number}") not in taken)


def stop_at_strangers(place: Place, head: str, there: RepositoryManifest) -> None:
    """Somebody else's Parquet files would become part of the dataset, and missing ones are missed."""
    found, known = {path for path in place.files(head) if not path.startswith(f"{INDEX}/")}, paths(there)
    if strange := sorted(found - known):
        raise PublishError(
            f"{place.name}: holds {strange[0]} and {len(strange) - 1} more that no release brought; remove them, or publish "
            "to a repository of its own"
        )
    if lost := sorted(known - found):
        raise PublishError(
            f"{place.name}: {lost[0]} and {len(lost) - 1} more are gone that releases brought; bring them back with "
            f"thresher rollback {place.name} --to TAG"
        )


def rows_of(manifest: RepositoryManifest) -> list[dict[str, Any]]:
    """Return one row per release, oldest first; `merged_into` is the version of the release that now holds its rows."""
    listed = [
        (release, merged_into)
        for last in manifest.releases
        for release, merged_into in (*((merged, last.version) for merged in last.merged), (last, None))
    ]
    return [
        {
            "version": release.version,
            "name": release.name,
            "at": release.at,
            "merged_into": merged_into,
            "forced": bool(release.forced),
        }
        | {f"rows_{view}": count for view, count in release.rows.items()}
        for release, merged_into in listed
    ]


def lines_of(manifest: RepositoryManifest) -> list[str]:
    """Return one line per release, oldest first, and one for the revoked samples if there are any."""
    lines = []
    for release in manifest.releases:
        lines += [
            f"{merged.version}  {merged.name}: {counted(merged.rows)} (merged into {release.version})" for merged in release.merged
        ]
        name = "merged" if release.merged else release.name
        lines.append(f"{release.version}  {name}: {counted(release.rows)}{' (forced)' if release.forced else ''}")
    if manifest.revoked:
        lines.append(f"revoked samples: {sum(shard.rows for shard in manifest.revoked)}")
    return lines


def counted(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {view}" for view, count in rows.items())
