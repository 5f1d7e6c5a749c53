"""Writes RUN/dataset: the views of a run as a directory that `datasets.load_dataset` and the Hub read.

    dataset/README.md                              the card, written last
    dataset/{view}/{split}/00000-{sha256[:16]}.parquet      split: train, and test where prompts are held out

It is built beside the old one and renamed into its place, so a reader never sees half; where the run does not lie on a local
disk there is no such rename, and the card, without which nothing can be loaded, goes first and comes last. The shards are read
one at a time. The same pool gives the same bytes.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.manifest import Entry
from schemas.sample import SAMPLES
from thresher import __version__, ids
from thresher.audit.audit import Audit
from thresher.audit.review import reviewed
from thresher.dataset import preference_views, views
from thresher.dataset.card import ViewSize, card
from thresher.dataset.parquet_files import TableFile, TableFiles
from thresher.dataset.view_schemas import written_schema
from thresher.durable import sync
from thresher.errors import StoreError
from thresher.pool import judged as pool
from thresher.pool.run import Run
from thresher.pool.store import Store, shard_name


def write_dataset(run: Run, *, audit: Audit) -> str:
    """Write the dataset of a finished run, unless it is there already; returns its directory.

    `audit` is what the card reports. Raises StoreError when the disk refuses or a shard is damaged.
    """
    store, root = run.store, f"{run.root}/dataset"
    _recover(store)
    if dataset_finished(run):
        return root
    if (key := _key(run)) is None:
        raise StoreError(f"{run.root}: a shard is not sampled and judged yet; run `{run.command}` again to complete the run")
    try:
        with _building(store) as folder:
            written = _write_views(run, folder)
            sizes = {view: _by_split(files) for view, files in written.items()}
            text = card(run.manifest, audit, sizes, review=reviewed(run)).encode()
            folder.write(text, "README.md")
    except OSError as error:
        raise StoreError(
            f"{root}: cannot write the dataset: {error.strerror or error}; the pool is whole, so make room or change the "
            "permissions and run the same command again"
        ) from error
    entry = Entry(
        path="dataset/README.md",
        rows=sum(size.rows for splits in sizes.values() for size in splits.values()),
        bytes=len(text),
        sha256=hashlib.sha256(text).hexdigest(),
        key=key,
        facts={
            "views": {view: sum(size.rows for size in splits.values()) for view, splits in sizes.items()},
            "files": {file.name: _told(file.size) for files in written.values() for file in files},
        },
    )
    store.write_model("dataset.json", entry)
    return root


def dataset_finished(run: Run) -> bool:
    """Whether RUN/dataset is whole and was made from the samples, verdicts and recipe as they are now."""
    store, entry = run.store, run.store.entry("dataset")
    if entry is None or entry.key != _key(run) or not store.exists(entry.path):
        return False
    files = {f"dataset/{name}": size for name, size in _file_bytes(entry).items()}
    return all(store.exists(name) and store.size(name) == size for name, size in files.items())


# -- inside --------------------------------------------------------------------------------------------------------------


def _key(run: Run) -> str | None:
    """Hash of everything that the dataset is made from; None while a shard is missing."""
    store, made = run.store, []
    shards = range(pool.shards(store))
    for shard in pool.sampled(store) if run.enough else shards:
        samples, verdicts = store.entry(f"samples/{shard_name(shard)}"), pool.verdict_entries(store, shard)
        if samples is None or not verdicts:
            return None
        made.append([samples.sha256, [[entry.sha256, _said_by(entry)] for entry in verdicts]])
    if not made:
        return None
    described = {name: value for name, value in run.manifest.model.items() if name != "path"}
    recipe = {name: value for name, value in run.recipe.model_dump(mode="json").items() if name != "publish"}
    return ids.digest("dataset", __version__, recipe, described, made)


def _said_by(entry: Entry) -> list[list[Any]]:
    return [[one[name] for name in ("label", "version", "role")] for one in entry.facts["filters"]]


def _write_views(run: Run, folder: "_Folder") -> dict[str, list["_File"]]:
    """Write every view of the recipe, the shards passing by once; returns the files of each."""
    store, recipe = run.store, run.recipe
    wanted, prompt_format = recipe.dataset.views, run.prompt_format
    columns = [name for name in SAMPLES.names if name not in views.unread(wanted)]
    with ExitStack() as stack:
        optional = set(views.OPTIONAL) if set(wanted) - set(views.OPTIONAL) else set()
        writers = {
            view: stack.enter_context(
                _ViewWriter(view, prompt_format, folder, optional=view in optional, test_share=recipe.dataset.test_share)
            )
            for view in dict.fromkeys(wanted)
        }
        for shard in pool.sampled(store):
            judged = pool.read_judged(store, shard, columns)
            for view, writer in writers.items():
                if view == "rollouts":
                    writer.add(views.rollouts(judged, *pool.verdicts(store, shard), prompt_format))
                elif view == "prompts":
                    writer.add(views.prompts(views.lean(judged), prompt_format, recipe.sampling))
                elif view == "preference":
                    writer.add(preference_views.preference(views.lean(judged), prompt_format, recipe.dataset.preference))
                elif view == "unpaired":
                    writer.add(preference_views.unpaired(views.lean(judged), prompt_format, recipe.dataset.unpaired))
                else:
                    writer.add(views.sft(judged, prompt_format))
        written = {view: writer.finish() for view, writer in writers.items()}
        return {view: files for view, files in written.items() if files}


@dataclass(frozen=True)
class _File:
    """One Parquet file, named from dataset/."""

    name: str
    size: ViewSize


def _told(size: ViewSize) -> dict[str, int]:
    return {"rows": size.rows, "memory_bytes": size.memory_bytes, "bytes": size.file_bytes}


def _file_bytes(entry: Entry) -> dict[str, int]:
    return {name: told["bytes"] if isinstance(told, dict) else -1 for name, told in entry.facts["files"].items()}


def _by_split(files: list[_File]) -> dict[str, ViewSize]:
    """How large each split of a view is."""
    found: dict[str, ViewSize] = {}
    for file in files:
        split = file.name.split("/")[1]
        found[split] = found.get(split, ViewSize(0, 0, 0)) + file.size
    return found


class _ViewWriter:
    """The Parquet files of one view, split by prompts."""

    def __init__(self, view: str, prompt_format: str, folder: "_Folder", *, optional: bool, test_share: float) -> None:
        self.view, self.folder, self.optional, self.test_share = view, folder, optional, test_share
        schema = written_schema(view, prompt_format)
        self.train = TableFiles(folder.build, f"{view}.train", schema)
        self.test = TableFiles(folder.build, f"{view}.test", schema) if test_share else None

    def __enter__(self) -> "_ViewWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for files in filter(None, (self.train, self.test)):
            files.__exit__(kind, error, trace)

    def add(self, table: pa.Table) -> None:
        if self.test is None:
            self.train.add(table)
            return
        out = pa.array(views.held_out(table["prompt_id"], self.test_share))
        self.train.add(table.filter(pc.invert(out)))
        self.test.add(table.filter(out))

    def finish(self) -> list[_File]:
        """Write what is left; the files of all splits. A view without a row gets one file without a row, for a config needs a
        file; or none, and then it is no config, if it is one that a dataset may well have nothing for."""
        made = {"train": self.train.finish(optional=self.optional)}
        if self.test is not None:
            made["test"] = self.test.finish(optional=True)
        return [self._placed(split, number, file) for split, files in made.items() for number, file in enumerate(files)]

    def _placed(self, split: str, number: int, file: TableFile) -> _File:
        name = f"{self.view}/{split}/{number:05d}-{file.digest}.parquet"
        self.folder.place(file.path, name)
        return _File(name, ViewSize(file.rows, file.memory_bytes, file.file_bytes))


class _Folder:
    """Where the dataset is built: a local directory, from which a run that lies elsewhere is sent its files."""

    def __init__(self, store: Store, build: Path) -> None:
        self.store, self.build = store, build

    def place(self, file: Path, name: str) -> None:
        """Move a finished file of the build directory to its name under dataset/."""
        if not self.store.local:
            target = self.store.path(f"dataset/{name}")
            with self.store.explained(f"dataset/{name}"):
                self.store.fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
                self.store.fs.put_file(str(file), target)
            file.unlink()
            return
        (self.build / name).parent.mkdir(parents=True, exist_ok=True)
        sync(file)
        file.rename(self.build / name)

    def write(self, data: bytes, name: str) -> None:
        file = self.build / f".{name}.tmp"
        file.write_bytes(data)
        self.place(file, name)


@contextmanager
def _building(store: Store) -> Iterator[_Folder]:
    """A folder that becomes RUN/dataset when the block ends well."""
    if store.exists("dataset.json"):
        store.remove("dataset.json")
    if not store.local:
        if store.exists("dataset/README.md"):
            store.remove("dataset/README.md")
        if store.exists("dataset"):
            with store.explained("dataset", verb="remove"):
                store.fs.rm(store.path("dataset"), recursive=True)
        with tempfile.TemporaryDirectory(prefix="thresher-") as folder:
            yield _Folder(store, Path(folder))
        return
    build = Path(store.path("dataset.new"))
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir(parents=True)
    yield _Folder(store, build)
    for inside, _, _ in os.walk(build):
        sync(inside)
    _swap(store)


def _swap(store: Store) -> None:
    """Rename dataset.new to dataset. A crash between the two renames is mended by _recover."""
    new, now, old = (Path(store.path(name)) for name in ("dataset.new", "dataset", "dataset.old"))
    if now.exists():
        now.rename(old)
    new.rename(now)
    sync(now.parent)
    shutil.rmtree(old, ignore_errors=True)


def _recover(store: Store) -> None:
    """Put the old dataset back where a crash left none, or remove it where the new one is in its place."""
    if not store.local:
        return
    now, old = Path(store.path("dataset")), Path(store.path("dataset.old"))
    if old.exists() and not now.exists():
        old.rename(now)
    shutil.rmtree(old, ignore_errors=True)
