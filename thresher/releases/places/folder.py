"""Releases in a directory: local, on S3, or on another store of fsspec. A directory has no commits, so they are kept as files:

    FOLDER/README.md                  the card, which names every file of every config: what `datasets` reads; people may edit it
    FOLDER/thresher/log/000001.json   one per commit: its small files, the names of the large ones, the tags; never changed
    FOLDER/VIEW/SPLIT/HASH.parquet    never changed

A commit is the log entry of the next number, which only one publisher can create: a local file is linked to a name that must be
free, an object is put on the condition that none exists (`If-None-Match`). The card is written afterwards, and again until it is
that of the newest entry; a reader of the card sees the old version or the new one. What a person wrote into it meanwhile stays.
"""

import hashlib
import os
import re
import secrets
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from filters import trust
from schemas.manifest import seal, unseal
from schemas.release import LogEntry, Shard
from thresher.durable import (
    IGNORED,
    create_file,
    has_ended,
    ignores_condition,
    machine_id,
    make_folders,
    sync,
    sync_names,
    why_not_exclusive,
)
from thresher.errors import PublishError
from thresher.releases.front_matter import names
from thresher.releases.merge_card import CARD, README, card_id, decoded, merge, origin, own_part
from thresher.releases.places.place import Change, Committed, Gated, MovedError, backoff, damage_of

LOG, INDEX = "thresher/log", "index"
NOTHING = "000000"
"""The revision of a folder without a commit."""
ENTRIES = 4
"""Entries of the log in memory."""
LEFT_S = 86400
"""Age in seconds at which temporary files are removed whose writer cannot be asked for."""
_LEFT = re.compile(r"\.(?:parquet|npy|json|md)\.(?:(?P<machine>.+)\.(?P<pid>\d+)\.[0-9a-f]{8}|\d+)\.part$")
"""Temporary files: of this version, and of earlier ones, which had a host or none."""


