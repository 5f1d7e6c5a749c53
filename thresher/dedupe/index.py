"""The signatures of everything released so far, on disk: what a new run asks before it releases.

    INDEX/index.json                    what counts: the scheme, the rule of guards, the releases, the runs
    INDEX/runs/{sha256[:16]}/keys-00000.parquet      band keys in order, and the row of each: (key, row)
                             signatures.parquet      a row of each text: (name, release, guard, content, sketch)
                             bloom.npy               a blocked Bloom filter over the keys

A run of files is never changed. A release adds one for each million of its texts, and four runs of about one size are merged into
one (a log-structured merge tree, O'Neil et al. 1996), in ranges of keys, so that memory stays the same however large they are.
The manifest is renamed into its place last: whoever reads sees the index before or after, and nothing between. Files that no
manifest names any more are removed by the next writer.

A text is looked up by its 25 band keys. The filter (Putze, Sanders, Singler 2007: 12 bits a key, 8 of them in one cache line)
answers for most of them; for the others those row groups are read whose range of keys has one. Candidates are compared by their
sketches, so a similarity here is an estimate with a standard error of 0.04; equal texts are told by their hashes.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from filters.base import FilterError
from filters.similarity.kernel import F32, I64, U8, U32, U64, jit, mix
from filters.similarity.signatures import BANDS, SCHEME, SLOTS, Signed
from thresher.durable import replace_file

RUN_TEXTS = 1 << 20
"""Texts of a run that a release adds, at most."""
TIER = 4
"""Runs of about one size that are merged into one."""
MOST_TEXTS = 1 << 24
"""Runs of so many texts are not merged any more."""
RANGE_KEYS = 1 << 23
"""Keys in memory while runs are merged."""
KEY_ROWS, SIGNATURE_ROWS = 1 << 17, 1 << 14
"""Rows of a row group."""
OF_A_RUN = ("signatures.parquet", "bloom.npy")
FILE_KEYS = 1 << 26
BITS_PER_KEY = 12
SNAPSHOT, SNAPSHOT_S = ".snapshot-", 7 * 86400
"""What a process that was killed leaves behind; older ones are removed."""
MOST_PER_KEY = 64
"""Texts of the index that one key leads to, at most: what is released holds no duplicates, so that more share one by chance."""

KEYS = pa.schema([("key", pa.int64()), ("row", pa.uint32())])
SIGNATURES = pa.schema(
    [
        ("name", pa.string()),
        ("release", pa.dictionary(pa.int32(), pa.string())),
        ("guard", pa.uint64()),
        ("content", pa.uint64()),
        ("sketch", pa.binary(SLOTS)),
    ]
)


@dataclass(frozen=True)
class Run:
    """One run of files."""

    name: str
    rows: int
    files: tuple[str, ...]
    """Names of the files of keys, in the order of their keys."""


@dataclass(frozen=True)
class Manifest:
    """index.json."""

    rule: dict[str, Any]
    """How guards are made: signatures of other rules never meet."""
    scheme: str = SCHEME
    releases: tuple[str, ...] = ()
    """Names of the releases, the oldest first."""
    runs: tuple[Run, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    """Of each release, which of the datasets it had is here: the key of its dataset's entry."""


class Similar(NamedTuple):
    """For each text that was asked for (n,): what it is most like of all that was released."""

    names: list[str | None]
    similarity: F32
    """1 for an equal text, else an estimate."""
    equal: Any
    """Whether the two are equal (n,)."""


