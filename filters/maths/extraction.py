"""Read the final answer of a completion, by one rule.

1. The last balanced `\\boxed{...}` (or `\\fbox{...}`). A second box with other content in the same sentence is a hedge, and
   so is a marker after it that announces another answer, and so is a correction or a conclusion after it with another value.
2. Else what stands after a marker: `<answer>...</answer>`, `####`, `final answer:`, `answer is`, `answer:`, a heading, and their
   likes in some languages; the rest of its line, or the next line or display maths if that is empty. All markers must announce
   the same answer, and nothing after them may take it back.
3. Else the whole completion, if it is one line of at most 200 characters and nothing but an answer: no sentence.

What stands after a marker may be a sentence: then the answer is the one value in it (`She has 12 apples`). There is exactly one
candidate or none: `5 or 6` is none, and so is a sentence with several values or with a word that changes its value (`12 less than
that`). Takes time linear in the length of the text.
"""

import re
from typing import NamedTuple

from filters.maths.announcements import MARKER, first_mark
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
_NOTHING = " $.\n*)\\]}"
"""What may stand after a box and says nothing."""
_SIMPLE = re.compile(r"\\boxed\{([A-Za-z0-9.,+/-]{1,5500})\}")
_TAG = re.compile(r"<answer>([^<]{0,6000})</answer>", re.IGNORECASE)
_COPULA = re.compile(r"\s*(?:\u3067\u3059|\u3067\u3042\u308b|\uc785\ub2c8\ub2e4|\uc774\ub2e4|\u0939\u0948)?\s*[\u3002\u0964.]?$")
_CORRECTION = re.compile(
    r"(?<![A-Za-z])(?:wait|actually|correction|corrected|oops|sorry|mistaken?|miscalculated|scratch that|i meant|i mean|"
    r"on second thought|should have been|that(?:'s| is| was) (?:wrong|incorrect|not right)|or (?:maybe|perhaps|possibly)|"
    r"alternatively|no, (?:it|the|that))(?![A-Za-z])",
    re.IGNORECASE,
)
"""What takes an answer back, or doubts it."""
_CONCLUSION = re.compile(r"(?:so|thus|therefore|hence|final|finally|total|result|conclusion)\b[^\n]*", re.IGNORECASE)
_SAID = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:/\d+)?(?!\w)|(?<![\w'])[B-HJ](?![\w'])", re.ASCII)
_PUNCTUATED = re.compile(r"(?<=[$*)\]])!+$|[,;:]$")
_SENTENCE = re.compile(r"[.!?](?=\s)|\n\s*\n")
_HEDGE = re.compile(r"(?<![A-Za-z\\])(?:or|either|maybe|perhaps|possibly|alternatively|versus|vs)(?![A-Za-z])|\?", re.IGNORECASE)
_UNSURE = re.compile(
    r"(?<![A-Za-z\\])(?:not sure|unsure|i (?:don't|do not|cannot|can't)|cannot be sure|could be|might be)(?![A-Za-z])",
    re.IGNORECASE,
)
_PROSE = re.compile(r"[A-Za-z]{2,}(?:[ ,]+[A-Za-z]{2,}){4,}")
_STATEMENT = re.compile(r"[A-Za-z].*?[A-Za-z]{2,}[ ,]+[A-Za-z]{2,}.*\.\Z")
"""A sentence that starts with a word: an answer may stand in it, and is not told from the rest."""
_DISPLAY = re.compile(
    r"\s*(?:\\\[(.{0,6000}?)\\\]|\$\$(.{0,6000}?)\$\$"
    r"|\\begin\{((?:equation|align|gather|multline)\*?)\}(.{0,6000}?)\\end\{\3\})",
    re.DOTALL,
)
_ALIGNED = re.compile(r"\\(?:begin|end)\{(?:aligned|split|gathered)\}")
_ITEM = re.compile(r"\d{1,2}[.)][ \t]+\S")
_CONTINUED = re.compile(r"\s*(?:\\times|\\cdot|\\div|[+*/^-])\s*[\d\\(]")
"""What makes a box a part of an expression."""
_NO_ANSWER = re.compile(
    r"(?:in)?correct|right|wrong|(?:un)?clear|obvious|unknown|above|below|here|given|shown|found|trivial|simple|needed|required|missing",
    re.IGNORECASE,
)
"""Words after `the answer is` that say something about the answer, and are none."""
_PLACE = re.compile(
    r"(?<![A-Za-z])(?:steps?|equations?|eqs?\.?|parts?|figures?|tables?|sections?|problems?|questions?|cases?|theorems?|lines?|pages?|"
    r"examples?|chapters?|lemmas?)\s*\(?\d",
    re.IGNORECASE,
)
"""A number that names a place in a text."""
_FENCE = re.compile(r"```\w*[ \t]*\n\s*")
_SMILE = re.compile(r"\s+[:;]-?[)DP]+$|\s*[\U0001f300-\U0001faff\u2705\u2714\ufe0f]+$")
_REASON = re.compile(
    r"[,;]?\s+\(?(?:because|since|as|given that|which|hence|due to|obtained by|using)\s.*"
    r"|\s+[-\u2013\u2014]\s+(?:that is|because)\b.*",
    re.IGNORECASE | re.DOTALL,
)
_BESIDE = re.compile(r"[-+]?[\d.,]+\s+\([-+*/\d\s.=^\u00d7\u00f7]*[-+*/=^\u00d7\u00f7][-+*/\d\s.=^\u00d7\u00f7]*\)$")
"""A number, and a calculation in brackets beside it: a product, or how it was found."""
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
_STATED = re.compile(r"([^\d=<>^]*)(?<![A-Za-z])(?:is|are|equals)\s+[$\\(*]*[-+]?\$?[\d,.]+[$\\)*]*")
"""A sentence that ends by saying what something is."""
_DENIES = re.compile(
    r"(?<![A-Za-z])(?:not|no|never|neither|nor|cannot|if|would|was|were|wrong|incorrect|percent\w*|dozens?|hundreds?|thousands?|millions?|"
    r"billions?|trillions?|base|instead|unless|suppose|assume)(?![A-Za-z])|n't\b|%",
    re.IGNORECASE,
)
"""What leaves open that it is so, or in what the number counts."""


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
        start, end = simple.span()
        if start and text[start - 1] == "-":
            return Candidate(None, "a sign before the box")
        candidate = Candidate(simple[1], "", True)
        rest = text[end:]
        return _unless_changed(candidate, rest) if rest.strip(_NOTHING) else candidate
    if boxes:
        candidate, end = _boxed(text)
        return candidate if candidate.answer is None else _unless_changed(candidate, text[end:])
    text = without_end_of_turn(text)
    found = _marked(text)
    if found is not None:
        return found
    whole = _PUNCTUATED.sub("", text.strip())
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
    """The answer in a box, unless it is a part of an expression, or the text after it announces another one."""
    if candidate.answer is None or not rest.strip(_NOTHING):
        return candidate
    rest = without_end_of_turn(rest)
    if _CONTINUED.match(rest) or (rest.lstrip().startswith("=") and not re.search(r"\d", candidate.answer)):
        return Candidate(None, "the box is a part of an expression")
    later = _marked(rest)
    if later is not None and (later.answer is None or _squeezed(later.answer) != _squeezed(candidate.answer)):
        return Candidate(None, "another answer is announced after the box")
    if _taken_back(candidate.answer, rest):
        return Candidate(None, "the answer is taken back, or another one follows")
    return candidate._replace(certain=not re.search(r"\d", rest))


