"""Changes to released data, each in one commit: a rollback to an earlier release, and samples that are revoked."""

import hashlib
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.release import RepositoryManifest, Shard
from thresher.dataset import views
from thresher.dataset.parquet_files import TableFile, TableFiles
from thresher.dataset.view_schemas import written_schema
from thresher.errors import PublishError
from thresher.releases.held_samples import stop_at_unknown
from thresher.releases.places.open_place import open_place
from thresher.releases.places.place import Change, Place, again, damage_of
from thresher.releases.readme import cards_of
from thresher.releases.repository import (
    INDEX,
    INDEXED,
    MANIFEST,
    change,
    dumped,
    next_version,
    paths,
    read,
    shards,
    stop_at_damage,
    stop_at_strangers,
)


@dataclass(frozen=True)
class Changed:
    """The result of a change."""

    repo: str
    version: str | None
    """None if the change makes no release, or nothing had to be done."""
    commit: str | None
    """None if nothing had to be done."""
    said: str
    """What was done, in words."""
    rows: dict[str, int] = field(default_factory=dict)
    files: tuple[int, int] = (0, 0)
    """Number of shards before and after."""

    @property
    def words(self) -> str:
        """The result in one line."""
        return f"{self.repo}: {self.version + ': ' if self.version else ''}{self.said}"


def rollback(repo: str, tag: str) -> Changed:
    """Restore what a repository held at a tag, in one commit that moves no data. Raises PublishError."""
    place = open_place(repo)
    with place.explained():
        again(place, place.mend)
        return again(place, lambda: _roll_back(place, tag))


def read_sample_ids(file: str) -> list[str]:
    """Read sample ids from a text file, separated by white space. Raises PublishError if it cannot be read."""
    try:
        return Path(file).read_text("utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise PublishError(f"{file}: cannot be read: {error}; give a text file with one sample_id per line") from error


def revoke(repo: str, samples: Iterable[str], reason: str) -> Changed:
    """Revoke samples: their ids go to the config `revoked`, which readers leave out. The shards stay as they are until `compact`
    rewrites them without these rows. Raises PublishError, and then nothing has changed; ids that no shard holds are an error."""
    place = open_place(repo)
    wanted = list(dict.fromkeys(samples))
    if not wanted or not reason.strip():
        raise PublishError(f"{repo}: wanted the ids of samples, and the reason why they are revoked")
    with place.explained(), tempfile.TemporaryDirectory(prefix="thresher-") as folder:
        again(place, place.mend)
        return again(place, lambda: _revoke(place, wanted, reason, Path(folder)))


def shard_of(file: TableFile, view: str, split: str) -> Shard:
    """Return the shard that a written file becomes."""
    return Shard(
        path=f"{view}/{split}/{file.digest}.parquet",
        rows=file.rows,
        memory_bytes=file.memory_bytes,
        file_bytes=file.file_bytes,
    )


def fetch_whole(place: Place, head: str, shard: Shard, file: Path) -> None:
    """Copy a shard from the repository. Raises PublishError if its content is not that which was released."""
    place.fetch(head, shard.path, file)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if words := damage_of(shard, file.stat().st_size, digest):
        raise PublishError(f"{place.name}: {shard.path} {words}; publish its run again, which sends it again")


def revoked_ids(place: Place, head: str, manifest: RepositoryManifest, scratch: Path) -> list[str]:
    """Return the ids of the revoked samples."""
    ids: list[str] = []
    for shard in manifest.revoked:
        file = scratch / "revoked.parquet"
        fetch_whole(place, head, shard, file)
        ids += pq.read_table(file, columns=["sample_id"])["sample_id"].to_pylist()
        file.unlink()
    return ids


# -- inside --------------------------------------------------------------------------------------------------------------


def _roll_back(place: Place, tag: str) -> Changed:
    head, tags = place.head(), place.tags()
    if tag not in tags:
        raise PublishError(f"{place.name}: no release {tag!r}; there are {', '.join(sorted(tags)) or 'none'}")
    current, target = read(place, head), read(place, tags[tag])
    stop_at_damage(place, target, place.damage(tags[tag], shards(target).values()))
    damaged = set(place.damage(head, shards(target).values()))
    present, wanted = place.files(head), place.files(tags[tag])
    if (current.releases, current.revoked) == (target.releases, target.revoked) and wanted <= present - damaged:
        return Changed(place.name, None, None, f"holds what {tag} has already")
    restored = target.model_copy(update={"changes": (f"rolled back to {tag}", *current.changes)})
    index = place.text(tags[tag], INDEXED)
    removed = {INDEXED} if index is None and place.text(head, INDEXED) else set()
    known = paths(current) | {path for path in present if path.startswith(f"{INDEX}/")}
    commit = place.commit(
        Change(
            adds={MANIFEST: dumped(restored)}
            | cards_of(place, tags[tag], head, restored)
            | ({INDEXED: index.encode()} if index else {}),
            restored=tuple(sorted((wanted - present | wanted & damaged) - {INDEXED})),
            since=tag,
            deletes=tuple(sorted((present - wanted) & known | removed)),
        ),
        f"Roll back to {tag}",
        parent=head,
        tag=None,
    )
    return Changed(place.name, None, commit.revision, f"holds what it held at {tag}")


def _revoke(place: Place, samples: list[str], reason: str, scratch: Path) -> Changed:
    head = place.head()
    manifest = read(place, head)
    if not manifest.releases:
        raise PublishError(f"{place.name}: has no releases")
    stop_at_strangers(place, head, manifest)
    already = set(revoked_ids(place, head, manifest, scratch))
    new = [sample for sample in samples if sample not in already]
    if not new:
        place.mend_tag(manifest.changes[0].partition(":")[0])  # in case this very call was interrupted before its tag
        return Changed(place.name, None, None, "they were all revoked before")
    stop_at_unknown(place, head, manifest, new)
    version = next_version(place, manifest, None, "patch")
    table = pa.table([new, [reason] * len(new), [version] * len(new)], schema=views.schema("revoked", "text"))
    with TableFiles(scratch, "revoked", written_schema("revoked", "text")) as files:
        files.add(table)
        (file,) = files.finish()
    shard = shard_of(file, "revoked", "train")
    summary = f"took back {len(new)} samples: {reason}"
    after = manifest.model_copy(
        update={
            "revoked": (*manifest.revoked, shard),
            "columns": manifest.columns | {"revoked": tuple((field.name, str(field.type)) for field in table.schema)},
            "changes": (f"{version}: {summary}", *manifest.changes),
        }
    )
    cards = cards_of(place, head, head, after)
    again(place, lambda: place.send(shard.path, file.path))
    revocation = change(manifest, after, cards, {shard.path: file.path})
    commit = place.commit(revocation, f"{version}: {summary}", parent=head, tag=version)
    return Changed(place.name, version, commit.revision, summary)
