"""Changes to what was released, each in one commit: back to an earlier release, fewer and larger shards, samples taken back."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.release import Release, RepositoryManifest, Shard
from thresher import __version__
from thresher.dataset import views
from thresher.dataset.parquet_files import FILE_BYTES, TableFiles
from thresher.dataset.view_schemas import written_schema
from thresher.errors import PublishError
from thresher.releases.places.open_place import open_place
from thresher.releases.places.place import Change, Place, again
from thresher.releases.readme import readme
from thresher.releases.repository import (
    INDEX,
    INDEXED,
    MANIFEST,
    change,
    counted,
    dumped,
    next_version,
    paths,
    read,
    stop_at_strangers,
)

NAMES = ("sample_id", "chosen_id", "rejected_id")
"""Columns that name samples: a row goes where one of them was taken back."""
STAGED_BYTES = 2 << 30
"""Bytes of merged shards that lie on this disk before they are sent."""


@dataclass(frozen=True)
class Changed:
    """What came of a change; commit and version are None where there was nothing to do."""

    repo: str
    version: str | None
    commit: str | None
    said: str
    rows: dict[str, int] = field(default_factory=dict)
    files: tuple[int, int] = (0, 0)
    """Shards before and after."""

    @property
    def words(self) -> str:
        """The result in one line."""
        return f"{self.repo}: {self.version + ': ' if self.version else ''}{self.said}"


def rollback(repo: str, tag: str) -> Changed:
    """Make a repository hold what it held at a tag, in one commit that moves no data."""
    place = open_place(repo)
    with place.explained():

        def attempt() -> Changed:
            head, tags = place.head(), place.tags()
            if tag not in tags:
                raise PublishError(f"{repo}: no release {tag!r}; there are {', '.join(sorted(tags)) or 'none'}")
            there, then = read(place, head), read(place, tags[tag])
            present, wanted = place.files(head), place.files(tags[tag])
            if (there.releases, there.revoked) == (then.releases, then.revoked) and wanted <= present:
                return Changed(repo, None, None, f"holds what {tag} has already")
            back = then.model_copy(update={"changes": (f"rolled back to {tag}", *there.changes)})
            text = _card(place, tags[tag], head, back)
            index = place.text(tags[tag], INDEXED)
            gone = {INDEXED} if index is None and place.text(head, INDEXED) else set()
            known = paths(there) | {path for path in present if path.startswith(f"{INDEX}/")}
            back_then = Change(
                adds={MANIFEST: dumped(back), "README.md": text.encode()} | ({INDEXED: index.encode()} if index else {}),
                restored=tuple(sorted(wanted - present - {INDEXED})),
                since=tag,
                deletes=tuple(sorted((present - wanted) & known | gone)),
            )
            made = place.commit(back_then, f"Roll back to {tag}", parent=head, tag=None)
            return Changed(repo, None, made.revision, f"holds what it held at {tag}")

        return again(place, attempt)


def read_sample_ids(file: str) -> list[str]:
    """Read sample ids from a text file, separated by white space. Raises PublishError where it cannot be read."""
    try:
        return Path(file).read_text("utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise PublishError(f"{file}: cannot be read: {error}; give a text file with one sample_id per line") from error


def revoke(repo: str, samples: Iterable[str], reason: str) -> Changed:
    """Take samples back: their ids go to the config `revoked`, which readers leave out, and the shards stay as they are until
    `compact` writes them anew without these rows."""
    place = open_place(repo)
    wanted = list(dict.fromkeys(samples))
    if not wanted or not reason.strip():
        raise PublishError(f"{repo}: wanted the ids of samples, and why they are taken back")
    with place.explained(), tempfile.TemporaryDirectory(prefix="thresher-") as folder:

        def attempt() -> Changed:
            head = place.head()
            there = read(place, head)
            if not there.releases:
                raise PublishError(f"{repo}: has no releases")
            stop_at_strangers(place, head, there)
            already = set(_revoked(place, head, there, Path(folder)))
            new = [sample for sample in wanted if sample not in already]
            if not new:
                place.mend_tag(there.changes[0].partition(":")[0])  # where this very call was cut off
                return Changed(repo, None, None, "they were all taken back before")
            version = next_version(place, there, None, "patch")
            rows = [new, [reason] * len(new), [version] * len(new)]
            table = pa.table(rows, schema=views.schema("revoked", "text"))
            with TableFiles(Path(folder), "revoked", written_schema("revoked", "text")) as files:
                files.add(table)
                (file,) = files.finish()
            shard = Shard(
                path=f"revoked/train/{file.digest}.parquet",
                rows=file.rows,
                memory_bytes=file.memory_bytes,
                file_bytes=file.file_bytes,
            )
            did = f"took back {len(new)} samples: {reason}"
            then = there.model_copy(
                update={
                    "revoked": (*there.revoked, shard),
                    "columns": there.columns | {"revoked": tuple((f.name, str(f.type)) for f in table.schema)},
                    "changes": (f"{version}: {did}", *there.changes),
                }
            )
            text = _card(place, head, head, then)
            again(place, lambda: place.send(shard.path, file.path))
            made = place.commit(change(there, then, text, {shard.path: file.path}), f"{version}: {did}", parent=head, tag=version)
            return Changed(repo, version, made.revision, did)

        return again(place, attempt)


def compact(repo: str, *, file_bytes: int = FILE_BYTES, folder: str | None = None) -> Changed:
    """Merge small shards into few large ones, and leave out what was taken back. They are staged while readers see the old ones;
    one commit switches. Releases that others publish meanwhile stay as they are. Shards pass through `folder` one at a time."""
    place = open_place(repo)
    with place.explained(), tempfile.TemporaryDirectory(prefix="thresher-", dir=folder) as scratch:
        head = again(place, place.head)
        there = again(place, lambda: read(place, head))
        again(place, lambda: stop_at_strangers(place, head, there))
        if not there.releases:
            raise PublishError(f"{repo}: has no releases")
        revoked = pa.array(again(place, lambda: _revoked(place, head, there, Path(scratch))), pa.string())
        merging = _Merging(place, head, there, revoked=revoked, scratch=Path(scratch), file_bytes=file_bytes)
        merged = {view: merging.view(view) for view in there.columns if view != "revoked"}
        merged = {view: shards for view, shards in merged.items() if shards}
        merging.sent()
        before = len(paths(there))
        if {shard.path for shards in merged.values() for shard in shards} == paths(there):
            again(place, place.unstage)
            return Changed(repo, None, None, f"{before} shards are as few and as large as they can be", files=(before, before))
        return _switch(place, there, merged, merging.staged)


# -- inside --------------------------------------------------------------------------------------------------------------


def _card(place: Place, revision: str, head: str, manifest: RepositoryManifest) -> str:
    """The card at a revision, with what another manifest holds, and a person's words as they are now."""
    made, old = (place.text(one, "README.md") or "" for one in (revision, head))
    return readme(made, manifest, old, repo=place.name, lists_files=place.lists_files)


