"""One pass over the bytes of an Arrow string column: words, shingles, MinHash, band keys and a hash of the normalised text.

A text is normalised by NFKC and lower case (`normalised`), then read as words (letters, digits and marks of any script; a letter
of a script that writes no spaces is a word of its own) and single signs; white space only separates. Its shingles are its word
bigrams, or, below WORDS words, its runs of four characters, so that a typing error in a short answer leaves most of them.

MinHash (Broder 1997) has 128 slots of 32 bits, h -> a h + b mod 2^32 with odd a. 25 keys of 5 slots each (Leskovec, Rajaraman,
Ullman, Mining of Massive Datasets, ch. 3): a pair of Jaccard similarity J shares one with the probability 1 - (1 - J^5)^25, 99 %
at 0.7, 55 % at 0.5, 6 % at 0.3. The low 8 bits of each slot are kept as a sketch, from which J is estimated with a standard error
of 0.04 at 0.75. What is hashed and how is named by SCHEME: signatures of another scheme never meet these.
"""

import hashlib
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from platformdirs import user_cache_path

SCHEME = "nfkc-lower_w2-c4_mh128x32_25x5_v1"
"""Normaliser, shingles, slots, bands: raised with every change of what is below."""
SLOTS, BANDS, ROWS = 128, 25, 5
WORDS = 8
"""Texts of fewer words are compared by characters."""
CHARACTERS = 4

Bits = NDArray[np.bool_]
U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_SPACELESS = (
    (0x0E00, 0x0F00), (0x1000, 0x10A0), (0x1780, 0x1800), (0x1950, 0x1AB0), (0x2E80, 0x3000), (0x3005, 0x3008),
    (0x3021, 0x302A), (0x3031, 0x3036), (0x3040, 0x3100), (0x3100, 0x3130), (0x31A0, 0x3200), (0x3400, 0xA4D0), (0xF900, 0xFB00),
)  # fmt: skip
SPACE, WORD, ALONE, SIGN = 0, 1, 2, 3


def _classes() -> U8:
    """Class of each code point of the basic plane: space, part of a word, a word of its own, or a sign."""
    table = np.full(0x10000, SIGN, np.uint8)
    for code in range(0x10000):
        kind = unicodedata.category(chr(code))
        if kind[0] in "LNM" or code == 0x5F:
            table[code] = WORD
        elif kind[0] in "ZC":
            table[code] = SPACE
    for start, end in _SPACELESS:
        alone = table[start:end] == WORD
        marks = np.array([unicodedata.category(chr(code))[0] == "M" for code in range(start, end)])
        table[start:end][alone & ~marks] = ALONE
    return table


CLASSES = _classes()
DIGITS = np.array([unicodedata.decimal(chr(code), 255) for code in range(0x10000)], np.uint8)
"""Value of each decimal digit of the basic plane, 255 for what is none."""
_generator = np.random.default_rng(0x7468726573686572)
FACTORS = _generator.integers(0, 2**32, SLOTS, dtype=np.uint32) | np.uint32(1)
SHIFTS = _generator.integers(0, 2**32, SLOTS, dtype=np.uint32)

_P = np.uint64(0x9E3779B97F4A7C15)
_Q = np.uint64(0xFF51AFD7ED558CCD)
PRIME = np.uint64(0x100000001B3)
BASIS = np.uint64(0xCBF29CE484222325)
_HALF, _32 = np.uint64(33), np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


def _compiled_here() -> str:
    """Where compiled code is kept: a folder for each version of this package's files. numba looks at the file of a function alone
    and would go on with what it compiled of another file's functions in there."""
    sources = hashlib.blake2b(digest_size=8)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        sources.update(path.read_bytes())
    return str(Path(numba.config.CACHE_DIR or user_cache_path("thresher") / "numba") / sources.hexdigest())


_COMPILED = _compiled_here()


def jit(function: Any) -> Any:
    """Compiled at its first call and kept on disk; other threads run beside it."""
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, _COMPILED
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    finally:
        numba.config.CACHE_DIR = before


def numbers(texts: pa.Array) -> U64:
    """Hashes (n,) of the numbers in each text, whatever their order: runs of decimal digits of any script, with single dots and
    commas between them. 0 where there are none."""
    data, offsets = normalised(texts)
    found = np.zeros(len(offsets) - 1, np.uint64)
    _numbers(data, offsets, found)
    return found


