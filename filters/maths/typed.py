"""Compare answers by their kind: choices, words, dates, times, bases, intervals, sets, tuples, equations, quantities.

`compare` returns True, False, or None if it does not know, which decides nothing. Both texts are untrusted and are only parsed,
never executed.
"""

import re
from collections.abc import Iterable
from typing import Any

from filters.maths.cleaning import cleaned
from filters.maths.dates import dates, same_time, time_of
from filters.maths.expressions import equal_values
from filters.maths.numbers import VARIABLE, based, has_value, quantity, right_side, value_of
from filters.maths.quantities import Unit, unit_of
from filters.maths.structures import Interval, elements_of, intervals_of, is_pair, matrix_rows

_CHOICE = re.compile(r"\(?\s*([A-Za-z])\s*[).:]?")
_LABELLED = re.compile(r"\(?\s*([A-H])\s*[).:]\s+\S.*")
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*[A-Za-z]")
_DIGITS = re.compile(r"\d+")
_RATIO = re.compile(r"(\d{1,9})\s*:\s*(\d{1,9})")
_ATTACHED = re.compile(r"([+-]?[\d.,]+)([A-Za-z])")
_EMPTY = frozenset(
    {"\\emptyset", "\\varnothing", "\u27e8\u27e9", "no solution", "no solutions", "empty set", "the empty set", "none"}
)
_DEEPEST = 6
"""Levels of nested collections that are compared."""


def compare(gold: str, answer: str) -> bool | None:
    """Whether an answer equals the reference; None if this module cannot tell."""
    return _same(cleaned(gold), cleaned(answer), depth=0)


def readable(text: str) -> bool:
    """Whether a reference can be distinguished from other answers here: a choice, a word, a date, or a text with a value."""
    text = cleaned(text)
    if _CHOICE.fullmatch(text) or _WORDS.fullmatch(text) or dates(text) or time_of(text) or based(text) or _RATIO.fullmatch(text):
        return True
    if text.lower() in _EMPTY or has_value(text):
        return True
    collection = elements_of(text)
    inner = [end for interval in intervals_of(text) or () for end in (interval.low, interval.high)]
    inner = inner or (collection[1] if collection else [])
    inner = inner or [cell for row in matrix_rows(text) or () for cell in row]
    inner = inner or (text.split("=") if text.count("=") == 1 else [])
    return bool(inner) and all(part != text and readable(part) for part in inner)


def _same(gold: str, answer: str, *, depth: int) -> bool | None:
    if gold == answer:
        return True
    if not gold or not answer or depth > _DEEPEST:
        return None
    for rule in (_choices, _dates, _times, _bases):
        if (verdict := rule(gold, answer)) is not None:
            return verdict
    for composed in (_matrices, _collections):
        if (verdict := composed(gold, answer, depth)) is not None:
            return verdict
    for rule in (_ratios, _words):
        if (verdict := rule(gold, answer)) is not None:
            return verdict
    return _quantities(gold, answer)


# -- single answers -----------------------------------------------------------------------------------------------------------


def _choices(gold: str, answer: str) -> bool | None:
    first = _CHOICE.fullmatch(gold)
    if first is None:
        return None
    second = _CHOICE.fullmatch(answer) or _LABELLED.fullmatch(answer)
    return None if second is None else first[1] == second[1]


def _words(gold: str, answer: str) -> bool | None:
    gold, answer = gold.strip("\"'"), answer.strip("\"'")
    if gold.lower() in _EMPTY and answer.lower() in _EMPTY:
        return True
    first, second = _WORDS.fullmatch(gold), _WORDS.fullmatch(answer)
    if first and second and min(len(gold), len(answer)) > 2:
        return " ".join(gold.lower().replace("-", " ").split()) == " ".join(answer.lower().replace("-", " ").split())
    if (first and len(gold) > 3 and re.search(r"\d", answer)) or (second and len(answer) > 3 and re.search(r"\d", gold)):
        return False
    return None


def _dates(gold: str, answer: str) -> bool | None:
    first, second = dates(gold), dates(answer)
    if first and second:
        if len(first) == len(second) == 2 and first == second:  # both are ambiguous: equal only if written in the same order
            return [int(part) for part in _DIGITS.findall(gold)] == [int(part) for part in _DIGITS.findall(answer)]
        return any(a[1:] == b[1:] and (a[0] == b[0] or None in (a[0], b[0])) for a in first for b in second)
    return False if first or second else None


def _times(gold: str, answer: str) -> bool | None:
    first, second = time_of(gold), time_of(answer)
    if first and second:
        return same_time(first, second)
    if (first or second) and not (_RATIO.fullmatch(gold) or _RATIO.fullmatch(answer)):
        return False
    return None


def _ratios(gold: str, answer: str) -> bool | None:
    first, second = _RATIO.fullmatch(gold), _RATIO.fullmatch(answer)
    if first is None or second is None:
        return None
    return int(first[1]) * int(second[2]) == int(first[2]) * int(second[1])


def _bases(gold: str, answer: str) -> bool | None:
    first, second = based(gold), based(answer)
    if first and second:
        return first[0] == second[0]
    number = first or second
    if number is None:
        return None
    plain, text = (answer, gold) if first else (gold, answer)
    if "_" not in text:  # 0x1F
        value = value_of(plain)
        return None if value is None else equal_values([number[0]], value)
    digits = plain.replace(" ", "").replace(",", "").lstrip("0").lower()
    return digits == number[1] if re.fullmatch(r"[0-9a-f]+", digits) else None


# -- composed answers ---------------------------------------------------------------------------------------------------------


