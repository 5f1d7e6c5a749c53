"""What tells the meanings of two alike texts apart: their numbers in order, signs, operators, comparisons, units, dates,
negations, and the indentation of their lines. Texts that differ in any of these are no duplicates, however alike they are.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from filters.maths.quantities import UNITS
from filters.similarity.kernel import (
    BASIS,
    DIGITS,
    I64,
    PRIME,
    SIGN,
    SPACE,
    U8,
    U32,
    U64,
    decode,
    jit,
    longest_text,
    mix,
    normalised,
)

_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion half twice double triple "
    "plus minus times divided multiplied add adds added subtract subtracts subtracted multiply divide increase increases "
    "increased decrease decreases decreased sum difference product quotient square cube root negative positive "
    "less fewer more greater larger smaller least most max min maximum minimum floor ceil "
    "not no never none neither nor without except true false or xor "
    "january february march april june july august september october november december "
    "monday tuesday wednesday thursday friday saturday sunday today tomorrow yesterday am pm noon midnight "
    "le leq ge geq lt gt ne neq times cdot div pm mp frac sqrt sin cos tan log ln exp sum prod int"
).split()
"""Words that count wherever they stand."""


def _hash(word: str) -> int:
    value = int(BASIS)
    for mark in word:
        value = (value ^ ord(mark)) * int(PRIME) % 2**64
    return value


_ALWAYS = np.array(sorted({_hash(word) for word in _WORDS}), np.uint64)
_UNITS = np.array(sorted({_hash(word.lower()) for word in UNITS if word.isalpha()}), np.uint64)
_OPERATORS = np.zeros(0x10000, np.bool_)
_OPERATORS[
    [
        ord(mark)
        for mark in "+=<>^%/~&|\u00b1\u00d7\u00f7\u2260\u2264\u2265\u2248\u221a\u2211\u2212\u00ac\u2227\u2228\u2229\u222a\u2208"
    ]
] = True
"""Signs that count wherever they stand; a minus and a star do not, which Markdown and hyphens write too."""


def meanings(texts: pa.Array, *, values: bool = True) -> U64:
    """Hash (n,) of what tells each text's meaning apart, in order; 0 for a text with none of it. Without `values` of each number
    only counts whether it is smaller or larger than the one before."""
    data, offsets = normalised(texts)
    hashes = np.zeros(len(offsets) - 1, np.uint64)
    _meanings(data, offsets, _ALWAYS, _UNITS, _OPERATORS, values, hashes)
    return hashes


@jit
def _has(known: U64, value: Any) -> Any:
    place = np.searchsorted(known, value)
    return place < len(known) and known[place] == value


@jit
def _alnum(code: Any) -> Any:
    return code >> np.uint32(24) in (1, 2)


@jit
def _counts(codes: U32, count: int, position: int, line_start: bool) -> Any:
    """Whether a minus or a star is an operator or a sign: before a number, or between two values; not as a bullet or emphasis."""
    following = position + 1
    while following < count and codes[following] >> np.uint32(24) == SPACE:
        following += 1
    if following >= count or (line_start and following > position + 1):
        return False
    after = codes[following]
    before = codes[position - 1] if position else np.uint32(0)
    place = position - 1
    while place >= 0 and codes[place] >> np.uint32(24) == SPACE:
        place -= 1
    left = codes[place] if place >= 0 else np.uint32(0)
    low = after & np.uint32(0xFFFFFF)
    digit_after = low < 0x10000 and DIGITS[low] != 255
    left_low = left & np.uint32(0xFFFFFF)
    digit_left = left_low in (41, 125) or (left_low < 0x10000 and DIGITS[left_low] != 255)
    is_minus = codes[position] & np.uint32(0xFFFFFF) == 45
    if is_minus and digit_after and not _alnum(before):
        return True
    spaced = before >> np.uint32(24) == SPACE and following > position + 1
    return (digit_left and (digit_after or _alnum(after) or low == 40)) or (
        spaced and _alnum(left) and (_alnum(after) or low == 40)
    )


@jit
def _meanings(data: U8, offsets: I64, always: U64, units: U64, operators: Any, values: bool, hashes: U64) -> None:  # noqa: PLR0917
    codes = np.empty(longest_text(offsets) + 1, np.uint32)
    for text in range(len(hashes)):
        count = decode(data, offsets[text], offsets[text + 1], codes)
        total, position = np.uint64(0), 0
        line_start, after_number, indent, last = True, False, 0, -1.0
        while position < count:
            code, kind = codes[position] & np.uint32(0xFFFFFF), codes[position] >> np.uint32(24)
            token = np.uint64(0)
            if kind == SPACE:
                if code == 10:
                    line_start, indent = True, 0
                elif line_start:
                    indent += 4 if code == 9 else 1
                position += 1
                continue
            if line_start and indent > 1:
                total = (total ^ mix(np.uint64(indent) + np.uint64(77_777))) * PRIME
            at_start, line_start = line_start, False
            if kind == SIGN:
                unequal = code == 33 and position + 1 < count and codes[position + 1] & np.uint32(0xFFFFFF) == 61
                if (
                    unequal
                    or (operators[code] if code < 0x10000 else False)
                    or (code in (45, 42) and _counts(codes, count, position, at_start))
                ):
                    token = np.uint64(code)
                position += 1
                if token:
                    total = (total ^ mix(token + np.uint64(1))) * PRIME
                    after_number = after_number and code == 37
                elif code not in (46, 44, 36):
                    after_number = False
                continue
            size, value, is_number, end = 0.0, BASIS, code < 0x10000 and DIGITS[code] != 255, position
            while end < count and _alnum(codes[end]):
                inner = codes[end] & np.uint32(0xFFFFFF)
                digit = inner < 0x10000 and DIGITS[inner] != 255
                if digit != is_number:  # 5cm
                    break
                value = (value ^ np.uint64(DIGITS[inner] + 48 if digit else inner)) * PRIME
                size = size * 10 + (DIGITS[inner] if digit else 0)
                end += 1
                if digit and end + 1 < count and codes[end] & np.uint32(0xFFFFFF) in (44, 46):
                    nearby = codes[end + 1] & np.uint32(0xFFFFFF)
                    if nearby < 0x10000 and DIGITS[nearby] != 255:
                        value = (value ^ np.uint64(codes[end] & np.uint32(0xFFFFFF))) * PRIME
                        end += 1
            if end == position:
                end += 1
            if is_number and not values:
                value = np.uint64(1 if size > last else 3 if size < last else 5)
                last = size
            if is_number or _has(always, value) or (after_number and _has(units, value)):
                total = (total ^ mix(value | np.uint64(1))) * PRIME
            after_number, position = is_number, end
        hashes[text] = total
