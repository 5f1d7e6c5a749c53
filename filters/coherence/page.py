"""Lay the texts of a batch end to end as arrays of characters, words and windows.

Everything is columnar: numpy passes over characters; Python handles texts, masked spans and findings, never single characters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from filters.coherence.masks import (
    KINDS,
    LETTER,
    LOWER,
    SPACE,
    UPPER,
    Bits,
    Bytes,
    Codes,
    Ints,
    Spans,
    addresses,
    formulas,
    masked_characters,
    runs,
)

Hashes = npt.NDArray[np.uint64]

WINDOW = 250
"""Characters of the longest window. A longer paragraph is cut into equal windows."""
TECHNICAL_SPANS = 2
"""Pieces of code, formulas, links or other markup that make a text technical. A single one may be noise itself."""
CLASSES = 40
"""Classes of the spelling model: letters without case, a space, a digit, an apostrophe, groups of signs."""
BLANK, DIGITS, APOSTROPHE = 26, 27, 28
MULTIPLIER = 0x9E3779B97F4A7C15
_INVERSE = pow(MULTIPLIER, -1, 1 << 64)

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


def _class_table() -> Bytes:
    """Class in the spelling model of each character up to U+FFFF."""
    classes = np.full(65536, 39, np.uint8)
    classes[:128] = 38
    classes[KINDS == SPACE] = BLANK
    classes[48:58] = DIGITS
    classes[97:123] = classes[65:91] = np.arange(26)
    for number, signs in {**_SIGNS, APOSTROPHE: "'\u2018\u2019"}.items():
        classes[[ord(sign) for sign in signs]] = number
    return classes


_CLASS_TABLE = _class_table()


@dataclass(frozen=True)
class Findings:
    """What a rule found: spans of the page, and how odd each is (higher is odder)."""

    starts: Ints
    ends: Ints
    scores: npt.NDArray[np.float64]

    @classmethod
    def of(cls, starts: Ints, ends: Ints, scores: npt.NDArray[np.floating] | npt.NDArray[np.integer]) -> "Findings":
        """Build findings from arrays of any number type."""
        return cls(starts.astype(np.int64), ends.astype(np.int64), scores.astype(np.float64))

    @classmethod
    def sure(cls, spans: Sequence[tuple[int, int]]) -> "Findings":
        """Build findings from spans that need no threshold; each scores 1."""
        both = np.array(spans, np.int64).reshape(-1, 2)
        return cls.of(both[:, 0], both[:, 1], np.ones(len(both)))


@dataclass(frozen=True)
class Page:
    """Texts laid end to end. C characters, D documents, W windows, N words, T tokens; positions count characters of the page."""

    text: str
    codes: Codes
    """C: code points."""
    kinds: Bytes
    """C: kinds of filters.coherence.masks; what is masked is SPACE."""
    classes: Bytes
    """C: classes of the spelling model."""
    masked: Bits
    """C: belongs to code, a formula or markup."""
    starts: Ints
    ends: Ints
    """D: where the text of a document starts and ends."""
    document: npt.NDArray[np.int32]
    """C: the document of a character."""
    window: npt.NDArray[np.int32]
    """C: the window of a character."""
    windows: Ints
    """D: number of windows that hold a word."""
    technical: Bits
    """D: the text holds code, formulas, links or other markup in several places."""
    token_starts: Ints
    token_ends: Ints
    word_starts: Ints
    word_ends: Ints
    word_token: Ints
    """N: the token of a word."""
    prefix_hashes: Hashes
    """C + 1: sums from which `hashes` takes the hash of any piece."""
    inverse_powers: Hashes
    """C: powers of the multiplier's inverse, for the same."""

    def hashes(self, starts: Ints, ends: Ints) -> Hashes:
        """Hash of each piece, ignoring the case of ASCII letters: equal pieces have equal hashes wherever they lie."""
        if not len(starts):
            return np.zeros(0, np.uint64)
        return mixed((self.prefix_hashes[ends] - self.prefix_hashes[starts]) * self.inverse_powers[starts])


def mixed(raw: Hashes) -> Hashes:
    """Spread all bits of the sums over all bits of the hash."""
    first = raw ^ (raw >> np.uint64(31))
    first = first * np.uint64(0xBF58476D1CE4E5B9)
    spread: Hashes = first ^ (first >> np.uint64(29))
    return spread


def word_hashes(words: Sequence[str]) -> Hashes:
    """The hashes that `Page.hashes` gives for these words."""
    if not words:
        return np.zeros(0, np.uint64)
    codes = _codes("\x00".join(words))
    ends = np.append(np.flatnonzero(codes == 0), len(codes))
    starts = np.append(0, ends[:-1] + 1)
    sums, inverses = _prefix_hashes(codes)
    return mixed((sums[ends] - sums[starts]) * inverses[starts])


