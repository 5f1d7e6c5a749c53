"""The run directory: whole files, each with an entry that is written last.

    RUN/run.json                  what this run is (schemas.manifest.RunManifest)
    RUN/begun.json                when it was started, UTC
    RUN/writer/000001.json        which process may write here (thresher.pool.lease)
    RUN/prompts.parquet           the plan: one row group per shard
    RUN/samples/00000.parquet     the pool, a shard at a time
    RUN/journal/00000-0001.arrows the samples so far of a shard that is not finished (thresher.pool.journal)
    RUN/starts/0001.json          every start of an engine, with its seed
    RUN/servers/                  what each server says of the model (thresher.running.server_notes)
    RUN/verdicts/00000.parquet    the verdicts of the filters on that shard
    RUN/corpus/00-00000.parquet   the verdicts of the first filter over the whole run on it
    RUN/judged/00000.parquet      what became of its samples, derived from all verdicts (thresher.pool.judged)
    RUN/audited/                  the audit and the statistics, derived (thresher.auditing.cache)
    RUN/dataset/                  the views, as a Hub-shaped directory

Each Parquet file has an entry beside it, `.json` for `.parquet`. A file counts when its entry exists, size and hash agree, and
its key (the hash of what it was made from) is the current one; otherwise it is made again. The root may be any fsspec URL: on a
local disk a file is written under a temporary name, synced and renamed; on an object store it is one PUT.
"""

import hashlib
import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel

from filters import trust
from filters.chunks import pieces
from schemas.manifest import Entry, RunManifest, seal, unseal, unseal_entry
from schemas.sample import POOL_VERSION
from thresher import credentials
from thresher.durable import REMOVED_AT_ONCE, create_file, make_folders, remove_files, replace_file, replacing, settle
from thresher.errors import StoreError
from thresher.pool import lease
from thresher.pool.parquet_options import write_row_groups
from thresher.pool.storage_errors import explained

log = logging.getLogger(__name__)

HASHED_BYTES = 4 << 30
"""A start hashes up to this many bytes of finished files (a few seconds); beyond, it compares sizes, and hashes are compared when
a file is read."""
GROUP_BYTES = 64 << 20
"""Most bytes of a row group in Arrow memory, unless one row has more: less than the 2 GiB beyond which a group of messages cannot
be read, and what readers such as DuckDB hold at a time."""


def shard_name(shard: int) -> str:
    """The stem of a shard's files, such as `00042`."""
    return f"{shard:05d}"


def versioned(name: str, version: int) -> str:
    """The file of a table: `name`.parquet, or `name`-v2.parquet and so on after it was extended."""
    return f"{name}.parquet" if version == 1 else f"{name}-v{version}.parquet"


