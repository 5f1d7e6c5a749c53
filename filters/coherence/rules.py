"""The rules of `coherence` that need to know English: surprising characters, flipped case, missing spaces, signs inside words.

A rule takes a page and returns its findings: where they are and how odd each is. Rules report freely; filters.coherence.coherence
knows how rare a score is on clean text and decides from which score on a sample is dropped.
"""

import numpy as np

from filters.coherence.masks import DIGIT, LOWER, SPACE, UPPER, Bits, Ints, counts_in, covered
from filters.coherence.model import English, marked, surprisals
from filters.coherence.page import Findings, Page, word_hashes
from filters.coherence.words import LONGEST, Words, document_salt, is_letter

DRIFT = 55
"""Tenths of a bit per character. Prose has half as much, noise twice as much."""


def _ascii(signs: str) -> Bits:
    table = np.zeros(128, bool)
    table[[ord(sign) for sign in signs]] = True
    return table


_HARD = _ascii('!"#$%&;<=>?@[\\]^{|}~+,')
_JOINING = _ascii("_/-.,:;|+*()[]{}\"'")
_CLOSING = [ord(sign) for sign in ")]}>.([,|"]
_DOTS = _ascii("._,;:()'\"")
_IDENTIFIER_ENDS = word_hashes(
    "args begin box buffer byte bytes child class code config count data date end error event exception field fields frame "
    "function glyph glyphs group handler header height id ids index info item items key keys length map method mode name "
    "names node object offset offsets options params parent path pen pixbuf points position prev queue ref response result "
    "row server session size spec start state store stream string style table tag target task token tree type types uid "
    "unit uri url value values version versions width xml".split()
)
"""Words that end identifiers more often than they start sentences."""


def noise(page: Page, english: English, prose: Bits) -> Findings:
    """Find, per window of prose, the run of characters that is hardest to predict.

    The score is the run's surprisal beyond that of prose, in bits (a CUSUM): a long run of odd characters counts for more than a
    short one, and the length of the run need not be known.
    """
    bits, positions = surprisals(page, english)
    if not len(bits):
        return Findings.sure([])
    window = page.window[positions]
    starts = np.flatnonzero((np.diff(window, prepend=-1) != 0) | (np.diff(page.document[positions], prepend=-1) != 0))
    bits = np.where(_quiet(page)[positions], 0, bits)
    steps = bits - DRIFT
    # At the start of a window the sum falls below everything before it, so no run reaches into the next window.
    fall = np.zeros(len(steps), np.int64)
    fall[starts] = int(bits.sum()) + DRIFT * len(bits) + 1 if len(bits) < 1 << 20 else 1 << 36
    sums = np.cumsum(steps - fall)
    lowest = np.minimum.accumulate(sums)
    rise = sums - lowest
    rise[~prose[window]] = 0
    worst = np.maximum.reduceat(rise, starts)
    owner = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(rise))))
    peaks = np.flatnonzero((rise == worst[owner]) & (rise > 0))
    peaks = peaks[np.unique(owner[peaks], return_index=True)[1]]
    # The run starts after the last place where the sum was lowest.
    lows = np.flatnonzero(sums == lowest)
    first = lows[np.searchsorted(lows, peaks) - 1] + 1
    first = np.minimum(np.maximum(first, starts[owner[peaks]]), peaks)
    return Findings.of(positions[first], positions[peaks] + 1, rise[peaks] / 10)


def _quiet(page: Page) -> Bits:
    """Characters of names and abbreviations, which are hard to predict and still not noise.

    Such a token has no small letter and only signs that join (`TCA_ACT_FLAGS`, `DH/RSA/DHE-DSS`), or it has only letters and
    dots with several capitals (`PangoFcFont`, `zmq.POLLIN`).
    """
    tokens = (page.token_starts, page.token_ends)
    codes = np.minimum(page.codes, 127)
    small, capitals = counts_in(page.kinds == LOWER, tokens), counts_in(page.kinds == UPPER, tokens)
    length = page.token_ends - page.token_starts
    joined = counts_in(_JOINING[codes] | (page.kinds == DIGIT) | (page.kinds == UPPER), tokens) == length
    dotted = (counts_in(is_letter(page.kinds), tokens) + counts_in(_DOTS[codes], tokens) == length) & (capitals >= 2)
    quiet = ((small == 0) & joined & (capitals > 0)) | dotted
    return covered(len(page.codes), page.token_starts[quiet], page.token_ends[quiet])


