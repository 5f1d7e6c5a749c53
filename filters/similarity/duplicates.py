"""Find texts that repeat others: equal texts, and texts whose Jaccard similarity reaches a threshold. The best of a cluster
stays.

`within` compares all pairs of a group (the samples of a prompt). `among` finds candidates by band keys (LSH) and links the
members of a bucket to its leaders, the first few that are unlike each other, and never all pairs: a refusal that occurs a million
times makes at most a million links, not 5e11. Only texts of one connected component of the links can be duplicates.

Inside a component, as inside a group, texts are taken best first. Each repeats the most similar text kept so far if that is
similar enough, and is kept otherwise. So every duplicate is directly similar to the text it names, chains of small differences do
not merge different texts, and an additional copy removes nothing but itself.

Two texts are compared by their sketches, and by their shingles if the sketches are within three standard errors of the threshold.
The result does not depend on the order of the texts.
"""

from typing import Any, NamedTuple

import numpy as np

from filters.similarity.kernel import F32, F64, I64, U32, U64, jit
from filters.similarity.signatures import BANDS, Signed, estimate, jaccard

DOUBT = 0.13
"""Three standard errors of an estimate."""
LEADERS = 16
"""Most leaders of a bucket. A member that is like none of them is left to its other buckets."""
MOST_KEPT = 256
"""Most kept texts of a component that further texts are compared with. Beyond that, texts are kept without a comparison."""
LARGE = 8192
"""Larger groups are searched by band keys."""


class Clusters(NamedTuple):
    """For each text (n,) the text that it repeats, itself if it is kept, and their similarity: 1 for equal texts, else
    Jaccard's."""

    originals: I64
    similarity: F32


class Order(NamedTuple):
    """Which of several texts is the best: the one with the lowest keys, then the lowest id."""

    keys: list[F64]
    """Numbers (n,), most important first."""
    ids: U64
    """Ids (n, 2), which decide between equal keys."""

    def rank(self) -> I64:
        """The rank of each text (n,), 0 for the best, without ties."""
        ranks = np.empty(len(self.ids), np.int64)
        ranks[np.lexsort((self.ids[:, 1], self.ids[:, 0], *self.keys[::-1]))] = np.arange(len(self.ids))
        return ranks


def within(texts: Signed, groups: I64, rank: I64, threshold: float) -> Clusters:
    """Find duplicates inside each group (n,). The text of the lowest `rank` (n,) stays; no two ranks are equal."""
    groups, rank = writable(groups), writable(rank)
    heads, firsts = _equal(texts.contents, rank, groups)
    clusters = _alone(len(rank))
    order = firsts[np.lexsort((rank[firsts], groups[firsts]))]
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    sizes = np.diff(np.append(starts, len(order)))
    large = np.repeat(sizes > LARGE, sizes)
    keep(texts, order[~large], groups, threshold, LARGE, *clusters)
    for start, size in zip(starts[sizes > LARGE].tolist(), sizes[sizes > LARGE].tolist(), strict=True):
        _search(texts, np.sort(order[start : start + size]), rank, threshold, clusters)
    return _through(heads, clusters)


def among(texts: Signed, rank: I64, threshold: float) -> Clusters:
    """Find duplicates among all texts. The text of the lowest `rank` (n,) stays; no two ranks are equal."""
    rank = writable(rank)
    heads, firsts = _equal(texts.contents, rank, None)
    clusters = _alone(len(rank))
    _search(texts, firsts, rank, threshold, clusters)
    return _through(heads, clusters)


def similarities(texts: Signed, left: I64, right: I64) -> F32:
    """Similarity of pairs of texts (k,): 1 for equal texts, else the Jaccard similarity of their shingles."""
    result = np.ones(len(left), np.float32)
    differ = np.flatnonzero(texts.contents[left] != texts.contents[right])
    result[differ] = _pairs(texts, left[differ], right[differ])
    return result


