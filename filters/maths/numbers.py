"""Values of numbers, expressions and quantities as people write them: separators, mixed numbers, other bases, units."""

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from filters.maths.expressions import equal_values, values
from filters.maths.large import Large
from filters.maths.quantities import UNITS, Unit, split_unit
from filters.maths.tokens import UnknownError

THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")
VARIABLE = re.compile(r"[A-Za-z](?:_\{?\w{1,4}\}?)?(?:\([A-Za-z]\))?'?|\\[a-z]+(?:_\{?\w{1,4}\}?)?")
_SPACED = re.compile(r"(?<![\d.])\d{1,3}(?: \d{3})+(?![\d])")
_MIXED_FRAC = re.compile(
    r"(?<![\d.}\w])(\d+)\s*\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(?<![\d.}\w])(\d+)\s*\\frac\s*(\d)\s*(\d)(?!\d)"
)
_OF_ANGLE = re.compile(r"(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_REPEATING = re.compile(
    r"(?<![\d.])(\d{0,50})\.(?:(\d{0,50})\\(?:overline|bar|dot)\s*\{?(\d{1,50})\}?|(\d{1,50})(?:\.\.\.|\\(?:l|c)?dots|\u2026))"
)
_MIXED = re.compile(r"(?<![\d./])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d./])")
_SCIENTIFIC = re.compile(r"(?<![A-Za-z\d.])(\d+(?:\.\d*)?|\.\d+)[eE]([+-]?\d{1,4})(?![A-Za-z\d.])")
_UNDERSCORED = re.compile(r"\d{1,3}(?:_\d{3})+")
_BASED = re.compile(r"([0-9][0-9A-Fa-f]*|[A-Fa-f][0-9A-Fa-f]*[0-9][0-9A-Fa-f]*)\s*_\s*\{?\s*(\d{1,2})\s*\}?")
_AMOUNT = r"(\d{1,9}(?:\.\d{1,9})?)\s*([A-Za-z]{1,12})"
_TWO_UNITS = re.compile(rf"{_AMOUNT}\s*,?\s+(?:and\s+)?{_AMOUNT}")
_PREFIXED = re.compile(r"0([xXbBoO])([0-9A-Fa-f]+)")


_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_WORD_NUMBERS = {word: number for number, word in enumerate(_ONES)} | {word: 10 * ten for ten, word in enumerate(_TENS, 2)}


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
    """The value of an assignment: `5` of `x = 5` and of `f(2) = 5`; of a calculation that is right: `12` of `5+7=12`; any other
    text unchanged."""
    left, sign, right = text.rpartition("=")
    if not sign or not right.strip() or left.rstrip().endswith(("<", ">", "!")):
        return text
    left = left.rpartition("=")[2].strip() if "=" in left else left.strip()
    if any(mark.isdigit() for mark in left) and not set("<>(),") & set(text):
        values = value_of(left), value_of(right)
        return right.strip() if values[0] and values[1] and len(values[0]) == 1 and equal_values(values[0], values[1]) else text
    return right.strip() if VARIABLE.fullmatch(left.replace(" ", "")) or re.fullmatch(r"[A-Za-z]\([^()=]{1,8}\)", left) else text


def quantity(text: str) -> tuple[list[Any], Unit | None] | None:
    """The values of a quantity and its unit; None if it has no value. A unit is separated from its number (`5 m`), or has at
    least two letters (`5cm`)."""
    if together := _together(text):
        return together
    amount, unit = split_unit(text)
    if unit is not None and not _OF_ANGLE.search(amount) and (value := value_of(amount)) is not None:
        return value, unit
    value = value_of(text)
    return None if value is None else (value, None)


def _together(text: str) -> tuple[list[Any], Unit] | None:
    """A quantity in two units of a kind: 5 ft 6 in, 3 hours 30 minutes."""
    match = _TWO_UNITS.fullmatch(text)
    units = [UNITS.get(match[2]), UNITS.get(match[4])] if match else []
    if not match or units[0] is None or units[1] is None or not units[0].dimensions == units[1].dimensions != ():
        return None
    return [Fraction(match[1]) * units[0].scale + Fraction(match[3]) * units[1].scale], Unit(units[0].dimensions, Fraction(1))


def is_number(text: str) -> bool:
    """Whether a text is a quantity without variables."""
    found = quantity(right_side(text))
    return found is not None and len(found[0]) == 1


def word_number(text: str) -> int | None:
    """The integer that English words name, below 1,000,000: `twenty-five`, `one hundred and two`; None for any other text."""
    words = text.lower().replace("-", " ").split()
    if (
        not words
        or words[0] == "and"
        or not all(word in _WORD_NUMBERS or word in ("and", "hundred", "thousand") for word in words)
    ):
        return None
    total = part = 0
    for word in words:
        if word == "hundred":
            part *= 100
        elif word == "thousand":
            total, part = part * 1000, 0
        elif word != "and":
            part += _WORD_NUMBERS[word]
    number = total + part
    return number if _in_words(number) == [word for word in words if word != "and"] else None  # not: two three


def is_real(value: Any) -> bool:
    """Whether a value is a real number, or infinite, whose size is known."""
    from mpmath import mp

    if isinstance(value, Large):  # whether it is less than another is not known
        return False
    return isinstance(value, Fraction) or bool(mp.im(value) == 0 and not mp.isnan(value))


def less(first: Any, second: Any) -> bool:
    """Whether a real number is less than another."""
    if isinstance(first, Fraction) and isinstance(second, Fraction):
        return first < second
    from mpmath import mp

    return bool(mp.re(first) < mp.re(second))


def _in_words(number: int) -> list[str]:
    """The English words of an integer below 1,000,000, without `and`."""
    if number >= 1000:
        rest = _in_words(number % 1000) if number % 1000 else []
        return [*_in_words(number // 1000), "thousand", *rest]
    if number >= 100:
        return [_ONES[number // 100], "hundred", *(_in_words(number % 100) if number % 100 else [])]
    if number < 20:
        return [_ONES[number]]
    return [_TENS[number // 10 - 2], *([_ONES[number % 10]] if number % 10 else [])]


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