class Folder:
    """A dataset repository in a directory."""

    lists_files = True

    def __init__(self, url: str) -> None:
        self.name = url
        try:
            self._fs, self._base = fsspec.core.url_to_fs(os.path.expanduser(url))
        except (ImportError, ValueError) as error:
            raise PublishError(
                f"{url}: {error}; wanted ORG/NAME of a Hub, a directory, or a URL whose fsspec client is installed (S3: pip "
                "install s3fs)"
            ) from error
        if (reason := why_not_exclusive(self._fs)) is not None:
            raise PublishError(f"{url}: cannot be a shared repository: {reason}")
        self._local = isinstance(self._fs, LocalFileSystem)
        self._entries: dict[str, dict[str, Any]] = {}

    # -- errors --------------------------------------------------------------------------------------------------------

    def wait(self, error: Exception, tried: int) -> float | None:
        return backoff(tried) if isinstance(error, MovedError) else None

    @contextmanager
    def explained(self) -> Iterator[None]:
        try:
            yield
        except MovedError as error:
            raise PublishError(f"{self.name}: other publishers keep committing there; try again") from error
        except PublishError:
            raise
        except _client_errors() as error:
            message = (str(error).splitlines() or [type(error).__name__])[0]
            raise PublishError(f"{self.name}: {message}; nothing has changed, and the same command resumes") from error

    # -- reading -------------------------------------------------------------------------------------------------------

    def create(self, *, private: bool, gated: Gated | None) -> None:
        if private or gated:
            raise PublishError(f"{self.name}: a folder cannot be private or gated; set the permissions of its storage instead")
        make_folders(self._path(LOG), self._fs)
        if not self._local:
            self._stop_if_overwriting()

    def who(self) -> str:
        return "the publisher"  # a directory has no accounts, and the user's name is nobody's business

    def head(self) -> str:
        if not self._fs.exists(self._path(LOG)):
            return NOTHING
        self._fs.invalidate_cache()
        listed = (str(name).rsplit("/", 1)[-1] for name in self._fs.ls(self._path(LOG), detail=False))
        return max((name[:6] for name in listed if re.fullmatch(r"\d{6}\.json", name)), default=NOTHING)

    def text(self, revision: str, path: str) -> str | None:
        text: str | None = self._entry(revision)["texts"].get(path)
        return text

    def readme(self, head: str) -> str | None:
        present = self._read(README)
        return self.text(head, README) if present is None else decoded(present, f"{self.name}/{README}")

    def cards(self, head: str) -> Iterator[str]:
        for number in range(int(head), 0, -1):
            texts = self._entry(f"{number:06d}")["texts"]
            if CARD in texts or README in texts:
                yield texts[CARD] if CARD in texts else own_part(texts[README])

    def files(self, revision: str) -> set[str]:
        """The files of the revision that exist. Files of no revision do not count, because the card does not name them."""
        present = self._sizes()
        return {path for path in self._entry(revision)["files"] if path in present}

    def damage(self, revision: str, shards: Collection[Shard], *, whole: Collection[str] = ()) -> dict[str, str]:  # noqa: ARG002
        sizes, found = self._sizes(), {}
        for shard in shards:
            size = sizes.get(shard.path)
            read = shard.path in whole and size == shard.file_bytes
            if words := damage_of(shard, size, self._sha256(shard.path) if read else None):
                found[shard.path] = words
        return found

    def tags(self) -> dict[str, str]:
        tags: dict[str, str] = self._entry(self.head())["tags"]
        return tags

    def fetch(self, revision: str, path: str, to: Path) -> None:  # noqa: ARG002 - files are never changed
        self._fs.get_file(self._path(path), str(to))

    def open(self, revision: str, path: str) -> AbstractContextManager[BinaryIO]:  # noqa: ARG002 - files are never changed
        file: AbstractContextManager[BinaryIO] = self._fs.open(self._path(path), "rb")
        return file

    # -- writing -------------------------------------------------------------------------------------------------------

    def send(self, path: str, file: Path, *, request: bool = False) -> None:  # noqa: ARG002 - a folder has no pull requests
        target = self._path(path)
        self._fs.invalidate_cache()
        if self._fs.exists(target) and self._fs.size(target) == file.stat().st_size and self._sha256(path) == _sha256(file):
            if self._local:  # a writer that was killed may have renamed it without a sync
                sync(Path(target).parent)
            return
        make_folders(target.rsplit("/", 1)[0], self._fs)
        if not self._local:
            self._fs.put_file(str(file), target)
            return
        with _replacing(target) as part:
            self._fs.put_file(str(file), part)

    def stage(self, files: Mapping[str, Path], revision: str) -> None:  # noqa: ARG002 - no reader sees files that no card names
        for path, file in files.items():
            self.send(path, file)

    def unstage(self) -> None:
        return

    def commit(self, change: Change, message: str, *, parent: str, tag: str | None, request: bool = False) -> Committed:
        if request:
            raise PublishError(f"{self.name}: a folder has no pull requests; leave --create-pr out, or publish to a Hub")
        number, entry = f"{int(parent) + 1:06d}", self._entry(parent)
        texts, files = dict(entry["texts"]), set(entry["files"])
        for path, content in change.adds.items():
            if isinstance(content, bytes):
                texts[path] = content.decode()
            elif path.endswith(".json"):
                texts[path] = content.read_text("utf-8")
            else:
                self.send(path, content)
                files.add(path)
        if missing := [path for path in (*change.staged, *change.restored) if not self._fs.exists(self._path(path))]:
            raise PublishError(f"{self.name}: {missing[0]} and {len(missing) - 1} more files are missing; restore them")
        files |= {*change.staged, *change.restored}
        files -= set(change.deletes)
        texts = {path: text for path, text in texts.items() if path not in change.deletes}
        tags = entry["tags"] | ({tag: number} if tag else {})
        new_entry = LogEntry(message=message, texts=texts, files=sorted(files), tags=tags)
        self._put_new(f"{LOG}/{number}.json", seal(new_entry).encode())
        if README in change.adds and card_id(self.readme(number) or "") == card_id(texts[README]):  # the card alone is mended
            self._put(README, texts[README].encode())
        self._write_texts()
        return Committed(number)

    def mend(self) -> None:
        if self._local:
            self._remove_left_parts()
            self._sync_folders()
        if self._unwritten(self.head()):
            self._write_texts()

    def mend_tag(self, tag: str) -> None:  # noqa: ARG002 - entries hold their tags; the card may be missing after an interruption
        self._write_texts()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _path(self, path: str) -> str:
        """The path of a file of the repository. Raises PublishError where it would be outside the folder."""
        if refused := trust.outside(str(self._base), path, local=self._local):
            raise PublishError(f"{self.name}: {refused}")
        return f"{self._base}/{path}"

    def _entry(self, revision: str) -> dict[str, Any]:
        if revision == NOTHING:
            return {"texts": {}, "files": [], "tags": {}}
        if revision not in self._entries:
            try:
                entry = unseal(LogEntry, self._fs.cat_file(self._path(f"{LOG}/{revision}.json"))).model_dump()
            except FileNotFoundError as error:
                raise PublishError(f"{self.name}: {LOG}/{revision}.json is missing; restore the file") from error
            except ValueError as error:
                raise PublishError(
                    f"{self.name}: {LOG}/{revision}.json is damaged ({error}); restore the file from a backup: it never changes"
                ) from error
            self._entries = dict([*self._entries.items(), (revision, entry)][-ENTRIES:])
        return self._entries[revision]

    def _read(self, path: str) -> bytes | None:
        """The content of a small file as it is now."""
        self._fs.invalidate_cache()
        try:
            data: bytes = self._fs.cat_file(self._path(path))
        except FileNotFoundError:
            return None
        return data

    def _sizes(self) -> dict[str, int]:
        """The size of each file, by its path in the repository."""
        self._fs.invalidate_cache()
        if not self._fs.exists(self._base):
            return {}
        prefix = len(self._base) + 1
        return {str(path)[prefix:]: int(facts["size"]) for path, facts in self._fs.find(self._base, detail=True).items()}

    def _sha256(self, path: str) -> str:
        with self._fs.open(self._path(path), "rb") as file:
            digest = hashlib.sha256()
            while piece := file.read(1 << 20):
                digest.update(piece)
        return digest.hexdigest()

    def _stop_if_overwriting(self) -> None:
        """Raise PublishError if two publishers could create the same entry of the log."""
        probe = self._path(f"{LOG}/probe-{secrets.token_hex(8)}")
        self._fs.pipe_file(probe, b"")
        overwrites = ignores_condition(self._fs, probe)
        self._fs.rm_file(probe)
        if overwrites:
            raise PublishError(f"{self.name}: cannot be a shared repository: {IGNORED}")

    def _put_new(self, path: str, data: bytes) -> None:
        """Create a file. Raises MovedError if it exists."""
        target = self._path(path)
        try:
            if self._local:
                part = _part(target)
                try:
                    Path(part).write_bytes(data)
                    sync(part)
                    os.link(part, target)
                finally:
                    Path(part).unlink(missing_ok=True)
                sync(Path(target).parent)
            else:
                create_file(self._fs, target, data)
        except FileExistsError as error:
            raise MovedError(path) from error

    def _write_texts(self) -> None:
        """Write the small files of the newest entry, the card last; again, if another entry was added meanwhile."""
        while True:
            head = self.head()
            for path, text in self._unwritten(head).items():
                self._put(path, text.encode())
            if self.head() == head:
                return

    def _unwritten(self, head: str) -> dict[str, str]:
        """The small files that are not as the newest entry has them, the card last."""
        texts = {path: text for path, text in self._entry(head)["texts"].items() if path != README}
        unwritten = {path: text for path, text in sorted(texts.items()) if self._read(path) != text.encode()}
        text, present = self._card(head), self._read(README)
        return unwritten | ({README: text} if text is not None and present != text.encode() else {})

    def _card(self, head: str) -> str | None:
        """The card of the newest entry, with what a person wrote into the present one after it was read for that entry."""
        text, present = self.text(head, README), self.readme(head)
        if text is None or present is None or present == text:
            return text
        before = f"{int(head) - 1:06d}"
        if present == self.text(before, README):
            return text
        card = self.text(head, CARD) or own_part(text)
        if card_id(present) is not None and card_id(present) == card_id(card):
            return present
        return merge(card, present, origin(present, self.cards(before)), name=f"{self.name}/{README}")

    def _put(self, path: str, data: bytes) -> None:
        target = self._path(path)
        make_folders(target.rsplit("/", 1)[0], self._fs)
        if not self._local:
            self._fs.pipe_file(target, data)
            return
        with _replacing(target) as part:
            Path(part).write_bytes(data)

    def _remove_left_parts(self) -> None:
        """Remove temporary files of writers that were killed: of this machine, whose process has ended, or a day old."""
        for part in Path(self._base).rglob("*.part"):
            name = _LEFT.search(part.name)
            with suppress(FileNotFoundError):
                if name and (has_ended(name["machine"], int(name["pid"] or 0)) or part.stat().st_mtime < time.time() - LEFT_S):
                    part.unlink()

    def _sync_folders(self) -> None:
        """Make the names durable that a writer made which was killed before it synced them."""
        for own in ("thresher", INDEX, *names()):
            for folder, _, _ in os.walk(self._path(own)):
                sync_names(folder)
        for folder in (self._base, os.path.dirname(self._base)):
            sync_names(folder)


@contextmanager
def _replacing(target: str) -> Iterator[str]:
    """Give a local file its content whole or not at all: the path to write it to."""
    part = _part(target)
    try:
        yield part
        sync(part)
        os.replace(part, target)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    sync(Path(target).parent)


def _part(target: str) -> str:
    """A name that no other writer uses for a temporary file, and that tells who does."""
    return f"{target}.{machine_id() or 'unknown'}.{os.getpid()}.{secrets.token_hex(4)}.part"


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _client_errors() -> tuple[type[Exception], ...]:
    """The errors of file systems; the client of S3 has its own."""
    try:
        from botocore.exceptions import BotoCoreError
    except ImportError:
        return (OSError,)
    return (OSError, BotoCoreError)