def _matrices(gold: str, answer: str, depth: int) -> bool | None:
    first, second = matrix_rows(gold), matrix_rows(answer)
    if first is None or second is None:
        return None
    if [len(row) for row in first] != [len(row) for row in second]:
        return False
    cells = (pair for rows in zip(first, second, strict=True) for pair in zip(*rows, strict=True))
    return _conjunction(_same(a, b, depth=depth + 1) for a, b in cells)


def _collections(gold: str, answer: str, depth: int) -> bool | None:
    """Intervals, sets, tuples and lists of solutions."""
    gold_intervals, intervals = intervals_of(gold), intervals_of(answer)
    if gold_intervals is not None and intervals is not None and not (is_pair(gold) and is_pair(answer)):
        return _matched(gold_intervals, intervals, depth) if len(gold_intervals) == len(intervals) else False
    first, second = elements_of(gold), elements_of(answer)
    if first is None and second is None:
        return None
    if first is None or second is None:
        kind, items = first or second or ("", [])
        single = answer if second is None else gold
        if kind in ("set", "list") and len(items) == 1:
            return _same(items[0], single, depth=depth + 1)
        # Several elements do not equal a single one. A text is known to be a single element if it has a value.
        return False if kind and len(items) > 1 and has_value(single) else None
    kinds = {first[0], second[0]}
    if len(first[1]) != len(second[1]):
        return False
    if kinds <= {"set", "list"}:
        return _matched(first[1], second[1], depth)
    if len(kinds) > 1:
        return False
    return _conjunction(_same(a, b, depth=depth + 1) for a, b in zip(first[1], second[1], strict=True))


def _conjunction(verdicts: Iterable[bool | None]) -> bool | None:
    """False if any verdict is, else None if any is unknown, else True."""
    unknown = False
    for verdict in verdicts:
        if verdict is False:
            return False
        unknown = unknown or verdict is None
    return None if unknown else True


def _matched(gold: list[Any], answer: list[Any], depth: int) -> bool | None:
    """Whether two lists hold the same elements in any order, each the same number of times."""
    left, unknown = list(answer), False
    for item in gold:
        verdicts = [_same_item(item, candidate, depth) for candidate in left]
        if True in verdicts:
            del left[verdicts.index(True)]
        elif None in verdicts:
            unknown = True
        else:
            return False
    return None if unknown else True


def _same_item(gold: Any, answer: Any, depth: int) -> bool | None:
    if isinstance(gold, Interval):
        if (gold.low_closed, gold.high_closed) != (answer.low_closed, answer.high_closed):
            return False
        return _conjunction(_same(a, b, depth=depth + 1) for a, b in ((gold.low, answer.low), (gold.high, answer.high)))
    return _same(gold, answer, depth=depth + 1)


# -- equations and quantities -------------------------------------------------------------------------------------------------


def _quantities(gold: str, answer: str) -> bool | None:
    equation = _equations(gold, answer)
    if equation is not None:
        return equation
    gold_quantity, answer_quantity = quantity(right_side(gold)), quantity(right_side(answer))
    if gold_quantity is None or answer_quantity is None:
        return None
    (first, first_unit), (second, second_unit) = gold_quantity, answer_quantity
    if first_unit is not None and second_unit is not None:
        if first_unit.dimensions != second_unit.dimensions:
            return False
        return equal_values(_scaled(first, first_unit), _scaled(second, second_unit))
    unit = first_unit or second_unit
    if unit is None:
        return equal_values(first, second)
    without_unit = answer if second_unit is None else gold
    if (attached := _ATTACHED.fullmatch(without_unit)) and (letter := unit_of(attached[2], attached=False)):
        return letter == unit and equal_values(value_of(attached[1]) or [], first if second_unit is None else second)
    if not unit.dimensions:  # percent
        return equal_values(_scaled(first, first_unit), _scaled(second, second_unit))
    if equal_values(first, second):
        return True
    if unit.dimensions == (("angle", 1),):
        return equal_values(_radians(first, first_unit), _radians(second, second_unit))
    return False


def _scaled(values: list[Any], unit: Unit | None) -> list[Any]:
    return values if unit is None else [value * unit.scale.numerator / unit.scale.denominator for value in values]


def _radians(values: list[Any], unit: Unit | None) -> list[Any]:
    from mpmath import mp

    return values if unit is None else [value * mp.pi / 180 for value in values]


def _equations(gold: str, answer: str) -> bool | None:
    """Whether two equations are the same, or multiples of each other; None if one text is not an equation."""
    if gold.count("=") != 1 or answer.count("=") != 1 or any(mark in gold + answer for mark in "<>"):
        return None
    (gold_left, gold_right), (left, right) = gold.split("="), answer.split("=")
    gold_name, name = gold_left.replace(" ", ""), left.replace(" ", "")
    if VARIABLE.fullmatch(gold_name) and VARIABLE.fullmatch(name) and gold_name != name and len(value_of(gold_right) or []) == 1:
        return False  # x = 5 is not y = 5
    try:
        first = [a - b for a, b in zip(*_stretched(value_of(gold_left), value_of(gold_right)), strict=True)]
        second = [a - b for a, b in zip(*_stretched(value_of(left), value_of(right)), strict=True)]
        if len(first) != len(second) or len(first) == 1:
            return None
        return equal_values([a * second[0] for a in first[1:]], [b * first[0] for b in second[1:]])
    except (TypeError, ZeroDivisionError):
        return None


def _stretched(first: list[Any] | None, second: list[Any] | None) -> tuple[list[Any], list[Any]]:
    if first is None or second is None:
        raise TypeError
    length = max(len(first), len(second))
    return (first * length if len(first) == 1 else first), (second * length if len(second) == 1 else second)
