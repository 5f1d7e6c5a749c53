"""The words of a page with what the rules ask about them, and the rule for words that no list contains."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from filters.coherence.masks import DIGIT, LETTER, LOWER, SYMBOL, UPPER, Bits, Bytes, Ints
from filters.coherence.model import English
from filters.coherence.page import BLANK, CLASSES, Findings, Hashes, Page, word_hashes

MIN_WORDS = 5
MIN_FUNCTION_SHARE = 0.18
LONGEST = 30
"""Letters. Longer words are left to the spelling rule."""


@dataclass(frozen=True)
class Words:
    """Properties of the N words of a page."""

    hashes: Hashes
    """Without a possessive ending."""
    ends: Ints
    prose: Bits
    """Lies in a window that reads as English prose."""
    plain: Bits
    """Its token is words and the punctuation of prose: no digit, no sign of code, not quoted by itself."""
    capitals: Ints
    length: Ints


def words_of(page: Page, english: English) -> tuple[Words, Bits]:
    """The words, and for each window whether it is English prose."""
    starts, ends = page.word_starts, page.word_ends.copy()
    possessive = (ends - starts > 3) & (np.minimum(page.codes[ends - 1] | 32, 127) == 115) & ~is_letter(page.kinds[ends - 2])
    ends[possessive] -= 2
    hashes = page.hashes(starts, ends)
    technical_signs = np.concatenate(([0], np.cumsum((page.kinds == SYMBOL) | (page.kinds == DIGIT))))
    first = page.codes[page.token_starts]
    quoted = (first == 39) | (first == 0x2018) | (first == 34)
    technical = (technical_signs[page.token_ends] != technical_signs[page.token_starts]) | quoted
    plain = ~technical[page.word_token]
    window = page.window[starts]
    count = int(page.window[-1]) + 1
    total = np.bincount(window, plain, minlength=count)
    function = np.bincount(window, plain & english.is_function_word(page.hashes(starts, page.word_ends)), minlength=count)
    prose = (total >= MIN_WORDS) & (function >= MIN_FUNCTION_SHARE * total)
    capitals = np.concatenate(([0], np.cumsum(page.kinds == UPPER)))
    return Words(hashes, ends, prose[window], plain, capitals[ends] - capitals[starts], ends - starts), prose


def is_letter(kinds: Bytes) -> Bits:
    """Whether characters of these kinds are letters."""
    return np.isin(kinds, (LOWER, UPPER, LETTER))


def document_salt(page: Page, positions: Ints) -> Hashes:
    """A number for the document of each position, so that equal words of two documents have different keys."""
    return page.document[positions].astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93)


def unknown_words(page: Page, english: English, words: Words) -> dict[str, Findings]:
    """Find words in lower case that no list contains and that occur once in their text.

    `letters`: scored by the mean surprisal of their spelling. `glued`: two common words in one.
    """
    first_only = (words.capitals == 1) & (page.kinds[page.word_starts] == UPPER)
    eligible = words.prose & words.plain & ((words.capitals == 0) | first_only) & (words.length >= 4) & (words.length <= LONGEST)
    rows = np.flatnonzero(eligible & ~english.known.holds(words.hashes))
    rows = rows[~_repeated(page, words, rows)]
    rows = rows[~_derived(page, english, words, rows)]
    starts, ends = page.word_starts[rows], words.ends[rows]
    foreign = np.concatenate(([0], np.cumsum(page.kinds == LETTER)))
    native = foreign[starts] == foreign[ends]
    rows, starts, ends = rows[native], starts[native], ends[native]
    surprisal = _mean_surprisal(page, english, starts, ends)
    lower = words.capitals[rows] == 0  # a word with a capital is a name
    scores = _split_scores(page, english, starts, ends)
    glued = scores > np.where(lower, 0, 1)
    return {
        "letters": Findings.of(starts[lower], ends[lower], surprisal[lower]),
        "glued": Findings.of(starts[glued], ends[glued], scores[glued]),
    }


def _repeated(page: Page, words: Words, rows: Ints) -> Bits:
    """Which words occur twice or more in their text: those are names and terms, not splices."""
    if not len(rows):
        return np.zeros(0, bool)
    keys = words.hashes ^ document_salt(page, page.word_starts)
    ordered = np.sort(keys)
    repeated: Bits = np.searchsorted(ordered, keys[rows], side="right") - np.searchsorted(ordered, keys[rows]) > 1
    return repeated


_PREFIXES = (
    "anti auto be bi co counter de dis down en fore hyper in inter intra macro mega meta micro mid mini mis mono multi nano non "
    "off on out over para poly post pre pro proto pseudo quasi re semi sub super tele trans ultra un under up"
).split()
_SUFFIXES = (
    "able ables ably age ed en er ers es est ful hood ible ic ically ified ifier ifies ify ifying ing ings ish ism isation ise "
    "ised iser ises ising ist istic ists ity ization ize ized izer izers izes izing less like ly ment ments ness ous s ship "
    "wise y"
).split()


def _derived(page: Page, english: English, words: Words, rows: Ints) -> Bits:
    """Which words are known words with a usual prefix or suffix: tokenizers, renumbered."""
    starts, ends = page.word_starts[rows], words.ends[rows]
    derived = np.zeros(len(rows), bool)
    for affixes, front in ((_PREFIXES, True), (_SUFFIXES, False)):
        for length in sorted({len(affix) for affix in affixes}):
            wanted = np.sort(word_hashes([affix for affix in affixes if len(affix) == length]))
            long = ends - starts >= length + (3 if front else 4)
            cut = np.where(long, starts + length if front else ends - length, starts)
            piece = page.hashes(starts, cut) if front else page.hashes(cut, ends)
            hit = long & np.isin(piece, wanted)
            stem = (cut, ends) if front else (starts, cut)
            derived |= hit & english.known.holds(page.hashes(*stem))
            if not front:
                # Stems that double a letter (tagged).
                doubled = long & (page.codes[np.maximum(cut - 1, 0)] == page.codes[np.maximum(cut - 2, 0)])
                derived |= hit & doubled & english.known.holds(page.hashes(starts, np.where(doubled, cut - 1, starts)))
    return derived


def _mean_surprisal(page: Page, english: English, starts: Ints, ends: Ints) -> npt.NDArray[np.float64]:
    """Mean bits per character of words, including the space after them. Their neighbours count as spaces."""
    if not len(starts):
        return np.zeros(0)
    lengths = ends - starts + 4
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    position = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) - 3 + np.repeat(starts, lengths)
    inside = (position >= np.repeat(starts, lengths)) & (position < np.repeat(ends, lengths))
    classes = np.where(inside, page.classes[np.clip(position, 0, len(page.classes) - 1)], BLANK).astype(np.int64)
    grams = ((classes[:-3] * CLASSES + classes[1:-2]) * CLASSES + classes[2:-1]) * CLASSES + classes[3:]
    surprisal = np.concatenate((english.spelling[grams], [0, 0, 0])).astype(np.float64)
    # A word of n letters has n + 1 grams, counted from its first three spaces.
    sums = np.concatenate(([0.0], np.cumsum(surprisal)))
    means: npt.NDArray[np.float64] = (sums[offsets[1:] - 3] - sums[offsets[:-1]]) / (10 * (ends - starts + 1))
    return means


def _split_scores(page: Page, english: English, starts: Ints, ends: Ints) -> npt.NDArray[np.float64]:
    """How well words split into two common ones: 0 not at all, 1 both common, 2 one of them a function word, 3 both."""
    scores = np.zeros(len(starts))
    if not len(starts):
        return scores
    cuts = ends - starts - 3
    word = np.repeat(np.arange(len(starts)), cuts)
    cut = np.arange(len(word)) - np.repeat(np.concatenate(([0], np.cumsum(cuts)[:-1])), cuts) + starts[word] + 2
    left, right = page.hashes(starts[word], cut), page.hashes(cut, ends[word])
    both = english.common.holds(left) & english.common.holds(right)
    rank = both * (1.0 + english.is_function_word(left) + english.is_function_word(right))
    np.maximum.at(scores, word, rank)
    return scores
