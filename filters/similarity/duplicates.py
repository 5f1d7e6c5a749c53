"""Which texts repeat which: equal ones, and those whose Jaccard similarity reaches a threshold; the best of each cluster stays.

`within` compares all pairs of a group (the samples of a prompt). `among` finds candidates by band keys (LSH) and links the
members of a bucket to the first few of it that are unlike each other, never all pairs: a refusal that comes a million times makes
at most a million links, not 5e11. The connected components of the links are what can be duplicates of one another.

Inside a component, as inside a group, texts are taken best first: each repeats the most similar of those kept, if that one is
similar enough, else it is kept. So every duplicate is directly similar to the one it names, chains of small differences do not
merge what differs, and a further copy removes nothing but itself.

Two texts are compared by their sketches, and by their shingles themselves where the sketches leave a doubt (three standard errors
round the threshold). What comes out does not depend on the order of the texts.
"""

from typing import Any, NamedTuple

import numpy as np

from filters.similarity.kernel import BANDS, F32, F64, I64, U32, U64, Signed, estimate, jaccard, jit

DOUBT = 0.13
"""Three standard errors of an estimate."""
LEADERS = 16
"""Members of a bucket, unlike each other, that the others are compared with. A member that is like none of them is left to its
other buckets."""
MOST_KEPT = 256
"""Kept texts of a component that the others are compared with; beyond, texts are kept rather than compared."""
LARGE = 8192
"""Groups beyond this size are searched by band keys."""


class Clusters(NamedTuple):
    """For each text (n,) the one it repeats, itself where it is kept, and how similar the two are: 1 for equal texts, else the
    Jaccard similarity."""

    originals: I64
    similarity: F32


class Order(NamedTuple):
    """Which of several texts is the best."""

    keys: list[F64]
    """Numbers (n,) of which the lowest is the best, the first ones first."""
    ids: U64
    """Where those are equal: the lowest (n, 2)."""

    def rank(self) -> I64:
        """The place of each text when the best comes first (n,), without ties."""
        found = np.empty(len(self.ids), np.int64)
        found[np.lexsort((self.ids[:, 1], self.ids[:, 0], *self.keys[::-1]))] = np.arange(len(self.ids))
        return found


def within(texts: Signed, groups: I64, rank: I64, threshold: float) -> Clusters:
    """Duplicates inside each group (n,). `rank` (n,) says who stays: the lowest; no two are equal."""
    groups, rank = own(groups), own(rank)
    heads, firsts = _equal(texts.contents, rank, groups)
    found = _alone(len(rank))
    order = firsts[np.lexsort((rank[firsts], groups[firsts]))]
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    sizes = np.diff(np.append(starts, len(order)))
    large = np.repeat(sizes > LARGE, sizes)
    keep(texts, order[~large], groups, threshold, LARGE, *found)
    for start, size in zip(starts[sizes > LARGE].tolist(), sizes[sizes > LARGE].tolist(), strict=True):
        _search(texts, np.sort(order[start : start + size]), rank, threshold, found)
    return _through(heads, found)


def among(texts: Signed, rank: I64, threshold: float) -> Clusters:
    """Duplicates among all texts. `rank` (n,) says who stays: the lowest; no two are equal."""
    rank = own(rank)
    heads, firsts = _equal(texts.contents, rank, None)
    found = _alone(len(rank))
    _search(texts, firsts, rank, threshold, found)
    return _through(heads, found)


def similarities(texts: Signed, ones: I64, others: I64) -> F32:
    """How similar pairs of texts (k,) are: 1 for equal ones, else the Jaccard similarity of their shingles."""
    found = np.ones(len(ones), np.float32)
    differ = np.flatnonzero(texts.contents[ones] != texts.contents[others])
    found[differ] = _pairs(texts, ones[differ], others[differ])
    return found


def _search(texts: Signed, rows: I64, rank: I64, threshold: float, found: Clusters) -> None:
    """Find the duplicates among rows that are all different, and write down what they repeat."""
    rows = rows[np.argsort(texts.contents[rows])]
    links = Links(np.arange(len(rows), dtype=np.uint32), np.full(len(rows), -1, np.int64))
    numbers = np.arange(len(rows), dtype=np.uint64)
    for band in range(BANDS):
        # The key, then the number: equal keys lie side by side, in the order of their hashes.
        packed = texts.bands[band, rows].astype(np.uint64) << np.uint64(32) | numbers
        packed.sort()
        join(texts, rows, packed, threshold, links)
    components = roots(links.parents)
    sizes = np.bincount(components, minlength=len(rows))
    some = np.flatnonzero(sizes[components] > 1)
    order = some[np.lexsort((rank[rows[some]], components[some]))]
    groups = np.zeros(len(rank), np.int64)
    groups[rows] = components
    keep(texts, rows[order], groups, threshold, MOST_KEPT, *found)


