"""Refuses answers that are too expensive to compare: deep nesting and very long ones (`refusal`); and, for math-verify, which
does not bound its own work, towers of powers, huge factorials and the like (`expense`).

Takes linear time in the length of the text. A refused answer is unverifiable, not wrong.
"""

import re

MOST_CHARS = 400
"""Most characters that are no digits."""
MOST_NUMBER = 4_000
"""Most digits in all."""
MOST_DEPTH = 12
MOST_COMMAS = 60
MOST_DIGITS = 60

_EXPONENT = r"\^\s*(?:[{(]\s*[^{}()^+*/=,<>&-]{0,12}|[+-]?\d+|[A-Za-z]|\\[a-z]+)\s*"
"""An exponent on which another may stand: in brackets still open, or one number or letter (not `2y` of `x^2y^3`)."""
_TOO_MUCH = (
    (re.compile(rf"(?:{_EXPONENT}){{2}}\^"), "a tower of powers"),
    (re.compile(r"\d{4,}\s*\)?\s*!"), "a factorial of a large number"),
    (re.compile(r"!\s*!"), "repeated factorials"),
    (re.compile(r"\^\s*\{?\s*[+-]?\s*\d{5,}"), "a power above 9,999"),
    (re.compile(r"\\(?:d|t)?binom|\\choose"), "a binomial coefficient"),
    (re.compile(r"\\(?:sum|prod|int|iint|iiint|oint|lim|bigcup|bigcap)(?![A-Za-z])"), "a sum, product, integral or limit"),
)
_LARGE = re.compile(r"\d{4,}")
_POWER_ABOVE = re.compile(r"\^\s*[{(]?\s*(\d{1,9})\s*\^\s*[{(]?\s*(\d{1,9})")
"""A power of numbers in an exponent."""


def refusal(text: str) -> str | None:
    """Return why an answer is not compared, None if it is."""
    if len(text) > MOST_CHARS:
        digits = sum(map(text.count, "0123456789"))
        if len(text) - digits > MOST_CHARS:
            return f"longer than {MOST_CHARS} characters"
        if digits > MOST_NUMBER:
            return f"more than {MOST_NUMBER:,} digits"
    depth = deepest = 0
    for mark in text:
        if mark in "({[":
            depth += 1
            deepest = max(deepest, depth)
        elif mark in ")}]":
            depth -= 1
    if deepest > MOST_DEPTH:
        return f"nested deeper than {MOST_DEPTH}"
    if text.count(",") > MOST_COMMAS:
        return f"more than {MOST_COMMAS} elements"
    return None


def expense(text: str) -> str | None:
    """Return why math-verify is not asked, None if it is."""
    if any(len(run) > MOST_DIGITS for run in re.findall(r"\d+", text)):
        return f"a number of more than {MOST_DIGITS} digits"
    if any(int(base) > 1 and int(power) * len(base) > 4 for base, power in _POWER_ABOVE.findall(text)):
        return "a tower of powers"
    for pattern, name in _TOO_MUCH:
        if pattern.search(text) and (name != "a binomial coefficient" or _LARGE.search(text)):
            return name
    return None
