"""Writes RUN/dataset: the views of a run as a directory that `datasets.load_dataset` and the Hub read.

    dataset/README.md                              the card, written last
    dataset/{view}/{split}/00000-{sha256[:16]}.parquet      split: train, and test if prompts are held out

The new dataset is built beside the old one and renamed into its place, so a reader never sees a partial dataset. A remote store
has no such rename: there the card, without which nothing can be loaded, is removed first and written last. Shards are read one
at a time. Equal pools give equal bytes.
"""

import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from schemas.engines import HttpEngine
from schemas.manifest import Entry
from schemas.sample import SAMPLES
from thresher import __version__, ids, yaml_text
from thresher.auditing.audit import Audit
from thresher.auditing.review import reviewed
from thresher.dataset import preference_views, views
from thresher.dataset.bare_prompts import examples_of
from thresher.dataset.card import ViewSize, card
from thresher.dataset.distill import distill_parts
from thresher.dataset.parquet_files import TableFile, TableFiles
from thresher.dataset.rollouts import rollouts
from thresher.dataset.tokens import token_parts
from thresher.dataset.view_schemas import written_schema
from thresher.durable import sync, temporary_name
from thresher.errors import StoreError
from thresher.pool import judged as pool
from thresher.pool.model_rows import model_numbers
from thresher.pool.run import Run, digest_of
from thresher.pool.store import HASHED_BYTES, Store, shard_name

log = logging.getLogger(__name__)


def write_dataset(run: Run, *, audit: Audit) -> str:
    """Write the dataset of a finished run, unless it exists already; returns its directory.

    The card reports the `audit`. Raises StoreError if the dataset cannot be written or a shard is damaged.
    """
    store, root = run.store, f"{run.root}/dataset"
    _recover_from_crash(store)
    if dataset_finished(run):
        return root
    if (key := _key(run)) is None:
        raise StoreError(f"{run.root}: a shard is not sampled and judged yet; run `{run.command}` again to complete the run")
    try:
        with _building(store) as folder:
            written = _write_views(run, folder)
            sizes = {view: _by_split(files) for view, files in written.items()}
            text = card(run.manifest, audit, sizes, prompt_format=run.prompt_format, review=reviewed(run)).encode()
            folder.write(text, "README.md")
    except OSError as error:
        raise StoreError(
            f"{root}: cannot write the dataset: {error.strerror or error}; the pool is not affected: free some space or "
            "change the permissions, and run the same command again"
        ) from error
    entry = Entry(
        path="dataset/README.md",
        rows=sum(size.rows for splits in sizes.values() for size in splits.values()),
        bytes=len(text),
        sha256=hashlib.sha256(text).hexdigest(),
        key=key,
        facts={
            "views": {view: sum(size.rows for size in splits.values()) for view, splits in sizes.items()},
            "files": {file.name: _size_facts(file.size) for files in written.values() for file in files},
        },
    )
    store.write_model("dataset.json", entry)
    return root


def dataset_finished(run: Run) -> bool:
    """Whether RUN/dataset is whole and was made from the present samples, verdicts and recipe. Files are compared by their
    SHA-256; beyond HASHED_BYTES together, by their sizes. The text of the card may have been edited by hand."""
    store, entry = run.store, run.store.entry("dataset")
    if (
        entry is None
        or entry.key != _key(run)
        or not store.exists(entry.path)
        or not _names_configs(store.read_bytes(entry.path))
    ):
        return False
    sizes, hashed = _noted_sizes(entry), 0
    if strangers := _files_of_views(store, run.recipe.dataset.views) - sizes.keys():
        log.warning("%s: holds files that are not of the dataset, such as %s", store.path("dataset"), min(strangers))
        return False
    for name, size in sizes.items():
        path, hashed = f"dataset/{name}", hashed + max(0, size)
        if not store.exists(path) or store.size(path) != size:
            return False
        if hashed <= HASHED_BYTES and not store.sha256(path).startswith(digest_of(name)):
            log.warning("%s: its SHA-256 differs from the one in its name, so the dataset is damaged", store.path(path))
            return False
    return True


def card_changed(run: Run) -> bool:
    """Whether the card of a finished dataset is not as it was written: edited by hand, or damaged."""
    store, entry = run.store, run.store.entry("dataset")
    return entry is not None and store.exists(entry.path) and store.sha256(entry.path) != entry.sha256


# -- inside --------------------------------------------------------------------------------------------------------------