def normalised(texts: pa.Array) -> tuple[U8, I64]:
    """The bytes (N,) of texts after NFKC and lower case, and where each begins and ends (texts + 1,). ASCII is not copied: the
    kernel lowers it as it reads. A null is an empty text."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks() if texts.num_chunks != 1 else texts.chunk(0)
    if texts.null_count:
        texts = pc.fill_null(texts, "")
    data, offsets = _buffers(texts)
    foreign = _not_ascii(data, offsets)
    if not len(foreign):
        return data, offsets
    mended = pc.utf8_lower(pc.utf8_normalize(texts.take(pa.array(foreign)).cast(pa.large_string()), form="NFKC"))
    mask = np.zeros(len(texts), bool)
    mask[foreign] = True
    return _buffers(pc.replace_with_mask(texts.cast(pa.large_string()), pa.array(mask), mended))


def _buffers(texts: pa.Array) -> tuple[U8, I64]:
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        texts = texts.cast(pa.large_string())
    kind = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    _, offsets, data = texts.buffers()
    if not len(texts):
        return np.frombuffer(b"\0", np.uint8), np.zeros(1, np.int64)
    at = np.frombuffer(offsets, kind)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    return np.frombuffer(data if data is not None and data.size else b"\0", np.uint8), at


def _not_ascii(data: U8, offsets: I64) -> I64:
    """The texts that hold a byte above 127."""
    return np.asarray(_first_high(data, offsets), np.int64)


@jit
def _first_high(data: U8, offsets: I64) -> Any:
    found = np.empty(len(offsets) - 1, np.int64)
    count = 0
    for text in range(len(offsets) - 1):
        own, high = data[offsets[text] : offsets[text + 1]], np.uint8(0)
        for at in range(len(own)):
            high |= own[at]
        if high > 127:
            found[count] = text
            count += 1
    return found[:count]


@jit
def mix(value: Any) -> Any:
    value ^= value >> _HALF
    value *= _Q
    value ^= value >> _HALF
    return value


@jit
def _ascii(byte: Any) -> Any:
    """Lower case and class of a byte of ASCII, by comparisons alone, so that many are done at once."""
    upper = np.uint8(byte - np.uint8(65)) < np.uint8(26)
    letter = np.uint8((byte | np.uint8(32)) - np.uint8(97)) < np.uint8(26)
    part = letter | (np.uint8(byte - np.uint8(48)) < np.uint8(10)) | (byte == np.uint8(95))
    blank = (byte <= np.uint8(32)) | (byte == np.uint8(127))
    kind = np.uint8(WORD) if part else np.uint8(SPACE) if blank else np.uint8(SIGN)
    lower = np.uint8(byte + np.uint8(32)) if upper else byte
    return np.uint32(np.uint32(kind) << np.uint32(24)) | np.uint32(lower)


@jit
def decode(data: U8, start: int, end: int, codes: U32) -> Any:
    """Code points in lower case, each with its class above bit 24, into `codes`; returns how many. Bytes that are no UTF-8 give
    some code point."""
    own, high = data[start:end], np.uint8(0)
    for at in range(len(own)):
        high |= own[at]
    if high < 128:
        for at in range(len(own)):
            codes[at] = _ascii(own[at])
        return len(own)
    count = 0
    at = start
    while at < end:
        if data[at] < 128:
            codes[count] = _ascii(data[at])
            at += 1
            count += 1
            continue
        code, more = np.uint32(data[at]), 0
        if code >= 0xF0:
            code, more = code & np.uint32(7), 3
        elif code >= 0xE0:
            code, more = code & np.uint32(15), 2
        elif code >= 0xC0:
            code, more = code & np.uint32(31), 1
        for further in range(at + 1, min(at + 1 + more, end)):
            code = code << np.uint32(6) | np.uint32(data[further] & 63)
        at += 1 + more
        kind = np.uint32(CLASSES[code]) if code < 0x10000 else np.uint32(ALONE if 0x20000 <= code < 0x40000 else SIGN)
        codes[count] = kind << np.uint32(24) | code
        count += 1
    return count


@jit
def _numbers(data: U8, offsets: I64, found: U64) -> None:
    longest = 0
    for text in range(len(found)):
        longest = max(longest, offsets[text + 1] - offsets[text])
    codes = np.empty(longest + 1, np.uint32)
    for text in range(len(found)):
        count = decode(data, offsets[text], offsets[text + 1], codes)
        number, inside, sign = BASIS, False, np.uint32(0)
        for at in range(count + 1):
            code = codes[at] & np.uint32(0xFFFFFF) if at < count else np.uint32(0)
            digit = DIGITS[code] if code < 0x10000 else np.uint8(255)
            if digit != 255:
                if sign:
                    number = (number ^ np.uint64(sign)) * PRIME
                number = (number ^ np.uint64(digit)) * PRIME
                inside, sign = True, np.uint32(0)
            elif inside and not sign and code in (44, 46):
                sign = code
            elif inside:
                found[text] += mix(number) | np.uint64(1)
                number, inside, sign = BASIS, False, np.uint32(0)


@jit
def read(codes: U32, count: int, words: U32, found: U32) -> Any:
    """Shingles of one text (its code points, from `decode`) into `found`; returns how many, the number of words, and the hash of
    the normalised text. `words` and `found` need as many places as there are code points."""
    content, word, inside = BASIS, BASIS, False
    number = 0
    for at in range(count + 1):
        kind = codes[at] >> np.uint32(24) if at < count else np.uint32(SPACE)
        if kind == WORD:
            word = (word ^ np.uint64(codes[at])) * PRIME
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
        mixed = mix((BASIS ^ np.uint64(codes[at])) * PRIME)
        if kind == ALONE:
            words[number] = np.uint32(mixed & _LOW)
            number += 1
        content = (content ^ mixed) * _P
        content ^= content >> _32
    if number < WORDS:
        return _characters(codes, count, found), number, content
    for at in range(number - 1):
        both = np.uint64(words[at]) << _32 | np.uint64(words[at + 1])
        found[at] = np.uint32(mix(both * _P) & _LOW)
    return number - 1, number, content


@jit
def _characters(codes: U32, count: int, found: U32) -> Any:
    """Runs of four characters, white space as one blank; a shorter text is one run."""
    last, blank = np.uint64(0), np.uint64(SPACE)
    size = made = 0
    for at in range(count):
        code = np.uint64(codes[at] & np.uint32(0xFFFFFF))
        if codes[at] >> np.uint32(24) == SPACE:
            blank = np.uint64(32)
            continue
        for one in (blank, code):
            if one == 0 or (size == 0 and one == 32):
                continue
            last = last << np.uint64(16) | (one ^ one >> np.uint64(16)) & np.uint64(0xFFFF)
            size += 1
            if size >= CHARACTERS:
                found[made] = np.uint32(mix(last * PRIME + BASIS) & _LOW)
                made += 1
        blank = np.uint64(0)
    if size and not made:
        found[0] = np.uint32(mix(last * PRIME + BASIS) & _LOW)
        made = 1
    return made


class Signed(NamedTuple):
    """Signatures of texts (n)."""

    guards: U64
    """Only texts of equal guards can be duplicates (n,)."""
    contents: U64
    """Hash of the normalised text and its guard (n,)."""
    words: I32
    """Number of words (n,)."""
    bands: U32
    """Band keys (BANDS, n): those of other guards differ as much as those of other texts, and so do those of texts without
    shingles. 32 bits: of 1e8 texts two in a hundred share one by chance, and are told apart by their sketches."""
    sketches: U8
    """Low bits of each slot (n, SLOTS)."""
    shingles: U32
    """The shingles of all texts, one after the other."""
    starts: I64
    """Where those of each text begin (n,)."""
    sizes: I64
    """How many it has (n,); distinct ones and in order once `ordered`."""
    ordered: Bits
    """Whether its shingles are in order yet (n,): they are put so when they are first compared."""

    def take(self, rows: I64) -> "Signed":
        """The signatures of some of the texts; their shingles are not copied."""
        return self._replace(
            guards=self.guards[rows], contents=self.contents[rows], words=self.words[rows], bands=self.bands[:, rows],
            sketches=self.sketches[rows], starts=self.starts[rows], sizes=self.sizes[rows], ordered=self.ordered[rows],
        )  # fmt: skip


def signed(texts: pa.Array, guards: U64) -> Signed:
    """Sign texts; only those of equal guards (n,) can be duplicates. Takes 280 bytes each, and 4 for each shingle."""
    data, offsets = normalised(texts)
    rows = len(offsets) - 1
    contents, words, sizes = np.empty(rows, np.uint64), np.empty(rows, np.int32), np.empty(rows, np.int64)
    bands, sketches = np.empty((BANDS, rows), np.uint32), np.empty((rows, SLOTS), np.uint8)
    # As many places as there are bytes are reserved, and few of them touched.
    shingles = np.empty(int(offsets[-1] - offsets[0]) + 4, np.uint32)
    made = Signed(guards, contents, words, bands, sketches, shingles, sizes, sizes, np.zeros(rows, np.bool_))
    used = _sign(data, offsets, made)
    return made._replace(shingles=shingles[:used], starts=np.cumsum(sizes) - sizes)


def joined(parts: Sequence[Signed]) -> Signed:
    """One table of signatures from several, in their order."""
    columns = {name: [getattr(part, name) for part in parts] for name in Signed._fields}
    made = {name: np.concatenate(columns[name], axis=1 if name == "bands" else 0) for name in Signed._fields}
    first = np.cumsum([0, *(len(part.shingles) for part in parts[:-1])])
    made["starts"] = np.concatenate([part.starts + at for part, at in zip(parts, first, strict=True)])
    return Signed(**made)


@jit
def _sign(data: U8, offsets: I64, texts: Signed) -> Any:
    """Fill in the signatures of a chunk; returns how many shingles there are."""
    longest = 0
    for text in range(len(texts.guards)):
        longest = max(longest, offsets[text + 1] - offsets[text])
    codes, tokens = np.empty(longest + 1, np.uint32), np.empty(longest + 1, np.uint32)
    least = np.empty(SLOTS, np.uint32)
    used = 0
    for text in range(len(texts.guards)):
        guard, found = texts.guards[text], texts.shingles[used:]
        length = decode(data, offsets[text], offsets[text + 1], codes)
        count, number, content = read(codes, length, tokens, found)
        texts.contents[text] = mix(content ^ guard * _P)
        texts.words[text], texts.sizes[text] = number, count
        used += count
        for slot in range(SLOTS):
            least[slot] = np.uint32(0xFFFFFFFF)
        for further in range(count, -(-count // 4) * 4):
            found[further] = found[0]
        for shingle in range(0, count, 4):  # four at once: slots are loaded and stored a quarter as often
            h, i, j, k = found[shingle], found[shingle + 1], found[shingle + 2], found[shingle + 3]
            for slot in range(SLOTS):
                a, b = FACTORS[slot], SHIFTS[slot]
                first = min(np.uint32(a * h + b), np.uint32(a * i + b))
                other = min(np.uint32(a * j + b), np.uint32(a * k + b))
                least[slot] = min(least[slot], min(first, other))  # noqa: PLW3301 - a chain of two is what vectorises
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
def estimate(texts: Signed, one: int, other: int) -> Any:
    """Jaccard similarity by two sketches; a slot agrees by chance in 1 of 256."""
    first, second = texts.sketches[one], texts.sketches[other]
    count = np.uint8(0)  # of 128 at most: so narrow that one instruction compares 64 slots
    for slot in range(SLOTS):
        count = np.uint8(count + np.uint8(first[slot] == second[slot]))
    same = np.float64(count)
    return (same / SLOTS - 1 / 256) / (1 - 1 / 256)


@jit
def jaccard(texts: Signed, one: int, other: int) -> Any:
    """Jaccard similarity of two texts by their shingles; 0 where neither has any."""
    for text in (one, other):
        if not texts.ordered[text]:
            _order(texts, text)
    a, b = texts.starts[one], texts.starts[other]
    end, finish = a + texts.sizes[one], b + texts.sizes[other]
    both = 0
    while a < end and b < finish:
        first, second = texts.shingles[a], texts.shingles[b]
        both += first == second
        a += first <= second
        b += second <= first
    together = texts.sizes[one] + texts.sizes[other] - both
    return both / together if together else 0.0


@jit
def ordered(texts: Signed) -> None:
    """Put the shingles of all texts in order, each distinct one once."""
    for text in range(len(texts.guards)):
        if not texts.ordered[text]:
            _order(texts, text)


@jit
def _order(texts: Signed, text: int) -> None:
    own = texts.shingles[texts.starts[text] : texts.starts[text] + texts.sizes[text]]
    if len(own) > 64:
        own.sort()
    else:  # by insertion: several times as fast as a general sort
        for at in range(1, len(own)):
            value, place = own[at], at
            while place > 0 and own[place - 1] > value:
                own[place] = own[place - 1]
                place -= 1
            own[place] = value
    kept = 0
    for at in range(len(own)):
        if at == 0 or own[at] != own[at - 1]:
            own[kept] = own[at]
            kept += 1
    texts.sizes[text], texts.ordered[text] = kept, True
