"""Read the final answer of a completion, by one rule.

1. The last balanced `\\boxed{...}` (or `\\fbox{...}`). A second box with other content in the same sentence is a hedge, and
   so is a marker after it that announces another answer.
2. Else what stands after a marker: `<answer>...</answer>`, `####`, `final answer:`, `answer is`, `answer:`, a heading, and their
   likes in some languages; the rest of its line, or the next lines if that is empty. All markers must announce the same answer.
3. Else the whole completion, if it is one line of at most 200 characters and nothing but an answer: no sentence.

What stands after a marker may be a sentence: then the answer is the one value in it (`She has 12 apples`). There is exactly one
candidate or none: `5 or 6` is none, and so is a sentence with several values or with a word that changes its value (`12 less than
that`). Takes time linear in the length of the text.
"""

import re
from typing import NamedTuple

from filters.maths.quantities import UNITS
from filters.maths.tokens import FUNCTIONS
from filters.reasoning import without_end_of_turn

SCANNED_CHARS = 65_536
"""Characters at the end of a completion that are searched."""
ANSWER_CHARS = 6_000
"""Most characters of an answer: a number of 4,000 digits with separators."""
WHOLE_CHARS = 200
BOXES = 64
"""Boxes that are read, from the end."""

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)|\\boxed\s+(?=\S)")
_SIMPLE = re.compile(r"\\boxed\{([A-Za-z0-9.,+/-]{1,5500})\}")
_TAG = re.compile(r"<answer>([^<]{0,6000})</answer>", re.IGNORECASE)
_MARKER = re.compile(
    r"####[ \t]*(?!#)(?:(?:the[ \t]+)?(?:final[ \t]+)?answer[ \t]*$)?"
    r"|^[ \t]*(?:\#{1,6}|\*\*)[ \t]*(?:the[ \t]+)?(?:final[ \t]+)?answer[ \t]*:?[ \t]*(?:\*\*)?[ \t]*:?[ \t]*$"
    r"|(?:\b(?:final[ \t]+|correct[ \t]+)?(?:answer|option|choice))(?:[ \t]+is)?[ \t]*\**[ \t]*[:=][ \t]*\**"
    r"|\b(?:answer|correct[ \t]+(?:option|choice))[ \t]+is(?![A-Za-z])[ \t]*\**"
    r"|\b(?:respuesta|r\u00e9ponse|antwort|risposta|resposta|\u043e\u0442\u0432\u0435\u0442)"
    r"[ \t]*(?:es|est|ist|\u00e8|\u00e9|:|[\u2014-])(?!\w)[ \t]*\**"
    r"|(?:\u7b54\u6848|\u7b54\u3048)(?:\u662f|\u4e3a|\u306f|\uff1a|:)[ \t]*\**",
    re.IGNORECASE | re.MULTILINE,
)
_MARKED = (
    "answer", "####", "option", "choice", "respuesta", "r\u00e9ponse", "antwort", "risposta", "resposta",
    "\u043e\u0442\u0432\u0435\u0442", "\u7b54",
)  # fmt: skip
"""What every marker has, in lower case."""
_SENTENCE = re.compile(r"[.!?](?=\s)|\n\s*\n")
_HEDGE = re.compile(r"(?<![A-Za-z\\])(?:or|either|maybe|perhaps|possibly|alternatively|versus|vs)(?![A-Za-z])|\?", re.IGNORECASE)
_UNSURE = re.compile(
    r"(?<![A-Za-z\\])(?:not sure|unsure|i (?:don't|do not|cannot|can't)|cannot be sure|could be|might be)(?![A-Za-z])",
    re.IGNORECASE,
)
_PROSE = re.compile(r"[A-Za-z]{2,}(?:[ ,]+[A-Za-z]{2,}){4,}")
_STATEMENT = re.compile(r"[A-Za-z].*?[A-Za-z]{2,}[ ,]+[A-Za-z]{2,}.*\.\Z")
"""A sentence that starts with a word: an answer may stand in it, and is not told from the rest."""
_DISPLAY = re.compile(r"\s*(?:\\\[(.*?)\\\]|\$\$(.*?)\$\$)", re.DOTALL)
_SMILE = re.compile(r"\s+[:;]-?[)DP]+$|\s*[\U0001f300-\U0001faff\u2705\u2714\ufe0f]+$")
_REASON = re.compile(r"[,;]?\s+(?:because|since|as|given that|which|hence)\s.*", re.IGNORECASE | re.DOTALL)
_COMMAND = re.compile(r"\\[A-Za-z]+(?:\s*\{[A-Za-z ]*\})?")
_WORD = re.compile(r"[A-Za-z]{2,}")
_LEADS = re.compile(r"[^\d\\$(]*?(?<![A-Za-z\\])[A-Za-z]{2,}")
_NUMBER = re.compile(
    r"(?<![\w.])[-+]?[$\u20ac\u00a3]?[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s*/\s*\d+)?(?:\s*\\?%)?(?![\d^!*/_])", re.ASCII
)
_OPTION = re.compile(r"^(?:the\s+)?(?:option|choice|letter)\s+(?=\(?[A-J]\b)", re.IGNORECASE)
_CHOSEN = re.compile(r"\(([A-J])\)")
_SPAN = re.compile(r"\$([^$]+)\$|\\\((.+?)\\\)")
_CHANGES = re.compile(
    r"(?<![A-Za-z])(?:not|no|never|neither|nor|cannot|less|fewer|more|greater|larger|smaller|least|most|about|approximately|around|"
    r"roughly|nearly|almost|twice|thrice|half|double|triple|third|quarter|minus|negative|plus|times|squared|cubed|between|under|"
    r"over|above|below|up|down|off|dozen|hundreds?|thousands?|millions?|billions?|trillions?|base|power|root|and|to|through|"
    r"instead|was|were|would|if|wrong|incorrect|percent|per|every|each|of|factorial|choose|mod|modulo|divided|multiplied|"
    r"increased|decreased|reduced|added|subtract\w*|difference|sum|product|ratio|point|log|ln|sqrt|th|st|nd|rd)(?![A-Za-z])|n't\b|[=<>~^+*\u2248\u2260\u2264\u2265]",
    re.IGNORECASE,
)
"""What makes another value of a number in a sentence, or may."""


