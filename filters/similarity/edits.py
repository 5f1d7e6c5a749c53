"""How many words apart texts are, and which of many is the nearest: Levenshtein's distance over words and signs.

Set measures miss what matters in short answers, where one word in ten changes half the shingles. A distance is computed only
where it can be small enough: texts are counted into 64 bins by the hash of their words, and one edit changes two counts by one at
most, so half the sum of the differences is a lower bound that 64 bytes give. What passes goes through a band of the matrix as
wide as the distance may be (Ukkonen 1985). Nothing is estimated: the nearest is the nearest."""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from filters.similarity import kernel
from filters.similarity.kernel import I64, U8, U32, decode, jit, mix

BINS = 64


class Tokens(NamedTuple):
    """Texts (n) as the hashes of their words and signs."""

    tokens: U32
    """Of all texts, one after the other."""
    starts: I64
    """Where those of each text begin, and the end of the last (n + 1,)."""
    bins: U8
    """How many of its words fall into each bin (n, BINS), up to 255."""


def tokens_of(texts: pa.Array) -> Tokens:
    """Words and signs of texts after NFKC and lower case."""
    data, offsets = kernel.normalised(texts)
    found = Tokens(
        np.empty(offsets[-1] - offsets[0] + 1, np.uint32),
        np.zeros(len(offsets), np.int64),
        np.zeros((len(offsets) - 1, BINS), np.uint8),
    )
    _tokens(data, offsets, found)
    return Tokens(found.tokens[: found.starts[-1]].copy(), found.starts, found.bins)


@jit
def _tokens(data: U8, offsets: I64, texts: Tokens) -> None:
    longest = 0
    for text in range(len(offsets) - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    codes = np.empty(longest + 1, np.uint32)
    used = 0
    for text in range(len(offsets) - 1):
        texts.starts[text] = used
        length = decode(data, offsets[text], offsets[text + 1], codes)
        word, inside = kernel.BASIS, False
        for at in range(length + 1):
            kind = codes[at] >> np.uint32(24) if at < length else np.uint32(kernel.SPACE)
            if kind == kernel.WORD:
                word = (word ^ np.uint64(codes[at])) * kernel.PRIME
                inside = True
                continue
            if inside:
                texts.tokens[used] = np.uint32(mix(word) & np.uint64(0xFFFFFFFF))
                used += 1
                word, inside = kernel.BASIS, False
            if kind != kernel.SPACE:
                texts.tokens[used] = np.uint32(mix((kernel.BASIS ^ np.uint64(codes[at])) * kernel.PRIME) & np.uint64(0xFFFFFFFF))
                used += 1
        for at in range(texts.starts[text], used):
            place = texts.tokens[at] & np.uint32(BINS - 1)
            texts.bins[text, place] = min(texts.bins[text, place], np.uint8(254)) + np.uint8(1)
    texts.starts[len(offsets) - 1] = used


def nearest(
    texts: Tokens, groups: I64, seekers: I64, targets: I64, *, edits: int, share: float, common: float
) -> tuple[I64, I64]:
    """For each seeker (k,) the row of the nearest target of its group, the first of several, and the edits between them; -1 where
    none is near enough.

    Near enough are `edits` edits, or `share` of the words of the longer text if that is more, as long as `common` of those words
    is the same. Rows of seekers and targets are in ascending order of their groups.
    """
    found, apart = np.full(len(seekers), -1, np.int64), np.full(len(seekers), -1, np.int64)
    groups = np.require(groups, np.int64, ["C", "W"])
    _nearest(texts, groups, seekers, targets, (float(edits), share, 1 - common), found, apart)
    return found, apart


@jit
def _nearest(  # noqa: PLR0917 - what is compiled takes no keywords
    texts: Tokens, groups: I64, seekers: I64, targets: I64, limits: Any, found: I64, apart: I64
) -> None:
    longest = 0
    for text in range(len(texts.starts) - 1):
        longest = max(longest, texts.starts[text + 1] - texts.starts[text])
    row = np.empty(longest + 2, np.int32)
    least, share, most = limits
    start = 0
    for number in range(len(seekers)):
        seeker = seekers[number]
        while start < len(targets) and groups[targets[start]] < groups[seeker]:
            start += 1
        size = texts.starts[seeker + 1] - texts.starts[seeker]
        best = np.int64(-1)
        for at in range(start, len(targets)):
            target = targets[at]
            if groups[target] != groups[seeker]:
                break
            other = texts.starts[target + 1] - texts.starts[target]
            larger = max(size, other)
            allowed = np.int64(min(max(least, share * larger), most * larger))
            if best >= 0:
                allowed = min(allowed, best - 1)
            if allowed < 0 or abs(size - other) > allowed or _apart(texts, seeker, target) > 2 * allowed:
                continue
            steps = distance(texts, seeker, target, allowed, row)
            if steps <= allowed:
                best, found[number], apart[number] = steps, target, steps


@jit
def _apart(texts: Tokens, one: int, other: int) -> Any:
    """Sum of the differences of two texts' counts, each up to 3, so that the sum fits a byte and one instruction takes 64
    bins."""
    first, second = texts.bins[one], texts.bins[other]
    total = np.uint8(0)
    for place in range(BINS):
        apart = np.uint8(max(first[place], second[place]) - min(first[place], second[place]))
        total = np.uint8(total + min(apart, np.uint8(3)))
    return np.int64(total)


@jit
def distance(texts: Tokens, one: int, other: int, most: int, row: Any) -> Any:
    """Edits (a word in, out, or for another) between two texts; most + 1 where there are more. `row` has a place more than the
    second text has words."""
    first = texts.tokens[texts.starts[one] : texts.starts[one + 1]]
    second = texts.tokens[texts.starts[other] : texts.starts[other + 1]]
    begin = 0
    while begin < min(len(first), len(second)) and first[begin] == second[begin]:
        begin += 1
    rest, further = len(first), len(second)
    while rest > begin and further > begin and first[rest - 1] == second[further - 1]:
        rest -= 1
        further -= 1
    height, width = rest - begin, further - begin
    if abs(height - width) > most:
        return most + 1
    beyond = np.int32(most + 1)
    for column in range(width + 1):
        row[column] = min(np.int32(column), beyond)
    for line in range(1, height + 1):
        low, high = max(1, line - most), min(width, line + most)
        diagonal = row[low - 1]
        row[low - 1] = np.int32(line) if low == 1 and line <= most else beyond
        left = row[low - 1]
        smallest = left
        for column in range(low, high + 1):
            above = row[column] if column < line + most else beyond
            value = diagonal if first[begin + line - 1] == second[begin + column - 1] else diagonal + np.int32(1)
            value = min(value, above + np.int32(1), left + np.int32(1), beyond)
            diagonal, row[column], left = above, value, value
            smallest = min(smallest, value)
        if smallest > most:
            return most + 1
    return np.int64(min(row[width], beyond))
