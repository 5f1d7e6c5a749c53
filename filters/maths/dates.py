"""Dates and times of day in the forms in which people write them."""

import re

from filters.maths.numbers import is_number

_MONTHS = "january february march april may june july august september october november december"
_MONTH = {name[:length]: number for number, name in enumerate(_MONTHS.split(), 1) for length in (3, 4, len(name))}
_ISO = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})")
_SHORT = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})")
_MONTH_FIRST = re.compile(r"(?:[A-Za-z]+day,?\s+)?([A-Za-z]{3,9})\.?\s+(\d{1,2})(?:st|nd|rd|th)?(?:,?\s+(\d{4}))?")
_DAY_FIRST = re.compile(r"(?:[A-Za-z]+day,?\s+)?(\d{1,2})(?:st|nd|rd|th)?(?:\s+of)?\s+([A-Za-z]{3,9})\.?(?:,?\s+(\d{4}))?")
_TIME = re.compile(
    r"(\d{1,2})(?::(\d{2}))?(?::(\d{2}))?\s*([AaPp])\.?\s*[Mm]\.?|(\d{1,2}):(\d{2})(?::(\d{2}))?(?:\s*(?:h|hours|o'clock))?"
)
_DIGITS = re.compile(r"\d+")
_RATIO = re.compile(r"\d{1,9}\s*:\s*\d{1,9}")
Date = tuple[int | None, int, int]
Time = tuple[int, int, int, bool]


def dates(text: str) -> frozenset[Date]:
    """The dates (year or None, month, day) that a text may mean: two for 1/2/2024, none if it is not a date."""
    if match := _ISO.fullmatch(text):
        readings = [(int(match[1]), int(match[2]), int(match[3]))]
    elif match := _SHORT.fullmatch(text):
        first, second, year = int(match[1]), int(match[2]), int(match[3])
        readings = [(year, first, second), (year, second, first)]
    elif (match := _MONTH_FIRST.fullmatch(text)) and (month := _MONTH.get(match[1].lower())):
        return frozenset({(int(match[3]) if match[3] else None, month, int(match[2]))})
    elif (match := _DAY_FIRST.fullmatch(text)) and (month := _MONTH.get(match[2].lower())):
        return frozenset({(int(match[3]) if match[3] else None, month, int(match[1]))})
    else:
        return frozenset()
    return frozenset(date for date in readings if 1 <= date[1] <= 12 and 1 <= date[2] <= 31)


def time_of(text: str) -> Time | None:
    """Hour (of 24), minute, second, and whether it is known to be morning or afternoon; None if a text is not a time."""
    low = text.lower().strip()
    if low in ("noon", "midnight"):
        return (12 if low == "noon" else 0, 0, 0, True)
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    if match[4]:
        hour = int(match[1]) % 12 + 12 * (match[4] in "Pp")
        return (hour, int(match[2] or 0), int(match[3] or 0), True) if 1 <= int(match[1]) <= 12 else None
    hour, minute = int(match[5]), int(match[6])
    return (hour, minute, int(match[7] or 0), hour > 12 or hour == 0) if hour < 25 and minute < 60 else None


def same_time(gold: Time, answer: Time) -> bool:
    """Whether two times are equal. The half of the day counts only if both name it."""
    if gold[3] and answer[3]:
        return gold[:3] == answer[:3]
    return (gold[0] % 12, *gold[1:3]) == (answer[0] % 12, *answer[1:3])


def compare_dates(gold: str, answer: str) -> bool | None:
    """Whether two dates are the same day; False too for a date and a number, None for other texts."""
    first, second = dates(gold), dates(answer)
    if first and second:
        if len(first) == len(second) == 2 and first == second:  # both are ambiguous: equal only if written in the same order
            return [int(part) for part in _DIGITS.findall(gold)] == [int(part) for part in _DIGITS.findall(answer)]
        return any(a[1:] == b[1:] and (a[0] == b[0] or None in (a[0], b[0])) for a in first for b in second)
    return False if (first or second) and is_number(answer if first else gold) else None


def compare_times(gold: str, answer: str) -> bool | None:
    """Whether two times of day are the same; False too for a time and a number, None for other texts and ratios."""
    first, second = time_of(gold), time_of(answer)
    if first and second:
        return same_time(first, second)
    if (first or second) and not (_RATIO.fullmatch(gold) or _RATIO.fullmatch(answer)):
        return False if is_number(answer if first else gold) else None
    return None