def _codes(text: str) -> Codes:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _prefix_hashes(codes: Codes) -> tuple[Hashes, Hashes]:
    """Prefix sums (C + 1,) of the folded characters weighted by powers of the multiplier, and the inverse powers (C,)."""
    folded = np.where((codes - 65) < 26, codes + 32, codes)
    folded = np.where((codes == 0x2019) | (codes == 0x2018), np.uint32(39), folded)
    sums = np.empty(len(codes) + 1, np.uint64)
    sums[0] = 0
    np.cumsum(folded.astype(np.uint64) * _powers(MULTIPLIER, len(codes)), dtype=np.uint64, out=sums[1:])
    return sums, _powers(_INVERSE, len(codes))


def _powers(base: int, count: int) -> Hashes:
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)


def lay_out(texts: Sequence[str]) -> Page:
    """Lay out texts. Time and memory are linear in their length, whatever they contain."""
    # A null character marks the borders of the texts, so it must not occur inside one.
    text = "\x00" + "\x00".join(text.replace("\x00", "\x01") for text in texts) + "\x00"
    codes = _codes(text)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    starts = 1 + np.append(0, np.cumsum(lengths + 1)[:-1])
    document = np.append(np.int32(0), np.repeat(np.arange(len(texts), dtype=np.int32), lengths + 1)).astype(np.int32)
    breaks = (codes == 10) | (codes == 0)
    kinds, masked = _kinds(text, codes, breaks)
    classes = np.where(kinds == SPACE, np.uint8(BLANK), _CLASS_TABLE[np.minimum(codes, 0xFFFF)])
    tokens = runs(kinds != SPACE)
    words, word_token = _words(codes, kinds, tokens)
    window = _windows(codes, kinds, breaks)
    first_words = np.unique(window[words[0]], return_index=True)[1]
    prefix_hashes, inverse_powers = _prefix_hashes(codes)
    return Page(
        text=text,
        codes=codes,
        kinds=kinds,
        classes=classes,
        masked=masked,
        starts=starts,
        ends=starts + lengths,
        document=document,
        window=window,
        windows=np.bincount(document[words[0][first_words]], minlength=len(texts)),
        technical=np.bincount(document[runs(masked & ~breaks)[0]], minlength=len(texts)) >= TECHNICAL_SPANS,
        token_starts=tokens[0],
        token_ends=tokens[1],
        word_starts=words[0],
        word_ends=words[1],
        word_token=word_token,
        prefix_hashes=prefix_hashes,
        inverse_powers=inverse_powers,
    )


def _kinds(text: str, codes: Codes, breaks: Bits) -> tuple[Bytes, Bits]:
    """Kind of each character, SPACE for all that is not prose; and which characters are masked."""
    kinds = KINDS[np.minimum(codes, 0xFFFF)]
    masked = masked_characters(text, codes, kinds, breaks) | breaks
    kinds = np.where(masked, np.uint8(SPACE), kinds)
    tokens = runs(kinds != SPACE)
    not_prose = formulas(codes, kinds, tokens) | addresses(codes, tokens)
    return np.where(not_prose, np.uint8(SPACE), kinds), masked


def _words(codes: Codes, kinds: Bytes, tokens: Spans) -> tuple[Spans, Ints]:
    """Runs of letters, including an apostrophe between two of them, and the token of each."""
    letter = (kinds == LOWER) | (kinds == UPPER) | (kinds == LETTER)
    apostrophe = (codes == 39) | (codes == 0x2019)
    apostrophe[1:-1] &= letter[:-2] & letter[2:]
    words = runs(letter | apostrophe)
    return words, np.searchsorted(tokens[0], words[0], side="right") - 1


def _windows(codes: Codes, kinds: Bytes, breaks: Bits) -> npt.NDArray[np.int32]:
    """The window of every character."""
    ends = breaks.copy()
    # A line that starts in lower case continues the paragraph before it.
    ends[:-1] &= (codes[:-1] == 0) | (kinds[1:] != LOWER)
    starts = np.flatnonzero(ends)
    lengths = np.diff(np.append(starts, len(codes)))
    pieces = -(-lengths // WINDOW)
    base = np.append(0, np.cumsum(pieces)[:-1])
    offset = np.arange(len(codes)) - np.repeat(starts, lengths)
    window: npt.NDArray[np.int32] = (
        np.repeat(base, lengths) + offset * np.repeat(pieces, lengths) // np.repeat(lengths, lengths)
    ).astype(np.int32)
    return window