def _switch(place: Place, seen: RepositoryManifest, merged: dict[str, tuple[Shard, ...]], staged: set[str]) -> Changed:
    """Put the merged shards in the place of those they were made from; what was published meanwhile stays."""

    rows = {view: sum(shard.rows for shard in shards) for view, shards in merged.items()}
    before, after = len(paths(seen)), sum(map(len, merged.values()))
    did = f"merged {before} shards into {after}: {counted(rows)}"

    def attempt() -> Changed:
        head = place.head()
        there = read(place, head)
        if there.releases and there.releases[0].merged and there.releases[0].views == merged:  # only the answer was lost
            version = there.releases[0].version
            place.mend_tag(version)
            place.unstage()
            return Changed(place.name, version, head, did, rows, (before, after))
        if there.releases[: len(seen.releases)] != seen.releases or there.revoked != seen.revoked:
            raise PublishError(f"{place.name}: what was merged has changed meanwhile; run thresher compact again")
        version = next_version(place, there, None, "patch")
        each = [part for one in seen.releases for part in (one.merged or (one,))]
        whole = Release(
            version=version,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            run="",
            dataset="",
            name=each[-1].name,
            thresher_version=__version__,
            figures={},
            rows=rows,
            views=merged,
            merged=tuple(one.model_copy(update={"views": {}}) for one in each),
        )
        then = there.model_copy(
            update={
                "releases": (whole, *there.releases[len(seen.releases) :]),
                "revoked": (),
                "columns": {view: columns for view, columns in there.columns.items() if view != "revoked"},
                "changes": (f"{version}: {did}", *there.changes),
            }
        )
        text = _card(place, head, head, then)
        known, wanted = paths(there), paths(then)
        made = place.commit(
            Change(
                adds={MANIFEST: dumped(then), "README.md": text.encode()},
                staged=tuple(sorted(staged & (wanted - known))),
                deletes=tuple(sorted(known - wanted)),
            ),
            f"{version}: {did}",
            parent=head,
            tag=version,
        )
        place.unstage()
        return Changed(place.name, version, made.revision, did, rows, (before, after))

    return again(place, attempt)


