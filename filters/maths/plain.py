"""Compare plain numbers and equal texts, which most answers are, without parsing an expression."""

import re
from decimal import Decimal

_OUTSIDE = " \t\r\n$*`"
_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d{1,4000})(?:\.\d{0,4000})?|[+-]?\.\d{1,4000}", re.ASCII)


def number_of(text: str) -> Decimal | None:
    """The number that a text is, with or without thousands separators; None for any other text."""
    text = text.strip(_OUTSIDE).removesuffix(".")
    if not _NUMBER.fullmatch(text):
        return None
    return Decimal(text.replace(",", ""))


def same(gold: str, answer: str) -> bool | None:
    """Whether two answers are equal; None if this module cannot decide."""
    if gold == answer:
        return True
    first = number_of(gold)
    if first is None:
        return True if gold.strip(_OUTSIDE) == answer.strip(_OUTSIDE) else None
    second = number_of(answer)
    return None if second is None else first == second
