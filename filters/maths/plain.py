"""Plain numbers and equal texts: what most answers are, decided without further ado."""

import re
from decimal import Decimal
from functools import lru_cache

_OUTSIDE = " \t\r\n$*`"
_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d{1,200})(?:\.\d{0,200})?|[+-]?\.\d{1,200}", re.ASCII)


@lru_cache(maxsize=65_536)
def number_of(text: str) -> Decimal | None:
    """The number that a text plainly is, with separators of thousands or without; None for anything else."""
    text = text.strip(_OUTSIDE).removesuffix(".")
    if not _NUMBER.fullmatch(text):
        return None
    return Decimal(text.replace(",", ""))


def same(gold: str, answer: str) -> bool | None:
    """Whether two answers are equal, where that is plain; None where it is not."""
    if gold == answer:
        return True
    first = number_of(gold)
    if first is None:
        return True if gold.strip(_OUTSIDE) == answer.strip(_OUTSIDE) else None
    second = number_of(answer)
    return None if second is None else first == second
