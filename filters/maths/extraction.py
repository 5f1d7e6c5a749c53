"""The final answer of a completion, by one rule.

1. The last balanced `\\boxed{...}` (or `\\fbox{...}`). Another box with other content in the same sentence is a hedge.
2. Else what follows a marker to the end of its line: `<answer>...</answer>`, `####`, `final answer:`, `answer is`, `answer:`. All
   that markers announce must be one and the same.
3. Else the whole completion, where it is one line of at most 200 characters and nothing but an answer.

There is exactly one candidate or none: `5 or 6` is none. Linear in the length of the text.
"""

import re
from typing import NamedTuple

SCANNED_CHARS = 65_536
"""The end of a completion that is looked at."""
ANSWER_CHARS = 1_000
WHOLE_CHARS = 200
BOXES = 64
"""Boxes looked at, from the end."""

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)|\\boxed\s+(?=\S)")
_SIMPLE = re.compile(r"\\boxed\{([A-Za-z0-9.,+/-]{1,60})\}")
_TAG = re.compile(r"<answer>([^<]{0,1000})</answer>", re.IGNORECASE)
_MARKER = re.compile(
    r"####[ \t]*|(?:\bfinal[ \t]+answer|\banswer)(?:[ \t]+is)?[ \t]*\**[ \t]*[:=][ \t]*\**|\banswer[ \t]+is[ \t]+\**",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[.!?](?=\s)|\n\s*\n")
_HEDGE = re.compile(r"(?<![A-Za-z\\])(?:or|either|maybe|perhaps|possibly|alternatively|versus|vs)(?![A-Za-z])|\?", re.IGNORECASE)
_UNSURE = re.compile(
    r"(?<![A-Za-z\\])(?:not sure|unsure|i (?:don't|do not|cannot|can't)|cannot be sure|could be|might be)(?![A-Za-z])",
    re.IGNORECASE,
)
_PROSE = re.compile(r"[A-Za-z]{2,}(?:[ ,]+[A-Za-z]{2,}){4,}")


class Found(NamedTuple):
    """A candidate, or none and why."""

    answer: str | None
    why: str = ""


def final_answer(text: str) -> Found:
    """The one candidate of a completion."""
    if len(text) > SCANNED_CHARS:
        text = text[-SCANNED_CHARS:]
    boxes = text.count("\\boxed") + text.count("\\fbox")
    if boxes == 1 and (simple := _SIMPLE.search(text)):
        return Found(simple[1])
    if boxes:
        return _boxed(text)
    if "answer" in (low := text.lower()) or "####" in text:
        found = _marked(text, low)
        if found is not None:
            return found
    whole = text.strip()
    if not whole or len(whole) > WHOLE_CHARS or "\n" in whole or _PROSE.search(whole):
        return Found(None, "no box, no marker, and the completion is more than an answer")
    return _one(whole)


def hedged(answer: str) -> bool:
    """Whether an answer names several, or doubts itself."""
    return _HEDGE.search(answer) is not None or _UNSURE.search(answer) is not None


def _one(answer: str) -> Found:
    answer = answer.strip().strip("*").strip()
    if not answer:
        return Found(None, "an empty answer")
    if len(answer) > ANSWER_CHARS:
        return Found(None, f"an answer of more than {ANSWER_CHARS} characters")
    return Found(answer)


def _boxed(text: str) -> Found:
    starts = [(match.start(), match.end()) for match in _BOX.finditer(text)][-BOXES:]
    boxes = [(at, *_balanced(text, begin)) for at, begin in starts]
    whole = [(at, end, inner) for at, end, inner in boxes if inner is not None]
    if not whole:
        return Found(None, "a box that is not closed")
    at, _, answer = whole[-1]
    if boxes[-1][2] is None:
        return Found(None, "the last box is not closed")
    inner = [box for box in whole[:-1] if box[1] <= at]
    if inner:
        _, end, before = inner[-1]
        if _squeezed(before) != _squeezed(answer) and not _SENTENCE.search(text, end, at):
            return Found(None, "several boxes in one sentence")
    return _one(answer)


def _balanced(text: str, begin: int) -> tuple[int, str | None]:
    """The end of a group that opens at `begin`, and what is in it; without a brace the one character there."""
    if text[begin] != "{":
        return begin + 1, text[begin]
    depth = 0
    at = begin
    limit = min(len(text), begin + ANSWER_CHARS + 400)
    while at < limit:
        mark = text[at]
        if mark == "\\":
            at += 2
            continue
        if mark == "{":
            depth += 1
        elif mark == "}":
            depth -= 1
            if depth == 0:
                return at + 1, text[begin + 1 : at]
        at += 1
    return len(text), None


def _marked(text: str, low: str) -> Found | None:
    tags = [match.group(1) for match in _TAG.finditer(text)] if "<answer>" in low else []
    candidates = tags or [_line(text, match.end()) for match in _MARKER.finditer(text)]
    candidates = [one for one in candidates if one.strip()]
    if not candidates:
        return None
    if len({_squeezed(one) for one in candidates}) > 1:
        return Found(None, "markers announce different answers")
    return _one(candidates[-1])


def _line(text: str, begin: int) -> str:
    """The rest of a line, or of the next one where nothing stands after the marker; up to the end of its sentence."""
    end = text.find("\n", begin)
    line = text[begin : len(text) if end < 0 else end]
    if not line.strip() and end >= 0:
        after = text.find("\n", end + 1)
        line = text[end + 1 : len(text) if after < 0 else after]
    line = line.strip()
    stop = re.search(r"\.(?=\s|$)", line)
    return line[: stop.start()] if stop else line


def _squeezed(text: str) -> str:
    return re.sub(r"[\s$*.]+", "", text)
