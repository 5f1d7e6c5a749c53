"""The signatures of all samples released so far, on disk: a new run is compared with them before it is released.

    INDEX/index.json    the manifest: the scheme, the rule of guards, the releases, the runs
    INDEX/runs/NAME/    one run of files                                  (thresher.dedupe.index_runs)

The files of a run never change. A release adds a run for each million of its texts. Four runs of about the same size are merged
into one (a log-structured merge tree, O'Neil et al. 1996), in ranges of keys, so that memory does not grow with the runs. The
manifest is renamed into place last: a reader sees the index before a change or after it. The next writer removes files that
the manifest does not name.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from filters import trust
from filters.base import FilterError
from filters.similarity.signatures import SCHEME, Signed, joined
from thresher.dedupe.index_runs import IndexRun, is_whole, merge, signature_tables, write_texts
from thresher.dedupe.index_search import Similar, most_similar
from thresher.durable import make_folders, place_folder, remove_leftovers, replace_file, sync_names, temporary_folder

RUN_TEXTS = 1 << 20
"""Most texts of a run that a release adds."""
TIER = 4
"""Runs of about the same size that are merged into one."""
MOST_TEXTS = 1 << 24
"""Runs of this many texts are not merged further."""
TEMPORARY = ".index.json."
"""Prefix of the temporary files of the manifest."""
SNAPSHOT, SNAPSHOT_S = ".snapshot", 7 * 86400
"""Prefix of temporary folders, and the age in seconds at which those of an earlier version are removed."""


@dataclass(frozen=True)
class IndexManifest:
    """The content of index.json."""

    rule: dict[str, Any]
    """How guards are computed: signatures by different rules cannot be compared."""
    scheme: str = SCHEME
    releases: tuple[str, ...] = ()
    """Names of the releases, oldest first."""
    runs: tuple[IndexRun, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    """For each release, the key of the dataset that was added."""


class Index:
    """An index in a local folder, empty if the folder does not exist. Any number of processes may read it; writers wait for each
    other. Raises FilterError if the index was made by another scheme or rule."""

    def __init__(self, folder: str | Path, rule: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self.rule = rule
        self.manifest = self._read()

    def ask(self, texts: Signed, threshold: float, *, known: Collection[str] | None = None) -> Similar:
        """Find what each text is most similar to, if that reaches the threshold, among the releases `known`, or all."""
        allowed = set(self.manifest.releases if known is None else known)
        return most_similar(self._runs, self.manifest.runs, texts, threshold, allowed)

    def add(self, release: str, texts: Iterable[tuple[Signed, Sequence[str]]], *, version: str = "") -> None:
        """Add a release: batches of texts, each with its names. A release of the same name is replaced and keeps its place.
        `version` is the key of its dataset."""
        with self._writing():
            if release in self.manifest.releases:
                self._remove(release)
            added = [write_texts(self._runs, *batch, release) for batch in _in_runs(texts)]
            manifest = self.manifest
            releases = manifest.releases if release in manifest.releases else (*manifest.releases, release)
            versions = {**manifest.versions, release: version}
            self._switch(replace(manifest, releases=releases, versions=versions, runs=(*manifest.runs, *filter(None, added))))
            self._merge_tiers()

    def adopt(self, folder: Path) -> None:
        """Become a copy of another index if this one is empty; the files of the other one are moved here. Raises FilterError
        if that one has another scheme or rule, or lacks a file or rows."""
        source = Index(folder, self.rule)
        for run in source.manifest.runs:
            home = source._runs / run.name
            if missing := [name for name in run.all_files if not (home / name).is_file()]:
                raise FilterError(f"{home}: {missing[0]} is missing")
            if not is_whole(home, run):
                raise FilterError(f"{home}: its files are damaged")
        with self._writing():
            if not self.manifest.releases:
                for run in source.manifest.runs:
                    place_folder(source._runs / run.name, self._runs / run.name)
                self._switch(source.manifest)

    @contextmanager
    def snapshot(self) -> Iterator[Path]:
        """A folder with the current index (links, not copies) that no writer changes; removed at the end."""
        with self.beside() as folder:
            with self._writing():
                names = [f"runs/{run.name}/{name}" for run in self.manifest.runs for name in run.all_files]
                for name in (*names, "index.json"):
                    target = folder / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.link(self.folder / name, target)
            yield folder

    @contextmanager
    def beside(self) -> Iterator[Path]:
        """An empty folder on the disk of the index; removed at the end, or by the next writer if this process is killed."""
        make_folders(self.folder)
        with temporary_folder(self.folder / SNAPSHOT.lstrip(".")) as folder:
            yield folder

    def remove_leftovers(self) -> None:
        """Remove what processes that were killed left, unless another one writes, which has done it."""
        with suppress(BlockingIOError), self._writing(wait=False):
            pass

    @property
    def rows(self) -> int:
        """Number of texts in the index."""
        return sum(run.rows for run in self.manifest.runs)

    # -- inside --------------------------------------------------------------------------------------------------------

    @property
    def _runs(self) -> Path:
        return self.folder / "runs"

    def _read(self) -> IndexManifest:
        self._refuse_links()
        path = self.folder / "index.json"
        if not path.exists():
            known = ("runs", ".lock", SNAPSHOT, TEMPORARY)
            if self.folder.exists() and not all(entry.name.startswith(known) for entry in self.folder.iterdir()):
                raise FilterError(f"{self.folder}: holds other files and no index.json; name a folder of its own")
            return IndexManifest(self.rule)
        try:
            content = json.loads(path.read_text())
            runs = tuple(IndexRun(_plain(run["name"]), run["rows"], tuple(map(_plain, run["files"]))) for run in content["runs"])
            releases, versions = tuple(content["releases"]), content.get("versions", {})
            manifest = IndexManifest(content["rule"], content["scheme"], releases, runs, versions)
        except (ValueError, KeyError, TypeError) as error:
            raise FilterError(
                f"{path}: not an index of thresher ({error}); rebuild it: thresher index DATASET --out DIR"
            ) from error
        for name, actual, wanted in (("scheme", manifest.scheme, SCHEME), ("rule", manifest.rule, self.rule)):
            if actual != wanted:
                raise FilterError(
                    f"{path}: the index was made with the {name} {actual}, wanted {wanted}; signatures of two kinds "
                    "cannot be compared, so rebuild it from the released dataset: thresher index DATASET --out DIR"
                )
        return manifest

    def _refuse_links(self) -> None:
        """Raise FilterError where a link in the index leads out of it: it may come from others, and a writer removes what the
        manifest does not name."""
        for inside, folders, files in os.walk(self.folder):
            for name in (*folders, *files):
                inner = os.path.relpath(os.path.join(inside, name), self.folder)
                if os.path.islink(self.folder / inner) and (refused := trust.outside(str(self.folder), inner, local=True)):
                    raise FilterError(f"{self.folder}: {refused}")

    @contextmanager
    def _locked(self, *, wait: bool) -> Iterator[None]:
        """Hold the lock of the writers. The file is never a link, whatever is trusted. Raises FilterError, and BlockingIOError if
        another holds it and this one does not `wait`."""
        path = self.folder / ".lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise FilterError(f"{path}: the index cannot be locked: {error.strerror}; wanted a plain file") from error
        with os.fdopen(descriptor, "rb+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield

    @contextmanager
    def _writing(self, *, wait: bool = True) -> Iterator[None]:
        """Wait to be the only writer, read what the last one wrote, and remove what interrupted ones left."""
        self._refuse_links()
        make_folders(self._runs)
        with self._locked(wait=wait):
            self.manifest = self._read()
            named = {run.name for run in self.manifest.runs}
            for left in [path for path in self._runs.iterdir() if path.name not in named]:
                shutil.rmtree(left, ignore_errors=True)
            for unfinished in self.folder.glob(f"{TEMPORARY}*"):  # nobody else writes
                unfinished.unlink()
            self._remove_leftovers()
            for folder in (self.folder.parent, self.folder):  # what a killed process renamed
                sync_names(folder)
            yield

    def _remove_leftovers(self) -> None:
        for folder in (self.folder, self._runs):
            remove_leftovers(folder)
        for path in self.folder.glob(".snapshot-*"):  # of an earlier version
            with suppress(OSError):  # removed by another
                if path.stat().st_mtime < time.time() - SNAPSHOT_S:
                    shutil.rmtree(path, ignore_errors=True)

    def _switch(self, manifest: IndexManifest) -> None:
        text = json.dumps(asdict(manifest), indent=1) + "\n"
        replace_file(self.folder / "index.json", text.encode())
        self.manifest = manifest

    def _merge_tiers(self) -> None:
        """Merge runs while there are TIER of about the same size."""
        while True:
            tiers: dict[int, list[IndexRun]] = {}
            for run in self.manifest.runs:
                if run.rows < MOST_TEXTS:
                    tiers.setdefault(int(np.log(run.rows) / np.log(TIER)), []).append(run)
            full = next((runs for runs in tiers.values() if len(runs) >= TIER), None)
            if full is None:
                return
            self._replace(full, None)

    def _remove(self, release: str) -> None:
        """Remove the texts of a release from the runs that hold some."""
        for run in self.manifest.runs:
            tables = signature_tables([self._runs / run.name])
            if any(release in set(table["release"].combine_chunks().to_pylist()) for table in tables):
                self._replace([run], release)

    def _replace(self, old: Sequence[IndexRun], without: str | None) -> None:
        """Replace runs by one that holds their texts, without those of a release."""
        merged = merge(self._runs, old, without)
        remaining = [run for run in self.manifest.runs if run not in old]
        self._switch(replace(self.manifest, runs=(*remaining, *([] if merged is None else [merged]))))


def _plain(name: str) -> str:
    """A name of a folder or file of the index. Raises ValueError where it leads elsewhere."""
    if not isinstance(name, str) or "/" in name or "\\" in name or name in ("", ".", ".."):
        raise ValueError(f"the name {name!r} leads out of its folder")
    return name


def _in_runs(texts: Iterable[tuple[Signed, Sequence[str]]]) -> Iterator[tuple[Signed, Sequence[str]]]:
    """Join the batches of a release until they are as large as a run."""
    parts: list[Signed] = []
    names: list[str] = []
    for signatures, batch_names in texts:
        parts.append(signatures)
        names.extend(batch_names)
        if len(names) >= RUN_TEXTS:
            yield joined(parts), names
            parts, names = [], []
    if parts:
        yield joined(parts), names