class Candidate(NamedTuple):
    """A candidate, or None and the reason."""

    answer: str | None
    why: str = ""
    certain: bool = False
    """Whether no other reading of the completion would find another answer: a box, or a number at its end."""


def final_answer(text: str) -> Candidate:
    """The one candidate of a completion."""
    if len(text) > SCANNED_CHARS:
        text = text[-SCANNED_CHARS:]
    boxes = text.count("\\boxed") + text.count("\\fbox")
    if boxes == 1 and (simple := _SIMPLE.search(text)):
        candidate = Candidate(simple[1], "", True)
        return candidate if len(text) - simple.end() < 4 else _unless_changed(candidate, text[simple.end() :])
    if boxes:
        candidate, end = _boxed(text)
        return candidate if candidate.answer is None else _unless_changed(candidate, text[end:])
    text = without_end_of_turn(text)
    low = text.lower()
    if any(mark in low for mark in _MARKED):
        found = _marked(text, low)
        if found is not None:
            return found
    whole = text.strip()
    if not whole or len(whole) > WHOLE_CHARS or "\n" in whole or _PROSE.search(whole) or _STATEMENT.match(whole):
        return Candidate(None, "no box, no marker, and the completion is more than an answer")
    return _candidate(whole)._replace(certain=_NUMBER.fullmatch(whole) is not None)


def hedged(answer: str) -> bool:
    """Whether an answer names several answers or expresses doubt."""
    return _HEDGE.search(answer) is not None or _UNSURE.search(answer) is not None


def _candidate(answer: str) -> Candidate:
    answer = answer.strip().strip("*").strip()
    if not answer:
        return Candidate(None, "an empty answer")
    if len(answer) > ANSWER_CHARS:
        return Candidate(None, f"an answer of more than {ANSWER_CHARS:,} characters")
    return Candidate(answer)


def _unless_changed(candidate: Candidate, rest: str) -> Candidate:
    """The answer in a box, unless a marker after it announces another one."""
    rest = without_end_of_turn(rest)
    low = rest.lower()
    if candidate.answer is None or not any(mark in low for mark in _MARKED):
        return candidate
    later = _marked(rest, low)
    if later is None or (later.answer is not None and _squeezed(later.answer) == _squeezed(candidate.answer)):
        return candidate
    return Candidate(None, "another answer is announced after the box")


