"""Compare answers by their kind: choices, words, dates, times, bases, intervals, sets, tuples, equations, quantities.

`compare` returns True, False, or None if it does not know, which decides nothing. False is a proof: both texts were read whole
and differ in every sense in which they may be meant. Both texts are untrusted and are only parsed, never executed.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from filters.maths.cleaning import cleaned
from filters.maths.dates import compare_dates, compare_times, dates, time_of
from filters.maths.expressions import equal_values
from filters.maths.numbers import (
    VARIABLE,
    based,
    has_value,
    is_number,
    quantity,
    right_side,
    value_of,
    word_number,
)
from filters.maths.quantities import UNITS, Unit, is_known, unit_of
from filters.maths.structures import (
    Elements,
    Interval,
    Rows,
    all_of,
    any_of,
    elements_of,
    group_of,
    intervals_of,
    is_pair,
    matrix_rows,
    merged,
    only_false,
)
from filters.maths.tokens import UnknownError

_CHOICE = re.compile(r"\(?\s*([A-Za-z])\s*[).:]?")
_LABELLED = re.compile(r"(?:\(\s*([A-H])\s*\)|([A-H])\s*[).:](?=\s))\s*(\S.*)")
_OPTION = re.compile(r"\(?\s*[A-H]\s*[).:]?")
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*[A-Za-z]")
_RATIO = re.compile(r"(\d{1,9})\s*:\s*(\d{1,9})")
_ANY_LOG = re.compile(r"\\?(?<![A-Za-z])log(?![A-Za-z_])(?!\s*_)")
_NAMED = re.compile(r"(\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])+\s*\))\s*=([^=]+)")
_ATTACHED = re.compile(r"([+-]?[\d.,]+)([A-Za-z])")
_EMPTY = frozenset(
    {"\\emptyset", "\\varnothing", "\u27e8\u27e9", "no solution", "no solutions", "empty set", "the empty set", "none"}
)
_SAME_WORDS = {"dne": "does not exist"}
_MAY_COUNT = re.compile(
    r"half|halves|third|quarter|fifth|sixth|seventh|eighth|ninth|tenth|dozen|teen|ty$|hundred|thousand|million|infin",
    re.IGNORECASE,
)
"""Words that name a number, or a part of one."""
_YES_NO = {"yes": True, "no": False, "true": True, "false": False}
_DEEPEST = 6
"""Levels of nested collections that are compared."""


def compare(gold: str, answer: str) -> bool | None:
    """Whether an answer equals the reference; None if this module cannot tell."""
    try:
        return _same(cleaned(gold), cleaned(answer), depth=0)
    except UnknownError:  # an enormous number and an irrational one
        return None


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
    if (verdict := _choices(gold, answer, depth)) is not None:
        return verdict
    if _OPTION.fullmatch(gold) or _OPTION.fullmatch(answer) or _LABELLED.fullmatch(gold) or _LABELLED.fullmatch(answer):
        return None  # a letter and a value: which one is meant is not known
    names = _NAMED.fullmatch(gold), _NAMED.fullmatch(answer)
    if names != (None, None):
        return _named(gold, answer, *names, depth)
    for rule in (compare_dates, compare_times, _bases):
        if (verdict := rule(gold, answer)) is not None:
            return verdict
    rows = matrix_rows(gold), matrix_rows(answer)
    if rows != (None, None):
        return _matrices(*rows, answer if rows[1] is None else gold, depth)
    intervals = intervals_of(gold), intervals_of(answer)
    if intervals[0] is not None and intervals[1] is not None and not (is_pair(gold) and is_pair(answer)):
        return _intervals(intervals[0], intervals[1], depth)
    if intervals != (None, None) and is_number(answer if intervals[1] is None else gold):
        return False
    collections = elements_of(gold), elements_of(answer)
    if collections != (None, None):
        return _collections(gold, answer, *collections, depth)
    for rule in (_ratios, _words):
        if (verdict := rule(gold, answer)) is not None:
            return verdict
    return _quantities(gold, answer)


# -- single answers -----------------------------------------------------------------------------------------------------------


def _choices(gold: str, answer: str, depth: int) -> bool | None:
    """Options by their letter, or by what stands beside it: `B`, `(B)`, `(B) 15`, `15`."""
    first, second = _CHOICE.fullmatch(gold), _CHOICE.fullmatch(answer)
    if first and second:
        return first[1] == second[1]
    labelled, also = _LABELLED.fullmatch(gold), _LABELLED.fullmatch(answer)
    if labelled is None and also is None:
        return None
    letters = [(match[1] or match[2]) if match else short and short[1] for match, short in ((labelled, first), (also, second))]
    by_letter = letters[0] == letters[1] if all(letters) else None
    texts = [match[3] if match else text for match, text in ((labelled, gold), (also, answer))]
    by_text = None if first or second else _same(*texts, depth=depth + 1)
    verdicts = {verdict for verdict in (by_letter, by_text) if verdict is not None}
    return verdicts.pop() if len(verdicts) == 1 else None


def _words(gold: str, answer: str) -> bool | None:
    gold, answer = (_SAME_WORDS.get(text.lower(), text) for text in (gold.strip("\"'"), answer.strip("\"'")))
    numbers = word_number(gold), word_number(answer)
    if numbers != (None, None):  # twelve
        values = [
            value_of(text) if number is None else [Fraction(number)] for number, text in zip(numbers, (gold, answer), strict=True)
        ]
        return None if values[0] is None or values[1] is None else equal_values(values[0], values[1])
    said = [_YES_NO.get(text.lower(), "empty" if text.lower() in _EMPTY else None) for text in (gold, answer)]
    if None not in said:
        return said[0] == said[1] if isinstance(said[0], bool) == isinstance(said[1], bool) else None
    if said != [None, None]:  # "none" may be 0
        number = value_of(answer if said[1] is None else gold)
        return False if number is not None and len(number) == 1 and not equal_values(number, [0]) else None
    first, second = _WORDS.fullmatch(gold), _WORDS.fullmatch(answer)
    if first and second and min(len(gold), len(answer)) > 2:
        ours, theirs = (text.lower().replace("-", " ").split() for text in (gold, answer))
        if ours == theirs:
            return True
        shorter, longer = sorted((" ".join(ours), " ".join(theirs)), key=len)
        return None if longer.startswith(shorter) or set(ours) <= set(theirs) or set(theirs) <= set(ours) else False
    word, other = (gold, answer) if first else (answer, gold)
    is_word = bool(first) != bool(second) and len(word) > 3 and not _MAY_COUNT.search(word)
    return False if is_word and " " not in word and is_number(other) else None


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
    if not re.fullmatch(r"[0-9a-f]+", digits):
        return False if is_number(plain) and not equal_values(value_of(plain) or [], [number[0]]) else None
    # 1010_2 is 10 in words of base ten; whether that was wanted is not known
    return True if digits == number[1] else None if digits == str(number[0]) else False


# -- composed answers ---------------------------------------------------------------------------------------------------------


def _matrices(first: Rows | None, second: Rows | None, other: str, depth: int) -> bool | None:
    if first is None or second is None:
        only = first or second or []
        listed = elements_of(other)
        if listed and listed[0] in ("tuple", "array") and 1 in (len(only), max(map(len, only), default=0)):
            flat = [cell for row in only for cell in row]  # a vector may be written as a tuple
            return only_false(_in_order(flat, listed[1], depth)) if len(flat) == len(listed[1]) else None
        return False if sum(map(len, only)) > 1 and is_number(other) else None
    shapes = [len(row) for row in first], [len(row) for row in second]
    if shapes[0] != shapes[1]:  # a vector may be written as a row
        cells = [cell for row in first for cell in row], [cell for row in second for cell in row]
        is_vector = 1 in (len(first), max(shapes[0])) and 1 in (len(second), max(shapes[1])) and len(cells[0]) == len(cells[1])
        return only_false(_in_order(*cells, depth)) if is_vector else False
    return all_of(_in_order(a, b, depth) for a, b in zip(first, second, strict=True))


def _intervals(gold: list[Interval], answer: list[Interval], depth: int) -> bool | None:
    """Unions of intervals as sets of numbers; where an end has no value, interval by interval."""
    first, second = merged(gold), merged(answer)
    if first is not None and second is not None:
        return len(first) == len(second) and all(
            a[1::2] == b[1::2] and equal_values([a[0]], [b[0]]) and equal_values([a[2]], [b[2]])
            for a, b in zip(first, second, strict=True)
        )
    return _matched(gold, answer, depth) if len(gold) == len(answer) else None


def _named(gold: str, answer: str, first: "re.Match[str] | None", second: "re.Match[str] | None", depth: int) -> bool | None:
    """A tuple whose elements are named, (x, y) = (3, 4), and another text: by what it says of the same names, in their order."""
    if "=" in (answer if second is None else gold if first is None else ""):
        return None
    if first and second and first[1].replace(" ", "") != second[1].replace(" ", ""):
        return None
    texts = [match[2].strip() if match else text for match, text in ((first, gold), (second, answer))]
    return _same(*texts, depth=depth + 1)


def _collections(gold: str, answer: str, first: Elements | None, second: Elements | None, depth: int) -> bool | None:
    """Sets, tuples and lists of solutions."""
    if first is None or second is None:
        kind, items = first or second or ("", [])
        single = answer if second is None else gold
        if len(items) == 1:
            return _same(items[0], single, depth=depth + 1)
        return _of_one(kind, items, single)
    kinds, (ours, theirs) = {first[0], second[0]}, (first[1], second[1])
    if len({group_of(item) is None for item in (*ours, *theirs)}) > 1 or ";" in gold + answer:
        return True if len(ours) == len(theirs) and _matched(ours, theirs, depth) else None
    if len({any(mark in item for item in items for mark in "<>") for items in (ours, theirs)}) > 1:
        return None
    if kinds <= {"set", "list"}:
        if len(ours) != len(theirs):  # a repeated element is the same element
            return only_false(
                all_of(
                    any_of(_same(item, other, depth=depth + 1) for other in b)
                    for a, b in ((ours, theirs), (theirs, ours))
                    for item in a
                )
            )
        return _matched(ours, theirs, depth)
    if len(ours) != len(theirs):
        return False if all(map(readable, (*ours, *theirs))) else None
    if len(kinds) > 1:  # (3, 4) may be x = 3, y = 4; but a set is no tuple, and [0, 1] is not (0, 1)
        plain = [[right_side(item) for item in items] for items in (ours, theirs)]
        if "list" in kinds or len(ours) != 2:
            return only_false(_matched(plain[0], plain[1], depth))
        return False
    return _in_order(ours, theirs, depth)


def _of_one(kind: str, items: list[str], single: str) -> bool | None:
    """Several elements and a single one. They differ if it has a value, unless several were read into one: `32, 349` or
    `3 hours and 30 minutes`."""
    parts = [quantity(item) for item in items]
    if kind == "list" and all(part is not None and part[1] is not None and part[1].dimensions for part in parts):
        amounts = [(_scaled(part[0], part[1]), part[1].dimensions) for part in parts if part is not None and part[1] is not None]
        whole = quantity(single)
        if whole is not None and whole[1] is not None and {dimensions for _, dimensions in amounts} == {whole[1].dimensions}:
            total = [sum(values) for values in zip(*(values for values, _ in amounts), strict=False)]
            return True if equal_values(total, _scaled(whole[0], whole[1])) else None
        return None
    if kind == "list" and all(item.isdigit() for item in items) and all(len(item) == 3 for item in items[1:]):
        return None
    return False if has_value(single) and all(has_value(item) for item in items) else None


def _in_order(first: Sequence[str], second: Sequence[str], depth: int) -> bool | None:
    return all_of(_same(a, b, depth=depth + 1) for a, b in zip(first, second, strict=True))


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
        return all_of(_same(a, b, depth=depth + 1) for a, b in ((gold.low, answer.low), (gold.high, answer.high)))
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
    if ("phi" in gold) != ("phi" in answer):  # the golden ratio, or a variable
        return None
    if first_unit is not None and second_unit is not None:
        return _with_units(first, first_unit, second, second_unit)
    unit = first_unit or second_unit
    if unit is None:
        if equal_values(first, second):
            return True
        return _of_other_bases(gold, answer) if _ANY_LOG.search(gold + answer) else False
    without_unit = answer if second_unit is None else gold
    if (attached := _ATTACHED.fullmatch(without_unit)) and (letter := unit_of(attached[2], attached=False)):
        return letter == unit and equal_values(value_of(attached[1]) or [], first if second_unit is None else second)
    equal = equal_values(first, second)
    whole = value_of(gold), value_of(answer)
    if whole[0] and whole[1] and equal_values(whole[0], whole[1]):  # e^2 t is no mass
        return True
    if not unit.dimensions:  # 50 % is 0.5; 50 may be meant, or be a fault
        return True if equal_values(_scaled(first, first_unit), _scaled(second, second_unit)) else None if equal else False
    if equal or (unit.dimensions == (("angle", 1),) and equal_values(_radians(first, first_unit), _radians(second, second_unit))):
        return True
    return None if _in_another_unit(first, second, unit) else False


def _of_other_bases(gold: str, answer: str) -> bool | None:
    """Whether answers with a logarithm of an unknown base differ for each usual one; None where they do not."""
    for base in ("\\ln", "\\lg", "\\log_2 "):
        values = [value_of(base.join(_ANY_LOG.split(text))) for text in (gold, answer)]
        if values[0] is None or values[1] is None or equal_values(values[0], values[1]):
            return None
    return False


def _with_units(first: list[Any], first_unit: Unit, second: list[Any], second_unit: Unit) -> bool | None:
    if first_unit.dimensions == second_unit.dimensions:
        return equal_values(_scaled(first, first_unit), _scaled(second, second_unit))
    if is_known(first_unit) and is_known(second_unit):
        return False
    return None if equal_values(first, second) else False  # 12 apples may be 12 fruits


def _in_another_unit(first: list[Any], second: list[Any], unit: Unit) -> bool:
    """Whether two amounts differ by the ratio of two units of the same kind: 0.5 for 30 minutes may be hours."""
    scales = [other.scale for other in UNITS.values() if other.dimensions == unit.dimensions]
    return any(equal_values([value * a for value in first], [value * b for value in second]) for a in scales for b in scales)


def _scaled(values: list[Any], unit: Unit | None) -> list[Any]:
    return values if unit is None else [value * unit.scale for value in values]


def _radians(values: list[Any], unit: Unit | None) -> list[Any]:
    from mpmath import mp

    return values if unit is None else [value * mp.pi / 180 for value in values]


def _equations(gold: str, answer: str) -> bool | None:
    """Whether two equations are the same, or multiples of each other; None if one text is not an equation, or if they may have
    the same solutions."""
    if gold.count("=") != 1 or answer.count("=") != 1 or any(mark in gold + answer for mark in "<>"):
        return None
    (gold_left, gold_right), (left, right) = gold.split("="), answer.split("=")
    gold_name, name = gold_left.replace(" ", ""), left.replace(" ", "")
    try:
        first = [a + -b for a, b in zip(*_stretched(value_of(gold_left), value_of(gold_right)), strict=True)]
        second = [a + -b for a, b in zip(*_stretched(value_of(left), value_of(right)), strict=True)]
    except TypeError:
        return None
    if VARIABLE.fullmatch(gold_name) and VARIABLE.fullmatch(name):
        if gold_name != name and len(value_of(gold_right) or []) == 1:
            return False  # x = 5 is not y = 5
        return None  # y = 2x and f(x) = 2x: their right sides are compared
    if len(first) != len(second) or len(first) == 1:
        return None
    if equal_values([a * second[0] for a in first[1:]], [b * first[0] for b in second[1:]]):
        return True
    same_left = equal_values(value_of(gold_left) or [], value_of(left) or [])
    return False if same_left and is_number(gold_right) and is_number(right) else None


def _stretched(first: list[Any] | None, second: list[Any] | None) -> tuple[list[Any], list[Any]]:
    if first is None or second is None:
        raise TypeError
    length = max(len(first), len(second))
    return (first * length if len(first) == 1 else first), (second * length if len(second) == 1 else second)
