"""Pairs of duplicates in one bucket of an out-of-core search: the same group, the same text, or a band key in common.

Each function reads the signatures and writes one file of pairs of rows (k, 2); the first row of a pair repeats the second. A
bucket of a million texts is passed through in chunks; the few leaders that its members are compared with are carried from one
chunk to the next.
"""

from pathlib import Path

import numpy as np

from filters.similarity import duplicates
from filters.similarity.duplicates import Links, within
from filters.similarity.kernel import I64, U32, U64
from thresher.dedupe.signed_texts import EQUAL_BAND, GROUP_BAND, HALF, LOW, SignedTexts, open_texts
from thresher.dedupe.step_files import Plan, bucket_file, files_of, mapped_column, written_whole


def inside(plan: Plan, number: int, ranges: int) -> None:
    """Find the duplicates inside some of the groups, comparing all pairs of each."""
    with written_whole(bucket_file(plan, "inside", number)) as unfinished:
        if unfinished is None:
            return
        texts = open_texts(plan.folder)
        packed = _shared(texts.keys(GROUP_BAND, number, ranges))
        rows = np.sort(packed & LOW).astype(np.int64)
        groups = texts.column("groups", rows)
        rows, groups = (column[np.lexsort((rows, groups))] for column in (rows, groups))
        pairs = [np.zeros((0, 2), np.int64)]
        similarities = [np.zeros(0, np.float32)]
        for start, end in texts.chunks(rows, plan.memory, groups):
            chunk = np.sort(rows[start:end])
            _, numbers = np.unique(texts.column("groups", chunk), return_inverse=True)
            rank = np.empty(len(chunk), np.int64)
            rank[texts.best_first(chunk)] = np.arange(len(chunk))
            repeated = within(texts.take(chunk), numbers.astype(np.int64), rank, plan.threshold)
            dropped = np.flatnonzero(repeated.originals != np.arange(len(chunk)))
            pairs.append(np.stack([chunk[dropped], chunk[repeated.originals[dropped]]], axis=1))
            similarities.append(repeated.similarity[dropped])
        np.savez(unfinished, rows=np.concatenate(pairs), similarity=np.concatenate(similarities))


def equal(plan: Plan, number: int, ranges: int) -> None:
    """Find the texts that are equal to a better one."""
    with written_whole(bucket_file(plan, "equal", number)) as unfinished:
        if unfinished is None:
            return
        texts = open_texts(plan.folder)
        packed = _shared(_remaining(plan, texts.keys(EQUAL_BAND, number, ranges)))
        rows = np.sort(packed & LOW).astype(np.int64)
        contents = texts.column("contents", rows)
        order = texts.best_first(rows, contents)
        rows, contents = rows[order], contents[order]
        starts = np.flatnonzero(np.append(True, contents[1:] != contents[:-1])[: len(rows)])
        heads = np.repeat(rows[starts], np.diff(np.append(starts, len(rows))))
        np.savez(unfinished, rows=np.stack([rows, heads], axis=1)[rows != heads])


def join(plan: Plan, number: int, ranges: int) -> None:
    """Find links between similar texts that share a key: of band `number // ranges`, in one of `ranges` ranges of its keys."""
    with written_whole(bucket_file(plan, "links", number)) as unfinished:
        if unfinished is None:
            return
        texts = open_texts(plan.folder)
        packed = _shared(_remaining(plan, texts.keys(number // ranges, number % ranges, ranges)))
        keys, rows = (packed >> HALF).astype(np.int64), (packed & LOW).astype(np.int64)
        order = np.lexsort((texts.column("contents", rows), keys))
        keys, rows = keys[order], rows[order]
        pairs = [np.zeros((0, 2), np.uint32)]
        leaders = np.zeros(0, np.int64)
        for start, end in texts.chunks(rows, plan.memory):
            chunk = np.append(leaders, rows[start:end])
            chunk_keys = np.append(np.full(len(leaders), keys[start]), keys[start:end])
            linked, leaders = _linked(texts, chunk, chunk_keys, plan.threshold)
            pairs.append(linked)
            if end == len(keys) or keys[end] != keys[end - 1]:  # the next chunk starts with another key
                leaders = leaders[:0]
        np.savez(unfinished, rows=np.concatenate(pairs))


def mark_repeats(plan: Plan, step: str) -> None:
    """Note the texts that repeat another one, by the pairs of a step, in `gone.npy`; the next steps pass over them."""
    file = Path(plan.folder, "gone.npy")
    if step == "inside" or not file.exists():
        repeats = mapped_column(file, np.bool_, len(open_texts(plan.folder)))
    else:
        repeats = np.load(file, mmap_mode="r+")
    for name in files_of(plan.folder, step):
        repeats[np.load(name)["rows"][:, 0]] = True
    repeats.flush()


# -- inside --------------------------------------------------------------------------------------------------------------


def _linked(texts: SignedTexts, chunk: I64, keys: I64, threshold: float) -> tuple[U32, I64]:
    """Links (k, 2) between texts of a chunk (n,) that have equal keys (n,), and the leaders of its last key."""
    rows = np.sort(chunk)
    signatures = texts.take(rows)
    by_content = np.argsort(signatures.contents)
    places = np.empty(len(rows), np.uint64)
    places[by_content] = np.arange(len(rows), dtype=np.uint64)
    packed = keys.astype(np.uint64) << HALF | places[np.searchsorted(rows, chunk)]
    packed.sort()
    links = Links(np.arange(len(rows), dtype=np.uint32), np.full(len(rows), -1, np.int64))
    leaders = duplicates.join(signatures, by_content, packed, threshold, links)
    roots = duplicates.roots(links.parents)
    linked = np.flatnonzero(roots != np.arange(len(roots)))
    pairs = np.stack([rows[by_content[linked]], rows[by_content[roots[linked]]]], axis=1).astype(np.uint32)
    return pairs, rows[by_content[leaders]]


def _shared(packed: U64) -> U64:
    """The packed keys whose key occurs more than once, in order."""
    packed.sort()
    same = packed[1:] >> HALF == packed[:-1] >> HALF
    return packed[np.append(same, False) | np.append(False, same)] if len(packed) else packed


def _remaining(plan: Plan, packed: U64) -> U64:
    """The packed keys of texts that repeat no other one, as far as the steps before know."""
    repeats = np.load(Path(plan.folder, "gone.npy"), mmap_mode="r")
    remaining: U64 = packed[~repeats[packed & LOW]]
    return remaining
