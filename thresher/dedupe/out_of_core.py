"""Duplicates among more texts than memory holds: functions from files to files, which anything may map over its workers.

    sign(part)       signatures of some of the texts, and their keys in order
    inside(bucket)   duplicates of the same group                        where texts have groups
    equal(bucket)    texts that are word for word the same
    join(bucket)     links between texts of one band and a range of its keys that are like each other
    unite()          connected components of the links
    choose(bucket)   what each text of some of the components repeats
    gather()         what each text repeats

A function finds its file whole or makes it whole, so the files are the checkpoint and a retry costs one file. What comes out is
what filters.similarity.duplicates finds in memory, whoever did the work in whatever order. A bucket of a million texts is passed
through in chunks, with the few leaders that its members are compared with carried from one to the next.

In memory are the signatures of one chunk, and some bytes for each key of a bucket; of all texts nothing but pages of mapped
files, of which `unite` wants 4 bytes a text. Texts are numbered by 32 bits.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from filters.similarity import duplicates
from filters.similarity.duplicates import Clusters, Links, Order, similarities, within
from filters.similarity.kernel import F32, I64, U8, U32, U64, jit
from filters.similarity.signatures import BANDS, SCHEME, Signed, ordered
from thresher.errors import SourceError
from thresher.executors.executor import Map, map_here

MOST_TEXTS = 2**32 - 2
CHUNK_BYTES = 64 << 20
"""Signatures of a chunk: no more, whatever the memory, for a processor's cache likes them few."""
TEXT_BYTES = 400
"""Memory of a text in a chunk, beside its shingles."""
ROW_BYTES = 64
"""Memory of a key or a link while it is sorted."""
_EQUAL, _GROUP = BANDS, BANDS + 1
_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
NO_SCOPE, GROUP, ALL = 0, 1, 2


class Plan(NamedTuple):
    """How the work on a folder is cut up; whoever takes it up again does it alike."""

    folder: str
    threshold: float
    """Least Jaccard similarity of duplicates."""
    memory: int
    """Bytes that one function may use, about."""


