"""Values of numbers, expressions and quantities as people write them: separators, mixed numbers, other bases, units."""

import re
from functools import lru_cache
from typing import Any

from filters.maths.expressions import values
from filters.maths.quantities import Unit, split_unit
from filters.maths.tokens import UnknownError

THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")
VARIABLE = re.compile(r"[A-Za-z](?:_\{?\w{1,4}\}?)?(?:\([A-Za-z]\))?'?|\\[a-z]+(?:_\{?\w{1,4}\}?)?")
_SPACED = re.compile(r"(?<![\d.])\d{1,3}(?: \d{3})+(?![\d])")
_MIXED_FRAC = re.compile(
    r"(?<![\d.}\w])(\d+)\s*\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(?<![\d.}\w])(\d+)\s*\\frac\s*(\d)\s*(\d)(?!\d)"
)
_OF_ANGLE = re.compile(r"(?:sin|cos|tan|cot|sec|csc)\b")
_REPEATING = re.compile(
    r"(?<![\d.])(\d{0,50})\.(?:(\d{0,50})\\(?:overline|bar|dot)\s*\{?(\d{1,50})\}?|(\d{1,50})(?:\.\.\.|\\(?:l|c)?dots|\u2026))"
)
_MIXED = re.compile(r"(?<![\d./])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d./])")
_SCIENTIFIC = re.compile(r"(?<![A-Za-z\d.])(\d+(?:\.\d*)?|\.\d+)[eE]([+-]?\d{1,4})(?![A-Za-z\d.])")
_UNDERSCORED = re.compile(r"\d{1,3}(?:_\d{3})+")
_BASED = re.compile(r"([0-9][0-9A-Fa-f]*|[A-Fa-f][0-9A-Fa-f]*[0-9][0-9A-Fa-f]*)\s*_\s*\{?\s*(\d{1,2})\s*\}?")
_PREFIXED = re.compile(r"0([xXbBoO])([0-9A-Fa-f]+)")


def based(text: str) -> tuple[int, str] | None:
    """The value of a number that names its base (1010_2, 0x1F), and its digits; None for any other text."""
    if match := _BASED.fullmatch(text):
        base, digits = int(match[2]), match[1]
    elif match := _PREFIXED.fullmatch(text):
        base, digits = {"x": 16, "b": 2, "o": 8}[match[1].lower()], match[2]
    else:
        return None
    try:
        return int(digits, base), digits.lstrip("0").lower()
    except ValueError:
        return None


def right_side(text: str) -> str:
    """The value of an assignment: `5` of `x = 5` and of `f(2) = 5`; any other text unchanged."""
    left, sign, right = text.rpartition("=")
    if not sign or not right.strip() or left.rstrip().endswith(("<", ">", "!")):
        return text
    left = left.rpartition("=")[2].strip() if "=" in left else left.strip()
    return right.strip() if VARIABLE.fullmatch(left.replace(" ", "")) or re.fullmatch(r"[A-Za-z]\([^()=]{1,8}\)", left) else text


def quantity(text: str) -> tuple[list[Any], Unit | None] | None:
    """The values of a quantity and its unit; None if it has no value. A unit is separated from its number (`5 m`), or has at
    least two letters (`5cm`)."""
    amount, unit = split_unit(text)
    if unit is not None and not _OF_ANGLE.search(amount) and (value := value_of(amount)) is not None:
        return value, unit
    value = value_of(text)
    return None if value is None else (value, None)


def has_value(text: str) -> bool:
    """Whether a text, or the right side of its assignment, is a quantity."""
    return quantity(right_side(text)) is not None


@lru_cache(maxsize=4_096)  # the samples of a prompt share their reference, and one comparison asks several times
def value_of(text: str) -> list[Any] | None:
    """The values of an expression at the points of filters.maths.expressions; None if it has none."""
    try:
        return values(_plain(text))
    except (UnknownError, ZeroDivisionError, ValueError, OverflowError, RecursionError, TypeError, IndexError):
        return None


def _plain(text: str) -> str:
    """Numbers in plain notation: without separators, mixed numbers and scientific notation as expressions."""
    if _UNDERSCORED.fullmatch(text):
        text = text.replace("_", "")
    text = THOUSANDS.sub(lambda m: m[0].replace(",", ""), text)
    if _SPACED.fullmatch(text):
        text = text.replace(" ", "")
    text = _REPEATING.sub(_repeating, text)
    text = _MIXED_FRAC.sub(lambda m: f"({m[1]}+{m[2]}/{m[3]})" if m[1] else f"({m[4]}+{m[5]}/{m[6]})", text)
    text = _MIXED.sub(r"(\1+\2/\3)", text)
    return _SCIENTIFIC.sub(r"(\1*10^{\2})", text)


def _repeating(match: "re.Match[str]") -> str:
    """A repeating decimal as a fraction: 0.1\\overline{6}, 0.333..."""
    whole, once, period = match[1] or "0", match[2] or "", match[3]
    if period is None:  # 0.1666...: the last digit, three times or more
        digits = match[4].rstrip(match[4][-1])
        once, period = digits, match[4][-1]
        if len(match[4]) - len(digits) < 3:
            return match[0]
    above = int(whole + once + period) - int(whole + once)
    return f"({above}/{(10 ** len(period) - 1) * 10 ** len(once)})"
