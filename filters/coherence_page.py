"""Texts of a batch laid end to end as arrays of characters: what is prose in them, its words and its windows.

Everything here is columnar: a pass over characters is numpy's, Python sees a text, a masked span or a finding, never a character.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]

WINDOW = 250
"""Longest window, in characters: a paragraph is cut into equal windows of at most so many."""
SPACE, LOWER, UPPER, LETTER, DIGIT, POINT, SYMBOL, OTHER = range(8)
"""Kinds of characters: LETTER is one outside ASCII, POINT the punctuation of prose, SYMBOL that of code."""
CLASSES = 40
"""Classes that the spelling model tells apart: letters without case, a space, a digit, an apostrophe, groups of signs."""
BLANK, DIGITS, APOSTROPHE = 26, 27, 28

_SIGNS = {
    29: ".",
    30: ",",
    31: "-\u2010\u2011\u2013\u2014",
    32: '"\u201c\u201d`',
    33: ";:",
    34: "!?",
    35: "([{<",
    36: ")]}>",
    37: "/\\_",
}
_CODE = "{}[]<>=;_/\\|&*+%$#@^~`"
_PLAIN = ".,;:!?'\"()-\u2018\u2019\u201c\u201d\u2013\u2014\u2026"
_MASKED = re.compile(
    # Fenced code, to the end of the text where the fence stays open.
    r"```[^\x00]*?(?:```|(?=\x00))"
    r"|``[^`\n\x00]+``|`[^`\n\x00]*`"
    # Every formula ends with its line or paragraph, so that an open one hides no more than that, and no search is long.
    r"|\$\$(?:[^$\x00\n]|\n(?!\n))*(?:\$\$)?"
    r"|\$(?=[^\s$])[^$\n\x00]*(?<=[^\s$])\$(?!\d)"
    r"|\\\((?:[^\\\n\x00]|\\[^)\n\x00])*(?:\\\))?"
    r"|\\\[(?:[^\\\x00\n]|\\[^\]\x00\n]|\n(?!\n))*(?:\\\])?"
    r"|\\begin\{(?:[^\\\x00\n]|\\(?!end\{)|\n(?!\n))*(?:\\end\{\w*\*?\})?"
    r"|\\[a-zA-Z]+(?:\{[^{}\n\x00]*\})*"
    r"|<(?=[a-zA-Z/!])[^<>\n\x00]*>"
    r"|&[a-z]+;|\]\[[^\[\]\n\x00]*\]|\]\([^()\s\x00]*\)"
)
_CODE_LINE = re.compile(
    r"(?m)^[ \t]*(?:(?:def|class|return|if|elif|else|for|while|try|except|with|print|const|let|var|function|public"
    r"|private|static|void|int|struct|func|fn|use|package|SELECT|INSERT|UPDATE|CREATE)\b[^\n\x00]*[:;{(,)}]"
    r"|from [\w.]+ import [^\n\x00]*|(?:#include|#define|//|/\*|\*/|>>>|\$ |@\w+\b(?! \w))[^\n\x00]*"
    r"|[\w.\[\]]+ ?[-+*/]?= ?[^\n\x00]*|import [\w., ]+)$"
)


@lru_cache(maxsize=1)
def _tables() -> tuple[Bytes, Bytes, Bytes]:
    """Kind, class of the spelling model and "is a sign of code", by character up to U+FFFF."""
    kinds = np.full(65536, OTHER, np.uint8)
    for code in range(65536):
        category = unicodedata.category(chr(code))
        if category[0] == "L" or category in ("Mn", "Mc"):
            kinds[code] = LETTER
        elif category[0] == "Z" or category == "Cc":
            kinds[code] = SPACE
    classes = np.full(65536, 39, np.uint8)
    kinds[33:127], classes[:128] = SYMBOL, 38
    classes[kinds == SPACE] = BLANK
    kinds[48:58], classes[48:58] = DIGIT, DIGITS
    for first, kind in ((97, LOWER), (65, UPPER)):
        kinds[first : first + 26], classes[first : first + 26] = kind, np.arange(26)
    for sign in _PLAIN:
        kinds[ord(sign)] = POINT
    for number, signs in {**_SIGNS, APOSTROPHE: "'\u2018\u2019"}.items():
        classes[[ord(sign) for sign in signs]] = number
    code_signs = np.zeros(65536, np.uint8)
    code_signs[[ord(sign) for sign in _CODE]] = 1
    return kinds, classes, code_signs


MULTIPLIER = 0x9E3779B97F4A7C15
_INVERSE = pow(MULTIPLIER, -1, 1 << 64)


@lru_cache(maxsize=4)
def _powers(count: int) -> tuple[Hashes, Hashes]:
    up, down = np.full(count, MULTIPLIER, np.uint64), np.full(count, _INVERSE, np.uint64)
    up[0] = down[0] = 1
    return np.cumprod(up, dtype=np.uint64), np.cumprod(down, dtype=np.uint64)


@dataclass(frozen=True)
class Page:
    """Texts laid end to end. C characters, D documents, W windows, N words, T tokens; positions count characters of the page."""

    text: str
    codes: npt.NDArray[np.uint32]
    kinds: Bytes
    classes: Bytes
    masked: Bits
    """C: is code, a formula, markup."""
    starts: Ints
    ends: Ints
    """D: where a document's text begins and ends."""
    document: npt.NDArray[np.int32]
    """C: the document of a character."""
    window: npt.NDArray[np.int32]
    """C: the window of a character."""
    windows: Ints
    """D: windows that hold a word."""
    token_starts: Ints
    token_ends: Ints
    word_starts: Ints
    word_ends: Ints
    word_token: Ints
    """N: the token of a word."""
    prefix_hashes: Hashes
    """C + 1: sums from which `hashes` takes the hash of any piece."""

    def hashes(self, starts: Ints, ends: Ints) -> Hashes:
        """Hash of pieces, letters without case: equal for equal pieces wherever they stand."""
        down = _powers(_room(len(self.codes)))[1]
        return mixed((self.prefix_hashes[ends] - self.prefix_hashes[starts]) * down[starts])


