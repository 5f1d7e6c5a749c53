"""The rules of `coherence` that need to know English: spelling, unknown and glued words, flipped case, signs inside words.

A rule takes a page and gives what it found: where, and how odd it is. How rare such a score is on clean text, and so what is
dropped, is decided in filters.coherence; a rule reports freely.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from filters.coherence_model import English, marked, surprisals
from filters.coherence_page import (
    BLANK,
    CLASSES,
    DIGIT,
    LETTER,
    LOWER,
    SPACE,
    SYMBOL,
    UPPER,
    Bits,
    Hashes,
    Ints,
    Page,
    word_hashes,
)

DRIFT = 55
"""Tenths of a bit per character: prose has half as much, noise twice as much."""
MIN_WORDS = 5
MIN_FUNCTION_SHARE = 0.18
LONGEST = 30
"""Longer words are looked at by the spelling rule alone."""


@dataclass(frozen=True)
class Found:
    """Findings of a rule: spans of the page, and how odd each is (higher is odder)."""

    starts: Ints
    ends: Ints
    scores: npt.NDArray[np.float64]

    @classmethod
    def of(cls, starts: Ints, ends: Ints, scores: npt.NDArray[np.floating] | npt.NDArray[np.integer]) -> "Found":
        return cls(starts.astype(np.int64), ends.astype(np.int64), scores.astype(np.float64))


@dataclass(frozen=True)
class Words:
    """Words of a page with what several rules ask of them; N words."""

    hashes: Hashes
    """Without a possessive ending."""
    ends: Ints
    prose: Bits
    """N: stands in a window that reads as English prose."""
    plain: Bits
    """N: its token is words and the punctuation of prose: no digit, sign of code, nor quoted by itself."""
    capitals: Ints
    length: Ints


def words_of(page: Page, english: English) -> tuple[Words, Bits]:
    """The words, and for each window whether it is English prose."""
    starts, ends = page.word_starts, page.word_ends.copy()
    possessive = (ends - starts > 3) & (np.minimum(page.codes[ends - 1] | 32, 127) == 115) & ~_letter(page.kinds[ends - 2])
    ends[possessive] -= 2
    hashes = page.hashes(starts, ends)
    odd = np.concatenate(([0], np.cumsum((page.kinds == SYMBOL) | (page.kinds == DIGIT))))
    quote = (
        (page.codes[page.token_starts] == 39) | (page.codes[page.token_starts] == 0x2018) | (page.codes[page.token_starts] == 34)
    )
    technical = (odd[page.token_ends] != odd[page.token_starts]) | quote
    plain = ~technical[page.word_token]
    window = page.window[starts]
    count = int(page.window[-1]) + 1
    total = np.bincount(window, plain, minlength=count)
    function = np.bincount(window, plain & english.is_function_word(page.hashes(starts, page.word_ends)), minlength=count)
    prose = (total >= MIN_WORDS) & (function >= MIN_FUNCTION_SHARE * total)
    uppers = np.concatenate(([0], np.cumsum(page.kinds == UPPER)))
    words = Words(hashes, ends, prose[window], plain, uppers[ends] - uppers[starts], ends - starts)
    return words, prose


def noise(page: Page, english: English, prose: Bits) -> Found:
    """Per window of prose the run of characters that is hardest to foresee.

    The score is the run's surprisal beyond what prose has, in bits (a CUSUM): a long run of odd characters counts for more than
    a short one, and how long it is need not be known.
    """
    bits, kept = surprisals(page, english)
    if not len(bits):
        return _nothing()
    window = page.window[kept]
    begins = np.flatnonzero((np.diff(window, prepend=-1) != 0) | (np.diff(page.document[kept], prepend=-1) != 0))
    bits = np.where(_quiet(page)[kept], 0, bits)
    steps = bits - DRIFT
    # The sum falls below all before it where a window begins, so that none reaches into the next.
    fall = np.zeros(len(steps), np.int64)
    fall[begins] = int(bits.sum()) + DRIFT * len(bits) + 1 if len(bits) < 1 << 20 else 1 << 36
    sums = np.cumsum(steps - fall)
    lowest = np.minimum.accumulate(sums)
    rise = sums - lowest
    rise[~prose[window]] = 0
    worst = np.maximum.reduceat(rise, begins)
    lengths = np.diff(np.append(begins, len(rise)))
    owner = np.repeat(np.arange(len(begins)), lengths)
    at = np.flatnonzero((rise == worst[owner]) & (rise > 0))
    at = at[np.unique(owner[at], return_index=True)[1]]
    # The run begins after the last place where the sum was lowest.
    low = np.flatnonzero(sums == lowest)
    first = low[np.searchsorted(low, at) - 1] + 1
    first = np.minimum(np.maximum(first, begins[owner[at]]), at)
    return Found.of(kept[first], kept[at] + 1, rise[at] / 10)


def _quiet(page: Page) -> Bits:
    """Characters of tokens that are names and abbreviations, hard to foresee and no noise: no small letter and no sign but those
    that join (`TCA_ACT_FLAGS`, `DH/RSA/DHE-DSS`), or letters only, several of them capital (`PangoFcFont`, `zmq.POLLIN`)."""
    starts, ends = page.token_starts, page.token_ends

    def count(found: Bits) -> Ints:
        sums = np.concatenate(([0], np.cumsum(found)))
        counted: Ints = sums[ends] - sums[starts]
        return counted

    codes = np.minimum(page.codes, 127)
    letters, small = count(_letter(page.kinds)), count(page.kinds == LOWER)
    capitals, length = count(page.kinds == UPPER), ends - starts
    joined = count(_JOIN[codes] | (page.kinds == DIGIT) | (page.kinds == UPPER)) == length
    dotted = (letters + count(_DOT[codes]) == length) & (capitals >= 2)
    quiet = ((small == 0) & joined & (capitals > 0)) | dotted
    steps = np.zeros(len(page.codes) + 1, np.int8)
    np.add.at(steps, starts[quiet], 1)
    np.add.at(steps, ends[quiet], -1)
    return np.cumsum(steps[:-1]) > 0


def unknown_words(page: Page, english: English, words: Words) -> dict[str, Found]:
    """Words in lower case that no list has, used once in their text.

    `letters`: by mean surprisal of their spelling. `glued`: two common words in one. `fragments`: a piece of a common word.
    """
    first_only = (words.capitals == 1) & (page.kinds[page.word_starts] == UPPER)
    looked_at = words.prose & words.plain & ((words.capitals == 0) | first_only) & (words.length >= 4) & (words.length <= LONGEST)
    at = np.flatnonzero(looked_at & ~english.known.holds(words.hashes))
    at = at[~_repeated(page, words, at)]
    at = at[~_derived(page, english, words, at)]
    starts, ends = page.word_starts[at], words.ends[at]
    foreign = np.concatenate(([0], np.cumsum(page.kinds == LETTER)))
    native = foreign[starts] == foreign[ends]
    at, starts, ends = at[native], starts[native], ends[native]
    surprisal = _word_surprisal(page, english, starts, ends)
    low = words.capitals[at] == 0  # with a capital it is a name
    letters = Found.of(starts[low], ends[low], surprisal[low])
    scores = _split_scores(page, english, starts, ends)
    two = scores > np.where(low, 0, 1)
    glued = Found.of(starts[two], ends[two], scores[two])
    hashes = page.hashes(starts, ends)
    piece = (english.beginnings.holds(hashes) | english.endings.holds(hashes)) & ~two & low
    fragments = Found.of(starts[piece], ends[piece], surprisal[piece])
    return {"letters": letters, "glued": glued, "fragments": fragments}


def case(page: Page, english: English, words: Words) -> dict[str, Found]:
    """A capital inside a word: `camel` where two words are glued (ownYou're), `flips` where a word is one (generatiOn)."""
    raised = np.flatnonzero((page.kinds[1:] == UPPER) & (page.kinds[:-1] == LOWER)) + 1
    word = np.searchsorted(page.word_starts, raised, side="right") - 1
    inside = (word >= 0) & (raised < words.ends[word]) if len(words.ends) else np.zeros(len(raised), bool)
    raised, word = raised[inside], word[inside]
    sound = words.prose[word] & words.plain[word] & (words.length[word] <= LONGEST)
    sound &= np.bincount(word, minlength=len(words.ends))[word] == 1
    raised, word = raised[sound], word[sound]
    starts, ends = page.word_starts[word], page.word_ends[word]
    names = word_hashes([marked(page.text[a:b]) for a, b in zip(starts.tolist(), words.ends[word].tolist(), strict=True)])
    keys, times = np.unique(names ^ _salt(page, starts), return_inverse=True, return_counts=True)[1:]
    named = english.names.holds(names) | (times[keys] > 1)
    raised, word, starts, ends = raised[~named], word[~named], starts[~named], ends[~named]
    left, right = page.hashes(starts, raised), page.hashes(raised, ends)
    whole = english.known.holds(words.hashes[word])
    low_start = page.kinds[starts] == LOWER
    opens = english.openers.holds(right) | english.is_function_word(right)
    left_function = english.is_function_word(left)
    left_known = english.known.holds(left) | left_function
    both = (left_known | (opens & low_start)) & english.known.holds(right) & ((raised - starts >= 2) | left_function)
    score = (
        left_known
        + 2.0 * english.is_function_word(right)
        + 2.0 * english.openers.holds(right)
        + 0.5 * english.common.holds(right)
        + 3.0 * low_start  # identifiers begin with a capital more often than the ends of sentences do
        + left_function * (1.0 + 1.5 * ~low_start)
        + 0.5 * english.common.holds(left)
        - 3.0 * np.isin(right, _TAILS)
    )
    glue = both & ~whole
    flip = whole & (words.capitals[word] - ~low_start == 1)
    strength = 1.0 + low_start + (words.length[word] >= 6) - both
    return {
        "camel": Found.of(starts[glue], ends[glue], score[glue]),
        "flips": Found.of(starts[flip], ends[flip], strength[flip]),
    }


def full_stops(page: Page, english: English, words: Words) -> Found:
    """A sentence that begins without a space after the one before: `the end.Next we`."""
    first = page.word_starts
    stops = page.codes[first - 1]
    stop = (stops == 46) | (stops == 33) | (stops == 63)
    at = np.flatnonzero(stop & words.prose & (page.kinds[first] == UPPER) & (words.capitals == 1))
    before = first[at] - 2
    kind, code = page.kinds[before], page.codes[before]
    closed = (code == 41) | (code == 34) | (code == 39) | (code == 0x201D) | (code == 0x2019) | (code == 96)
    at = at[(kind == LOWER) | (kind == UPPER) | (kind == DIGIT) | closed]
    left = np.searchsorted(page.word_ends, first[at] - 1)
    touching = page.word_ends[np.minimum(left, len(first) - 1)] == first[at] - 1
    left = np.where(touching, left, 0)
    low = touching & (words.capitals[left] == 0) & (words.length[left] >= 2) & english.known.holds(words.hashes[left])
    right = words.hashes[at]
    other = ~touching | (words.hashes[left] != right)  # `resolver.Resolver` is a name
    at, left, touching, low, right = (one[other] for one in (at, left, touching, low, right))
    score = (
        3.0 * english.openers.holds(right)
        + english.is_function_word(right)
        + 0.5 * english.known.holds(right)
        + low
        + 0.5 * english.common.holds(words.hashes[left]) * low
    )
    return Found.of(np.where(touching, first[left], first[at] - 2), page.word_ends[at], score)


def signs(page: Page, prose: Bits) -> Found:
    """Tokens with signs of code between letters and digits; the score is the number of different changes and signs inside."""
    hard = _HARD[np.minimum(page.codes, 127)] & (page.kinds != SPACE)
    letter = _letter(page.kinds) | (page.kinds == DIGIT)
    inner = hard.copy()
    inner[1:-1] &= letter[:-2] | hard[:-2]
    inner[1:-1] &= letter[2:] | hard[2:]
    changes = np.zeros(len(inner), bool)
    group = np.where(hard, 9, np.where(page.kinds == DIGIT, 8, page.kinds))
    changes[1:] = (group[1:] != group[:-1]) & ~((group[1:] == LOWER) & (group[:-1] == UPPER))
    changes[page.token_starts] = False
    sums = np.concatenate(([0], np.cumsum(inner)))
    counts = sums[page.token_ends] - sums[page.token_starts]
    turn_sums = np.concatenate(([0], np.cumsum(changes)))
    turns = turn_sums[page.token_ends] - turn_sums[page.token_starts]
    found = (counts >= 1) & (turns >= 3) & prose[page.window[page.token_starts]]
    return Found.of(page.token_starts[found], page.token_ends[found], (np.minimum(counts, turns) + turns / 4)[found])


_HARD = np.zeros(128, bool)
_HARD[[ord(sign) for sign in '!"#$%&;<=>?@[\\]^{|}~+,']] = True


_TAILS = word_hashes(
    "args begin box buffer byte bytes child class code config count data date end error event exception field fields frame "
    "function glyph glyphs group handler header height id ids index info item items key keys length map method mode name "
    "names node object offset offsets options params parent path pen pixbuf points position prev queue ref response result "
    "row server session size spec start state store stream string style table tag target task token tree type types uid "
    "unit uri url value values version versions width xml".split()
)
"""Words that end identifiers more often than they begin sentences."""
_JOIN = np.zeros(128, bool)
_JOIN[[ord(sign) for sign in "_/-.,:;|+*()[]{}\"'"]] = True
_DOT = np.zeros(128, bool)
_DOT[[ord(sign) for sign in "._,;:()'\""]] = True


def _nothing() -> Found:
    none = np.zeros(0, np.int64)
    return Found.of(none, none, none)


def _letter(kinds: npt.NDArray[np.uint8]) -> Bits:
    return np.isin(kinds, (LOWER, UPPER, LETTER))


def _repeated(page: Page, words: Words, at: Ints) -> Bits:
    """Which of the words their text has twice or more: names and terms, no splices."""
    if not len(at):
        return np.zeros(0, bool)
    keys = np.sort(words.hashes ^ _salt(page, page.word_starts))
    wanted = words.hashes[at] ^ _salt(page, page.word_starts[at])
    found: Bits = np.searchsorted(keys, wanted, side="right") - np.searchsorted(keys, wanted) > 1
    return found


def _salt(page: Page, positions: Ints) -> Hashes:
    """A number of each position's document, to tell equal words of two texts apart."""
    return page.document[positions].astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93)


