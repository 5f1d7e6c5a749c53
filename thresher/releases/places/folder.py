"""Releases in a directory: local, on S3, or on another store of fsspec. A directory has no commits, so they are kept as files:

    FOLDER/README.md                  the card, which names every file of every config: what `datasets` reads
    FOLDER/thresher/log/000001.json   one per commit: its small files, the names of the large ones, the tags; never changed
    FOLDER/VIEW/SPLIT/HASH.parquet    never changed

A commit is the log entry of the next number, which only one publisher can create: a local file is linked to a name that must be
free, an object is put on the condition that none exists (`If-None-Match`). The card is written afterwards, and again until it is
that of the newest entry; a reader of the card sees the old version or the new one.
"""

import getpass
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from thresher.durable import replace_file, sync
from thresher.errors import PublishError
from thresher.releases.places.place import Change, Committed, Gated, MovedError, backoff

LOG = "thresher/log"
NOTHING = "000000"
"""The revision of a folder without a commit."""


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
        self._fs.makedirs(self._path(LOG), exist_ok=True)

    def who(self) -> str:
        return getpass.getuser()

    def head(self) -> str:
        if not self._fs.exists(self._path(LOG)):
            return NOTHING
        self._fs.invalidate_cache()
        names = (str(name).rsplit("/", 1)[-1] for name in self._fs.ls(self._path(LOG), detail=False))
        return max((name[:6] for name in names if re.fullmatch(r"\d{6}\.json", name)), default=NOTHING)

    def text(self, revision: str, path: str) -> str | None:
        text: str | None = self._entry(revision)["texts"].get(path)
        return text

    def files(self, revision: str) -> set[str]:
        """The files of the revision that exist. Files of no revision do not count, because the card does not name them."""
        self._fs.invalidate_cache()
        prefix = len(self._base) + 1
        present = {str(path)[prefix:] for path in self._fs.find(self._base)} if self._fs.exists(self._base) else set()
        return {path for path in self._entry(revision)["files"] if path in present}

    def tags(self) -> dict[str, str]:
        tags: dict[str, str] = self._entry(self.head())["tags"]
        return tags

    def fetch(self, revision: str, path: str, to: Path) -> None:  # noqa: ARG002 - files are never changed
        self._fs.get_file(self._path(path), str(to))

    # -- writing -------------------------------------------------------------------------------------------------------

    def send(self, path: str, file: Path, *, request: bool = False) -> None:  # noqa: ARG002 - a folder has no pull requests
        target = self._path(path)
        if self._fs.exists(target) and self._fs.size(target) == file.stat().st_size:
            return
        self._fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
        if not self._local:
            self._fs.put_file(str(file), target)
            return
        part = f"{target}.{os.getpid()}.part"
        self._fs.put_file(str(file), part)
        sync(part)
        os.replace(part, target)

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
        new_entry = {"message": message, "texts": texts, "files": sorted(files), "tags": tags}
        self._put_new(f"{LOG}/{number}.json", json.dumps(new_entry, indent=1).encode())
        self._write_texts()
        return Committed(number)

    def mend_tag(self, tag: str) -> None:  # noqa: ARG002 - entries hold their tags; the card may be missing after an interruption
        self._write_texts()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _path(self, path: str) -> str:
        return f"{self._base}/{path}"

    def _entry(self, revision: str) -> dict[str, Any]:
        if revision == NOTHING:
            return {"texts": {}, "files": [], "tags": {}}
        if revision not in self._entries:
            try:
                self._entries = {revision: json.loads(self._fs.cat_file(self._path(f"{LOG}/{revision}.json")))}
            except FileNotFoundError as error:
                raise PublishError(f"{self.name}: {LOG}/{revision}.json is missing; restore the file") from error
        return self._entries[revision]

    def _put_new(self, path: str, data: bytes) -> None:
        """Create a file. Raises MovedError if it exists."""
        target = self._path(path)
        try:
            if self._local:
                part = f"{target}.{os.getpid()}.part"
                Path(part).write_bytes(data)
                sync(part)
                try:
                    os.link(part, target)
                finally:
                    os.unlink(part)
            else:
                self._fs.pipe_file(target, data, mode="create")
        except FileExistsError as error:
            raise MovedError(path) from error

    def _write_texts(self) -> None:
        """Write the small files of the newest entry, the card last; again, if another entry was added meanwhile."""
        while True:
            head = self.head()
            texts = self._entry(head)["texts"]
            for path in sorted(texts, key=lambda path: (path == "README.md", path)):
                self._put(path, texts[path].encode())
            if self.head() == head:
                return

    def _put(self, path: str, data: bytes) -> None:
        target = self._path(path)
        self._fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
        if not self._local:
            self._fs.pipe_file(target, data)
            return
        replace_file(target, data)


def _client_errors() -> tuple[type[Exception], ...]:
    """The errors of file systems; the client of S3 has its own."""
    try:
        from botocore.exceptions import BotoCoreError
    except ImportError:
        return (OSError,)
    return (OSError, BotoCoreError)
