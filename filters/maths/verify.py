"""The final comparison, in a supervised worker: typed comparison, then math-verify.

Only the typed comparison proves that two answers differ. math-verify (github.com/huggingface/Math-Verify) may still find equal
what it leaves open, with the settings that accept the fewest wrong answers: only LaTeX, no fallback, the first match, 50 digits.
That it does not is no proof, as it also says so of what it cannot read. Its own time-outs are off, because it reports them as
wrong answers. It never sees what the guard refuses, and its result counts only if it is the same with the sides exchanged.
"""

from typing import Any

from filters.maths.cleaning import cleaned
from filters.maths.guard import expense, refusal
from filters.maths.typed import compare, readable

OPEN = "neither shown to be equal nor to differ"


def verified(gold: str, answer: str) -> str:
    """Compare an answer with a reference. Returns `equal`, `different`, or why it cannot be decided."""
    if cleaned(gold) == cleaned(answer):
        return "equal"
    for side, text in (("the answer", answer), ("the reference", gold)):
        if (why := refusal(text)) is not None:
            return f"{side}: {why}"
    equal = compare(gold, answer)
    if equal is not None:
        return "equal" if equal else "different"
    if readable(gold) and readable(answer):  # both were read, and may mean the same or not
        return OPEN
    for side, text in (("the answer", answer), ("the reference", gold)):
        if (why := expense(text)) is not None:
            return f"{side}: {why}"
    return "equal" if _by_math_verify(gold, answer) else OPEN


def why_unfit(gold: str) -> str | None:
    """Return why a text cannot be a reference, None if it can. Words and expressions can be; unreadable text cannot."""
    if (why := refusal(gold)) is not None:
        return why
    if readable(gold):
        return None
    if (why := expense(gold)) is not None:
        return why
    parsed = _parsed(cleaned(gold))
    if not parsed:
        return "neither a number, a choice, a word nor an expression that can be read"
    return None if _verify(parsed, _parsed(cleaned(gold))) else "it does not equal itself"


def read_otherwise(answer: str, completion: str) -> str | None:
    """Return the answer that math-verify's own extraction finds in a completion if it is not shown to equal ours; None where the
    two agree, where it finds none, and where it would not come to an end."""
    from math_verify import parse

    if expense(completion) is not None:
        return None
    found = parse(completion, parsing_timeout=None)
    other = next((text for text in reversed(found) if isinstance(text, str)), "")
    return None if not other or refusal(other) or compare(answer, other) else other


def _by_math_verify(gold: str, answer: str) -> bool:
    first, second = _parsed(cleaned(gold)), _parsed(cleaned(answer))
    if not first or not second:
        return False
    return _verify(first, second) and _verify(second, first)


def _parsed(text: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    text = text.replace("\u27e8", "\\{").replace("\u27e9", "\\}").replace("\u00b0", "^{\\circ}").replace("%", "\\%")
    expressions: list[Any] = parse(
        f"${text}$", [LatexExtractionConfig()], fallback_mode="no_fallback", extraction_mode="first_match", parsing_timeout=None
    )
    return expressions


def _verify(gold: list[Any], answer: list[Any]) -> bool:
    from math_verify import verify

    return bool(verify(gold, answer, numeric_precision=50, float_rounding=15, timeout_seconds=None))
