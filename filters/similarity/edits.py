"""Find the nearest of many texts by Levenshtein's distance over words and signs.

Set measures are too coarse for short answers, where one word in ten changes half the shingles. A distance is computed only where
it can be small enough: the words of a text are counted into 64 bins by their hash, and one edit changes at most two counts by
one, so half the sum of the differences is a lower bound that costs 64 bytes. The rest is computed in a band of the matrix as wide
as the largest distance allowed (Ukkonen 1985). Nothing is estimated, so the result is the nearest text.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from filters.similarity import kernel
from filters.similarity.kernel import I64, U8, U32, decode, jit, longest_text, mix

BINS = 64


class Tokens(NamedTuple):
    """Texts (n) as the hashes of their words and signs."""

    tokens: U32
    """Hashes of all texts, one text after the other."""
    starts: I64
    """The first token of each text, and the number of tokens (n + 1,)."""
    bins: U8
    """Number of a text's words in each bin (n, BINS), at most 255."""


def tokens_of(texts: pa.Array) -> Tokens:
    """Words and signs of texts after NFKC and lower case."""
    data, offsets = kernel.normalised(texts)
    tokens = Tokens(
        np.empty(offsets[-1] - offsets[0] + 1, np.uint32),
        np.zeros(len(offsets), np.int64),
        np.zeros((len(offsets) - 1, BINS), np.uint8),
    )
    _tokens(data, offsets, tokens)
    return tokens._replace(tokens=tokens.tokens[: tokens.starts[-1]].copy())


@jit
def _tokens(data: U8, offsets: I64, texts: Tokens) -> None:
    codes = np.empty(longest_text(offsets) + 1, np.uint32)
    used = 0
    for text in range(len(offsets) - 1):
        texts.starts[text] = used
        length = decode(data, offsets[text], offsets[text + 1], codes)
        word, inside = kernel.BASIS, False
        for position in range(length + 1):
            kind = codes[position] >> np.uint32(24) if position < length else np.uint32(kernel.SPACE)
            if kind == kernel.WORD:
                word = (word ^ np.uint64(codes[position])) * kernel.PRIME
                inside = True
                continue
            if inside:
                texts.tokens[used] = np.uint32(mix(word) & np.uint64(0xFFFFFFFF))
                used += 1
                word, inside = kernel.BASIS, False
            if kind != kernel.SPACE:
                sign = mix((kernel.BASIS ^ np.uint64(codes[position])) * kernel.PRIME)
                texts.tokens[used] = np.uint32(sign & np.uint64(0xFFFFFFFF))
                used += 1
        for token in range(texts.starts[text], used):
            number = texts.tokens[token] & np.uint32(BINS - 1)
            texts.bins[text, number] = min(texts.bins[text, number], np.uint8(254)) + np.uint8(1)
    texts.starts[len(offsets) - 1] = used


def nearest(
    texts: Tokens, groups: I64, seekers: I64, targets: I64, *, edits: int, share: float, common: float
) -> tuple[I64, I64]:
    """For each seeker (k,) the row of the nearest target of its group, the first of several, and the number of edits between
    them.

    Both are -1 if no target is near enough: at most `edits` edits, or `share` of the words of the longer text if that is more,
    and at least the share `common` of those words unchanged. Rows of seekers and targets are in ascending order of their groups.
    """
    rows, distances = np.full(len(seekers), -1, np.int64), np.full(len(seekers), -1, np.int64)
    groups = np.require(groups, np.int64, ["C", "W"])
    _nearest(texts, groups, seekers, targets, (float(edits), share, 1 - common), rows, distances)
    return rows, distances


@jit
def _nearest(  # noqa: PLR0917 - compiled functions take no keywords
    texts: Tokens, groups: I64, seekers: I64, targets: I64, limits: Any, rows: I64, distances: I64
) -> None:
    row = np.empty(longest_text(texts.starts) + 2, np.int32)
    least, share, most = limits
    start = 0
    for number in range(len(seekers)):
        seeker = seekers[number]
        while start < len(targets) and groups[targets[start]] < groups[seeker]:
            start += 1
        size = texts.starts[seeker + 1] - texts.starts[seeker]
        best = np.int64(-1)
        for candidate in range(start, len(targets)):
            target = targets[candidate]
            if groups[target] != groups[seeker]:
                break
            target_size = texts.starts[target + 1] - texts.starts[target]
            larger = max(size, target_size)
            allowed = np.int64(min(max(least, share * larger), most * larger))
            if best >= 0:
                allowed = min(allowed, best - 1)
            if allowed < 0 or abs(size - target_size) > allowed or bin_difference(texts, seeker, target) > 2 * allowed:
                continue
            steps = distance(texts, seeker, target, allowed, row)
            if steps <= allowed:
                best, rows[number], distances[number] = steps, target, steps


@jit
def bin_difference(texts: Tokens, first: int, second: int) -> Any:
    """Sum of the differences of two texts' counts, at most twice their distance. Each difference counts up to 3, so that the sum
    fits into a byte and one instruction handles 64 bins."""
    left, right = texts.bins[first], texts.bins[second]
    total = np.uint8(0)
    for number in range(BINS):
        difference = np.uint8(max(left[number], right[number]) - min(left[number], right[number]))
        total = np.uint8(total + min(difference, np.uint8(3)))
    return np.int64(total)


@jit
def distance(texts: Tokens, first: int, second: int, most: int, row: Any) -> Any:
    """Number of edits (a word inserted, deleted or replaced) between two texts; most + 1 if there are more. `row` has one place
    more than the second text has words."""
    left = texts.tokens[texts.starts[first] : texts.starts[first + 1]]
    right = texts.tokens[texts.starts[second] : texts.starts[second + 1]]
    start = 0
    while start < min(len(left), len(right)) and left[start] == right[start]:
        start += 1
    left_end, right_end = len(left), len(right)
    while left_end > start and right_end > start and left[left_end - 1] == right[right_end - 1]:
        left_end -= 1
        right_end -= 1
    height, width = left_end - start, right_end - start
    if abs(height - width) > most:
        return most + 1
    beyond = np.int32(most + 1)
    for column in range(width + 1):
        row[column] = min(np.int32(column), beyond)
    for line in range(1, height + 1):
        low, high = max(1, line - most), min(width, line + most)
        diagonal = row[low - 1]
        row[low - 1] = np.int32(line) if low == 1 and line <= most else beyond
        before = row[low - 1]
        smallest = before
        for column in range(low, high + 1):
            above = row[column] if column < line + most else beyond
            value = diagonal if left[start + line - 1] == right[start + column - 1] else diagonal + np.int32(1)
            value = min(value, above + np.int32(1), before + np.int32(1), beyond)
            diagonal, row[column], before = above, value, value
            smallest = min(smallest, value)
        if smallest > most:
            return most + 1
    return np.int64(min(row[width], beyond))