def case(page: Page, english: English, words: Words) -> dict[str, Findings]:
    """Find a capital inside a word: `camel` where two words are glued (ownYou're), `flips` inside a single word (generatiOn)."""
    raised, word = _inner_capitals(page, words)
    starts, ends = page.word_starts[word], page.word_ends[word]
    names = word_hashes([marked(page.text[a:b]) for a, b in zip(starts.tolist(), words.ends[word].tolist(), strict=True)])
    keys, counts = np.unique(names ^ document_salt(page, starts), return_inverse=True, return_counts=True)[1:]
    named = english.names.holds(names) | (counts[keys] > 1)
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
        + 3.0 * low_start  # identifiers start with a capital more often than the last words of sentences do
        + left_function * (1.0 + 1.5 * ~low_start)
        + 0.5 * english.common.holds(left)
        - 3.0 * np.isin(right, _IDENTIFIER_ENDS)
    )
    glue = both & ~whole
    flip = whole & (words.capitals[word] - ~low_start == 1)
    strength = 1.0 + low_start + (words.length[word] >= 6) - both
    return {
        "camel": Findings.of(starts[glue], ends[glue], score[glue]),
        "flips": Findings.of(starts[flip], ends[flip], strength[flip]),
    }


def _inner_capitals(page: Page, words: Words) -> tuple[Ints, Ints]:
    """Positions of capitals after a small letter, in words of prose that have one such place; and the word of each."""
    raised = np.flatnonzero((page.kinds[1:] == UPPER) & (page.kinds[:-1] == LOWER)) + 1
    word = np.searchsorted(page.word_starts, raised, side="right") - 1
    inside = (word >= 0) & (raised < words.ends[word]) if len(words.ends) else np.zeros(len(raised), bool)
    raised, word = raised[inside], word[inside]
    eligible = words.prose[word] & words.plain[word] & (words.length[word] <= LONGEST)
    eligible &= np.bincount(word, minlength=len(words.ends))[word] == 1
    return raised[eligible], word[eligible]


def full_stops(page: Page, english: English, words: Words) -> Findings:
    """Find a sentence that starts without a space after the one before it: `the end.Next we`."""
    first = page.word_starts
    stops = page.codes[first - 1]
    stop = (stops == 46) | (stops == 33) | (stops == 63)
    rows = np.flatnonzero(stop & words.prose & (page.kinds[first] == UPPER) & (words.capitals == 1))
    before = first[rows] - 2
    kind, code = page.kinds[before], page.codes[before]
    closed = (code == 41) | (code == 34) | (code == 39) | (code == 0x201D) | (code == 0x2019) | (code == 96)
    rows = rows[(kind == LOWER) | (kind == UPPER) | (kind == DIGIT) | closed]
    left = np.searchsorted(page.word_ends, first[rows] - 1)
    touching = page.word_ends[np.minimum(left, len(first) - 1)] == first[rows] - 1
    left = np.where(touching, left, 0)
    low = touching & (words.capitals[left] == 0) & (words.length[left] >= 2) & english.known.holds(words.hashes[left])
    right = words.hashes[rows]
    # `resolver.Resolver` is a name, and so is `torch.Tensor` before a bracket or a stop: no sentence ends after its first word.
    opens = english.openers.holds(right) | english.is_function_word(right)
    closes = np.isin(page.codes[page.word_ends[rows]], _CLOSING)
    kept = (~touching | (words.hashes[left] != right)) & (opens | ~closes)
    rows, left, touching, low, right = (array[kept] for array in (rows, left, touching, low, right))
    score = (
        3.0 * english.openers.holds(right)
        + english.is_function_word(right)
        + 0.5 * english.known.holds(right)
        + low
        + 0.5 * english.common.holds(words.hashes[left]) * low
    )
    return Findings.of(np.where(touching, first[left], first[rows] - 2), page.word_ends[rows], score)


def signs(page: Page, prose: Bits) -> Findings:
    """Find tokens with signs of code between letters and digits. The score counts changes of kind and signs inside the token."""
    hard = _HARD[np.minimum(page.codes, 127)] & (page.kinds != SPACE)
    letter = is_letter(page.kinds) | (page.kinds == DIGIT)
    inner = hard.copy()
    inner[1:-1] &= letter[:-2] | hard[:-2]
    inner[1:-1] &= letter[2:] | hard[2:]
    changes = np.zeros(len(inner), bool)
    group = np.where(hard, 9, np.where(page.kinds == DIGIT, 8, page.kinds))
    changes[1:] = (group[1:] != group[:-1]) & ~((group[1:] == LOWER) & (group[:-1] == UPPER))
    changes[page.token_starts] = False
    tokens = (page.token_starts, page.token_ends)
    counts, turns = counts_in(inner, tokens), counts_in(changes, tokens)
    odd = (counts >= 1) & (turns >= 3) & prose[page.window[page.token_starts]]
    return Findings.of(page.token_starts[odd], page.token_ends[odd], (np.minimum(counts, turns) + turns / 4)[odd])
