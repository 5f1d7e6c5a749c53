"""Read the bytes of an Arrow string column in compiled code: normalised characters with their classes.

A text is normalised by NFKC and lower case. Its characters are white space, parts of words (letters, digits and marks of any
script), letters of scripts without spaces, each of which is a word of its own, and single signs.
"""

import hashlib
import unicodedata
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from platformdirs import user_cache_path

from filters.chunks import CHUNK_BYTES

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
"""Value of each decimal digit of the basic plane, 255 for all other code points."""
PRIME = np.uint64(0x100000001B3)
BASIS = np.uint64(0xCBF29CE484222325)
_Q = np.uint64(0xFF51AFD7ED558CCD)
_HALF = np.uint64(33)


def _cache_folder() -> str:
    """Folder of compiled code, a different one for each version of this package's files. numba's own cache checks only the file
    of a function, so it would keep code that was compiled with an earlier version of functions in other files."""
    sources = hashlib.blake2b(digest_size=8)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        sources.update(path.read_bytes())
    return str(Path(numba.config.CACHE_DIR or user_cache_path("thresher") / "numba") / sources.hexdigest())


_CACHE_FOLDER = _cache_folder()


def jit(function: Any) -> Any:
    """Compile a function at its first call and store it on disk. It runs without the GIL."""
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, _CACHE_FOLDER
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    finally:
        numba.config.CACHE_DIR = before


def normalised(texts: pa.Array) -> tuple[U8, I64]:
    """The bytes (N,) of texts after NFKC and lower case, and the start of each text (texts + 1,). ASCII is not copied, because
    the kernel converts it to lower case while reading. A null is an empty text."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.cast(pa.large_string()) if texts.nbytes > CHUNK_BYTES else texts
        texts = texts.combine_chunks() if texts.num_chunks != 1 else texts.chunk(0)
    if texts.null_count:
        texts = pc.fill_null(texts, "")
    data, offsets = _buffers(texts)
    foreign = np.asarray(_texts_beyond_ascii(data, offsets), np.int64)
    if not len(foreign):
        return data, offsets
    converted = pc.utf8_lower(pc.utf8_normalize(texts.take(pa.array(foreign)).cast(pa.large_string()), form="NFKC"))
    mask = np.zeros(len(texts), bool)
    mask[foreign] = True
    return _buffers(pc.replace_with_mask(texts.cast(pa.large_string()), pa.array(mask), converted))


def _buffers(texts: pa.Array) -> tuple[U8, I64]:
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        texts = texts.cast(pa.large_string())
    kind = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    _, offsets, data = texts.buffers()
    if not len(texts):
        return np.frombuffer(b"\0", np.uint8), np.zeros(1, np.int64)
    starts = np.frombuffer(offsets, kind)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    return np.frombuffer(data if data is not None and data.size else b"\0", np.uint8), starts


@jit
def _texts_beyond_ascii(data: U8, offsets: I64) -> Any:
    """The texts that hold a byte above 127."""
    rows = np.empty(len(offsets) - 1, np.int64)
    count = 0
    for text in range(len(offsets) - 1):
        content, high = data[offsets[text] : offsets[text + 1]], np.uint8(0)
        for position in range(len(content)):
            high |= content[position]
        if high > 127:
            rows[count] = text
            count += 1
    return rows[:count]


@jit
def mix(value: Any) -> Any:
    """Spread all bits of a hash over all its bits."""
    value ^= value >> _HALF
    value *= _Q
    value ^= value >> _HALF
    return value


@jit
def _ascii(byte: Any) -> Any:
    """Lower case and class of a byte of ASCII, by comparisons alone, so that the compiler vectorises it."""
    upper = np.uint8(byte - np.uint8(65)) < np.uint8(26)
    letter = np.uint8((byte | np.uint8(32)) - np.uint8(97)) < np.uint8(26)
    part = letter | (np.uint8(byte - np.uint8(48)) < np.uint8(10)) | (byte == np.uint8(95))
    blank = (byte <= np.uint8(32)) | (byte == np.uint8(127))
    kind = np.uint8(WORD) if part else np.uint8(SPACE) if blank else np.uint8(SIGN)
    lower = np.uint8(byte + np.uint8(32)) if upper else byte
    return np.uint32(np.uint32(kind) << np.uint32(24)) | np.uint32(lower)


@jit
def decode(data: U8, start: int, end: int, codes: U32) -> Any:
    """Write code points in lower case, with their class above bit 24, into `codes`; return their number. Invalid UTF-8 gives
    arbitrary code points."""
    content, high = data[start:end], np.uint8(0)
    for position in range(len(content)):
        high |= content[position]
    if high < 128:
        for position in range(len(content)):
            codes[position] = _ascii(content[position])
        return len(content)
    count = 0
    position = start
    while position < end:
        if data[position] < 128:
            codes[count] = _ascii(data[position])
            position += 1
            count += 1
            continue
        code, more = np.uint32(data[position]), 0
        if code >= 0xF0:
            code, more = code & np.uint32(7), 3
        elif code >= 0xE0:
            code, more = code & np.uint32(15), 2
        elif code >= 0xC0:
            code, more = code & np.uint32(31), 1
        for further in range(position + 1, min(position + 1 + more, end)):
            code = code << np.uint32(6) | np.uint32(data[further] & 63)
        position += 1 + more
        kind = np.uint32(CLASSES[code]) if code < 0x10000 else np.uint32(ALONE if 0x20000 <= code < 0x40000 else SIGN)
        codes[count] = kind << np.uint32(24) | code
        count += 1
    return count


@jit
def longest_text(offsets: I64) -> Any:
    """Bytes of the longest text."""
    longest = 0
    for text in range(len(offsets) - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    return longest