class Store:
    """One run directory. Safe to share between threads, and between processes that work on different files.

    `number` is the lease under which a process writes that was given the store by the lease's holder; a holder needs none."""

    def __init__(self, root: str | Path, number: int = 0) -> None:
        self.root, self._number = str(root), number
        self._looked_at = -math.inf
        if credentials.has_password(self.root):
            raise StoreError(credentials.advice(self.root))
        try:
            # Listings are not cached: other machines write to the same place.
            self.fs, self.base = fsspec.core.url_to_fs(self.root, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise StoreError(f"{root}: unknown storage: {error}; give a directory, or a URL such as s3://bucket/run") from error
        self.local = isinstance(self.fs, LocalFileSystem)
        self.lease_key, self._paths = lease.key_of(self.fs, self.base), dict[str, str]()

    def __reduce__(self) -> tuple[type["Store"], tuple[str, int]]:
        return Store, (self.root, self._lease_number)

    @contextmanager
    def writing(self, command: str) -> Iterator[None]:
        """Hold the lease of the run directory while the block runs (thresher.pool.lease), and tidy up after a writer that was
        killed. Raises StoreError if another has it, and if a link in the directory leads out of it."""
        if self.local and (refused := trust.links_outside(self.base)):
            raise StoreError(f"{self.root}: {refused}")
        nested = lease.number_held(self.lease_key)
        with lease.writing(self.fs, self.base, self.root, command):
            if self.local and not nested and lease.number_held(self.lease_key):
                with self.explained(""):
                    settle(self.base)
            yield

    @property
    def _lease_number(self) -> int:
        return lease.number_held(self.lease_key) or self._number

    def check_lease(self, *, now: bool = False) -> None:
        """Raise StoreError if another process has taken the lease under which this one writes. Looks again after some time, or
        `now`, right before a change: a process may be stopped while it writes and syncs, and be taken over meanwhile."""
        time_s = _since_start()
        if (now or time_s - self._looked_at > lease.LOOK_S) and (number := self._lease_number):
            with self.explained(lease.FOLDER, verb="look for"):
                lease.check_held(self.fs, self.base, self.root, number)
            self._looked_at = time_s

    def path(self, name: str) -> str:
        """The path of a file on the run's file system. Raises StoreError where it leads out of it."""
        if name not in self._paths:
            if name and (refused := trust.outside(self.base, name, local=self.local)):
                raise StoreError(f"{self.root}: {refused}")
            if len(self._paths) >= 4096:  # memory stays flat as the run grows
                self._paths.clear()
            self._paths[name] = f"{self.base}/{name}" if name else str(self.base)
        return self._paths[name]

    def exists(self, name: str) -> bool:
        """Whether a file or folder of the run exists."""
        path = self.path(name)
        if self.local:
            return os.path.exists(path)  # fsspec would take an exception raised by a signal handler for a missing file
        with self.explained(name, verb="look for"):
            return bool(self.fs.exists(path))

    def names(self, folder: str, ending: str) -> list[str]:
        """File names in a folder, sorted."""
        if not self.exists(folder):
            return []
        with self.explained(folder, verb="list"):
            names = [str(name).rsplit("/", 1)[-1] for name in self.fs.ls(self.path(folder), detail=False)]
        return sorted(name for name in names if name.endswith(ending) and not name.startswith("."))

    def folders(self) -> list[str]:
        """Names of the folders in the root, sorted."""
        if not self.exists(""):
            return []
        with self.explained("", verb="list"):
            folders = [info for info in self.fs.ls(self.path(""), detail=True) if info["type"] == "directory"]
        return sorted(str(info["name"]).rstrip("/").rsplit("/", 1)[-1] for info in folders)

    # -- bytes ---------------------------------------------------------------------------------------------------------

    def write_bytes(self, name: str, data: bytes | memoryview, *, durable: bool = True) -> None:
        """Write a file whole or not at all. Without `durable` a power cut may lose it: for what can be derived again."""
        path = self.path(name)
        with self.explained(name):
            make_folders(path.rsplit("/", 1)[0], self.fs)
            if self.local:
                replace_file(path, data, durable=durable, check=partial(self.check_lease, now=True))
                return
            self.check_lease()
            self.fs.pipe_file(path, bytes(data))

    def write_first(self, name: str, model: BaseModel) -> bool:
        """Write a file unless it exists; returns whether it was written. Of several writers exactly one succeeds."""
        path, data = self.path(name), (model.model_dump_json(indent=1) + "\n").encode()
        with self.explained(name):
            make_folders(path.rsplit("/", 1)[0], self.fs)
            try:
                create_file(self.fs, path, data)
            except FileExistsError:
                return False
            return True

    def put_next(self, folder: str, prefix: str, ending: str, data: bytes) -> int:
        """Write the next free file PREFIX NNNN ENDING of a folder whole; returns its number."""
        taken = [name for name in self.names(folder, ending) if name.startswith(prefix)]
        number = int(taken[-1].removesuffix(ending)[len(prefix) :]) if taken else 0
        self.check_lease()
        with self.explained(folder):
            make_folders(self.path(folder), self.fs)
            while True:
                number += 1
                with suppress(FileExistsError):  # several machines may try
                    create_file(self.fs, self.path(f"{folder}/{prefix}{number:04d}{ending}"), data)
                    return number

    def read_bytes(self, name: str) -> bytes:
        """Read a file of the run whole. Raises StoreError."""
        path = self.path(name)
        if self.local and not os.path.isfile(path) and os.path.exists(path):
            raise StoreError(f"{path}: wanted a file, found a directory, a pipe or a device")
        with self.explained(name, verb="read"):
            return Path(path).read_bytes() if self.local else bytes(self.fs.cat_file(path))

    def sha256(self, name: str) -> str:
        """The SHA-256 of a file of the run, in hex digits."""
        with self.explained(name, verb="read"), self.fs.open(self.path(name), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def write_model(self, name: str, model: BaseModel, *, durable: bool = True) -> None:
        """Write a model as JSON, whole or not at all; an entry or a manifest with its digest."""
        text = seal(model) if isinstance(model, Entry | RunManifest) else model.model_dump_json(indent=1)
        self.write_bytes(name, (text + "\n").encode(), durable=durable)

    # -- tables with entries -------------------------------------------------------------------------------------------

    def write_table(
        self,
        name: str,
        table: pa.Table,
        *,
        key: str,
        facts: dict[str, Any] | None = None,
        version: int = 1,
        durable: bool = True,
    ) -> Entry:
        """Write `name`.parquet in row groups of at most GROUP_BYTES, then its entry. A later `version` goes to a file of its own,
        so the previous one stays whole until the entry names the new one; then it is removed."""
        before = self.entry(name) if version > 1 else None
        file, groups = versioned(name, version), pieces(table, GROUP_BYTES)
        entry = self.write_groups(name, table.schema, groups, key=key, facts=facts, file=file, durable=durable)
        if before is not None and before.path != entry.path and self.exists(before.path):
            self.remove(before.path)
        return entry

    def write_groups(
        self,
        name: str,
        schema: pa.Schema,
        groups: Iterable[pa.Table],
        *,
        key: str,
        facts: dict[str, Any] | None = None,
        file: str | None = None,
        durable: bool = True,
    ) -> Entry:
        """Write `name`.parquet (or `file`) with one row group per table, then its entry. Memory holds one group. The entry gets
        `facts` as they are after the last group, so they may be counted on the way."""
        file = file or versioned(name, 1)
        with self._new_file(file, durable=durable) as sink:
            rows = write_row_groups(sink, schema, groups, writing=lambda: self.explained(file))
            with self.explained(file):
                size, _ = sink.tell(), sink.seek(0)
                sha256 = hashlib.file_digest(sink, "sha256").hexdigest()
        entry = Entry(path=file, rows=rows, bytes=size, sha256=sha256, key=key, facts=facts or {})
        self.write_model(f"{name}.json", entry, durable=durable)
        return entry

    @contextmanager
    def _new_file(self, name: str, *, durable: bool) -> Iterator[Any]:
        """A file, open for reading and writing, that is stored whole when the block ends, or not at all."""
        path = self.path(name)
        with ExitStack() as stack:
            with self.explained(name):
                make_folders(path.rsplit("/", 1)[0], self.fs)
                if self.local:
                    file = stack.enter_context(replacing(path, durable=durable, check=partial(self.check_lease, now=True)))
                else:
                    file = stack.enter_context(tempfile.NamedTemporaryFile(prefix="thresher-"))
            yield file
            self.check_lease()
            with self.explained(name):
                if not self.local:
                    self.fs.put_file(file.name, path)
                stack.close()

    def entry(self, name: str) -> Entry | None:
        """The entry of `name`; None where there is none, or where it is not what was written."""
        if not self.exists(f"{name}.json"):
            return None
        try:
            return unseal_entry(self.read_bytes(f"{name}.json"))
        except ValueError:
            return None

    def finished(self, name: str, key: str, *, hashed: bool = True) -> Entry | None:
        """The entry of `name` if its file is whole and was made from `key`, else None. A damaged file is moved aside."""
        entry = self.entry(name)
        if entry is None and self.exists(f"{name}.json"):
            self.move_aside(f"{name}.json", "not a valid entry")
        if entry is None or entry.key != key:
            return None
        if not self.exists(entry.path):
            log.warning("%s: missing although it has an entry; it is made again", self.path(entry.path))
            return None
        if (size := self.size(entry.path)) != entry.bytes:
            self.move_aside(entry.path, f"has {size} bytes, expected {entry.bytes}")
            return None
        if hashed and self.sha256(entry.path) != entry.sha256:
            self.move_aside(entry.path, "its SHA-256 differs from the one in its entry")
            return None
        return entry

    def whole(self, entry: Entry, *, hashed: bool) -> bool:
        """Whether the file of an entry is unchanged: by its size, and with `hashed` by its SHA-256."""
        if not self.exists(entry.path) or self.size(entry.path) != entry.bytes:
            return False
        return not hashed or self.sha256(entry.path) == entry.sha256

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Read `name`.parquet after comparing its hash with its entry. Raises StoreError on a damaged file."""
        entry = self.entry(name)
        if entry is None and self.exists(f"{name}.json"):
            raise StoreError(
                f"{self.path(name)}.json: damaged, it is not what was written; run `thresher run` again: it moves the file aside "
                "and makes it again"
            )
        if entry is None:
            raise StoreError(f"{self.path(name)}.parquet: not finished; run `thresher run` again to complete the run")
        data = self.read_bytes(entry.path)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise StoreError(
                f"{self.path(entry.path)}: damaged, its SHA-256 differs from the one in {name}.json; "
                "run `thresher run` again: it moves the file aside and makes it again"
            )
        return pq.read_table(pa.BufferReader(data), columns=columns)

    def read_group(self, name: str, group: int, columns: list[str] | None = None) -> pa.Table:
        """Read one row group of `name`.parquet, or columns of it. Raises StoreError on a damaged file."""
        path = self.path(f"{name}.parquet")
        try:
            with self.explained(f"{name}.parquet", verb="read"), self.fs.open(path, "rb") as file:
                return pq.ParquetFile(file).read_row_group(group, columns)
        except (pa.ArrowException, IndexError) as error:
            raise StoreError(
                f"{path}: damaged ({str(error).splitlines()[0]}); run `thresher run` again: it is made again"
            ) from error

    def remove(self, *names: str) -> None:
        """Remove files of the run; those of an object store after one look at the lease for REMOVED_AT_ONCE."""
        at_once = 1 if self.local else REMOVED_AT_ONCE
        for batch in (names[start : start + at_once] for start in range(0, len(names), at_once)):
            self.check_lease(now=True)
            with self.explained(batch[0], verb="remove"):
                remove_files(self.fs, [self.path(name) for name in batch])

    def move_aside(self, name: str, reason: str) -> None:
        """Rename a damaged file to NAME.damaged and log why."""
        aside, number = f"{name}.damaged", 1
        while self.exists(aside):
            aside, number = f"{name}.damaged{number}", number + 1
        self.check_lease(now=True)
        with self.explained(name, verb="move aside"):
            if self.local:
                self.fs.mv(self.path(name), self.path(aside))
            else:  # file by file, for fsspec would take * ? and [ in a path for a pattern
                self.fs.cp_file(self.path(name), self.path(aside))
                self.fs.rm_file(self.path(name))
        log.warning("%s: %s; moved to %s and made again", self.path(name), reason, aside.rsplit("/", 1)[-1])

    # -- the run -------------------------------------------------------------------------------------------------------

    def manifest(self) -> RunManifest | None:
        """What this run is; None where there is no run yet. Raises StoreError where run.json is damaged, or of another pool
        version."""
        if not self.exists("run.json"):
            return None
        data, where = self.read_bytes("run.json"), self.path("run.json")
        version, writer = _format_of(data)
        if version not in (None, POOL_VERSION):
            raise StoreError(
                f"{where}: pool version {version}, wanted {POOL_VERSION}; use the version of thresher that wrote it ({writer})"
            )
        try:
            return unseal(RunManifest, data)
        except ValueError as error:
            raise StoreError(
                f"{where}: not a run of thresher, or damaged: {error}; restore it, or, unless models were added to the run, "
                "remove it and run the same command again: it is written anew, and what the same recipe sampled is kept"
            ) from error

    def size(self, name: str) -> int:
        """Size of a file in bytes."""
        with self.explained(name, verb="look for"):
            return int(self.fs.size(self.path(name)))

    @contextmanager
    def explained(self, name: str, verb: str = "write") -> Iterator[None]:
        """Turn errors of the storage into StoreErrors that say what to do."""
        with explained(self.root, self.path(name), name, local=self.local, verb=verb):
            yield


def _since_start() -> float:
    """Seconds that pass also while this process or its machine is stopped."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.time()


def _format_of(data: bytes) -> tuple[int | None, str]:
    """The pool version that a run.json names, and the version of thresher that wrote it; None where it names none."""
    try:
        noted = json.loads(data)
    except (ValueError, RecursionError):
        noted = None
    noted = noted if isinstance(noted, dict) else {}
    version = noted.get("pool_version")
    return version if isinstance(version, int) else None, str(noted.get("thresher_version", "unknown"))
