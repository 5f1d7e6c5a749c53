"""What a language model's surprise says about a page: whether a rule's finding is one, and which words were cut.

A token's gap is its surprisal minus that of the likeliest token at its place: large where the model was sure of something else.
The weights and bounds are those of SmolLM2-135M (benchmarks/coherence.py fits and measures them).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from filters.coherence.masks import Ints
from filters.coherence.model import English
from filters.coherence.page import Findings, Page
from filters.coherence.words import Words, document_salt
from filters.tools import Reading

Floats = npt.NDArray[np.float64]

CAPS = {
    "word": 30.0, "next word": 25.0, "second word": 25.0, "word before": 25.0, "gap": 15.0, "gap after": 15.0, "goes on": 1.0,
    "mean": 15.0, "letters": 6.0,
}  # fmt: skip
"""Measures of a word, and the values at which they are cut, so that no single one decides. In nats: of its tokens, and of the
words around it; gaps of its first token and of the token after it; of the text's words on average. `goes on` is the probability
that the model gives to a continuation of the word."""
FLAGS = ("unknown", "beginning", "function", "technical")
"""Further measures, 0 or 1: no list has the word, it is the beginning of a common word, a function word, in a technical text."""
PAIRS = (("unknown", "word"), ("unknown", "goes on"), ("unknown", "letters"))
"""Products of two measures."""
SHORTEST = 3
"""Letters. Shorter words that no list has are abbreviations."""
BEGINNING_CUT = (
    -8.18,
    (0.358, 0.199, 0.157, -0.04, 0.169, -0.106, 1.671, -0.036, -1.416, 6.39, 0.375, -4.129, 0.431, 0.125, -0.918, -1.062),
)
END_CUT = (
    -12.61,
    (0.427, 0.171, 0.134, -0.055, 0.104, 0.192, 3.216, -0.146, -1.303, 9.412, 6.07, -2.094, 0.079, -0.286, 1.207, 0.112),
)
"""Bias and weights (one for each measure) of two logistic regressions: words whose beginning, or end, is missing. The biases are
lower than those fitted, by 4.6 and 2.4, so that above 0 each flags 0.2 % of clean paragraphs."""


@dataclass(frozen=True)
class Tokens:
    """The T tokens of the readings of a page, in order."""

    ends: Ints
    """(T,): where each ends on the page."""
    document: Ints
    """(T,): its text."""
    gap: Floats
    """(T,): nats."""
    goes_on: Floats
    """(T,): probability of the likeliest token at its place if that continues a word, else 0."""
    sums: Floats
    """(T + 1,): surprisal of all tokens before, in nats."""

    def between(self, starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
        """The first token that lies in each span, and the first one after it."""
        return np.searchsorted(self.ends, starts, side="right"), np.searchsorted(self.ends, ends, side="right")


def tokens_of(page: Page, readings: Sequence[Reading]) -> Tokens:
    """Lay the readings of the page's texts end to end."""
    counts = np.array([len(reading.ends) for reading in readings], np.int64)
    document = np.repeat(np.arange(len(readings)), counts)
    empty = Reading.empty()
    surprisal, best, goes_on, ends = (
        np.concatenate([getattr(reading, name) for reading in (empty, *readings)])
        for name in ("surprisal", "best", "continues", "ends")
    )
    # Several tokens may share a character: each of them ends where that does.
    places = np.maximum.accumulate(ends.astype(np.int64) + page.starts[document]) if len(ends) else ends.astype(np.int64)
    likely = best.astype(np.float64)
    return Tokens(
        places,
        document,
        surprisal.astype(np.float64) - likely,
        np.where(goes_on, np.exp(-likely), 0.0),
        np.concatenate(([0.0], np.cumsum(surprisal.astype(np.float64)))),
    )


