"""Sign texts in one pass over their bytes: words, shingles, MinHash, band keys and a hash of the normalised text.

The shingles of a text are its word bigrams or, below WORDS words, its runs of four characters, so that most of them survive a
typing error in a short answer.

MinHash (Broder 1997) has 128 slots of 32 bits, h -> a h + b mod 2^32 with odd a. 25 keys of 5 slots each (Leskovec, Rajaraman,
Ullman, Mining of Massive Datasets, ch. 3): a pair of Jaccard similarity J shares a key with the probability 1 - (1 - J^5)^25, 99
% at 0.7, 55 % at 0.5, 6 % at 0.3. The low 8 bits of each slot are stored as a sketch, from which J is estimated with a standard
error of 0.04 at 0.75. SCHEME names what is hashed and how: signatures of two schemes are never compared.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from filters.similarity.kernel import (
    ALONE,
    BASIS,
    I32,
    I64,
    PRIME,
    SPACE,
    U8,
    U32,
    U64,
    WORD,
    Bits,
    decode,
    jit,
    longest_text,
    mix,
    normalised,
)

SCHEME = "nfkc-lower_w2-c4_mh128x32_25x5_v2"
"""Normaliser, shingles, slots, bands. Change it with every change of signatures."""
SLOTS, BANDS, ROWS = 128, 25, 5
WORDS = 8
"""Texts of fewer words are compared by characters."""
CHARACTERS = 4

_generator = np.random.default_rng(0x7468726573686572)
FACTORS = _generator.integers(0, 2**32, SLOTS, dtype=np.uint32) | np.uint32(1)
SHIFTS = _generator.integers(0, 2**32, SLOTS, dtype=np.uint32)

_P = np.uint64(0x9E3779B97F4A7C15)
_Q = np.uint64(0xFF51AFD7ED558CCD)
_32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


class Signed(NamedTuple):
    """Signatures of texts (n)."""

    guards: U64
    """Only texts with equal guards can be duplicates (n,)."""
    contents: U64
    """Hash of the normalised text and its guard (n,)."""
    words: I32
    """Number of words (n,)."""
    bands: U32
    """Band keys (BANDS, n). Those of texts with other guards, or without shingles, are as unlike as those of unlike texts. They
    have 32 bits: of 1e8 texts, two in a hundred share one by chance and are then distinguished by their sketches."""
    sketches: U8
    """Low bits of each slot (n, SLOTS)."""
    shingles: U32
    """The shingles of all texts, one text after the other."""
    starts: I64
    """The first shingle of each text (n,)."""
    sizes: I64
    """Number of shingles (n,), of distinct shingles once `ordered`."""
    ordered: Bits
    """Whether the shingles of a text are in order (n,). They are sorted when they are first compared."""

    def take(self, rows: I64) -> "Signed":
        """The signatures of some of the texts; their shingles are not copied."""
        return self._replace(
            guards=self.guards[rows], contents=self.contents[rows], words=self.words[rows], bands=self.bands[:, rows],
            sketches=self.sketches[rows], starts=self.starts[rows], sizes=self.sizes[rows], ordered=self.ordered[rows],
        )  # fmt: skip


def signed(texts: pa.Array, guards: U64) -> Signed:
    """Sign texts; only those with equal guards (n,) can be duplicates. Takes 280 bytes per text and 4 per shingle."""
    data, offsets = normalised(texts)
    rows = len(offsets) - 1
    contents, words, sizes = np.empty(rows, np.uint64), np.empty(rows, np.int32), np.empty(rows, np.int64)
    bands, sketches = np.empty((BANDS, rows), np.uint32), np.empty((rows, SLOTS), np.uint8)
    # Reserves a place per byte, of which only those of shingles are ever touched.
    shingles = np.empty(int(offsets[-1] - offsets[0]) + 4, np.uint32)
    signatures = Signed(guards, contents, words, bands, sketches, shingles, sizes, sizes, np.zeros(rows, np.bool_))
    used = _sign(data, offsets, signatures)
    return signatures._replace(shingles=shingles[:used], starts=np.cumsum(sizes) - sizes)


def joined(parts: Sequence[Signed]) -> Signed:
    """Concatenate signatures."""
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts], axis=1 if name == "bands" else 0) for name in Signed._fields
    }
    offsets = np.cumsum([0, *(len(part.shingles) for part in parts[:-1])])
    columns["starts"] = np.concatenate([part.starts + offset for part, offset in zip(parts, offsets, strict=True)])
    return Signed(**columns)


@jit
def _sign(data: U8, offsets: I64, texts: Signed) -> Any:
    """Fill in the signatures of a chunk of texts; return the number of shingles."""
    longest = longest_text(offsets)
    codes, tokens = np.empty(longest + 1, np.uint32), np.empty(longest + 1, np.uint32)
    least = np.empty(SLOTS, np.uint32)
    used = 0
    for text in range(len(texts.guards)):
        guard, shingles = texts.guards[text], texts.shingles[used:]
        length = decode(data, offsets[text], offsets[text + 1], codes)
        count, words, content = read(codes, length, tokens, shingles)
        texts.contents[text] = mix(content ^ guard * _P)
        texts.words[text], texts.sizes[text] = words, count
        used += count
        for slot in range(SLOTS):
            least[slot] = np.uint32(0xFFFFFFFF)
        for padding in range(count, -(-count // 4) * 4):
            shingles[padding] = shingles[0]
        for shingle in range(0, count, 4):  # four at a time: slots are loaded and stored a quarter as often
            h, i, j, k = shingles[shingle], shingles[shingle + 1], shingles[shingle + 2], shingles[shingle + 3]
            for slot in range(SLOTS):
                a, b = FACTORS[slot], SHIFTS[slot]
                first = min(np.uint32(a * h + b), np.uint32(a * i + b))
                second = min(np.uint32(a * j + b), np.uint32(a * k + b))
                least[slot] = min(least[slot], min(first, second))  # noqa: PLW3301 - only a chain of two is vectorised
        for slot in range(SLOTS):
            texts.sketches[text, slot] = np.uint8(least[slot] & np.uint32(255))
        for band in range(BANDS):
            key = (guard ^ np.uint64(band)) * _P
            if count == 0:
                key ^= texts.contents[text]
            for row in range(ROWS):
                key = (key ^ np.uint64(least[band * ROWS + row])) * _Q
                key ^= key >> _32
            texts.bands[band, text] = np.uint32(mix(key) >> _32)
    return used


@jit
def read(codes: U32, count: int, words: U32, shingles: U32) -> Any:
    """Write the shingles of a text (its code points, from `decode`) into `shingles`; return their number, the number of words,
    and the hash of the normalised text. `words` and `shingles` need a place for each code point."""
    content, word, inside = BASIS, BASIS, False
    number = 0
    for position in range(count + 1):
        kind = codes[position] >> np.uint32(24) if position < count else np.uint32(SPACE)
        if kind == WORD:
            word = (word ^ np.uint64(codes[position])) * PRIME
            inside = True
            continue
        if inside:
            mixed = mix(word)
            words[number] = np.uint32(mixed & _LOW)
            number += 1
            content = (content ^ mixed) * _P
            content ^= content >> _32
            word, inside = BASIS, False
        if kind == SPACE:
            continue
        mixed = mix((BASIS ^ np.uint64(codes[position])) * PRIME)
        if kind == ALONE:
            words[number] = np.uint32(mixed & _LOW)
            number += 1
        content = (content ^ mixed) * _P
        content ^= content >> _32
    if number < WORDS:
        return _characters(codes, count, shingles), number, content
    for first in range(number - 1):
        bigram = np.uint64(words[first]) << _32 | np.uint64(words[first + 1])
        shingles[first] = np.uint32(mix(bigram * _P) & _LOW)
    return number - 1, number, content


@jit
def _characters(codes: U32, count: int, shingles: U32) -> Any:
    """Write runs of four characters, with white space as one blank; a shorter text is a single run."""
    last, blank = np.uint64(0), np.uint64(SPACE)
    size = runs = 0
    for position in range(count):
        code = np.uint64(codes[position] & np.uint32(0xFFFFFF))
        if codes[position] >> np.uint32(24) == SPACE:
            blank = np.uint64(32)
            continue
        for character in (blank, code):
            if character == 0 or (size == 0 and character == 32):
                continue
            last = last << np.uint64(16) | (character ^ character >> np.uint64(16)) & np.uint64(0xFFFF)
            size += 1
            if size >= CHARACTERS:
                shingles[runs] = np.uint32(mix(last * PRIME + BASIS) & _LOW)
                runs += 1
        blank = np.uint64(0)
    if size and not runs:
        shingles[0] = np.uint32(mix(last * PRIME + BASIS) & _LOW)
        runs = 1
    return runs


@jit
def estimate(texts: Signed, first: int, second: int) -> Any:
    """Jaccard similarity of two texts, estimated from their sketches. A slot agrees by chance in 1 of 256."""
    left, right = texts.sketches[first], texts.sketches[second]
    count = np.uint8(0)  # at most 128: so narrow that one instruction compares 64 slots
    for slot in range(SLOTS):
        count = np.uint8(count + np.uint8(left[slot] == right[slot]))
    same = np.float64(count)
    return (same / SLOTS - 1 / 256) / (1 - 1 / 256)


@jit
def jaccard(texts: Signed, first: int, second: int) -> Any:
    """Jaccard similarity of two texts by their shingles; 0 if neither has any."""
    for text in (first, second):
        if not texts.ordered[text]:
            _order(texts, text)
    i, j = texts.starts[first], texts.starts[second]
    i_end, j_end = i + texts.sizes[first], j + texts.sizes[second]
    both = 0
    while i < i_end and j < j_end:
        a, b = texts.shingles[i], texts.shingles[j]
        both += a == b
        i += a <= b
        j += b <= a
    union = texts.sizes[first] + texts.sizes[second] - both
    return both / union if union else 0.0


@jit
def ordered(texts: Signed) -> None:
    """Sort the shingles of all texts and remove repeated ones."""
    for text in range(len(texts.guards)):
        if not texts.ordered[text]:
            _order(texts, text)


@jit
def _order(texts: Signed, text: int) -> None:
    shingles = texts.shingles[texts.starts[text] : texts.starts[text] + texts.sizes[text]]
    if len(shingles) > 64:
        shingles.sort()
    else:  # by insertion: several times as fast as a general sort
        for index in range(1, len(shingles)):
            value, place = shingles[index], index
            while place > 0 and shingles[place - 1] > value:
                shingles[place] = shingles[place - 1]
                place -= 1
            shingles[place] = value
    distinct = 0
    for index in range(len(shingles)):
        if index == 0 or shingles[index] != shingles[index - 1]:
            shingles[distinct] = shingles[index]
            distinct += 1
    texts.sizes[text], texts.ordered[text] = distinct, True
