"""The last word of a comparison, in a supervised worker: typed comparison, then math-verify.

math-verify (github.com/huggingface/Math-Verify) is asked only for what filters.maths.typed cannot tell, with the settings that
accept the fewest wrong answers: LaTeX alone, no fallback, the first match, 50 digits. Its own time-outs are off, for they come
out as wrong answers. It never sees what the guard refuses, and is believed only where it says the same with the sides exchanged.
"""

from typing import Any

from filters.maths.cleaning import cleaned
from filters.maths.guard import refusal
from filters.maths.typed import compare, readable


def verified(gold: str, answer: str) -> str:
    """`equal`, `different`, or why nobody can tell."""
    if cleaned(gold) == cleaned(answer):
        return "equal"
    for what, text in (("the answer", answer), ("the reference", gold)):
        if (why := refusal(text)) is not None:
            return f"{what}: {why}"
    said = compare(gold, answer)
    if said is None:
        said = _by_math_verify(gold, answer)
    return "equal" if said else "different"


def why_unfit(gold: str) -> str | None:
    """Why a text cannot be a reference; None where it can. Words and expressions can, a text that nothing reads cannot."""
    if (why := refusal(gold)) is not None:
        return why
    if readable(gold):
        return None
    parsed = _parsed(cleaned(gold))
    if not parsed:
        return "neither a number, a choice, a word nor an expression that can be read"
    return None if _verify(parsed, _parsed(cleaned(gold))) else "it does not equal itself"


def _by_math_verify(gold: str, answer: str) -> bool:
    first, second = _parsed(cleaned(gold)), _parsed(cleaned(answer))
    if not first or not second:
        return False
    return _verify(first, second) and _verify(second, first)


def _parsed(text: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    text = text.replace("\u27e8", "\\{").replace("\u27e9", "\\}").replace("\u00b0", "^{\\circ}").replace("%", "\\%")
    found: list[Any] = parse(
        f"${text}$", [LatexExtractionConfig()], fallback_mode="no_fallback", extraction_mode="first_match", parsing_timeout=None
    )
    return found


def _verify(gold: list[Any], answer: list[Any]) -> bool:
    from math_verify import verify

    return bool(verify(gold, answer, numeric_precision=50, float_rounding=15, timeout_seconds=None))
