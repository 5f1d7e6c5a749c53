"""Read the final answer of a completion, by one rule.

1. The last balanced `\\boxed{...}` (or `\\fbox{...}`). A second box with other content in the same sentence is a hedge.
2. Else the rest of the line after a marker: `<answer>...</answer>`, `####`, `final answer:`, `answer is`, `answer:`. All markers
   must announce the same answer.
3. Else the whole completion, if it is one line of at most 200 characters and nothing but an answer: no sentence.

There is exactly one candidate or none: `5 or 6` is none. Takes time linear in the length of the text.
"""

import re
from typing import NamedTuple

SCANNED_CHARS = 65_536
"""Characters at the end of a completion that are searched."""
ANSWER_CHARS = 1_000
WHOLE_CHARS = 200
BOXES = 64
"""Boxes that are read, from the end."""

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
_STATEMENT = re.compile(r"[A-Za-z].*?[A-Za-z]{2,}[ ,]+[A-Za-z]{2,}.*\.\Z")
"""A sentence that starts with a word: an answer may stand in it, and is not told from the rest."""


class Candidate(NamedTuple):
    """A candidate, or None and the reason."""

    answer: str | None
    why: str = ""


def final_answer(text: str) -> Candidate:
    """The one candidate of a completion."""
    if len(text) > SCANNED_CHARS:
        text = text[-SCANNED_CHARS:]
    boxes = text.count("\\boxed") + text.count("\\fbox")
    if boxes == 1 and (simple := _SIMPLE.search(text)):
        return Candidate(simple[1])
    if boxes:
        return _boxed(text)
    if "answer" in (low := text.lower()) or "####" in text:
        candidate = _marked(text, low)
        if candidate is not None:
            return candidate
    whole = text.strip()
    if not whole or len(whole) > WHOLE_CHARS or "\n" in whole or _PROSE.search(whole) or _STATEMENT.match(whole):
        return Candidate(None, "no box, no marker, and the completion is more than an answer")
    return _candidate(whole)


def hedged(answer: str) -> bool:
    """Whether an answer names several answers or expresses doubt."""
    return _HEDGE.search(answer) is not None or _UNSURE.search(answer) is not None


def _candidate(answer: str) -> Candidate:
    answer = answer.strip().strip("*").strip()
    if not answer:
        return Candidate(None, "an empty answer")
    if len(answer) > ANSWER_CHARS:
        return Candidate(None, f"an answer of more than {ANSWER_CHARS} characters")
    return Candidate(answer)


def _boxed(text: str) -> Candidate:
    starts = [(match.start(), match.end()) for match in _BOX.finditer(text)][-BOXES:]
    boxes = [(start, *_balanced(text, opening)) for start, opening in starts]
    closed = [(start, end, content) for start, end, content in boxes if content is not None]
    if not closed:
        return Candidate(None, "a box that is not closed")
    start, _, answer = closed[-1]
    if boxes[-1][2] is None:
        return Candidate(None, "the last box is not closed")
    earlier = [box for box in closed[:-1] if box[1] <= start]
    if earlier:
        _, end, before = earlier[-1]
        if _squeezed(before) != _squeezed(answer) and not _SENTENCE.search(text, end, start):
            return Candidate(None, "several boxes in one sentence")
    return _candidate(answer)


def _balanced(text: str, start: int) -> tuple[int, str | None]:
    """The end of the group that opens at `start`, and its content; without a brace, the single character there."""
    if text[start] != "{":
        return start + 1, text[start]
    depth = 0
    position = start
    limit = min(len(text), start + ANSWER_CHARS + 400)
    while position < limit:
        mark = text[position]
        if mark == "\\":
            position += 2
            continue
        if mark == "{":
            depth += 1
        elif mark == "}":
            depth -= 1
            if depth == 0:
                return position + 1, text[start + 1 : position]
        position += 1
    return len(text), None


def _marked(text: str, low: str) -> Candidate | None:
    tags = [match.group(1) for match in _TAG.finditer(text)] if "<answer>" in low else []
    candidates = tags or [_line(text, match.end()) for match in _MARKER.finditer(text)]
    candidates = [answer for answer in candidates if answer.strip()]
    if not candidates:
        return None
    if len({_squeezed(answer) for answer in candidates}) > 1:
        return Candidate(None, "markers announce different answers")
    return _candidate(candidates[-1])


def _line(text: str, start: int) -> str:
    """The rest of the line, or the next line if the rest is empty, up to the end of its sentence."""
    end = text.find("\n", start)
    line = text[start : len(text) if end < 0 else end]
    if not line.strip() and end >= 0:
        after = text.find("\n", end + 1)
        line = text[end + 1 : len(text) if after < 0 else after]
    line = line.strip()
    stop = re.search(r"\.(?=\s|$)", line)
    return line[: stop.start()] if stop else line


def _squeezed(text: str) -> str:
    return re.sub(r"[\s$*.]+", "", text)
