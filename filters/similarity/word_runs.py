"""Find runs of words that texts share with a set of items, by hashes that are checked against the words themselves.

Texts are compared as words: NFKC, folded case, letters and digits only; a letter of a script that is written without spaces
(Chinese, Japanese, Thai, Lao, Khmer, Burmese) is a word of its own, so that runs are runs of characters there. Words are
numbered by the items' vocabulary; a run with any other word matches no item. Runs are hashed to 64 bits, sieved by the first
bits of the hash, and looked up in a sorted array. Every hit is then compared word by word, so a collision has no effect.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Ints = NDArray[np.int64]

_ALONE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"(?=[^\W_])[{_ALONE}]|[^\W_{_ALONE}]+")
_NO_WORD_CHARS = bytes(code if chr(code).isalnum() and code < 128 else 32 for code in range(256))
_MULTIPLIER = 0x9E3779B97F4A7C15
"""Odd, so it has an inverse modulo 2**64."""
_PAIRS = 1 << 17
"""Hits that are compared together: 13 words of each, in both texts, take 13 MB."""


@dataclass(frozen=True)
class NumberedWords:
    """The words of texts, one text after the other, as numbers of a vocabulary; N words of T texts.

    The hash of a run is a polynomial of its words' hashes: a difference of two `sums`, divided by the power at its first word.
    """

    numbers: NDArray[np.int32]
    """N: 0 is a word outside the vocabulary."""
    starts: Ints
    """T + 1: the first word of each text, and the number of words."""
    ends: Ints
    """N: the end of the text that a word belongs to."""
    sums: Hashes
    inverses: Hashes


@dataclass(frozen=True)
class RunIndex:
    """Sorted hashes of all runs of `size` words of the items."""

    size: int
    hashes: Hashes
    words: Ints
    """The first word of each run."""
    sieve: NDArray[np.bool_]
    """Whether any hash starts with these bits."""
    shift: np.uint64


def words_of(text: str) -> list[str]:
    """The words of a text in the form in which they are compared."""
    if text.isascii():  # the same words, three times as fast
        return text.casefold().encode().translate(_NO_WORD_CHARS).decode().split()
    text = unicodedata.normalize("NFKC", text)
    words: list[str] = _WORD.findall(text.casefold())
    return words


def characters_of_run(text: str, word: int, size: int) -> tuple[int, int]:
    """Start and end of a run of words in the text; those of the whole text where folding changed the number of words."""
    spans = [match.span() for match in _WORD.finditer(text)]
    if len(spans) != len(words_of(text)):
        return 0, len(text)
    return spans[word][0], spans[word + size - 1][1]


def numbered(texts: Sequence[list[str]], vocabulary: Mapping[str, int]) -> NumberedWords:
    """Number the words of texts by a vocabulary."""
    starts = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(words) for words in texts], out=starts[1:])
    numbers = np.fromiter(map(vocabulary.get, chain.from_iterable(texts), repeat(0)), np.int32, int(starts[-1]))
    words = numbers.astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93)
    words = (words ^ (words >> np.uint64(32))) * np.uint64(0xC2B2AE3D27D4EB4F)
    sums = np.zeros(len(words) + 1, np.uint64)
    np.cumsum(words * _powers(_MULTIPLIER, len(words)), out=sums[1:])
    ends = np.repeat(starts[1:], np.diff(starts))
    return NumberedWords(numbers, starts, ends, sums, _powers(pow(_MULTIPLIER, -1, 2**64), len(words)))


def indexed(items: NumberedWords, size: int, only: NDArray[np.bool_] | None = None) -> RunIndex:
    """Index the runs of `size` words of the items, or of those that the mask `only` names."""
    hashes, words = _run_hashes(items, size)
    if only is not None:
        kept = only[np.searchsorted(items.starts, words, side="right") - 1]
        hashes, words = hashes[kept], words[kept]
    order = np.argsort(hashes, kind="stable")
    # At least sixteen places for each run, so that at most one in sixteen foreign runs is looked up. At most 64 MB.
    bits = min(max(len(hashes).bit_length() + 4, 16), 26)
    shift = np.uint64(64 - bits)
    sieve = np.zeros(1 << bits, np.bool_)
    sieve[hashes >> shift] = True
    return RunIndex(size, hashes[order], words[order], sieve, shift)


def shared_runs(texts: NumberedWords, index: RunIndex, items: NumberedWords) -> Ints:
    """First word in the texts and first word in the items (hits, 2) of every run that both have, ordered by the former."""
    hashes, words = _run_hashes(texts, index.size)
    possible = index.sieve[hashes >> index.shift]
    hashes, words = hashes[possible], words[possible]
    low = np.searchsorted(index.hashes, hashes, side="left")
    ends = np.cumsum(np.searchsorted(index.hashes, hashes, side="right") - low)
    offsets = np.arange(index.size)
    hits = [np.zeros((0, 2), np.int64)]
    for first in range(0, int(ends[-1]) if len(ends) else 0, _PAIRS):
        pairs = np.arange(first, min(first + _PAIRS, int(ends[-1])))
        run = np.searchsorted(ends, pairs, side="right")
        item_words = index.words[low[run] + pairs - np.concatenate(([0], ends))[run]]
        same = (texts.numbers[words[run][:, None] + offsets] == items.numbers[item_words[:, None] + offsets]).all(axis=1)
        hits.append(np.stack((words[run], item_words), axis=1)[same])
    return np.concatenate(hits)


def _run_hashes(texts: NumberedWords, size: int) -> tuple[Hashes, Ints]:
    """The hash of every run of `size` words within one text, and its first word."""
    count = len(texts.numbers) - size + 1
    if count <= 0:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    words = np.flatnonzero(np.arange(size, size + count) <= texts.ends[:count])
    return (texts.sums[words + size] - texts.sums[words]) * texts.inverses[words], words


def _powers(base: int, count: int) -> Hashes:
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.multiply.accumulate(factors)