def _boxed(text: str) -> tuple[Candidate, int]:
    """The last box, and where it ends."""
    starts = [(match.start(), match.end()) for match in _BOX.finditer(text)][-BOXES:]
    boxes = [(start, *_balanced(text, opening)) for start, opening in starts]
    closed = [(start, end, content) for start, end, content in boxes if content is not None]
    if not closed:
        return Candidate(None, "a box that is not closed"), 0
    start, end, answer = closed[-1]
    if boxes[-1][2] is None:
        return Candidate(None, "the last box is not closed"), 0
    earlier = [box for box in closed[:-1] if box[1] <= start]
    if earlier:
        _, before_end, before = earlier[-1]
        if _squeezed(before) != _squeezed(answer) and not _SENTENCE.search(text, before_end, start):
            return Candidate(None, "several boxes in one sentence"), 0
    return _candidate(answer)._replace(certain=True), end


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
    """What the markers of a text announce; None if there is none."""
    tags = [match.group(1) for match in _TAG.finditer(text)] if "<answer>" in low else []
    if tags:
        candidates = [_candidate(answer) for answer in tags if answer.strip()]
    else:
        markers = list(_MARKER.finditer(text))
        lines = [_line(text, match.end()) for match in markers]
        starts = [*(match.start() for match in markers[1:]), len(text)][: len(lines)]
        # "Final answer: The answer is 12" announces one answer twice
        lines = [line for line, start in zip(lines, starts, strict=True) if line[1] <= start]
        candidates = [_valued(line, text[end:]) for line, end in lines if line.strip()]
    if not candidates:
        return None
    answers = {_squeezed(found.answer) for found in candidates if found.answer is not None}
    if len(answers) > 1:
        return Candidate(None, "markers announce different answers")
    return candidates[-1]


def _line(text: str, start: int) -> tuple[str, int]:
    """The rest of the line up to the end of its sentence, display maths, or the next line if the rest is empty; and its end."""
    if display := _DISPLAY.match(text, start):
        return (display[1] or display[2]).strip(), display.end()
    end = text.find("\n", start)
    end = len(text) if end < 0 else end
    if not text[start:end].strip() and end < len(text):
        start = end + len(text[end:]) - len(text[end:].lstrip())
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
    line = text[start:end]
    stop = re.search(r"\.(?=\s|$)|\u3002", line.rstrip()) if line.strip() else None
    return (line[: stop.start()].strip(), start + stop.end()) if stop else (line.strip(), end)


def _valued(line: str, rest: str) -> Candidate:
    """The answer of a line after a marker. In a sentence it is the one value that stands there."""
    line = _OPTION.sub("", _SMILE.sub("", line.strip()).strip().strip("*").strip())
    candidate = _candidate(line)
    if candidate.answer is None:
        return candidate
    if re.search(r"\d!$", line):
        return Candidate(None, "a factorial, or a number and an exclamation mark")
    number = _NUMBER.fullmatch(line.strip("$ "))
    if number is not None:
        return candidate._replace(certain=not re.search(r"[0-9]", rest))
    bare = _COMMAND.sub(" ", line)
    words = [word for word in _WORD.findall(bare) if word not in FUNCTIONS]
    if not words or not re.search(r"\d|\([A-J]\)", line):
        return candidate
    starts_with_words = _LEADS.match(bare) is not None and words[0].lower() not in ("or", "and") and not _is_date(words)
    if not starts_with_words and len(words) < 4 and not _REASON.search(line):
        return candidate
    if hedged(line):
        return candidate
    return _one_value(_REASON.sub("", line))


def _one_value(sentence: str) -> Candidate:
    """The one value in a sentence."""
    spans = [(match[1] or match[2]).strip() for match in _SPAN.finditer(sentence)]
    spans = [span for span in spans if not re.fullmatch(r"[A-Za-z]", span)]
    plain = _SPAN.sub(" ", sentence)
    numbers = [f"{match[0].strip()}{_unit_after(plain, match.end())}" for match in _NUMBER.finditer(plain)]
    found = {_squeezed(value): value for value in (*spans, *numbers, *_CHOSEN.findall(plain))}
    if len(found) != 1 or _CHANGES.search(plain):
        return Candidate(None, "a sentence in which no value, or several, may be the answer")
    return _candidate(next(iter(found.values())))


def _unit_after(text: str, end: int) -> str:
    word = re.match(r"\s*([A-Za-z]+|\u00b0[CF]?)", text[end:])
    return f" {word[1]}" if word and word[1] in UNITS and len(word[1]) > 1 else ""


def _is_date(words: list[str]) -> bool:
    return any(word[:3].lower() in _MONTHS for word in words)


_MONTHS = frozenset("jan feb mar apr may jun jul aug sep oct nov dec".split())


def _squeezed(text: str) -> str:
    """A text as it is compared with another announcement: without signs around it, and a number without separators and unit."""
    text = re.sub(r"[\s$*.]+|\\[,;! ]", "", text.replace("\\boxed", ""))
    number = re.match(r"\{?([-+]?\d[\d,]*(?:\.\d+)?)(?:[A-Za-z]*|\})$", text)
    return number[1].replace(",", "") if number else text