class Index:
    """An index in a folder of this machine; one that is not there yet is empty. Safe for any number of readers, and writers wait
    for one another. Raises FilterError where the index was made by another scheme or rule."""

    def __init__(self, folder: str | Path, rule: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self.rule = rule
        self.manifest = self._read()

    def ask(self, texts: Signed, threshold: float, *, known: Collection[str] | None = None) -> Similar:
        """What each text is most like, if that reaches the threshold, among the releases `known`, or all."""
        rows = len(texts.guards)
        names: list[str | None] = [None] * rows
        found = Similar(names, np.zeros(rows, np.float32), np.zeros(rows, np.bool_))
        allowed = set(self.manifest.releases if known is None else known)
        keys = _keys(texts.bands)
        order = np.argsort(keys)
        wanted, askers = keys[order], order % rows if rows else order
        for run in self.manifest.runs if allowed and rows else ():
            home = self.folder / "runs" / run.name
            maybe = _has(np.load(home / "bloom.npy", mmap_mode="r"), wanted)
            pairs = _candidates(home, run, wanted[maybe], askers[maybe])
            _compare(home, pairs, texts, threshold, allowed, found)
        return found

    def add(self, release: str, texts: Iterable[tuple[Signed, Sequence[str]]], *, version: str = "") -> None:
        """Add a release, of which each text has a name; one of that name is replaced where it stands. `version` says which of the
        datasets it had this is."""
        with self._writing():
            if release in self.manifest.releases:
                self._remove(release)
            made = [self._run(*batch, release) for batch in _gathered(texts)]
            now = self.manifest
            releases = now.releases if release in now.releases else (*now.releases, release)
            versions = {**now.versions, release: version}
            self._switch(replace(now, releases=releases, versions=versions, runs=(*now.runs, *filter(None, made))))
            self._merge()

    def adopt(self, folder: Path) -> None:
        """Become a copy of another index, if this one knows nothing yet; the other's files are moved here. Raises FilterError
        where it is of another scheme or rule, or not whole."""
        other = Index(folder, self.rule)
        for run in other.manifest.runs:
            if lacking := [name for name in (*run.files, *OF_A_RUN) if not (other._home(run) / name).is_file()]:
                raise FilterError(f"{other._home(run)}: {lacking[0]} is missing")
        with self._writing():
            if not self.manifest.releases:
                for run in other.manifest.runs:
                    other._home(run).rename(self._home(run))
                self._switch(other.manifest)

    @contextmanager
    def snapshot(self) -> Iterator[Path]:
        """A folder with the index as it is now (links, not copies), whatever writers do meanwhile; gone at the end."""
        with self.beside() as folder:
            with self._writing():
                names = [f"runs/{run.name}/{name}" for run in self.manifest.runs for name in (*run.files, *OF_A_RUN)]
                for name in (*names, "index.json"):
                    to = folder / name
                    to.parent.mkdir(parents=True, exist_ok=True)
                    os.link(self.folder / name, to)
            yield folder

    @contextmanager
    def beside(self) -> Iterator[Path]:
        """An empty folder on the disk of the index; gone at the end, and where the process is killed a week later."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=SNAPSHOT) as folder:
            yield Path(folder)

    @property
    def rows(self) -> int:
        """Texts in the index."""
        return sum(run.rows for run in self.manifest.runs)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _read(self) -> Manifest:
        path = self.folder / "index.json"
        if not path.exists():
            own = ("runs", ".lock", SNAPSHOT)
            if self.folder.exists() and not all(one.name.startswith(own) for one in self.folder.iterdir()):
                raise FilterError(f"{self.folder}: holds other things and no index.json; name a folder of its own")
            return Manifest(self.rule)
        try:
            read = json.loads(path.read_text())
            runs = tuple(Run(run["name"], run["rows"], tuple(run["files"])) for run in read["runs"])
            found = Manifest(read["rule"], read["scheme"], tuple(read["releases"]), runs, read.get("versions", {}))
        except (ValueError, KeyError, TypeError) as error:
            raise FilterError(
                f"{path}: not an index of thresher ({error}); rebuild it: thresher index DATASET --out DIR"
            ) from error
        for name, given, wanted in (("scheme", found.scheme, SCHEME), ("rule", found.rule, self.rule)):
            if given != wanted:
                raise FilterError(
                    f"{path}: the index was made with the {name} {given}, this needs {wanted}; signatures of two kinds cannot be "
                    "compared, so rebuild it from what was released: thresher index DATASET --out DIR"
                )
        return found

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time, which sees what the last one wrote."""
        (self.folder / "runs").mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.manifest = self._read()
            named = {run.name for run in self.manifest.runs}
            killed = [one for one in self.folder.glob(f"{SNAPSHOT}*") if one.stat().st_mtime < time.time() - SNAPSHOT_S]
            for old in (*(one for one in (self.folder / "runs").iterdir() if one.name not in named), *killed):
                shutil.rmtree(old, ignore_errors=True)
            yield

    def _switch(self, manifest: Manifest) -> None:
        text = json.dumps(asdict(manifest), indent=1) + "\n"
        replace_file(self.folder / "index.json", text.encode())
        self.manifest = manifest

    def _run(self, texts: Signed, names: Sequence[str], release: str) -> Run | None:
        """Write a run of new texts."""
        rows = len(names)
        if not rows:
            return None
        keys = _keys(texts.bands)
        order = np.argsort(keys, kind="stable")
        signatures = pa.table(
            [
                pa.array(names, pa.string()),
                pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), [release]),
                pa.array(texts.guards),
                pa.array(texts.contents),
                pa.FixedSizeBinaryArray.from_buffers(pa.binary(SLOTS), rows, [None, pa.py_buffer(texts.sketches.tobytes())]),
            ],
            schema=SIGNATURES,
        )
        pieces = [(keys[order], (order % rows).astype(np.uint32))]
        return self._written(iter(pieces), BANDS * rows, iter([signatures]))

    def _written(self, keys: Iterator[tuple[I64, U32]], count: int, signatures: Iterator[pa.Table]) -> Run | None:
        """Write a run from its keys, in order, and its signatures; it is named by what it holds."""
        digest = hashlib.sha256()
        with tempfile.TemporaryDirectory(prefix=".", dir=self.folder / "runs", ignore_cleanup_errors=True) as made:
            work = Path(made, "run")
            work.mkdir()
            blocks = max(1, -(-count * BITS_PER_KEY // 512))
            bits = np.lib.format.open_memmap(work / "bloom.npy", "w+", np.uint64, (blocks, 8))  # type: ignore[no-untyped-call]
            files: list[str] = []
            writer, written = None, 0
            for some, rows in keys:
                if writer is None or written >= FILE_KEYS:
                    if writer is not None:
                        writer.close()
                    files.append(f"keys-{len(files):05d}.parquet")
                    writer, written = _writer(work / files[-1], KEYS, {"key": "DELTA_BINARY_PACKED"}), 0
                _add(bits, some)
                digest.update(some.tobytes())
                writer.write_table(pa.table([some, rows], schema=KEYS), row_group_size=KEY_ROWS)
                written += len(some)
            if writer is not None:
                writer.close()
            total = 0
            with _writer(work / "signatures.parquet", SIGNATURES, {}) as into:
                for table in signatures:
                    for name in ("name", "release", "content"):
                        digest.update("\n".join(map(str, table[name].to_pylist())).encode())
                    into.write_table(table, row_group_size=SIGNATURE_ROWS)
                    total += table.num_rows
            bits.flush()
            name = digest.hexdigest()[:16]
            if total and not (self.folder / "runs" / name).exists():
                work.rename(self.folder / "runs" / name)
        return Run(name, total, tuple(files)) if total else None

    def _merge(self) -> None:
        """Merge runs while there are several of about one size."""
        while True:
            tiers: dict[int, list[Run]] = {}
            for run in self.manifest.runs:
                if run.rows < MOST_TEXTS:
                    tiers.setdefault(int(np.log(run.rows) / np.log(TIER)), []).append(run)
            some = next((runs for runs in tiers.values() if len(runs) >= TIER), None)
            if some is None:
                return
            self._replace(some, None)

    def _remove(self, release: str) -> None:
        """Take the texts of a release out of the runs that hold some of it."""
        for run in self.manifest.runs:
            if any(release in set(table["release"].combine_chunks().to_pylist()) for table in _signatures([self._home(run)])):
                self._replace([run], release)

    def _replace(self, old: Sequence[Run], without: str | None) -> None:
        """Write runs as one, without a release, and put it in their place."""
        homes = [self._home(run) for run in old]
        moved: list[U32] = []
        count = 0
        for home in homes:
            for number in range(pq.ParquetFile(home / "signatures.parquet").num_row_groups):
                table = pq.ParquetFile(home / "signatures.parquet").read_row_group(number, ["release"])
                stays = np.array([one != without for one in table["release"].to_pylist()])
                places = np.full(len(stays), 2**32 - 1, np.uint32)
                places[stays] = np.arange(count, count + stays.sum(), dtype=np.uint32)
                count += int(stays.sum())
                moved.append(places)
        places = np.concatenate(moved)
        firsts = np.cumsum([0, *(run.rows for run in old)])
        ranges = max(1, -(-sum(run.rows for run in old) * BANDS // RANGE_KEYS))

        def keys() -> Iterator[tuple[I64, U32]]:
            for number in range(ranges):
                low, high = ((BANDS << 32) * (number + more) // ranges for more in (0, 1))
                found, rows = [np.zeros(0, np.int64)], [np.zeros(0, np.uint32)]
                for run, home, first in zip(old, homes, firsts, strict=False):
                    for some, own in _key_groups(home, run, np.array([low, high - 1]), between=True):
                        inside = slice(*np.searchsorted(some, [low, high]))
                        to = places[first + own[inside].astype(np.int64)]
                        found.append(some[inside][to != 2**32 - 1])
                        rows.append(to[to != 2**32 - 1])
                every, where = np.concatenate(found), np.concatenate(rows)
                order = np.argsort(every, kind="stable")
                yield every[order], where[order]

        def signatures() -> Iterator[pa.Table]:
            for table in _signatures(homes):
                yield table.filter(pa.array([one != without for one in table["release"].to_pylist()], pa.bool_()))

        new = self._written(keys(), count * BANDS, signatures())
        left = [run for run in self.manifest.runs if run not in old]
        self._switch(replace(self.manifest, runs=(*left, *([] if new is None else [new]))))

    def _home(self, run: Run) -> Path:
        return self.folder / "runs" / run.name


# -- keys and candidates -------------------------------------------------------------------------------------------------


def _keys(bands: U32) -> I64:
    """The keys of all bands, one band after the other (BANDS * n,)."""
    return (bands.astype(np.int64) | np.arange(BANDS, dtype=np.int64)[:, None] << 32).ravel()


def _gathered(texts: Iterable[tuple[Signed, Sequence[str]]]) -> Iterator[tuple[Signed, Sequence[str]]]:
    """The texts of a release, as many at once as make a run."""
    from filters.similarity.signatures import joined

    parts: list[Signed] = []
    names: list[str] = []
    for signatures, own in texts:
        parts.append(signatures)
        names.extend(own)
        if len(names) >= RUN_TEXTS:
            yield joined(parts), names
            parts, names = [], []
    if parts:
        yield joined(parts), names


def _writer(path: Path, schema: pa.Schema, encodings: dict[str, str]) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=["release"], column_encoding=encodings or None)


def _signatures(homes: Sequence[Path], columns: list[str] | None = None) -> Iterator[pa.Table]:
    for home in homes:
        with pq.ParquetFile(home / "signatures.parquet") as file:
            for number in range(file.num_row_groups):
                yield file.read_row_group(number, columns)


def _key_groups(home: Path, run: Run, wanted: I64, *, between: bool = False) -> Iterator[tuple[I64, U32]]:
    """The row groups that hold one of the keys wanted, which are in order; or any `between` the first and the last."""
    for name in run.files:
        with pq.ParquetFile(home / name) as file:
            for number in range(file.num_row_groups):
                told = file.metadata.row_group(number).column(0).statistics
                at, end = np.searchsorted(wanted, told.min), np.searchsorted(wanted, told.max, "right")
                if end > at or (between and wanted[0] <= told.max and told.min <= wanted[-1]):
                    table = file.read_row_group(number)
                    yield table["key"].to_numpy(), table["row"].to_numpy()


def _candidates(home: Path, run: Run, wanted: I64, askers: I64) -> I64:
    """Pairs of a row of a run and a text that share a key (k, 2), in the order of the rows."""
    found = [np.zeros((0, 2), np.int64)]
    for keys, rows in _key_groups(home, run, wanted) if len(wanted) else ():
        at, end = np.searchsorted(wanted, keys[0]), np.searchsorted(wanted, keys[-1], "right")
        starts = np.searchsorted(keys, wanted[at:end])
        counts = np.minimum(np.searchsorted(keys, wanted[at:end], "right") - starts, MOST_PER_KEY)
        places = np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        found.append(np.stack([rows[places].astype(np.int64), np.repeat(askers[at:end], counts)], axis=1))
    pairs = np.concatenate(found)
    packed = np.unique(pairs[:, 0] << 32 | pairs[:, 1])
    return np.stack([packed >> 32, packed & 0xFFFFFFFF], axis=1)


def _compare(home: Path, pairs: I64, texts: Signed, threshold: float, allowed: set[str], found: Similar) -> None:  # noqa: PLR0917
    """Note what is more similar than what was found so far."""
    if not len(pairs):
        return
    with pq.ParquetFile(home / "signatures.parquet") as file:
        first = 0
        for number in range(file.num_row_groups):
            rows = file.metadata.row_group(number).num_rows
            at, end = np.searchsorted(pairs[:, 0], [first, first + rows])
            if end > at:
                table = file.read_row_group(number).combine_chunks()
                own, askers = pairs[at:end, 0] - first, pairs[at:end, 1]
                column = table["sketch"].chunk(0)
                flat = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * SLOTS :][: rows * SLOTS]
                sketches = flat.reshape(rows, SLOTS)
                likes = _estimates(sketches, own, texts.sketches, askers)
                equal = table["content"].to_numpy()[own] == texts.contents[askers]
                likes[equal] = 1
                good = (likes >= threshold) & (table["guard"].to_numpy()[own] == texts.guards[askers])
                for pair in np.flatnonzero(good).tolist():
                    asker, row = int(askers[pair]), int(own[pair])
                    if table["release"][row].as_py() not in allowed:
                        continue
                    name, best = table["name"][row].as_py(), found.names[asker]
                    now, so_far = (equal[pair], likes[pair]), (found.equal[asker], found.similarity[asker])
                    if best is None or now > so_far or (now == so_far and name < best):
                        found.names[asker] = name
                        found.similarity[asker], found.equal[asker] = likes[pair], equal[pair]
            first += rows


@jit
def _estimates(sketches: U8, rows: I64, others: U8, askers: I64) -> Any:
    """Jaccard similarities by sketches, as kernel.estimate."""
    found = np.empty(len(rows), np.float32)
    for pair in range(len(rows)):
        first, second = sketches[rows[pair]], others[askers[pair]]
        count = np.uint8(0)
        for slot in range(SLOTS):
            count = np.uint8(count + np.uint8(first[slot] == second[slot]))
        found[pair] = (np.float64(count) / SLOTS - 1 / 256) / (1 - 1 / 256)
    return found


@jit
def _add(bits: U64, keys: I64) -> None:
    blocks = np.uint64(len(bits))
    for key in keys:
        hashed = mix(np.uint64(key) * np.uint64(0x9E3779B97F4A7C15))
        block = np.int64((hashed >> np.uint64(32)) * blocks >> np.uint64(32))
        further = mix(hashed + np.uint64(0x632BE59BD9B4E019))
        for word in range(8):
            bits[block, word] |= np.uint64(1) << (further >> np.uint64(6 * word) & np.uint64(63))


@jit
def _has(bits: U64, keys: I64) -> Any:
    blocks = np.uint64(len(bits))
    found = np.empty(len(keys), np.bool_)
    for at in range(len(keys)):
        hashed = mix(np.uint64(keys[at]) * np.uint64(0x9E3779B97F4A7C15))
        block = np.int64((hashed >> np.uint64(32)) * blocks >> np.uint64(32))
        further = mix(hashed + np.uint64(0x632BE59BD9B4E019))
        there = True
        for word in range(8):
            there = there and (bits[block, word] >> (further >> np.uint64(6 * word) & np.uint64(63)) & np.uint64(1)) == 1
        found[at] = there
    return found


__all__ = ["Index", "Manifest", "Similar"]
