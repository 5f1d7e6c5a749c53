"""From links to what each text repeats: connected components, the best texts of each, and the result of an out-of-core search."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from filters.similarity import duplicates
from filters.similarity.duplicates import Clusters, similarities
from filters.similarity.kernel import F32, I64, U8, U32, jit
from thresher.dedupe.signed_texts import HALF, LOW, SignedTexts, open_texts
from thresher.dedupe.step_files import ROW_BYTES, Plan, bucket_file, files_of, mapped_column, written_whole

NO_SCOPE, GROUP, ALL = 0, 1, 2
"""Where the text that a text repeats was found: nowhere, in its group, among all texts."""
FILL_ROWS = 1 << 22


class Repeats(NamedTuple):
    """What each text repeats (n,): mapped files."""

    originals: U32
    """Row of the text that is repeated, or the text's own row if it stays."""
    similarity: F32
    scopes: U8
    """GROUP, ALL, or NO_SCOPE if it stays."""
    draws: I64
    """Draws of each text that stays: its own and those of the texts that repeat it."""


def unite(plan: Plan) -> None:
    """Write the members of the connected components of the links, cut into buckets."""
    with written_whole(Path(plan.folder, "members")) as unfinished:
        if unfinished is None:
            return
        parents = mapped_column(unfinished / ".parents", np.uint32, len(open_texts(plan.folder)))
        _fill_with_rows(parents)
        files = files_of(plan.folder, "links")
        links = 0
        for name in files:
            rows = np.load(name)["rows"]
            links += len(rows)
            _unite_all(parents, rows)
        buckets = max(1, -(-2 * links * ROW_BYTES // plan.memory)) if links else 0
        bucket_files = [(unfinished / f"{number:06d}").open("wb") for number in range(buckets)]
        for name in files:
            rows = np.unique(np.load(name)["rows"])
            roots = _roots_of(parents, rows).astype(np.uint64)
            bucket = (roots * np.uint64(0x9E3779B97F4A7C15) >> HALF) % np.uint64(max(1, buckets))
            for number, file in enumerate(bucket_files):
                file.write((roots << HALF | rows)[bucket == number].tobytes())
        for file in bucket_files:
            file.close()
        del parents
        (unfinished / ".parents").unlink()


def choose(plan: Plan, number: int) -> None:
    """Decide what each text of some of the components repeats: the best texts stay."""
    with written_whole(bucket_file(plan, "chosen", number)) as unfinished:
        if unfinished is None:
            return
        texts = open_texts(plan.folder)
        packed = np.unique(np.fromfile(files_of(plan.folder, "members")[number], np.uint64))
        rows = np.sort(packed & LOW).astype(np.int64)
        components = np.empty(len(rows), np.int64)
        components[np.searchsorted(rows, (packed & LOW).astype(np.int64))] = packed >> HALF
        order = texts.best_first(rows, components)
        rows, components = rows[order], components[order]
        pairs, likes = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
        carried = np.zeros(0, np.int64)
        for start, end in texts.chunks(rows, plan.memory):
            chunk = np.append(carried, rows[start:end])
            groups = np.append(np.full(len(carried), components[start]), components[start:end])
            ascending = np.sort(chunk)
            places = np.searchsorted(ascending, chunk)
            numbers = np.empty(len(ascending), np.int64)
            numbers[places] = groups
            repeated = Clusters(np.arange(len(ascending)), np.ones(len(ascending), np.float32))
            kept = duplicates.keep(texts.take(ascending), places, numbers, plan.threshold, duplicates.MOST_KEPT, *repeated)
            dropped = np.flatnonzero(repeated.originals != np.arange(len(ascending)))
            pairs.append(np.stack([ascending[dropped], ascending[repeated.originals[dropped]]], axis=1))
            likes.append(repeated.similarity[dropped])
            continues = end < len(rows) and components[end] == components[end - 1]
            carried = ascending[kept] if continues else carried[:0]
        np.savez(unfinished, rows=np.concatenate(pairs), similarity=np.concatenate(likes))


def gather(plan: Plan) -> None:
    """Combine what the steps wrote into the result: components, then equal texts, then groups."""
    with written_whole(Path(plan.folder, "found")) as unfinished:
        if unfinished is None:
            return
        texts = open_texts(plan.folder)
        dtypes = (np.uint32, np.float32, np.uint8, np.int64)
        names = zip(Repeats._fields, dtypes, strict=True)
        columns = [mapped_column(unfinished / f"{name}.npy", dtype, len(texts)) for name, dtype in names]
        repeats = Repeats(*columns)
        originals, similarity, scopes, draws = repeats
        _fill_with_rows(originals)
        similarity[:] = 1
        for name in files_of(plan.folder, "chosen"):
            with np.load(name) as pairs:
                rows, chosen = pairs["rows"].T
                originals[rows], similarity[rows], scopes[rows] = chosen, pairs["similarity"], ALL
        for name in files_of(plan.folder, "equal"):
            rows, heads = np.load(name)["rows"].T
            originals[rows], similarity[rows], scopes[rows] = originals[heads], similarity[heads], ALL
        for name in files_of(plan.folder, "inside"):
            _add_group(plan, texts, repeats, name)
        for part, start in zip(texts.parts, texts.firsts, strict=False):
            np.add.at(draws, originals[start : start + len(part["draws"])], part["draws"])
        for column in columns:
            column.flush()


def read_repeats(plan: Plan) -> Repeats:
    """The result of a finished search."""
    return Repeats(*(np.asarray(np.load(f"{plan.folder}/found/{name}.npy", mmap_mode="r")) for name in Repeats._fields))


# -- inside --------------------------------------------------------------------------------------------------------------


def _add_group(plan: Plan, texts: SignedTexts, repeats: Repeats, file: str) -> None:
    """Add duplicates inside groups. A text whose best text repeats another one itself is compared with that one."""
    with np.load(file) as pairs:
        (rows, group_originals), likes = pairs["rows"].T, pairs["similarity"]
    originals = repeats.originals[group_originals]
    moved = np.flatnonzero(originals != group_originals)
    for start, end in texts.chunks(rows[moved], plan.memory):
        chunk = moved[start:end]
        ascending = np.unique(np.append(rows[chunk], originals[chunk]))
        first, second = np.searchsorted(ascending, rows[chunk]), np.searchsorted(ascending, originals[chunk])
        likes[chunk] = similarities(texts.take(ascending), first, second)
    repeats.originals[rows], repeats.similarity[rows], repeats.scopes[rows] = originals, likes, GROUP


def _fill_with_rows(column: Any) -> None:
    """Set each value to its row, some rows at a time."""
    for start in range(0, len(column), FILL_ROWS):
        end = min(start + FILL_ROWS, len(column))
        column[start:end] = np.arange(start, end, dtype=np.uint32)


@jit
def _unite_all(parents: U32, links: U32) -> None:
    for index in range(len(links)):
        duplicates.unite(parents, int(links[index, 0]), int(links[index, 1]))


@jit
def _roots_of(parents: U32, rows: U32) -> U32:
    roots = np.empty(len(rows), np.uint32)
    for index in range(len(rows)):
        roots[index] = duplicates.root(parents, int(rows[index]))
    return roots
