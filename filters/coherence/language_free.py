"""The rules of `coherence` that know no language: mojibake, foreign script, loops, and texts that stop in the middle of a word.

They report no doubtful cases, so every finding scores 1.
"""

import itertools
import re

import numpy as np

from filters.coherence.masks import LOWER
from filters.coherence.model import English
from filters.coherence.page import Findings, Page
from filters.coherence.words import Words

_DIGITS = re.compile(r"\d+")
_HIGH = re.compile(r"[\x80-\uffff]{2,}")
_CP1252 = {ord(bytes([code]).decode("cp1252")): code for code in range(128, 256) if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)}
_BYTES = {**{code: code for code in range(128, 256)}, **_CP1252}
_SCRIPTS = (
    (0x0000, 0), (0x0041, 1), (0x005B, 0), (0x0061, 1), (0x007B, 0), (0x00C0, 1), (0x0250, 0), (0x0370, 2), (0x0400, 3),
    (0x0530, 4), (0x0590, 5), (0x0600, 6), (0x0780, 0), (0x0900, 7), (0x0E00, 8), (0x0E80, 0), (0x1100, 9), (0x1200, 0),
    (0x1E00, 1), (0x1F00, 2), (0x2000, 0), (0x3040, 10), (0x3130, 9), (0x3190, 0), (0x3400, 10), (0xA000, 0), (0xAC00, 9),
    (0xD7B0, 0), (0xF900, 10), (0xFB00, 0),
)  # fmt: skip
_SCRIPT_STARTS = np.array([start for start, _ in _SCRIPTS])
_SCRIPT_NAMES = np.array([name for _, name in _SCRIPTS], np.uint8)
_QUOTES = frozenset("\"'()[]{}<>\u00ab\u00bb\u2018\u2019\u201c\u201d\u300c\u300d=:/\x00\n*_|`")
_LETTER_LOOP = re.compile(r"([^\W\d_])\1{11,}|([^\W\d_]{2,4})\2{7,}")
LATIN, GREEK = 1, 2
MOST_FOREIGN_RUNS = 3
LONGEST_PERIOD = 40
"""Words of the longest loop that is searched for."""


def mojibake(page: Page) -> Findings:
    """Find UTF-8 that was read as Windows-1252 or Latin-1, and U+FFFD, which replaces bytes that could not be read."""
    spans = [(position, position + 1) for position in np.flatnonzero(page.codes == 0xFFFD).tolist()]
    if (page.codes > 127).any():
        for match in _HIGH.finditer(page.text):
            codes = list(itertools.takewhile(lambda code: code >= 0, (_BYTES.get(ord(letter), -1) for letter in match[0])))
            try:
                bytes(codes).decode("utf-8")
            except UnicodeDecodeError as error:
                if error.start < 2:
                    continue
            if len(codes) < 2:
                continue
            spans.append(match.span())
    return Findings.sure(spans)


def foreign_script(page: Page) -> Findings:
    """Find runs of another script in Latin text that are neither quoted nor in brackets.

    Greek needs three letters, because one or two are symbols. A text with more than three such runs, or in which three letters in
    ten are of that script, is bilingual and is left alone.
    """
    if not (page.codes > 0x36F).any():
        return Findings.sure([])
    script = _SCRIPT_NAMES[np.searchsorted(_SCRIPT_STARTS, page.codes, side="right") - 1]
    script[page.codes > 0xFFFF] = 0
    script[page.masked] = 0
    spans = []
    for document in np.unique(page.document[np.flatnonzero(script > LATIN)]).tolist():
        text = slice(int(page.starts[document]), int(page.ends[document]))
        counts = np.bincount(script[text], minlength=11)
        letters = counts[1:].sum()
        if counts[LATIN] < 0.8 * letters or letters < 20:
            continue
        for kind in np.flatnonzero(counts[2:]) + 2:
            inside = np.concatenate(([False], script[text] == kind, [False]))
            edges = np.flatnonzero(np.diff(inside.view(np.int8))) + text.start
            if counts[kind] >= 0.3 * letters or len(edges) > 2 * MOST_FOREIGN_RUNS:
                continue
            for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
                quoted = page.text[start - 1] in _QUOTES or page.text[end : end + 2].lstrip(" ")[:1] in _QUOTES
                if end - start >= (3 if kind == GREEK else 2) and not quoted:
                    spans.append((start, end))
    return Findings.sure(spans)


def loops(page: Page) -> Findings:
    """Find the same words over and over: four times for up to eight words, three times for more, at least ten words in all.

    Every word has to repeat, so a list whose items start alike is not a loop; and so do the numbers between them, in half of the
    repetitions at least, so an enumeration is none. Repeated letters count too.
    """
    hashes = page.hashes(page.word_starts, page.word_ends)
    document = page.document[page.word_starts]
    spans: list[tuple[int, int]] = []
    for period in range(1, min(LONGEST_PERIOD, len(hashes) - 1) + 1):
        again = (hashes[period:] == hashes[:-period]) & (document[period:] == document[:-period])
        edges = np.flatnonzero(np.diff(np.concatenate(([False], again, [False])).view(np.int8)))
        least = max(10 - period, (3 if period <= 8 else 2) * period)
        long = edges[1::2] - edges[::2] >= least
        for first, last in zip(edges[::2][long].tolist(), edges[1::2][long].tolist(), strict=True):
            starts = [*page.word_starts[first : last + period : period].tolist(), int(page.word_ends[last + period - 1])]
            numbers = [tuple(_DIGITS.findall(page.text, start, end)) for start, end in itertools.pairwise(starts)]
            if 2 * len(set(numbers)) <= len(numbers) + 1:
                spans.append((starts[0], starts[-1]))
    spans += [match.span() for match in _LETTER_LOOP.finditer(page.text)]
    return Findings.sure(spans)


def cut_words(page: Page, english: English, words: Words) -> Findings:
    """Find texts of twenty words or more whose last word is the start of a common word and not a word itself."""
    if not len(page.word_starts):
        return Findings.sure([])
    counts = np.bincount(page.document[page.word_starts], minlength=len(page.starts))
    documents = np.flatnonzero(counts >= 20)
    last = (np.cumsum(counts) - 1)[documents]
    texts = (page.text[page.starts[document] : page.ends[document]] for document in documents)
    ends = page.starts[documents] + np.fromiter((len(text.rstrip()) for text in texts), np.int64, len(documents))
    last = last[page.word_ends[last] == ends]
    lower = page.kinds[page.word_starts[last]] == LOWER
    last = last[lower & words.prose[last] & words.plain[last]]
    hashes = page.hashes(page.word_starts[last], page.word_ends[last])
    cut = last[english.beginnings.holds(hashes) & ~english.known.holds(hashes)]
    return Findings.sure(list(zip(page.word_starts[cut].tolist(), page.word_ends[cut].tolist(), strict=True)))