def find(plan: Plan, map_parts: Map = map_here, *, across: bool = True) -> None:
    """All steps after `sign`; then `found` has what they found. Raises SourceError on signatures of another scheme."""
    _begin(plan)
    texts = _texts(plan.folder)
    if len(texts) > MOST_TEXTS:
        raise SourceError(f"{plan.folder}: {len(texts)} texts; at most {MOST_TEXTS} can be compared at once, so split them")
    wide = max(1, -(-len(texts) * ROW_BYTES // plan.memory))
    whole = [(plan, number, wide) for number in range(wide)]
    if texts.grouped:
        map_parts(inside, whole)
    _mark(plan, "inside")
    if across:
        map_parts(equal, whole)
    _mark(plan, "equal")
    if across:
        map_parts(join, [(plan, number, wide) for number in range(wide * BANDS)])
    map_parts(unite, [(plan,)])
    map_parts(choose, [(plan, number) for number in range(len(_names(plan.folder, "members")))])
    map_parts(gather, [(plan,)])


class Found(NamedTuple):
    """What each text repeats (n): mapped files."""

    originals: U32
    similarity: F32
    scopes: U8
    """GROUP, ALL, or NO_SCOPE where it stays."""
    draws: I64
    """The draws that fell on each that stays: its own, and those of what repeats it."""


def found(plan: Plan) -> Found:
    """What was found."""
    return Found(*(np.asarray(np.load(f"{plan.folder}/found/{name}.npy", mmap_mode="r")) for name in Found._fields))


def first(plan: Plan, part: int) -> int:
    """The number of the first text of a part."""
    texts = _texts(plan.folder)
    return int(texts.firsts[texts.numbers.index(part)])


def column(plan: Plan, name: str, rows: I64) -> Any:
    """A column of some of the texts (k,), as it was given to `sign`."""
    return _texts(plan.folder).column(name, rows)


def signed_already(folder: str, part: int) -> bool:
    """Whether a part is there."""
    return _part(folder, part).exists()


def equals(plan: Plan, ones: I64, others: I64) -> Any:
    """Whether texts (k,) are word for word the same as others."""
    texts = _texts(plan.folder)
    return texts.column("contents", ones) == texts.column("contents", others)


# -- the steps -----------------------------------------------------------------------------------------------------------


def sign(folder: str, part: int, texts: Signed, order: Order, further: dict[str, Any] | None = None) -> None:
    """Write the signatures of a part of the texts. `further` columns (n, ...) are kept beside them: equal `groups` (u64) make
    one, `draws` (i64) add up."""
    with _whole(_part(folder, part)) as made:
        if made is None:
            return
        ordered(texts)
        rows = len(texts.guards)
        columns = {**texts._asdict(), "draws": np.ones(rows, np.int64), **(further or {})}
        columns |= {"ids": order.ids, "order": np.stack(order.keys, axis=1)}
        keys = [*texts.bands, texts.contents >> _HALF, *([columns["groups"] >> _HALF] if "groups" in columns else [])]
        bands = np.empty((len(keys), rows), np.uint64)
        for band, key in enumerate(keys):
            bands[band] = key.astype(np.uint64) << _HALF | np.arange(rows, dtype=np.uint64)
            bands[band].sort()
        for name, values in (columns | {"bands": bands}).items():
            np.save(made / f"{name}.npy", values)


def inside(plan: Plan, number: int, of: int) -> None:
    """Find the duplicates of some of the groups, comparing all pairs of each."""
    with _whole(_file(plan, "inside", number)) as made:
        if made is None:
            return
        texts = _texts(plan.folder)
        packed = _shared(texts.keys(_GROUP, number, of))
        rows = np.sort(packed & _LOW).astype(np.int64)
        groups = texts.column("groups", rows)
        rows, groups = (column[np.lexsort((rows, groups))] for column in (rows, groups))
        pairs = [np.zeros((0, 2), np.int64)]
        likes = [np.zeros(0, np.float32)]
        for start, end in _cut(texts, rows, plan.memory, groups):
            own = np.sort(rows[start:end])
            _, numbers = np.unique(texts.column("groups", own), return_inverse=True)
            rank = np.empty(len(own), np.int64)
            rank[texts.best_first(own)] = np.arange(len(own))
            repeated = within(texts.take(own), numbers.astype(np.int64), rank, plan.threshold)
            dropped = np.flatnonzero(repeated.originals != np.arange(len(own)))
            pairs.append(np.stack([own[dropped], own[repeated.originals[dropped]]], axis=1))
            likes.append(repeated.similarity[dropped])
        np.savez(made, rows=np.concatenate(pairs), similarity=np.concatenate(likes))


def equal(plan: Plan, number: int, of: int) -> None:
    """Find the texts that are the same as a better one."""
    with _whole(_file(plan, "equal", number)) as made:
        if made is None:
            return
        texts = _texts(plan.folder)
        packed = _shared(_left(plan, texts.keys(_EQUAL, number, of)))
        rows = np.sort(packed & _LOW).astype(np.int64)
        contents = texts.column("contents", rows)
        order = texts.best_first(rows, contents)
        rows, contents = rows[order], contents[order]
        starts = np.flatnonzero(np.append(True, contents[1:] != contents[:-1])[: len(rows)])
        heads = np.repeat(rows[starts], np.diff(np.append(starts, len(rows))))
        np.savez(made, rows=np.stack([rows, heads], axis=1)[rows != heads])


def join(plan: Plan, number: int, of: int) -> None:
    """Find links between the texts that share a key: band `number // of`, and one of `of` ranges of its keys."""
    with _whole(_file(plan, "links", number)) as made:
        if made is None:
            return
        texts = _texts(plan.folder)
        packed = _shared(_left(plan, texts.keys(number // of, number % of, of)))
        keys, rows = (packed >> _HALF).astype(np.int64), (packed & _LOW).astype(np.int64)
        order = np.lexsort((texts.column("contents", rows), keys))
        keys, rows = keys[order], rows[order]
        pairs = [np.zeros((0, 2), np.uint32)]
        carried = np.zeros(0, np.int64)
        for start, end in _cut(texts, rows, plan.memory):
            own = np.append(carried, rows[start:end])
            some = np.sort(own)
            signatures = texts.take(some)
            by = np.argsort(signatures.contents)
            places = np.empty(len(some), np.uint64)
            places[by] = np.arange(len(some), dtype=np.uint64)
            mine = np.append(np.full(len(carried), keys[start]), keys[start:end]).astype(np.uint64)
            local = mine << _HALF | places[np.searchsorted(some, own)]
            local.sort()
            links = Links(np.arange(len(some), dtype=np.uint32), np.full(len(some), -1, np.int64))
            leaders = duplicates.join(signatures, by, local, plan.threshold, links)
            roots = duplicates.roots(links.parents)
            linked = np.flatnonzero(roots != np.arange(len(roots)))
            pairs.append(np.stack([some[by[linked]], some[by[roots[linked]]]], axis=1).astype(np.uint32))
            carried = some[by[leaders]] if end < len(keys) and keys[end] == keys[end - 1] else carried[:0]
        np.savez(made, rows=np.concatenate(pairs))


def unite(plan: Plan) -> None:
    """Write the members of the components that the links make, cut into buckets."""
    with _whole(Path(plan.folder, "members")) as made:
        if made is None:
            return
        texts = _texts(plan.folder)
        parents = _mapped(made / ".parents", np.uint32, len(texts))
        _count_up(parents)
        files = _names(plan.folder, "links")
        links = 0
        for name in files:
            rows = np.load(name)["rows"]
            links += len(rows)
            _unite_all(parents, rows)
        buckets = max(1, -(-2 * links * ROW_BYTES // plan.memory)) if links else 0
        written = [(made / f"{number:06d}").open("wb") for number in range(buckets)]
        for name in files:
            rows = np.unique(np.load(name)["rows"])
            roots = _roots_of(parents, rows).astype(np.uint64)
            where = (roots * np.uint64(0x9E3779B97F4A7C15) >> _HALF) % np.uint64(max(1, buckets))
            for number, file in enumerate(written):
                file.write((roots << _HALF | rows)[where == number].tobytes())
        for file in written:
            file.close()
        del parents
        (made / ".parents").unlink()


def choose(plan: Plan, number: int) -> None:
    """Say what each text of some of the components repeats: the best stay."""
    with _whole(_file(plan, "chosen", number)) as made:
        if made is None:
            return
        texts = _texts(plan.folder)
        packed = np.unique(np.fromfile(_names(plan.folder, "members")[number], np.uint64))
        rows = np.sort(packed & _LOW).astype(np.int64)
        components = np.empty(len(rows), np.int64)
        components[np.searchsorted(rows, (packed & _LOW).astype(np.int64))] = packed >> _HALF
        order = texts.best_first(rows, components)
        rows, components = rows[order], components[order]
        pairs, likes = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
        carried = np.zeros(0, np.int64)
        for start, end in _cut(texts, rows, plan.memory):
            own = np.append(carried, rows[start:end])
            groups = np.append(np.full(len(carried), components[start]), components[start:end])
            some = np.sort(own)
            at = np.searchsorted(some, own)
            numbers = np.empty(len(some), np.int64)
            numbers[at] = groups
            repeated = Clusters(np.arange(len(some)), np.ones(len(some), np.float32))
            kept = duplicates.keep(texts.take(some), at, numbers, plan.threshold, duplicates.MOST_KEPT, *repeated)
            dropped = np.flatnonzero(repeated.originals != np.arange(len(some)))
            pairs.append(np.stack([some[dropped], some[repeated.originals[dropped]]], axis=1))
            likes.append(repeated.similarity[dropped])
            open_ = end < len(rows) and components[end] == components[end - 1]
            carried = some[kept] if open_ else carried[:0]
        np.savez(made, rows=np.concatenate(pairs), similarity=np.concatenate(likes))


def gather(plan: Plan) -> None:
    """Put together what each text repeats."""
    with _whole(Path(plan.folder, "found")) as made:
        if made is None:
            return
        texts = _texts(plan.folder)
        kinds = (np.uint32, np.float32, np.uint8, np.int64)
        columns = [_mapped(made / f"{name}.npy", kind, len(texts)) for name, kind in zip(Found._fields, kinds, strict=True)]
        originals, similarity, scopes, draws = columns
        _count_up(originals)
        similarity[:] = 1
        for name in _names(plan.folder, "chosen"):
            with np.load(name) as read:
                rows, others = read["rows"].T
                originals[rows], similarity[rows], scopes[rows] = others, read["similarity"], ALL
        for name in _names(plan.folder, "equal"):
            rows, heads = np.load(name)["rows"].T
            originals[rows], similarity[rows], scopes[rows] = originals[heads], similarity[heads], ALL
        for name in _names(plan.folder, "inside"):
            with np.load(name) as read:
                (rows, others), likes = read["rows"].T, read["similarity"]
            now = originals[others]
            moved = np.flatnonzero(now != others)
            for start, end in _cut(texts, rows[moved], plan.memory):
                some = moved[start:end]
                both = np.unique(np.append(rows[some], now[some]))
                ones, twos = np.searchsorted(both, rows[some]), np.searchsorted(both, now[some])
                likes[some] = similarities(texts.take(both), ones, twos)
            originals[rows], similarity[rows], scopes[rows] = now, likes, GROUP
        for part, start in zip(texts.parts, texts.firsts, strict=False):
            np.add.at(draws, originals[start : start + len(part["draws"])], part["draws"])
        for written in columns:
            written.flush()


# -- inside --------------------------------------------------------------------------------------------------------------


class _Texts:
    """The signatures of all texts, as mapped files."""

    def __init__(self, folder: str) -> None:
        folders = [Path(name) for name in _names(folder, "parts")]
        self.numbers = [int(one.name) for one in folders]
        self.parts = [
            {file.stem: np.asarray(np.load(file, mmap_mode="r")) for file in sorted(one.glob("*.npy"))} for one in folders
        ]
        self.grouped = bool(self.parts) and "groups" in self.parts[0]
        self.firsts = np.cumsum([0, *(len(part["guards"]) for part in self.parts)])

    def __len__(self) -> int:
        return int(self.firsts[-1])

    def _places(self, rows: I64) -> Iterator[tuple[dict[str, Any], slice, I64]]:
        """Of rows in ascending order: a part, which of them it holds, and where."""
        ends = np.searchsorted(rows, self.firsts)
        for part, first, start, end in zip(self.parts, self.firsts, ends, ends[1:], strict=False):
            if end > start:
                yield part, slice(int(start), int(end)), rows[start:end] - first

    def column(self, name: str, rows: I64) -> Any:
        """A column of some of the texts."""
        ascending = bool((rows[1:] >= rows[:-1]).all())
        order = np.arange(len(rows)) if ascending else np.argsort(rows, kind="stable")
        shape = self.parts[0][name].shape[1:] if self.parts else ()
        found = np.empty((len(rows), *shape), self.parts[0][name].dtype if self.parts else np.int64)
        for part, own, places in self._places(rows[order]):
            found[own if ascending else order[own]] = part[name][places]
        return found

    def keys(self, band: int, number: int, of: int) -> U64:
        """Of one of `of` ranges of a band's keys: each key in the upper half, its text in the lower one."""
        low, high = (np.uint64((number + more << 32) // of) << _HALF for more in (0, 1))
        found = [np.zeros(0, np.uint64)]
        for part, first in zip(self.parts, self.firsts, strict=False):
            packed = part["bands"][band]
            end = len(packed) if number + 1 == of else np.searchsorted(packed, high)
            found.append(packed[np.searchsorted(packed, low) : end] + np.uint64(first))
        return np.concatenate(found)

    def take(self, rows: I64) -> Signed:
        """The signatures of some of the texts, which are in ascending order; without their bands."""
        sizes = self.column("sizes", rows)
        starts = np.cumsum(sizes) - sizes
        shingles = np.empty(int(sizes.sum()), np.uint32)
        for part, own, places in self._places(rows):
            _copy(part["shingles"], part["starts"], part["sizes"], places, shingles, starts[own])
        guards, contents, words, sketches = (self.column(name, rows) for name in ("guards", "contents", "words", "sketches"))
        bands, true = np.zeros((BANDS, 0), np.uint32), np.ones(len(rows), np.bool_)
        return Signed(guards, contents, words, bands, sketches, shingles, starts, sizes, true)

    def best_first(self, rows: I64, *groups: Any) -> I64:
        """The order that puts the best of the rows first, inside equal groups (n,) where such are given."""
        ids, keys = self.column("ids", rows), self.column("order", rows)
        found: I64 = np.lexsort((rows, ids[:, 1], ids[:, 0], *keys.T[::-1], *groups))
        return found


@lru_cache(maxsize=4)
def _opened(folder: str, _made: int) -> _Texts:
    return _Texts(folder)


def _texts(folder: str) -> _Texts:
    return _opened(folder, Path(folder, "parts").stat().st_mtime_ns)


def _cut(texts: _Texts, rows: I64, memory: int, groups: Any = None) -> Iterator[tuple[int, int]]:
    """Pieces of rows whose signatures fit in memory, at the borders of groups where such are given."""
    ends = np.cumsum(TEXT_BYTES + 4 * texts.column("sizes", rows).astype(np.int64))
    start = 0
    while start < len(rows):
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + min(memory, CHUNK_BYTES), "right")))
        if groups is not None and end < len(rows):
            border = int(np.searchsorted(groups, groups[end]))
            end = border if border > start else int(np.searchsorted(groups, groups[end], "right"))
        yield start, end
        start = end


def _shared(packed: U64) -> U64:
    """In order, those whose key another one has."""
    packed.sort()
    same = packed[1:] >> _HALF == packed[:-1] >> _HALF
    return packed[np.append(same, False) | np.append(False, same)] if len(packed) else packed


def _left(plan: Plan, packed: U64) -> U64:
    """Those that repeat no other as far as is known."""
    gone = np.load(Path(plan.folder, "gone.npy"), mmap_mode="r")
    left: U64 = packed[~gone[packed & _LOW]]
    return left


def _mark(plan: Plan, step: str) -> None:
    """Note the texts that repeat another by what a step found."""
    file = Path(plan.folder, "gone.npy")
    if step == "inside" or not file.exists():
        gone = _mapped(file, np.bool_, len(_texts(plan.folder)))
    else:
        gone = np.load(file, mmap_mode="r+")
    for name in _names(plan.folder, step):
        gone[np.load(name)["rows"][:, 0]] = True
    gone.flush()


def _begin(plan: Plan) -> None:
    """What an earlier plan of other measures left is removed; its signatures stay."""
    path = Path(plan.folder, "plan.json")
    parts = len(_names(plan.folder, "parts"))
    wanted = {"scheme": SCHEME, "threshold": plan.threshold, "memory": plan.memory, "parts": parts}
    found = json.loads(path.read_text()) if path.exists() else None
    if found is not None and found["scheme"] != SCHEME:
        raise SourceError(
            f"{plan.folder}: signatures of the scheme {found['scheme']}, this thresher makes {SCHEME}; remove the folder"
        )
    if found != wanted:
        for name in ("inside", "equal", "links", "members", "chosen", "found"):
            shutil.rmtree(Path(plan.folder, name), ignore_errors=True)
        path.write_text(json.dumps(wanted))


@contextmanager
def _whole(path: Path) -> Iterator[Path | None]:
    """Make a file, or a folder, under another name: it appears whole, or not at all. Gives None where it is there."""
    if path.exists():
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent, ignore_cleanup_errors=True) as work:
        made = Path(work, path.name)
        if not path.suffix:
            made.mkdir()
        yield made
        try:
            made.rename(path)
        except OSError:  # another worker was as fast, and made the same
            if not path.exists():
                raise


def _mapped(path: Path, kind: Any, rows: int) -> Any:
    """A new column in a file."""
    return np.lib.format.open_memmap(path, "w+", kind, (rows,))  # type: ignore[no-untyped-call]


def _part(folder: str, number: int) -> Path:
    return Path(folder, "parts", f"{number:06d}")


def _file(plan: Plan, step: str, number: int) -> Path:
    return Path(plan.folder, step, f"{number:06d}.npz")


def _names(folder: str, step: str) -> list[str]:
    """The files of a step, in order."""
    path = Path(folder, step)
    return sorted(str(one) for one in path.iterdir() if not one.name.startswith(".")) if path.exists() else []


def _count_up(column: Any) -> None:
    for start in range(0, len(column), 1 << 22):
        end = min(start + (1 << 22), len(column))
        column[start:end] = np.arange(start, end, dtype=np.uint32)


@jit
def _copy(shingles: U32, starts: I64, sizes: I64, places: I64, found: U32, to: I64) -> None:  # noqa: PLR0917 - as in duplicates
    for at in range(len(places)):
        first = starts[places[at]]
        for number in range(sizes[places[at]]):
            found[to[at] + number] = shingles[first + number]


@jit
def _unite_all(parents: U32, links: U32) -> None:
    for at in range(len(links)):
        duplicates.unite(parents, int(links[at, 0]), int(links[at, 1]))


@jit
def _roots_of(parents: U32, rows: U32) -> U32:
    found = np.empty(len(rows), np.uint32)
    for at in range(len(rows)):
        found[at] = duplicates.root(parents, int(rows[at]))
    return found
