"""The run directory: whole files, each with an entry that is written last.

    RUN/run.json                  what this run is (schemas.manifest.RunManifest)
    RUN/begun.json                when it was begun, UTC
    RUN/prompts.parquet           the plan: one row group per shard
    RUN/samples/00000.parquet     the pool, a shard at a time
    RUN/journal/00000-0001.arrows what a shard that is not finished has so far (thresher.pool.journal)
    RUN/starts/0001.json          every start of an engine, with its seed
    RUN/verdicts/00000.parquet    what the filters said of that shard
    RUN/corpus/00-00000.parquet   what the first filter over the whole run said of it
    RUN/dataset/                  the views, as a Hub-shaped directory
Beside each Parquet file stands its entry, `.json` for `.parquet`. A file counts when its entry does, its size and hash agree and
its key (the hash of what it was made from) is the wanted one; otherwise it is made again. The root may be any fsspec URL: on a
local disk a file is written under a temporary name, synced and renamed; on an object store it is one PUT.
"""

import errno
import hashlib
import io
import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ValidationError

from schemas.manifest import Entry, RunManifest
from schemas.sample import POOL_VERSION
from thresher.durable import replace_file, sync
from thresher.errors import StoreError

log = logging.getLogger(__name__)

HASHED_BYTES = 4 << 30
"""A start hashes what is finished up to this many bytes (a few seconds); beyond, sizes are compared and hashes when read."""

_REPEATING = {
    "family", "filter", "filter_key", "outcome", "reason", "finish_reason", "stop_reason", "logprobs_kind", "sampling",
    "engine", "engine_version", "model", "model_revision", "policy_model", "policy_revision", "chat_template_sha256",
    "prompt_id", "group_id", "kind",
}  # fmt: skip


def parquet_options(schema: pa.Schema, *, for_hub: bool) -> dict[str, Any]:
    """Writer settings: zstd 3, dictionaries only where values repeat, logprobs split by byte.

    For the Hub also content-defined chunking and a page index, so that an edited file re-sends only what changed;
    dictionaries on texts or token ids would defeat that.
    """
    options: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": 3,
        "use_dictionary": [name for name in schema.names if name in _REPEATING],
        "write_page_index": True,
    }
    if "logprobs" in schema.names:
        options["column_encoding"] = {"logprobs.list.element": "BYTE_STREAM_SPLIT"}
    if for_hub:
        options["use_content_defined_chunking"] = {
            "min_chunk_size": 1 << 18,
            "max_chunk_size": 1 << 20,
            "norm_level": 0,
        }
    return options


def shard_name(shard: int) -> str:
    return f"{shard:05d}"


def versioned(name: str, version: int) -> str:
    """The file of a table: `name`.parquet, and `name`-v2.parquet and so on for one that was extended."""
    return f"{name}.parquet" if version == 1 else f"{name}-v{version}.parquet"