def confirmed(findings: Findings, tokens: Tokens, *, mean: float = 0.0, gap: float = 0.0) -> Findings:
    """The findings whose tokens have at least this mean surprisal, in nats, and of which one, or the token after them, has at
    least this gap."""
    if not len(tokens.ends) or not len(findings.starts):
        return Findings.sure([])
    first, last = tokens.between(findings.starts, findings.ends - 1)
    last = np.minimum(last + 1, len(tokens.ends))
    first = np.minimum(first, last - 1)
    means = (tokens.sums[last] - tokens.sums[first]) / (last - first)
    bounds = np.stack((first, np.minimum(last + 1, len(tokens.ends))), 1).reshape(-1)
    gaps = np.maximum.reduceat(np.append(tokens.gap, 0.0), bounds)[::2]
    kept = (means >= mean) & (gaps >= gap)
    return Findings(findings.starts[kept], findings.ends[kept], findings.scores[kept])


def cut_inside(page: Page, english: English, words: Words, tokens: Tokens) -> Findings:
    """Find words in small letters, once in their text, whose beginning or end seems to be missing. The score is 1 plus the larger
    of the two logits, which is above 0."""
    starts, ends = page.word_starts, page.word_ends
    if not len(tokens.ends) or not len(starts):
        return Findings.sure([])
    rows = eligible(page, words)
    measures = measured(page, english, words, tokens)[rows]
    logits = np.maximum(*(bias + measures @ np.array(weights) for bias, weights in (BEGINNING_CUT, END_CUT)))
    found = logits > 0
    return Findings.of(starts[rows[found]], ends[rows[found]], 1 + logits[found])


def eligible(page: Page, words: Words) -> Ints:
    """The words of prose in small letters that occur once in their text."""
    keys = words.hashes ^ document_salt(page, page.word_starts)
    inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)[1:]
    long = page.word_ends - page.word_starts >= SHORTEST
    return np.flatnonzero(words.prose & words.plain & (words.capitals == 0) & long & (counts[inverse] == 1))


def measured(page: Page, english: English, words: Words, tokens: Tokens) -> Floats:
    """The measures (N, M) of all words: those of CAPS, FLAGS and PAIRS, in this order."""
    starts, ends = page.word_starts, page.word_ends
    document = page.document[starts].astype(np.int64)
    first, after = tokens.between(starts, ends)
    nats = tokens.sums[after] - tokens.sums[first]
    last = len(tokens.ends) - 1
    first, after = np.minimum(first, last), np.minimum(after, last)
    has_next = (tokens.ends[after] > ends) & (tokens.document[after] == document)
    # Whether the next word of the same text follows after one blank.
    follows = (starts[1:] - ends[:-1] == 1) & (page.codes[ends[:-1]] == 32)
    touching = np.append(follows, False)
    prose = words.prose & words.plain
    known_nats = np.bincount(document[prose], np.minimum(nats[prose], 15), minlength=len(page.starts))
    hashes = page.hashes(starts, ends)
    values: dict[str, npt.NDArray[np.generic]] = {
        "word": nats,
        "next word": np.where(touching, np.append(nats[1:], 0), 0),
        "second word": np.where(touching & np.append(touching[1:], False), np.append(nats, (0, 0))[2:], 0),
        "word before": np.where(np.append(False, follows), np.append(0, nats[:-1]), 0),
        "gap": tokens.gap[first],
        "gap after": np.where(has_next, tokens.gap[after], 0),
        "goes on": np.where(has_next, tokens.goes_on[after], 0),
        "mean": (known_nats / np.maximum(np.bincount(document[prose], minlength=len(page.starts)), 1))[document],
        "letters": words.length,
        "unknown": ~english.known.holds(words.hashes),
        "beginning": english.beginnings.holds(hashes),
        "function": english.is_function_word(hashes),
        "technical": page.technical[document],
    }
    capped = {name: np.clip(value.astype(np.float64), 0, CAPS.get(name, 1)) for name, value in values.items()}
    columns = [*(capped[name] for name in (*CAPS, *FLAGS)), *(capped[left] * capped[right] for left, right in PAIRS)]
    return np.stack(columns, 1)