def _search(texts: Signed, rows: I64, rank: I64, threshold: float, clusters: Clusters) -> None:
    """Find the duplicates among rows of unequal texts, and note them in `clusters`."""
    rows = rows[np.argsort(texts.contents[rows])]
    links = Links(np.arange(len(rows), dtype=np.uint32), np.full(len(rows), -1, np.int64))
    numbers = np.arange(len(rows), dtype=np.uint64)
    for band in range(BANDS):
        # Key and number in one integer: after sorting, equal keys are neighbours, in the order of the texts' hashes.
        packed = texts.bands[band, rows].astype(np.uint64) << np.uint64(32) | numbers
        packed.sort()
        join(texts, rows, packed, threshold, links)
    components = roots(links.parents)
    sizes = np.bincount(components, minlength=len(rows))
    linked = np.flatnonzero(sizes[components] > 1)
    order = linked[np.lexsort((rank[rows[linked]], components[linked]))]
    groups = np.zeros(len(rank), np.int64)
    groups[rows] = components
    keep(texts, rows[order], groups, threshold, MOST_KEPT, *clusters)


def writable(numbers: I64) -> I64:
    """The array itself, or a writable copy: a read-only array would need another compiled version."""
    return np.require(numbers, np.int64, ["C", "W"])


def _equal(contents: U64, rank: I64, groups: I64 | None) -> tuple[I64, I64]:
    """For each text (n,) the best of the texts equal to it, and all these best texts."""
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


def _through(heads: I64, clusters: Clusters) -> Clusters:
    """Extend the clusters of the best of equal texts to all texts."""
    return Clusters(clusters.originals[heads], clusters.similarity[heads])


class Links(NamedTuple):
    """State of texts (n,) while buckets are joined."""

    parents: U32
    """Union-find (Tarjan 1975) with the lowest number as the root."""
    compared: I64
    """The leader that each text was last compared with: twice its number, plus 1 if the two are alike."""


@jit
def _similarity(texts: Signed, first: int, second: int, threshold: float) -> Any:
    """Similarity of two texts: exact near the threshold, estimated elsewhere."""
    estimated = estimate(texts, first, second)
    if abs(estimated - threshold) > DOUBT:
        return estimated
    return jaccard(texts, first, second)


@jit
def _pairs(texts: Signed, left: I64, right: I64) -> Any:
    result = np.empty(len(left), np.float32)
    for pair in range(len(left)):
        result[pair] = jaccard(texts, left[pair], right[pair])
    return result


@jit
def keep(  # noqa: PLR0917 - compiled functions take no keywords
    texts: Signed, order: I64, groups: I64, threshold: float, most: int, originals: I64, similarity: F32
) -> Any:
    """Decide about texts in their order, best first within each group: each repeats the most similar kept text, or is kept.

    Returns the kept texts of the last group that further texts would be compared with.
    """
    kept = np.empty(len(order), np.int64)
    count, group = 0, np.int64(-1)
    for text in order:
        if groups[text] != group:
            group, count = groups[text], 0
        highest, original = 0.0, np.int64(-1)
        for number in range(min(count, most)):
            candidate = kept[number]
            if texts.guards[candidate] != texts.guards[text] or estimate(texts, text, candidate) < threshold - DOUBT:
                continue
            value = jaccard(texts, text, candidate)
            if value >= threshold and value > highest:
                highest, original = value, candidate
        if original >= 0:
            originals[text], similarity[text] = original, highest
        else:
            kept[count] = text
            count += 1
    return kept[: min(count, most)]


@jit
def join(texts: Signed, rows: I64, packed: U64, threshold: float, links: Links) -> Any:
    """Link each member of the buckets of a band to the first leader of its bucket that it is like.

    `packed` is sorted; it has the band's key in the upper half and the number of a text in the lower half. `rows` are the places
    of the numbers in `texts`. Returns the leaders of the last bucket.
    """
    leaders = np.empty(LEADERS, np.int64)
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    start = count = 0
    while start < len(packed):
        end = start + 1
        while end < len(packed) and packed[end] >> half == packed[start] >> half:
            end += 1
        leaders[0], count = np.int64(packed[start] & low), 1
        for member in range(start + 1, end):
            text = np.int64(packed[member] & low)
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
def root(parents: U32, number: int) -> Any:
    """The root of a number; shortens the path to it."""
    while parents[number] != number:
        parents[number] = parents[parents[number]]
        number = int(parents[number])
    return number


@jit
def unite(parents: U32, first: int, second: int) -> None:
    """Join the sets of two numbers."""
    first_root, second_root = root(parents, first), root(parents, second)
    if first_root < second_root:
        parents[second_root] = first_root
    elif second_root < first_root:
        parents[first_root] = second_root


@jit
def roots(parents: U32) -> Any:
    """The root of every number."""
    result = np.empty(len(parents), np.int64)
    for number in range(len(parents)):
        result[number] = root(parents, number)
    return result