def _key(run: Run) -> str | None:
    """Hash of everything that the dataset is made from; None if a shard is missing."""
    store, sources = run.store, []
    shards = range(pool.shards(store))
    for shard in pool.sampled(store) if run.enough else shards:
        samples, verdicts = store.entry(f"samples/{shard_name(shard)}"), pool.verdict_entries(store, shard)
        if samples is None or not verdicts:
            return None
        sources.append([samples.sha256, [[entry.sha256, _filters_of(entry)] for entry in verdicts]])
    if not sources:
        return None
    described = _without_paths(run.manifest.model)
    if run.several:
        described["models"] = [_without_paths(model) for model in run.manifest.model["models"]]
    recipe = {name: value for name, value in run.recipe.model_dump(mode="json").items() if name != "publish"}
    details = recipe["dataset"].pop("engine_details")
    served = any(isinstance(one.engine, HttpEngine) for one in run.recipe.of_each_model())
    shown = [["engine_details", details]] if details or served else []  # other datasets are as those of earlier versions
    return ids.digest("dataset", __version__, recipe, described, sources, *shown)


def _without_paths(model: Mapping[str, Any]) -> dict[str, Any]:
    """The notes on a model that are the same on every machine."""
    return {name: value for name, value in model.items() if name != "path"}


def _filters_of(entry: Entry) -> list[list[Any]]:
    return [[facts[name] for name in ("label", "version", "role")] for facts in entry.facts["filters"]]


def _write_views(run: Run, folder: "_Folder") -> dict[str, list["_File"]]:
    """Write every view of the recipe in one pass over the shards; returns the files of each view."""
    store, recipe = run.store, run.recipe
    wanted, prompt_format = recipe.dataset.views, run.prompt_format
    columns = [name for name in SAMPLES.names if name not in views.unread(wanted)]
    with ExitStack() as stack:
        writers = {
            view: stack.enter_context(_ViewWriter(view, prompt_format, folder, test_share=recipe.dataset.test_share))
            for view in dict.fromkeys(wanted)
        }
        for shard in pool.sampled(store):
            judged = pool.read_judged(store, shard, columns)
            for view, writer in writers.items():
                for table in _tables(run, view, shard, judged):
                    writer.add(table)
        if not any(writer.rows for writer in writers.values()):
            writers[wanted[0]].optional = False
        written = {view: writer.finish() for view, writer in writers.items()}
        return {view: files for view, files in written.items() if files}


def _tables(run: Run, view: str, shard: int, judged: pa.Table) -> Iterable[pa.Table]:
    """The rows of a view from one judged shard; of views with values per token in several tables."""
    parts = {"distill": distill_parts, "tokens": token_parts}.get(view)
    return [_view(run, view, shard, judged)] if parts is None else parts(judged, run.prompt_format)


def _view(run: Run, view: str, shard: int, judged: pa.Table) -> pa.Table:
    """The rows of a view without values per token."""
    recipe, prompt_format = run.recipe, run.prompt_format
    if view == "rollouts":
        details = recipe.dataset.engine_details
        return rollouts(judged, *pool.verdicts(run.store, shard), prompt_format, details=details)
    if view == "prompts":
        numbers = model_numbers(run, judged) if run.several else None
        return views.prompts(views.lean(judged), prompt_format, recipe.sampling, numbers)
    if view == "preference":
        return preference_views.preference(views.lean(judged), prompt_format, recipe.dataset.preference)
    if view == "unpaired":
        return preference_views.unpaired(views.lean(judged), prompt_format, recipe.dataset.unpaired)
    bare = recipe.dataset.prompt == "bare" and run.manifest.origin == "sampled"
    return views.sft(judged, prompt_format, examples_of(recipe.prompts) if bare else None)


@dataclass(frozen=True)
class _File:
    """A Parquet file; its name is relative to dataset/."""

    name: str
    size: ViewSize


def _size_facts(size: ViewSize) -> dict[str, int]:
    return {"rows": size.rows, "memory_bytes": size.memory_bytes, "bytes": size.file_bytes}


def _noted_sizes(entry: Entry) -> dict[str, int]:
    """The size in bytes of each file as noted in dataset.json; -1 in the notes of an older version, which have none."""
    return {name: facts["bytes"] if isinstance(facts, dict) else -1 for name, facts in entry.facts["files"].items()}


def _files_of_views(store: Store, wanted: Sequence[str]) -> set[str]:
    """The names of all Parquet files of views, relative to dataset/: readers take every one of them."""
    base = store.path("dataset")
    with store.explained("dataset", verb="list"):
        paths = [str(path) for view in wanted if store.exists(f"dataset/{view}") for path in store.fs.find(f"{base}/{view}")]
    return {path[len(base) + 1 :] for path in paths if path.endswith(".parquet")}