def _taken_back(answer: str, rest: str) -> bool:
    """Whether the text after an answer corrects it, or concludes with another value."""
    known = _squeezed(answer).strip("()")
    if correction := _CORRECTION.search(rest):
        said = [_squeezed(match[0]) for match in _SAID.finditer(rest, correction.end())]
        return said[-1] != known if said else "that" in correction[0] or correction[0].lower() in ("mistake", "wait", "oops")
    if not _SAID.fullmatch(known):
        return False  # another form of the same value may follow
    for sentence in reversed(re.split(r"(?<=[.!?])\s+|\n+", rest)):
        said = [_squeezed(match[0]) for match in _SAID.finditer(sentence)]
        if said:
            alone = not re.search(r"[A-Za-z]", sentence) or _CONCLUSION.match(sentence.lstrip("*_#$ ")) is not None
            return alone and known not in said and len(set(said)) == 1
    return False


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
    if start and text[start - 1] == "-":
        return Candidate(None, "a sign before the box"), 0
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


def _marked(text: str) -> Candidate | None:
    """What the markers of a text announce; None if there is none."""
    low = text.lower()
    first = first_mark(low)
    if first < 0:
        return None
    if len(low) != len(text):  # a letter whose lower case is longer
        first = 0
    tags = [match.group(1) for match in _TAG.finditer(text)] if "<answer>" in low else []
    if tags:
        candidates = [_in_tag(answer) for answer in tags if answer.strip()]
        after = text.lower().rindex("</answer>") + len("</answer>")
        later = [_line(text, match.end())[0] for match in MARKER.finditer(text, after)]
        candidates = [*(_valued(line, "") for line in later if line), *candidates]
    else:
        markers = list(MARKER.finditer(text, first))
        lines = [_line(text, match.end()) for match in markers]
        starts = [*(match.start() for match in markers[1:]), len(text)][: len(lines)]
        # "Final answer: The answer is 12" announces one answer twice
        lines = [line for line, start in zip(lines, starts, strict=True) if line[1] <= start]
        candidates = [_valued(line, text[end:]) for line, end in lines if line.strip()]
        after = max((end for _, end in lines), default=0)
    if not candidates:
        return None
    answers = {_squeezed(found.answer) for found in candidates if found.answer is not None}
    if len(answers) > 1:
        return Candidate(None, "markers announce different answers")
    last = candidates[-1].answer
    if last is not None and _taken_back(last, text[after:]):
        return Candidate(None, "the answer is taken back, or another one follows")
    return candidates[-1]


