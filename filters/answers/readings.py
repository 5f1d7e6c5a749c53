"""The ways in which a text falls into sentences and words. Where an instruction holds in one and not in another, nobody can
tell."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")

PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\u2018\u2019\u201c\u201d\u2013\u2014\u2026\u00ab\u00bb"
_END = re.compile(r"[.!?\u2026]+[\"')\]\u2019\u201d*_]*(?=\s|$)")
_SHORT = re.compile(
    r"(?:^|[\s(\"'])(?:[A-Za-z]|\d{1,2}|Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|vs|etc|e\.g|i\.e|approx|No|Fig|Inc|Ltd|Co|a\.m|p\.m)\.$"
)
"""An abbreviation, an initial or the number of a list before what may be the end of a sentence."""
_GOES_ON = re.compile(r"\s+[a-z]")
_RUN = re.compile(r"\w+")


def decided(verdicts: Iterable[bool | None]) -> bool | None:
    """The verdict on which all readings agree; None if they do not, or if there is none."""
    distinct = set(verdicts)
    return distinct.pop() if len(distinct) == 1 else None


@lru_cache(maxsize=8)  # the instructions of a prompt are checked one after the other
def sentences(text: str) -> tuple[tuple[str, ...], ...]:
    """The readings of a text as sentences: each end mark ends one or abbreviations do not, and lines end one or do not."""
    texts = [[text], [line for line in text.split("\n") if line.strip()]]
    found = [
        tuple(part for piece in pieces for part in _split(piece, plain=plain)) for pieces in texts for plain in (True, False)
    ]
    return tuple(dict.fromkeys(found))


def words(text: str) -> list[list[str]]:
    """The readings of a text as words: between spaces, without punctuation around them; or runs of letters and digits."""
    spaced = [word for part in text.split() if (word := part.strip(PUNCTUATION))]
    runs = _RUN.findall(text)
    return [spaced] if spaced == runs else [spaced, runs]


def of_words(text: str, holds: Callable[[Sequence[str]], bool | None]) -> bool | None:
    """Whether something holds of the words of a text, in every reading."""
    return decided(holds(reading) for reading in words(text))


def of_sentences(text: str, holds: Callable[[Sequence[str]], bool | None]) -> bool | None:
    """Whether something holds of the sentences of a text, in every reading."""
    return decided(holds(reading) for reading in sentences(text))


def _split(text: str, *, plain: bool) -> list[str]:
    parts, start = [], 0
    for end in _END.finditer(text):
        short = _SHORT.search(text[max(0, end.start() - 12) : end.start() + 1]) is not None
        if not plain and (short or _GOES_ON.match(text, end.end())):
            continue
        parts.append(text[start : end.end()].strip())
        start = end.end()
    return [part for part in (*parts, text[start:].strip()) if part.strip(PUNCTUATION + " \n\t")]
