"""Write a known answer in other words, by means that cannot change what it says.

A number is spelled out, written with a decimal point, as a fraction in lowest terms or with its unit converted; a short answer is
put into a sentence. What is not surely the same answer is not written: a long or structured answer has no other words, and
figures that may be a code, a year, bits or a measurement of so many places no other notation.
"""

import re
from fractions import Fraction

SHORT_CHARS = 80
"""A longer answer, or one of several lines, is not put into a sentence."""
LARGEST = 999_999
"""Larger numbers are not written in words."""
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen"
).split()
_TENS = ("", "", *"twenty thirty forty fifty sixty seventy eighty ninety".split())
_SMALLER = {
    "km": ("kilometres", 1000, "m"),
    "m": ("metres", 100, "cm"),
    "cm": ("centimetres", 10, "mm"),
    "kg": ("kilograms", 1000, "g"),
    "hours": ("hours", 60, "minutes"),
    "minutes": ("minutes", 60, "seconds"),
}
"""By unit: its name, and how many of which smaller unit it holds."""
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/[1-9]\d*)?")
_NO_QUANTITY = re.compile(r"-?(?:0[\d,].*|[01]{3,}|.*\.\d*0)")
"""Leading zeros, as in 02139; zeros and ones only, as in 1011; zeros behind the decimals, as in 5.10."""
_YEAR = re.compile(r"\d{4}")
_SENTENCES = ("The answer is {}.", "{} is the answer.", "It must be {}.", "Having checked it twice, I answer: {}.")


def value_of(answer: str) -> Fraction | None:
    """The value of an answer that is a number: an integer, a decimal, or a fraction of two integers. None for any other."""
    text = answer.strip()
    if not _NUMBER.fullmatch(text) or ("/" in text and "." in text):
        return None
    return Fraction(text.replace(",", ""))


def differ(first: str, second: str) -> bool:
    """Whether two answers surely say different things: numbers of different values, or texts of which neither holds the other."""
    values = value_of(first), value_of(second)
    if None not in values:
        return values[0] != values[1]
    texts = [re.sub(r"\W+", " ", text.casefold()).strip() for text in (first, second)]
    return bool(texts[0] and texts[1]) and texts[0] not in texts[1] and texts[1] not in texts[0]


def in_sentences(answer: str) -> list[str]:
    """Sentences that say the answer, with the answer at their beginning or at their end; none for a long one."""
    return [sentence.format(answer.strip().rstrip(".")) for sentence in _SENTENCES] if is_short(answer) else []


def is_short(answer: str) -> bool:
    """Whether an answer fits into a sentence."""
    return bool(answer.strip()) and len(answer) <= SHORT_CHARS and "\n" not in answer.strip()


def in_other_notation(answer: str) -> list[str]:
    """The same number, amount or measure in other notations; none for an answer that is none."""
    text = answer.strip()
    if (value := _quantity(text)) is not None:
        return _notations(text, value)
    if text.startswith("$") and (value := _quantity(text[1:])) is not None:
        return [f"{words} dollars" for words in _words(value)]
    if text.endswith("%") and (value := _quantity(text[:-1])) is not None:
        return [*(f"{words} percent" for words in _words(value)), f"{value}/100" if value.denominator == 1 else ""][:2]
    number, _, unit = text.partition(" ")
    if unit in _SMALLER and (value := _quantity(number)) is not None:
        name, count, smaller = _SMALLER[unit]
        return [*(f"{words} {name}" for words in _words(value) if value != 1), f"{_decimal(value * count)} {smaller}"]
    return []


def _quantity(text: str) -> Fraction | None:
    """The value of a number whose figures say no more than it."""
    return None if _NO_QUANTITY.fullmatch(text.strip()) else value_of(text)


def _notations(text: str, value: Fraction) -> list[str]:
    if _YEAR.fullmatch(text):
        return _words(value)
    if value.denominator == 1:
        plain = str(value.numerator)
        grouped = f"{value.numerator:,}" if abs(value) >= 10_000 else plain
        written = [*_words(value), f"{plain}.0", grouped, plain]
    else:
        written = [*_words(value), _decimal(value), str(value)]
    return [form for form in dict.fromkeys(written) if form != text]


def _decimal(value: Fraction) -> str:
    """The value in decimals if four places hold it, else as a fraction."""
    scaled = value * 10_000
    if scaled.denominator != 1:
        return str(value)
    whole, places = divmod(abs(scaled.numerator), 10_000)
    return f"{'-' if value < 0 else ''}{whole}.{places:04d}".rstrip("0").rstrip(".")


def _words(value: Fraction) -> list[str]:
    """The value in words, if it is an integer or a decimal of at most four places, and not too large."""
    if abs(value) > LARGEST or (value * 10_000).denominator != 1:
        return []
    whole, _, places = _decimal(abs(value)).partition(".")
    words = _integer(int(whole)) + ("" if not places else " point " + " ".join(_ONES[int(digit)] for digit in places))
    return [f"minus {words}" if value < 0 else words]


def _integer(number: int) -> str:
    if number < 20:
        return _ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens] + (f"-{_ONES[ones]}" if ones else "")
    size, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    many, rest = divmod(number, size)
    link = "" if not rest else " and " if rest < 100 else " "
    return f"{_integer(many)} {name}{link}{_integer(rest) if rest else ''}"