def mixed(raw: Hashes) -> Hashes:
    """All bits of the sums in all bits of the hash."""
    made = raw ^ (raw >> np.uint64(31))
    made = made * np.uint64(0xBF58476D1CE4E5B9)
    spread: Hashes = made ^ (made >> np.uint64(29))
    return spread


def word_hashes(words: Sequence[str]) -> Hashes:
    """The hashes that `Page.hashes` gives for these words."""
    if not words:
        return np.zeros(0, np.uint64)
    joined = "\x00".join(words)
    codes = _codes(joined)
    ends = np.append(np.flatnonzero(codes == 0), len(codes))
    starts = np.append(0, ends[:-1] + 1)
    up, down = _powers(_room(len(codes)))
    sums = np.append(np.uint64(0), np.cumsum(_folded(codes).astype(np.uint64) * up[: len(codes)], dtype=np.uint64))
    return mixed((sums[ends] - sums[starts]) * down[starts])


def _room(count: int) -> int:
    """The next power of two, so that few lengths of power tables are made."""
    return 1 << max(16, (count - 1).bit_length())


def _codes(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _folded(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    folded = np.where((codes - 65) < 26, codes + 32, codes)
    return np.where((codes == 0x2019) | (codes == 0x2018), np.uint32(39), folded)


def lay_out(texts: Sequence[str]) -> Page:
    """Lay out texts. Time and memory are linear in their length, whatever they hold."""
    text = "\x00" + "\x00".join(one.replace("\x00", "\x01") if "\x00" in one else one for one in texts) + "\x00"
    codes = _codes(text)
    lengths = np.fromiter((len(one) for one in texts), np.int64, len(texts))
    starts = 1 + np.append(0, np.cumsum(lengths + 1)[:-1])
    ends = starts + lengths
    document = np.repeat(np.arange(len(texts), dtype=np.int32), lengths + 1)
    document = np.append(np.int32(0), document).astype(np.int32)
    kind_of, class_of, sign_of = _tables()
    near = np.minimum(codes, 0xFFFF)
    kinds = kind_of[near]
    masked = _spans_masked(text, len(codes))
    breaks = (codes == 10) | (codes == 0)
    masked |= _code_lines(text, kinds, sign_of[near], breaks, masked)
    masked |= breaks
    kinds = np.where(masked, np.uint8(SPACE), kinds)
    before = _runs(kinds != SPACE)
    apart = _formulas(codes, kinds, before) | _addresses(codes, before)
    kinds = np.where(apart, np.uint8(SPACE), kinds)
    classes = np.where(kinds == SPACE, np.uint8(BLANK), class_of[near])
    tokens = _runs(kinds != SPACE)
    words, word_token = _words(codes, kinds, tokens)
    window = _windows(codes, kinds, breaks)
    first = np.unique(window[words[0]], return_index=True)[1]
    windows = np.bincount(document[words[0][first]], minlength=len(texts))
    up = _powers(_room(len(codes)))[0]
    sums = np.empty(len(codes) + 1, np.uint64)
    sums[0] = 0
    np.cumsum(_folded(codes).astype(np.uint64) * up[: len(codes)], dtype=np.uint64, out=sums[1:])
    return Page(text, codes, kinds, classes, masked, starts, ends, document, window, windows, *tokens, *words, word_token, sums)


def _runs(inside: Bits) -> tuple[Ints, Ints]:
    """Starts and ends of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], inside, [False])).view(np.int8)))
    return edges[::2], edges[1::2]


def _formulas(codes: npt.NDArray[np.uint32], kinds: Bytes, tokens: tuple[Ints, Ints]) -> Bits:
    """Tokens such as `f(x)=x^2+1` or `3*4=12`: an operator, no word, no sign that a formula lacks."""
    letter = (kinds == LOWER) | (kinds == UPPER)
    in_word = letter.copy()
    in_word[2:] &= letter[1:-1] & letter[:-2]
    in_word[:2] = False
    near = np.minimum(codes, 0xFFFF)
    stranger = ~(letter | (kinds == DIGIT) | _FORMULA[near])
    # Letters of both cases side by side are no product of variables.
    stranger[1:] |= letter[1:] & letter[:-1] & (kinds[1:] != kinds[:-1])
    bad, operators = (_counts(found, tokens) for found in (in_word | stranger, _OPERATOR[near] & (kinds != SPACE)))
    is_formula = (bad == 0) & (operators > 0)
    return _covered(len(codes), tokens[0][is_formula], tokens[1][is_formula])


def _addresses(codes: npt.NDArray[np.uint32], tokens: tuple[Ints, Ints]) -> Bits:
    """The parts of web addresses that are no host: scheme, path and query."""
    slash = codes == 47
    at = np.flatnonzero((codes[:-2] == 58) & slash[1:-1] & slash[2:])
    token = np.searchsorted(tokens[0], at, side="right") - 1
    at, first = np.unique(token, return_index=True)[0], at[np.unique(token, return_index=True)[1]] + 3
    ends = tokens[1][at]
    slashes = np.append(np.flatnonzero(slash), len(codes))
    path = np.minimum(slashes[np.searchsorted(slashes, first)], ends)
    return _covered(len(codes), tokens[0][at], np.minimum(first, ends)) | _covered(len(codes), path, ends)


def _covered(count: int, starts: Ints, ends: Ints) -> Bits:
    """Which of `count` characters lie in the spans; spans do not overlap."""
    steps = np.zeros(count + 1, np.int8)
    real = ends > starts
    np.add.at(steps, starts[real], 1)
    np.add.at(steps, ends[real], -1)
    return np.cumsum(steps[:-1]) > 0


def _counts(found: Bits, runs: tuple[Ints, Ints]) -> Ints:
    """How many of the found lie in each run."""
    sums = np.concatenate(([0], np.cumsum(found)))
    counts: Ints = sums[runs[1]] - sums[runs[0]]
    return counts


def _marks(signs: str) -> Bits:
    made = np.zeros(65536, bool)
    made[[ord(sign) for sign in signs]] = True
    return made


_OPERATOR = _marks("+*/=^<>|\u2264\u2265\u00d7\u00f7\u00b7\u2248\u2260\u221a\u2192")
_FORMULA = _OPERATOR | _marks("-()[].,:;_%$\u03c0\u03b8\u2212\u00b2\u00b3")


def _words(codes: npt.NDArray[np.uint32], kinds: Bytes, tokens: tuple[Ints, Ints]) -> tuple[tuple[Ints, Ints], Ints]:
    """Runs of letters, an apostrophe between two of them included, and the token of each."""
    letter = (kinds == LOWER) | (kinds == UPPER) | (kinds == LETTER)
    apostrophe = (codes == 39) | (codes == 0x2019)
    apostrophe[1:-1] &= letter[:-2] & letter[2:]
    words = _runs(letter | apostrophe)
    return words, np.searchsorted(tokens[0], words[0], side="right") - 1


def _spans_masked(text: str, count: int) -> Bits:
    masked = np.zeros(count, bool)
    for match in _MASKED.finditer(text):
        masked[match.start() : match.end()] = True
    return masked


def _code_lines(text: str, kinds: Bytes, signs: Bytes, breaks: Bits, masked: Bits) -> Bits:
    """Lines that read as code without a fence: many signs of code, or the shape of a statement."""
    at = np.flatnonzero(breaks)
    if len(at) < 2:
        return np.zeros(len(kinds), bool)
    weight = np.add.reduceat(np.where(masked, 0, signs).astype(np.int32), at)
    filled = np.add.reduceat((kinds != SPACE).astype(np.int32), at)
    lengths = np.diff(np.append(at, len(kinds)))
    statement = np.zeros(len(at), bool)
    lines = np.searchsorted(at, [match.start() for match in _CODE_LINE.finditer(text)], side="right") - 1
    statement[lines.astype(np.int64)] = True
    # Code has its signs all over the line; one noisy word in a short sentence does not make it code.
    signed = np.flatnonzero((signs > 0) & ~masked)
    tokens = _runs(kinds != SPACE)
    token = np.unique(np.searchsorted(tokens[0], signed, side="right"))
    per_line = np.bincount(np.searchsorted(at, tokens[0][token - 1], side="right") - 1, minlength=len(at))
    of_line = np.bincount(np.searchsorted(at, tokens[0], side="right") - 1, minlength=len(at))
    dense = (weight * 100 >= 14 * filled) & (weight >= 4) & (per_line * 4 >= of_line) & ((per_line >= 2) | (of_line < 3))
    is_code = dense | (statement & (weight >= 1)) | (statement & (lengths < 60))
    # A line between two lines of code is one: a comment, a docstring; so is an indented one after a line of code.
    is_code[1:-1] |= is_code[:-2] & is_code[2:]
    inner = np.minimum(at + 1, len(kinds) - 1)
    is_code[1:] |= is_code[:-1] & (kinds[inner[1:]] == SPACE) & (lengths[1:] > 1)
    return np.repeat(is_code, lengths)


def _windows(codes: npt.NDArray[np.uint32], kinds: Bytes, breaks: Bits) -> npt.NDArray[np.int32]:
    """The window of every character."""
    ends = breaks.copy()
    # A line that goes on in lower case is wrapped, no paragraph of its own.
    ends[:-1] &= (codes[:-1] == 0) | (kinds[1:] != LOWER)
    at = np.flatnonzero(ends)
    lengths = np.diff(np.append(at, len(codes)))
    pieces = -(-lengths // WINDOW)
    base = np.append(0, np.cumsum(pieces)[:-1])
    offset = np.arange(len(codes)) - np.repeat(at, lengths)
    window: npt.NDArray[np.int32] = (
        np.repeat(base, lengths) + offset * np.repeat(pieces, lengths) // np.repeat(lengths, lengths)
    ).astype(np.int32)
    return window
