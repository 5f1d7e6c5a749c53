"""The content of a dataset repository: its manifest, the shards that it names, and its versions."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from schemas.release import FORMAT, RepositoryManifest, Shard
from thresher import __version__
from thresher.errors import PublishError
from thresher.releases.front_matter import foreign_configs, names, taken_apart
from thresher.releases.places.open_place import open_place
from thresher.releases.places.place import MISSING, Change, Place, again

MANIFEST, INDEX = "thresher/manifest.json", "index"
INDEXED = f"{INDEX}/index.json"
SHOWN = 10
"""Most names in an error message."""
SEMANTIC = re.compile(r"v(\d+)\.(\d+)\.(\d+)$")


def read(place: Place, revision: str) -> RepositoryManifest:
    """Return the manifest at a revision, or an empty one if the repository has none. Raises PublishError on another format."""
    text = place.text(revision, MANIFEST)
    if text is None:
        return RepositoryManifest(columns={}, releases=())
    try:
        content = json.loads(text)
        found = content.get("format")
    except (ValueError, AttributeError) as error:
        raise PublishError(
            f"{place.name}: {MANIFEST} is not as it was written ({error}); restore it from an earlier commit"
        ) from error
    if found != FORMAT:
        raise PublishError(
            f"{place.name}: {MANIFEST} has format {found}, this thresher ({__version__}) reads {FORMAT}; use a newer one"
        )
    try:
        return RepositoryManifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise PublishError(
            f"{place.name}: {MANIFEST}: {'.'.join(map(str, first['loc']))}: {first['msg']}; it was edited, which an earlier "
            f"commit can undo, or written by a newer thresher (this is {__version__})"
        ) from error


def releases(repo: str) -> RepositoryManifest:
    """Return the current manifest of a repository. Raises PublishError if there is no such repository."""
    place = open_place(repo)
    with place.explained():
        return again(place, lambda: read(place, place.head()))


def shards(manifest: RepositoryManifest) -> dict[str, Shard]:
    """Return all shards by their path. A shard of two releases occurs once."""
    released = [shard for release in manifest.releases for shards in release.views.values() for shard in shards]
    return {shard.path: shard for shard in (*released, *manifest.revoked)}


def paths(manifest: RepositoryManifest) -> set[str]:
    """Return the paths of all shards."""
    return set(shards(manifest))


def dumped(manifest: RepositoryManifest) -> bytes:
    """Return the content of the manifest file."""
    return (manifest.model_dump_json(indent=1) + "\n").encode()


def change(
    before: RepositoryManifest,
    after: RepositoryManifest,
    cards: Mapping[str, bytes],
    files: Mapping[str, Path],
    damage: Mapping[str, str] | None = None,
) -> Change:
    """Return the commit that leads from one manifest to another: new shards and those of `damage`, from `files`, the manifest and
    the cards."""
    wanted, damaged = paths(after), set(damage or ())
    present = paths(before) - damaged
    adds: dict[str, Path | bytes] = {path: files[path] for path in sorted(wanted - present)}
    missing = {path for path, words in (damage or {}).items() if words == MISSING}
    return Change(adds=adds | {MANIFEST: dumped(after)} | dict(cards), deletes=tuple(sorted(paths(before) - wanted - missing)))


def next_version(place: Place, manifest: RepositoryManifest, versions: str | None, bumped: str) -> str:
    """Return the version of the next commit; `bumped` is the part of a semantic version that is raised, `minor` or `patch`. A tag
    is never used twice, not even after a rollback."""
    taken = set(place.tags()) | {release.version for release in manifest.releases}
    numbers = [tuple(map(int, match.groups())) for tag in taken if (match := SEMANTIC.match(tag))]
    last = manifest.releases[-1].version if manifest.releases else None
    if versions == "semantic" or (versions is None and last is not None and SEMANTIC.match(last)):
        if not numbers:
            return "v1.0.0"
        major, minor, patch = max(numbers)
        return f"v{major}.{minor + 1}.0" if bumped == "minor" else f"v{major}.{minor}.{patch + 1}"
    day = datetime.now(UTC).strftime("v%Y.%m.%d")
    return next(version for number in range(1, 100_000) if (version := f"{day}.{number}") not in taken)


def stop_at_strangers(place: Place, head: str, manifest: RepositoryManifest, *, mended: Collection[str] = ()) -> dict[str, str]:
    """Raise PublishError if the repository holds Parquet files of no release, which readers would take for part of the dataset,
    and of no config that a person added to the card; or if shards of its releases are missing or were changed, other than those
    that are to be `mended`. Returns what is wrong with the latter."""
    present = {path for path in place.files(head) if not path.startswith(f"{INDEX}/")}
    foreign = sorted(present - paths(manifest))
    if foreign and (foreign := _of_no_config(foreign, taken_apart(place.readme(head) or "", f"{place.name}/README.md").matter)):
        raise PublishError(
            f"{place.name}: holds {foreign[0]} and {len(foreign) - 1} more that no release added; remove them, name them in a "
            f"config of their own on the card (outside the folders {', '.join(names())}), or publish to a repository of its own"
        )
    damage = place.damage(head, shards(manifest).values(), whole=mended)
    stop_at_damage(place, manifest, {path: words for path, words in damage.items() if path not in mended})
    return damage


def stop_at_damage(place: Place, manifest: RepositoryManifest, damage: Mapping[str, str]) -> None:
    """Raise PublishError, with the name of each damaged shard and what is wrong with it, if there are some."""
    if not damage:
        return
    of = {shard.path: release for release in manifest.releases for own in release.views.values() for shard in own}
    versions = {path: f"{of[path].version}, {of[path].name}" if path in of else "revoked samples" for path in sorted(damage)}
    lines = [f"{path} ({release}) {damage[path]}" for path, release in versions.items()]
    more = [] if len(lines) <= SHOWN else [f"and {len(lines) - SHOWN} more"]
    restored = "restore them from a backup" if place.lists_files else f"restore them with thresher rollback {place.name} --to TAG"
    message = (
        f"{place.name}: {len(damage)} shards of its releases are damaged; publish the runs that they are of again, which sends "
        f"them again (thresher publish RUN --repo {place.name}), or {restored}:"
    )
    raise PublishError("\n  ".join([message, *lines[:SHOWN], *more]))


def _of_no_config(files: Iterable[str], matter: Mapping[Any, Any]) -> list[str]:
    """The files that no config of a person names, or that lie where thresher's configs would read them."""
    patterns = [pattern for config in foreign_configs(matter) for pattern in _patterns(config)]
    return [
        path for path in files if path.split("/")[0] in names() or not any(fnmatchcase(path, pattern) for pattern in patterns)
    ]


def _patterns(config: Mapping[str, Any]) -> Iterator[str]:
    """The patterns of the files of a config, in the forms that `datasets` knows."""
    folder = f"{str(config['data_dir']).strip('./')}/" if config.get("data_dir") else ""
    data_files = config.get("data_files") or (["*"] if folder else [])
    for entry in data_files.values() if isinstance(data_files, dict) else _listed(data_files):
        for pattern in _listed(entry.get("path") if isinstance(entry, dict) else entry):
            yield f"{folder}{str(pattern).removeprefix('./')}"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


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
        merged = ((part.version, part.name, counted(part.rows)) for part in release.merged)
        lines += [f"{version}  {name}: {rows} (merged into {release.version})" for version, name, rows in merged]
        name = "merged" if release.merged else release.name
        lines.append(f"{release.version}  {name}: {counted(release.rows)}{' (forced)' if release.forced else ''}")
    if manifest.revoked:
        lines.append(f"revoked samples: {sum(shard.rows for shard in manifest.revoked)}")
    return lines


def counted(rows: Mapping[str, int]) -> str:
    """Return the rows of each view in words."""
    return ", ".join(f"{count} {view}" for view, count in rows.items()) or "no rows"