def own(numbers: I64) -> I64:
    """An array that may be written to: what is compiled for one that may not is compiled apart."""
    return np.require(numbers, np.int64, ["C", "W"])


def _equal(contents: U64, rank: I64, groups: I64 | None) -> tuple[I64, I64]:
    """The best of the texts equal to each (n,), and those best ones."""
    if not len(rank):
        return rank, rank
    order = np.argsort(contents) if groups is None else np.lexsort((contents, groups))
    changes = np.diff(contents[order], prepend=contents[order[:1]] + np.uint64(1)) != 0
    if groups is not None:
        changes |= np.diff(groups[order], prepend=-1) != 0
    starts = np.flatnonzero(changes)
    sizes = np.diff(np.append(starts, len(order)))
    best = np.repeat(np.minimum.reduceat(rank[order], starts), sizes)
    firsts = order[rank[order] == best]
    heads = np.empty(len(order), np.int64)
    heads[order] = np.repeat(firsts, sizes)
    return heads, firsts


def _alone(rows: int) -> Clusters:
    return Clusters(np.arange(rows), np.ones(rows, np.float32))


def _through(heads: I64, found: Clusters) -> Clusters:
    """From what the best of equal texts repeat to what each text repeats."""
    return Clusters(found.originals[heads], found.similarity[heads])


class Links(NamedTuple):
    """What is known of texts (n,) while buckets are joined."""

    parents: U32
    """Union-find (Tarjan 1975), by the lowest number."""
    compared: I64
    """The leader that each was last compared with, twice its number, and 1 more where they are alike."""


@jit
def _similarity(texts: Signed, one: int, other: int, threshold: float) -> Any:
    """About how similar two texts are: exactly where that decides."""
    about = estimate(texts, one, other)
    if abs(about - threshold) > DOUBT:
        return about
    return jaccard(texts, one, other)


@jit
def _pairs(texts: Signed, ones: I64, others: I64) -> Any:
    found = np.empty(len(ones), np.float32)
    for at in range(len(ones)):
        found[at] = jaccard(texts, ones[at], others[at])
    return found


@jit
def keep(  # noqa: PLR0917 - what is compiled takes no keywords
    texts: Signed, order: I64, groups: I64, threshold: float, most: int, originals: I64, similarity: F32
) -> Any:
    """Texts in their order, best first within each group: each repeats the most similar of those kept, or is kept. Returns what
    was kept of the last group, as far as it is compared with."""
    kept = np.empty(len(order), np.int64)
    count, group = 0, np.int64(-1)
    for text in order:
        if groups[text] != group:
            group, count = groups[text], 0
        best, found = 0.0, np.int64(-1)
        for number in range(min(count, most)):
            other = kept[number]
            if texts.guards[other] != texts.guards[text] or estimate(texts, text, other) < threshold - DOUBT:
                continue
            like = jaccard(texts, text, other)
            if like >= threshold and like > best:
                best, found = like, other
        if found >= 0:
            originals[text], similarity[text] = found, best
        else:
            kept[count] = text
            count += 1
    return kept[: min(count, most)]


@jit
def join(texts: Signed, rows: I64, packed: U64, threshold: float, links: Links) -> Any:
    """Link the members of each bucket of one band to the first of its leaders that they are like. `packed` has the key of the
    band in its upper half and the number of a text in the lower one, in order; `rows` says where in `texts` each number is.
    Returns the leaders of the last bucket."""
    leaders = np.empty(LEADERS, np.int64)
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    start = count = 0
    while start < len(packed):
        end = start + 1
        while end < len(packed) and packed[end] >> half == packed[start] >> half:
            end += 1
        leaders[0], count = np.int64(packed[start] & low), 1
        for at in range(start + 1, end):
            text = np.int64(packed[at] & low)
            linked = False
            for number in range(count):
                leader = leaders[number]
                if links.compared[text] >> 1 == leader:
                    linked = links.compared[text] & 1 == 1
                elif texts.guards[rows[leader]] == texts.guards[rows[text]]:
                    linked = _similarity(texts, rows[leader], rows[text], threshold) >= threshold
                    links.compared[text] = leader << 1 | np.int64(linked)
                    if linked:
                        unite(links.parents, leader, text)
                if linked:
                    break
            if not linked and count < LEADERS:
                leaders[count] = text
                count += 1
        start = end
    return leaders[:count]


@jit
def root(parents: U32, at: int) -> Any:
    while parents[at] != at:
        parents[at] = parents[parents[at]]
        at = int(parents[at])
    return at


@jit
def unite(parents: U32, one: int, other: int) -> None:
    first, second = root(parents, one), root(parents, other)
    if first < second:
        parents[second] = first
    elif second < first:
        parents[first] = second


@jit
def roots(parents: U32) -> Any:
    found = np.empty(len(parents), np.int64)
    for at in range(len(parents)):
        found[at] = root(parents, at)
    return found