class _Merging:
    """Writes the shards of a view anew, where they are small or hold what was taken back."""

    def __init__(
        self, place: Place, head: str, there: RepositoryManifest, *, revoked: pa.Array, scratch: Path, file_bytes: int
    ) -> None:
        self.place, self.head, self.there, self.revoked = place, head, there, revoked
        self.scratch, self.file_bytes = scratch, file_bytes
        self.staged: set[str] = set()
        self._waiting: dict[str, Path] = {}

    def view(self, view: str) -> tuple[Shard, ...]:
        """The shards of a view as they will be, of both splits."""
        every = {shard.path: shard for one in self.there.releases for shard in one.views.get(view, ())}
        found: list[Shard] = []
        for split in ("train", "test"):
            found += self._split(view, split, [shard for path, shard in every.items() if path.split("/")[1] == split])
        return tuple(found)

    def _split(self, view: str, split: str, shards: Sequence[Shard]) -> Iterator[Shard]:
        """Runs of small shards become one file each time they are large enough; the order of the rows stays."""
        batch: list[Shard] = []
        for shard in shards:
            if self._stays(view, shard):
                yield from self._merged(view, split, batch)
                yield shard
                batch = []
            else:
                batch.append(shard)
        yield from self._merged(view, split, batch)

    def _stays(self, view: str, shard: Shard) -> bool:
        if shard.file_bytes < self.file_bytes / 2:  # small ones are merged
            return False
        if view == "prompts" or not len(self.revoked):
            return True
        return all(_kept(table, self.revoked).num_rows == table.num_rows for table in self._read(shard))

    def _read(self, shard: Shard) -> Iterator[pa.Table]:
        """The row groups of a shard, which is fetched for it."""
        file = self.scratch / "shard.parquet"
        again(self.place, lambda: self.place.fetch(self.head, shard.path, file))
        try:
            with pq.ParquetFile(file) as opened:
                for group in range(opened.metadata.num_row_groups):
                    yield opened.read_row_group(group)
        finally:
            file.unlink()

    def _merged(self, view: str, split: str, batch: list[Shard]) -> Iterator[Shard]:
        untouched = not len(self.revoked) or view == "prompts"
        if not batch or (len(batch) == 1 and untouched):
            yield from batch
            return
        schema = written_schema(view, self.there.prompt_format)
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        with TableFiles(folder, view, schema, file_bytes=self.file_bytes) as files:
            for shard in batch:
                for table in self._read(shard):
                    files.add(_kept(table, self.revoked).cast(schema))
            made = files.finish()
        for file in made:
            path = f"{view}/{split}/{file.digest}.parquet"
            self._waiting[path] = file.path
            self.staged.add(path)
            yield Shard(path=path, rows=file.rows, memory_bytes=file.memory_bytes, file_bytes=file.file_bytes)
        if sum(file.stat().st_size for file in self._waiting.values()) >= STAGED_BYTES:
            self.sent()

    def sent(self) -> None:
        """Stage what waits, and make room."""
        if self._waiting:
            self.place.stage(self._waiting, self.head)
        for file in self._waiting.values():
            file.unlink()
        self._waiting = {}


def _revoked(place: Place, head: str, there: RepositoryManifest, scratch: Path) -> list[str]:
    found: list[str] = []
    for shard in there.revoked:
        file = scratch / "revoked.parquet"
        place.fetch(head, shard.path, file)
        found += pq.read_table(file, columns=["sample_id"])["sample_id"].to_pylist()
        file.unlink()
    return found


def _kept(table: pa.Table, revoked: pa.Array) -> pa.Table:
    if not len(revoked):
        return table
    gone = None
    for name in NAMES:
        if name in table.schema.names:
            mine = pc.is_in(table[name], revoked)
            gone = mine if gone is None else pc.or_(gone, mine)
    return table if gone is None else table.filter(pc.invert(gone))