def _in_tag(content: str) -> Candidate:
    """The answer in a tag, which may be a box, an announcement or a sentence."""
    if "\\boxed" in content or "\\fbox" in content:
        return final_answer(content)
    announced = list(MARKER.finditer(content))
    return _valued(_line(content, announced[-1].end())[0] if announced else content.strip().removesuffix("."), "")


def _line(text: str, start: int) -> tuple[str, int]:
    """The rest of the line up to the end of its sentence, display maths, or the next line if the rest is empty; and its end."""
    if display := _DISPLAY.match(text, start):
        return _shown(display), display.end()
    end = text.find("\n", start)
    end = len(text) if end < 0 else end
    follows = not text[start:end].strip() and end < len(text)
    if follows:
        start = end + len(text[end:]) - len(text[end:].lstrip())
        if fence := _FENCE.match(text, start):
            start = fence.end()
        if display := _DISPLAY.match(text, start):
            return _shown(display), display.end()
        start += 2 * text.startswith("> ", start)
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
    line = text[start:end]
    if follows and _ITEM.match(line):
        return line.strip(), end
    stop = re.search(r"\.(?=\s|$)|\u3002", line.rstrip()) if line.strip() else None
    return (line[: stop.start()].strip(), start + stop.end()) if stop else (line.strip(), end)


def _shown(display: re.Match[str]) -> str:
    """What display maths shows: of a chain of equations in several rows, one chain."""
    content = _ALIGNED.sub("", display[1] or display[2] or display[4] or "").strip()
    rows = [row.strip() for row in content.split("\\\\") if row.strip()]
    if display[3] is None and content.count("&") == 0:
        return content
    if all(re.match(r"&?\s*=", row) for row in rows[1:]):
        return " ".join(rows).replace("&", "")
    return content


def _valued(line: str, rest: str) -> Candidate:
    """The answer of a line after a marker. In a sentence it is the one value that stands there."""
    line = _SMILE.sub("", line.strip()).strip().strip("*").strip()
    line = _COPULA.sub("", _PUNCTUATED.sub("", line)).strip("*").strip()
    line = _OPTION.sub("", line)
    candidate = _candidate(line)
    if candidate.answer is None:
        return candidate
    if _NO_ANSWER.fullmatch(line):
        return Candidate(None, "a sentence about the answer")
    if re.search(r"\d!$", line):
        return Candidate(None, "a factorial, or a number and an exclamation mark")
    number = _NUMBER.fullmatch(line.strip("$ "))
    if number is not None:
        return candidate._replace(certain=not re.search(r"[0-9]", rest))
    if _BESIDE.match(line):
        return Candidate(None, "a number beside a calculation in brackets")
    if _CORRECTION.search(line) and re.search(r"\d", line):
        return Candidate(None, "the answer is taken back in its sentence")
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
    if _PLACE.search(sentence):
        return Candidate(None, "a sentence with a number that names a place")
    spans = [(match[1] or match[2]).strip() for match in _SPAN.finditer(sentence)]
    spans = [span for span in spans if not re.fullmatch(r"[A-Za-z]", span)]
    plain = _SPAN.sub(" ", sentence)
    numbers = [f"{match[0].strip()}{_unit_after(plain, match.end())}" for match in _NUMBER.finditer(plain)]
    found = {_squeezed(value): value for value in (*spans, *numbers, *_CHOSEN.findall(plain))}
    stated = _STATED.fullmatch(sentence) if len(found) == 1 else None
    if len(found) != 1 or (_CHANGES.search(plain) and (stated is None or _DENIES.search(stated[1]))):
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
    text = re.sub(r"[\s$*]+|(?<!\d)\.(?!\d)|\.$|\.(?=\s)|\\[,;! ]", "", text.replace("\\boxed", ""))
    number = re.match(r"\{?([-+]?\d[\d,]*(?:\.\d+)?)(?:[A-Za-z]*|\})$", text)
    if number is None:
        return text
    whole, _, part = number[1].replace(",", "").partition(".")
    return f"{whole}.{part}".rstrip("0").rstrip(".") if part.strip("0") else whole