_BEFORE = (
    "anti auto be bi co counter de dis down en fore hyper in inter intra macro mega meta micro mid mini mis mono multi nano non "
    "off on out over para poly post pre pro proto pseudo quasi re semi sub super tele trans ultra un under up"
).split()
_AFTER = (
    "able ables ably age ed en er ers es est ful hood ible ic ically ified ifier ifies ify ifying ing ings ish ism isation ise "
    "ised iser ises ising ist istic ists ity ization ize ized izer izers izes izing less like ly ment ments ness ous s ship "
    "wise y"
).split()


def _derived(page: Page, english: English, words: Words, at: Ints) -> Bits:
    """Known words with a usual beginning or ending: unmergeable, tokenizers, renumbered."""
    starts, ends = page.word_starts[at], words.ends[at]
    found = np.zeros(len(at), bool)
    for affixes, front in ((_BEFORE, True), (_AFTER, False)):
        for length in sorted({len(one) for one in affixes}):
            wanted = np.sort(word_hashes([one for one in affixes if len(one) == length]))
            long = ends - starts >= length + (3 if front else 4)
            cut = np.where(long, starts + length if front else ends - length, starts)
            piece = page.hashes(starts, cut) if front else page.hashes(cut, ends)
            hit = long & np.isin(piece, wanted)
            stem = (cut, ends) if front else (starts, cut)
            found |= hit & english.known.holds(page.hashes(*stem))
            if not front:
                # Stems that lose an e (caching) or double a letter (tagged), as y turns to i in neither list.
                doubled = long & (page.codes[np.maximum(cut - 1, 0)] == page.codes[np.maximum(cut - 2, 0)])
                found |= hit & doubled & english.known.holds(page.hashes(starts, np.where(doubled, cut - 1, starts)))
    return found


def _word_surprisal(page: Page, english: English, starts: Ints, ends: Ints) -> npt.NDArray[np.float64]:
    """Mean bits per character of words, the space after them included. Their neighbours count as spaces."""
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
    found: npt.NDArray[np.float64] = (sums[offsets[1:] - 3] - sums[offsets[:-1]]) / (10 * (ends - starts + 1))
    return found


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
