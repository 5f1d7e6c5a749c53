"""Merge the small shards of a repository into few large ones, and leave out revoked samples, in one commit."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.release import Release, RepositoryManifest, Shard
from thresher import __version__
from thresher.dataset.parquet_files import FILE_BYTES, TableFiles
from thresher.dataset.view_schemas import written_schema
from thresher.errors import PublishError
from thresher.releases.change import Changed, fetch_whole, revoked_ids, shard_of
from thresher.releases.held_samples import ID_COLUMNS
from thresher.releases.places.open_place import open_place
from thresher.releases.places.place import Change, Place, again
from thresher.releases.readme import cards_of
from thresher.releases.repository import MANIFEST, counted, dumped, next_version, paths, read, stop_at_strangers

STAGED_BYTES = 2 << 30
"""Bytes of merged shards on the local disk before they are sent."""


def compact(repo: str, *, file_bytes: int = FILE_BYTES, folder: str | None = None) -> Changed:
    """Merge small shards into few large ones, and leave out revoked samples. Merged shards are staged while readers see the old
    ones; one commit switches. Releases that others publish meanwhile stay as they are. Shards pass through `folder`, the system's
    temporary one by default, one at a time. Raises PublishError."""
    place = open_place(repo)
    with place.explained(), tempfile.TemporaryDirectory(prefix="thresher-", dir=folder) as scratch:
        again(place, place.mend)
        head = again(place, place.head)
        manifest = again(place, lambda: read(place, head))
        again(place, lambda: stop_at_strangers(place, head, manifest))
        if not manifest.releases:
            raise PublishError(f"{repo}: has no releases")
        revoked = pa.array(again(place, lambda: revoked_ids(place, head, manifest, Path(scratch))), pa.string())
        merging = _Merging(place, head, manifest, revoked=revoked, scratch=Path(scratch), file_bytes=file_bytes)
        views = {view: merging.view(view) for view in manifest.columns if view != "revoked"}
        merged = _Merged(manifest, {view: shards for view, shards in views.items() if shards}, merging.staged)
        merging.stage()
        before = len(paths(manifest))
        if {shard.path for shards in merged.views.values() for shard in shards} == paths(manifest):
            again(place, place.unstage)
            return Changed(repo, None, None, f"{before} shards are as few and as large as they can be", files=(before, before))
        return again(place, lambda: _switch(place, merged))


# -- inside --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Merged:
    """The staged shards, and the manifest whose shards they replace."""

    manifest: RepositoryManifest
    views: dict[str, tuple[Shard, ...]]
    staged: set[str]

    @property
    def rows(self) -> dict[str, int]:
        return {view: sum(shard.rows for shard in shards) for view, shards in self.views.items()}

    @property
    def files(self) -> tuple[int, int]:
        """Number of shards before and after."""
        return len(paths(self.manifest)), sum(map(len, self.views.values()))

    @property
    def summary(self) -> str:
        before, after = self.files
        return f"merged {before} shards into {after}: {counted(self.rows)}"

    def release(self, version: str) -> Release:
        """The release that holds the merged shards."""
        parts = [part for release in self.manifest.releases for part in release.merged or (release,)]
        return Release(
            version=version,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            run="",
            dataset="",
            name=parts[-1].name,
            thresher_version=__version__,
            figures={},
            rows=self.rows,
            views=self.views,
            merged=tuple(part.model_copy(update={"views": {}}) for part in parts),
        )


def _switch(place: Place, merged: _Merged) -> Changed:
    """Replace the shards that were merged; releases that were published meanwhile stay."""
    head = place.head()
    manifest = read(place, head)
    count = len(merged.manifest.releases)
    first = manifest.releases[0] if manifest.releases else None
    if first is not None and first.merged and first.views == merged.views:  # committed before; its answer was lost
        place.mend_tag(first.version)
        place.unstage()
        return Changed(place.name, first.version, head, merged.summary, merged.rows, merged.files)
    if manifest.releases[:count] != merged.manifest.releases or manifest.revoked != merged.manifest.revoked:
        raise PublishError(f"{place.name}: the merged releases have changed meanwhile; run thresher compact again")
    version = next_version(place, manifest, None, "patch")
    after = manifest.model_copy(
        update={
            "releases": (merged.release(version), *manifest.releases[count:]),
            "revoked": (),
            "columns": {view: columns for view, columns in manifest.columns.items() if view != "revoked"},
            "changes": (f"{version}: {merged.summary}", *manifest.changes),
        }
    )
    present, wanted = paths(manifest), paths(after)
    commit = place.commit(
        Change(
            adds={MANIFEST: dumped(after)} | cards_of(place, head, head, after),
            staged=tuple(sorted(merged.staged & (wanted - present))),
            deletes=tuple(sorted(present - wanted)),
        ),
        f"{version}: {merged.summary}",
        parent=head,
        tag=version,
    )
    place.unstage()
    return Changed(place.name, version, commit.revision, merged.summary, merged.rows, merged.files)


class _Merging:
    """Rewrites the shards of a view that are small or hold revoked samples, and stages the new ones."""

    def __init__(
        self, place: Place, head: str, manifest: RepositoryManifest, *, revoked: pa.Array, scratch: Path, file_bytes: int
    ) -> None:
        self.place, self.head, self.manifest, self.revoked = place, head, manifest, revoked
        self.scratch, self.file_bytes = scratch, file_bytes
        self.staged: set[str] = set()
        self._waiting: dict[str, Path] = {}

    def view(self, view: str) -> tuple[Shard, ...]:
        """The shards of a view after the merge, of both splits."""
        shards = {shard.path: shard for release in self.manifest.releases for shard in release.views.get(view, ())}
        merged: list[Shard] = []
        for split in ("train", "test"):
            in_split = [shard for path, shard in shards.items() if shard.rows and path.split("/")[1] == split]
            merged += self._split(view, split, in_split)
        return tuple(merged)

    def stage(self) -> None:
        """Send the shards that wait, and delete them here."""
        if self._waiting:
            self.place.stage(self._waiting, self.head)
        for file in self._waiting.values():
            file.unlink()
        self._waiting = {}

    def _split(self, view: str, split: str, shards: Sequence[Shard]) -> Iterator[Shard]:
        """Merge each series of small shards into files of full size; the order of the rows stays."""
        series: list[Shard] = []
        for shard in shards:
            if self._stays(view, shard):
                yield from self._merged(view, split, series)
                yield shard
                series = []
            else:
                series.append(shard)
        yield from self._merged(view, split, series)

    def _stays(self, view: str, shard: Shard) -> bool:
        if shard.file_bytes < self.file_bytes / 2:
            return False
        if view == "prompts" or not len(self.revoked):
            return True
        return all(_without(table, self.revoked).num_rows == table.num_rows for table in self._read(shard))

    def _read(self, shard: Shard) -> Iterator[pa.Table]:
        """Fetch a shard, and yield its row groups."""
        file = self.scratch / "shard.parquet"
        again(self.place, lambda: fetch_whole(self.place, self.head, shard, file))
        try:
            with pq.ParquetFile(file) as opened:
                for group in range(opened.metadata.num_row_groups):
                    yield opened.read_row_group(group)
        finally:
            file.unlink()

    def _merged(self, view: str, split: str, series: list[Shard]) -> Iterator[Shard]:
        keeps_rows = not len(self.revoked) or view == "prompts"
        if not series or (len(series) == 1 and keeps_rows):
            yield from series
            return
        schema = written_schema(view, self.manifest.prompt_format)
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        with TableFiles(folder, view, schema, file_bytes=self.file_bytes) as writer:
            for shard in series:
                for table in self._read(shard):
                    writer.add(_without(table, self.revoked).cast(schema))
            files = writer.finish(optional=True)
        for file in files:
            shard = shard_of(file, view, split)
            self._waiting[shard.path] = file.path
            self.staged.add(shard.path)
            yield shard
        if sum(path.stat().st_size for path in self._waiting.values()) >= STAGED_BYTES:
            self.stage()


def _without(table: pa.Table, revoked: pa.Array) -> pa.Table:
    """The rows of a table that name no revoked sample."""
    if not len(revoked):
        return table
    names_revoked = None
    for name in ID_COLUMNS:
        if name in table.schema.names:
            in_column = pc.is_in(table[name], revoked)
            names_revoked = in_column if names_revoked is None else pc.or_(names_revoked, in_column)
    return table if names_revoked is None else table.filter(pc.invert(names_revoked))