def _names_configs(card: bytes) -> bool:
    """Whether a card still has front matter that names configs: its text may have been edited by hand, but `datasets` reads
    this."""
    matter = re.match(r"---\r?\n(.*?\n)---\r?\n", card.decode("utf-8", "replace"), re.DOTALL)
    try:
        return matter is not None and "configs" in yaml_text.load(matter[1])
    except (yaml.YAMLError, TypeError):
        return False


def _by_split(files: list[_File]) -> dict[str, ViewSize]:
    """The size of each split of a view."""
    sizes: dict[str, ViewSize] = {}
    for file in files:
        split = file.name.split("/")[1]
        sizes[split] = sizes.get(split, ViewSize(0, 0, 0)) + file.size
    return sizes


class _ViewWriter:
    """The Parquet files of one view, split into train and test by prompt."""

    def __init__(self, view: str, prompt_format: str, folder: "_Folder", *, test_share: float) -> None:
        self.view, self.folder, self.test_share = view, folder, test_share
        self.rows, self.optional = 0, True
        schema = written_schema(view, prompt_format)
        self.train = TableFiles(folder.build, f"{view}.train", schema)
        self.test = TableFiles(folder.build, f"{view}.test", schema) if test_share else None

    def __enter__(self) -> "_ViewWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for files in filter(None, (self.train, self.test)):
            files.__exit__(kind, error, trace)

    def add(self, table: pa.Table) -> None:
        self.rows += table.num_rows
        if self.test is None:
            self.train.add(table)
            return
        held_out = pa.array(views.held_out(table["prompt_id"], self.test_share))
        self.train.add(table.filter(pc.invert(held_out)))
        self.test.add(table.filter(held_out))

    def finish(self) -> list[_File]:
        """Write the remaining rows and return the files of all splits. A view without rows has none, and is then no config, which
        `datasets` could not load; unless it is not `optional`, because no view has rows."""
        splits = {"train": self.train.finish(optional=self.optional)}
        if self.test is not None:
            splits["test"] = self.test.finish(optional=True)
        return [self._placed(split, number, file) for split, files in splits.items() for number, file in enumerate(files)]

    def _placed(self, split: str, number: int, file: TableFile) -> _File:
        name = f"{self.view}/{split}/{number:05d}-{file.digest}.parquet"
        self.folder.place(file.path, name)
        return _File(name, ViewSize(file.rows, file.memory_bytes, file.file_bytes))


class _Folder:
    """The local directory in which the dataset is built; files of a remote run are uploaded from it."""

    def __init__(self, store: Store, build: Path) -> None:
        self.store, self.build = store, build

    def place(self, file: Path, name: str) -> None:
        """Move a finished file of the build directory to its name under dataset/, or upload it there."""
        if not self.store.local:
            self.store.check_lease(now=name == "README.md")
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
    """A folder that becomes RUN/dataset if the block ends without an error."""
    if store.exists("dataset.json"):
        store.remove("dataset.json")
    store.check_lease(now=True)
    if not store.local:
        if store.exists("dataset/README.md"):
            store.remove("dataset/README.md")
        if store.exists("dataset"):
            with store.explained("dataset", verb="list"):
                left = [str(path)[len(store.base) + 1 :] for path in store.fs.find(store.path("dataset"))]
            store.remove(*left)
        with tempfile.TemporaryDirectory(prefix="thresher-") as folder:
            yield _Folder(store, Path(folder))
        return
    build = temporary_name(store.path("dataset.new"))
    build.mkdir(parents=True)
    try:
        yield _Folder(store, build)
        for inside, _, _ in os.walk(build):
            sync(inside)
        _swap(store, build)
    finally:
        shutil.rmtree(build, ignore_errors=True)


def _swap(store: Store, new: Path) -> None:
    """Rename the new folder to dataset. After a crash between the two renames, _recover_from_crash restores the old dataset."""
    current, old = (Path(store.path(name)) for name in ("dataset", "dataset.old"))
    store.check_lease(now=True)
    if current.exists():
        current.rename(old)
    store.check_lease(now=True)
    new.rename(current)
    sync(current.parent)
    shutil.rmtree(old, ignore_errors=True)


def _recover_from_crash(store: Store) -> None:
    """Restore the old dataset if a crash left none, or remove it if the new one is complete; remove what was half built."""
    if not store.local:
        return
    store.check_lease(now=True)
    for left in Path(store.base).glob(".dataset.new.*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    current, old = Path(store.path("dataset")), Path(store.path("dataset.old"))
    if old.exists():
        store.check_lease(now=True)
        if not current.exists():
            old.rename(current)
        shutil.rmtree(old, ignore_errors=True)