class Store:
    """One run directory. Safe to share between threads, and between processes that work on different files."""

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        try:
            # Without a cache of listings: other machines write there too.
            self.fs, self.base = fsspec.core.url_to_fs(self.root, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise StoreError(
                f"{root}: no such storage: {error}; give a directory, or an fsspec URL such as s3://bucket/run"
            ) from error
        self.local = isinstance(self.fs, LocalFileSystem)

    def __reduce__(self) -> tuple[type["Store"], tuple[str]]:
        return Store, (self.root,)

    def path(self, name: str) -> str:
        return f"{self.base}/{name}" if name else self.base

    def exists(self, name: str) -> bool:
        path = self.path(name)
        if self.local:
            return os.path.exists(path)  # fsspec takes what a signal raises meanwhile for a file that is not there
        with self.explained(name, verb="look for"):
            return bool(self.fs.exists(path))

    def names(self, folder: str, ending: str) -> list[str]:
        """File names in a folder, sorted."""
        if not self.exists(folder):
            return []
        with self.explained(folder, verb="list"):
            found = [str(name).rsplit("/", 1)[-1] for name in self.fs.ls(self.path(folder), detail=False)]
        return sorted(name for name in found if name.endswith(ending) and not name.startswith("."))

    def folders(self) -> list[str]:
        """Names of the folders in the root, sorted."""
        if not self.exists(""):
            return []
        with self.explained("", verb="list"):
            found = [info for info in self.fs.ls(self.path(""), detail=True) if info["type"] == "directory"]
        return sorted(str(info["name"]).rstrip("/").rsplit("/", 1)[-1] for info in found)

    # -- bytes ---------------------------------------------------------------------------------------------------------

    def write_bytes(self, name: str, data: bytes | memoryview, *, durable: bool = True) -> None:
        """Write a file whole or not at all. Without `durable` a power cut may lose it: for what can be derived again."""
        path = self.path(name)
        with self.explained(name):
            self.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            if not self.local:
                self.fs.pipe_file(path, bytes(data))
                return
            replace_file(path, data, durable=durable)

    def write_first(self, name: str, model: BaseModel) -> bool:
        """Write a file unless there is one; returns whether it did. Of several writers one does."""
        path, data = self.path(name), (model.model_dump_json(indent=1) + "\n").encode()
        with self.explained(name):
            self.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            try:
                if not self.local:
                    self.fs.pipe_file(path, data, mode="create")
                    return True
                with open(path, "xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            except FileExistsError:
                return False
            sync(path.rpartition("/")[0])
            return True

    def appending(self, folder: str, begins: str, ending: str) -> "Appending":
        """Open the next free file `begins`NNNN`ending` of a local folder for appending; nobody else gets the same one."""
        with self.explained(folder):
            self.fs.makedirs(self.path(folder), exist_ok=True)
            number = len(self.names(folder, ending))
            while True:
                number += 1
                name = f"{folder}/{begins}{number:04d}{ending}"
                try:
                    return Appending(self, name, open(self.path(name), "xb", buffering=0))
                except FileExistsError:
                    continue

    def put_next(self, folder: str, begins: str, ending: str, data: bytes) -> int:
        """Write the next free file `begins`NNNN`ending` of a folder whole; returns its number."""
        if self.local:
            with self.appending(folder, begins, ending) as file:
                file.write(data)
                return int(file.name.removesuffix(ending)[-4:])
        taken = [name for name in self.names(folder, ending) if name.startswith(begins)]
        number = int(taken[-1].removesuffix(ending)[len(begins) :]) if taken else 0
        with self.explained(folder):
            while True:
                number += 1
                try:  # on the condition that there is none: several machines may be at it
                    self.fs.pipe_file(self.path(f"{folder}/{begins}{number:04d}{ending}"), data, mode="create")
                    return number
                except FileExistsError:
                    continue

    def read_bytes(self, name: str) -> bytes:
        with self.explained(name, verb="read"):
            return bytes(self.fs.cat_file(self.path(name)))

    def write_model(self, name: str, model: BaseModel, *, durable: bool = True) -> None:
        """Write a model as JSON, whole or not at all."""
        self.write_bytes(name, (model.model_dump_json(indent=1) + "\n").encode(), durable=durable)

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
        """Write `name`.parquet in one row group, then its entry. A further `version` goes to a file of its own, so that the one
        before stays whole until the entry names the new one; then it is removed."""
        before = self.entry(name) if version > 1 else None
        entry = self.write_groups(name, table.schema, [table], key=key, facts=facts, file=versioned(name, version), durable=durable)
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
        """Write `name`.parquet (or `file`) with one row group per table, then its entry. It is held in memory until it is
        whole."""
        file = file or versioned(name, 1)
        buffer, rows = io.BytesIO(), 0
        with pq.ParquetWriter(buffer, schema, **parquet_options(schema, for_hub=False)) as writer:
            for table in groups:
                writer.write_table(table.cast(schema), row_group_size=max(1, table.num_rows))
                rows += table.num_rows
        data = buffer.getbuffer()
        self.write_bytes(file, data, durable=durable)
        entry = Entry(
            path=file,
            rows=rows,
            bytes=data.nbytes,
            sha256=hashlib.sha256(data).hexdigest(),
            key=key,
            facts=facts or {},
        )
        self.write_model(f"{name}.json", entry, durable=durable)
        return entry

    def entry(self, name: str) -> Entry | None:
        """The entry of `name`, or None; an entry that cannot be read counts as none."""
        if not self.exists(f"{name}.json"):
            return None
        try:
            return Entry.model_validate_json(self.read_bytes(f"{name}.json"))
        except ValidationError:
            return None

    def finished(self, name: str, key: str, *, hashed: bool = True) -> Entry | None:
        """The entry of `name` if its file is whole and was made from `key`. A damaged file is named and moved aside."""
        entry = self.entry(name)
        if entry is None and self.exists(f"{name}.json"):
            self.move_aside(f"{name}.json", "is no entry")
        if entry is None or entry.key != key:
            return None
        if not self.exists(entry.path):
            log.warning("%s: the entry is there but the file is gone; it is made again", self.path(entry.path))
            return None
        if (size := self.size(entry.path)) != entry.bytes:
            self.move_aside(entry.path, f"has {size} bytes, {entry.bytes} were written")
            return None
        if hashed and hashlib.sha256(self.read_bytes(entry.path)).hexdigest() != entry.sha256:
            self.move_aside(entry.path, "is not what was written (its SHA-256 differs)")
            return None
        return entry

    def whole(self, entry: Entry, *, hashed: bool) -> bool:
        """Whether the file of an entry is what was written: by its size, and by its hash if `hashed`."""
        if not self.exists(entry.path) or self.size(entry.path) != entry.bytes:
            return False
        return not hashed or hashlib.sha256(self.read_bytes(entry.path)).hexdigest() == entry.sha256

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Read `name`.parquet after comparing its hash with its entry. Raises StoreError on a damaged file."""
        entry = self.entry(name)
        if entry is None:
            raise StoreError(f"{self.path(name)}.parquet: not finished; run `thresher run` again to complete the run")
        data = self.read_bytes(entry.path)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise StoreError(
                f"{self.path(entry.path)}: damaged, its SHA-256 differs from the one in {name}.json; "
                "run `thresher run` again: it moves the file aside and makes it anew"
            )
        return pq.read_table(pa.BufferReader(data), columns=columns)

    def read_group(self, name: str, group: int) -> pa.Table:
        """Read one row group of `name`.parquet. Raises StoreError on a damaged file."""
        path = self.path(f"{name}.parquet")
        try:
            with self.explained(f"{name}.parquet", verb="read"), self.fs.open(path, "rb") as file:
                return pq.ParquetFile(file).read_row_group(group)
        except (pa.ArrowException, IndexError) as error:
            raise StoreError(
                f"{path}: damaged ({str(error).splitlines()[0]}); run `thresher run` again: it is made anew"
            ) from error

    def remove(self, name: str) -> None:
        with self.explained(name, verb="remove"):
            self.fs.rm_file(self.path(name))

    def move_aside(self, name: str, why: str) -> None:
        aside, number = f"{name}.damaged", 1
        while self.exists(aside):
            aside, number = f"{name}.damaged{number}", number + 1
        with self.explained(name, verb="move aside"):
            self.fs.mv(self.path(name), self.path(aside))
        log.warning("%s: %s; moved to %s and made again", self.path(name), why, aside.rsplit("/", 1)[-1])

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
                f"{where}: pool version {version}, wanted {POOL_VERSION}; read it with the version of thresher that wrote it: {writer}"
            )
        try:
            return RunManifest.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise StoreError(f"{where}: not a run of thresher: {key + ': ' if key else ''}{first['msg']}") from error

    def size(self, name: str) -> int:
        """Bytes of a file."""
        with self.explained(name, verb="look for"):
            return int(self.fs.size(self.path(name)))

    @contextmanager
    def explained(self, name: str, verb: str = "write") -> Iterator[None]:
        """Raise what the storage raises as a StoreError that says what to do."""
        try:
            yield
        except OSError as error:
            where, what = self.path(name), error.strerror or str(error)
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                what += "; free some space and run the same command again: everything finished is kept"
            elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                what += f"; choose a directory you may {verb} with --out, or change its permissions"
            raise StoreError(f"{where}: cannot {verb}: {what}") from error
        except Exception as error:
            if self.local or isinstance(error, StoreError):
                raise
            what = " ".join(str(error).split()) or type(error).__name__  # of a client of an object store, which has its own
            raise StoreError(
                f"{self.root}: cannot {verb} {name or 'it'}: {what}; see that this machine reaches the storage and has its keys"
            ) from error


class Appending:
    """A local file that grows. Every write is handed to the operating system; `sync` waits until the disk has it."""

    def __init__(self, store: Store, name: str, file: BinaryIO) -> None:
        self.name = name
        self._store, self._file = store, file

    def __enter__(self) -> "Appending":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, data: bytes | pa.Buffer) -> None:
        with self._store.explained(self.name):
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]

    def sync(self) -> None:
        with self._store.explained(self.name):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if not self._file.closed:
            self.sync()
            self._file.close()


def _format_of(data: bytes) -> tuple[int | None, str]:
    """The pool version that a run.json names, and the version of thresher that wrote it; None where it names none."""
    try:
        noted = json.loads(data)
    except ValueError:
        noted = None
    noted = noted if isinstance(noted, dict) else {}
    version = noted.get("pool_version")
    return version if isinstance(version, int) else None, str(noted.get("thresher_version", "unknown"))
