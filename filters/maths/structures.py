"""Take composed answers apart: groups, lists, sets, tuples, intervals and matrices. Texts are only parsed, never executed."""

import re
from typing import NamedTuple

from filters.maths.numbers import THOUSANDS, VARIABLE

_CHAIN = re.compile(r"^(.+?)(<=|>=|<|>)([A-Za-z](?:_\{?\w+\}?)?)(<=|>=|<|>)(.+)$")
_BOUND = re.compile(r"^(.+?)(<=|>=|<|>)(.+)$")
_MEMBER = re.compile(r"^(?:[A-Za-z]|\\[a-z]+)\s*\\in(?![A-Za-z])\s*(.+)$")
_MATRIX = re.compile(r"\\begin\{([pbvB]?matrix|array)\}(?:\{[lcr| ]*\})?(.*)\\end\{\1\}", re.DOTALL)
_PARENS = {"(": ")", "[": "]", "\u27e8": "\u27e9", "{": "}"}
_CLOSING = frozenset(_PARENS.values())


class Group(NamedTuple):
    """A bracketed text."""

    opening: str
    parts: list[str]
    """The texts between its commas."""
    closing: str


class Interval(NamedTuple):
    """An interval; the flags tell whether its ends belong to it."""

    low: str
    low_closed: bool
    high: str
    high_closed: bool


def group_of(text: str) -> Group | None:
    """The group that a text is; None if it is not a single group."""
    text = text.strip()
    if len(text) < 2 or text[0] not in "([\u27e8" or text[-1] not in ")]\u27e9":
        return None
    level = 0
    for position, mark in enumerate(text):
        if mark in _PARENS:
            level += 1
        elif mark in _CLOSING:
            level -= 1
            if level == 0 and position < len(text) - 1:
                return None
    return Group(text[0], parts_of(text[1:-1]), text[-1])


def parts_of(text: str) -> list[str]:
    """Split at commas and semicolons outside groups. A number with thousands separators is not split."""
    if THOUSANDS.search(text) and not re.search(r"\d,\s+\d", text):
        text = THOUSANDS.sub(lambda m: m[0].replace(",", ""), text)
    parts, level, start = [], 0, 0
    for position, mark in enumerate(text):
        if mark in _PARENS:
            level += 1
        elif mark in _CLOSING:
            level -= 1
        elif mark in ",;" and level == 0:
            parts.append(text[start:position].strip())
            start = position + 1
    return [*parts, text[start:].strip()]


def is_pair(text: str) -> bool:
    """Whether a text is two elements in round or in square brackets: a pair, and an interval with equal ends."""
    group = group_of(text)
    return group is not None and len(group.parts) == 2 and (group.opening, group.closing) in (("(", ")"), ("[", "]"))


def matrix_rows(text: str) -> list[list[str]] | None:
    """The cells of a matrix, row by row; None for any other text."""
    if match := _MATRIX.fullmatch(text):
        return [[cell.strip() for cell in row.split("&")] for row in match[2].strip().split("\\\\") if row.strip()]
    if text.startswith("[[") and text.endswith("]]"):
        groups = [group_of(row) for row in parts_of(text[1:-1])]
        if all(group is not None and group.opening == "[" for group in groups):
            return [group.parts for group in groups if group is not None]
    return None


def intervals_of(text: str) -> list[Interval] | None:
    """The intervals of a union, from brackets or from inequalities; None for any other text."""
    if match := _MEMBER.match(text):
        text = match[1]
    if "\\cup" in text:
        parts = [intervals_of(part.strip()) for part in text.split("\\cup")]
        return [interval for part in parts if part for interval in part] if all(parts) else None
    squeezed = text.replace(" ", "")
    if chain := _CHAIN.fullmatch(squeezed):
        low, below, _, above, high = chain.groups()
        if below[0] != above[0]:
            return None
        if below[0] == ">":
            low, below, above, high = high, above, below, low
        return [Interval(low, "=" in below, high, "=" in above)]
    if bound := _BOUND.fullmatch(squeezed):
        return _half_line(*bound.groups())
    group = group_of(text)
    if group is None or len(group.parts) != 2 or group.opening not in "([" or group.closing not in ")]":
        return None
    return [Interval(group.parts[0], group.opening == "[", group.parts[1], group.closing == "]")]


def _half_line(left: str, sign: str, right: str) -> list[Interval] | None:
    """The interval of an inequality between a variable and a bound."""
    if VARIABLE.fullmatch(right) and not VARIABLE.fullmatch(left):
        left, right, sign = right, left, {"<": ">", ">": "<"}[sign[0]] + sign[1:]
    if not VARIABLE.fullmatch(left) or "<" in right or ">" in right:
        return None
    closed = "=" in sign
    return [Interval("-\\infty", False, right, closed) if sign[0] == "<" else Interval(right, closed, "\\infty", False)]


def elements_of(text: str) -> tuple[str, list[str]] | None:
    """The kind of a collection (`set`, `tuple`, `array`, `list`) and its elements; a list of solutions needs no brackets. None
    for a single element."""
    group = group_of(text)
    if group is not None:
        kind = {"(": "tuple", "[": "array", "\u27e8": "set"}[group.opening]
        if kind == "tuple" and len(group.parts) == 1:
            return elements_of(group.parts[0])
        return kind, [part for part in group.parts if part or len(group.parts) > 1]
    items = [piece for part in parts_of(text) for piece in re.split(r"\s+(?:and|or)\s+|\s*\\(?:lor|vee)\s*", part) if piece]
    items = [re.sub(r"^(?:and|or)\s+", "", item) for item in items]
    items = [signed for item in items for signed in _both_signs(item)]
    return ("list", items) if len(items) > 1 else None


def _both_signs(text: str) -> list[str]:
    """The two solutions of a text with `\\pm`."""
    if "\\pm" not in text:
        return [text]
    head, _, tail = text.partition("=") if "=" in text else ("", "", text)
    solutions = [re.sub(r"\\pm(?![A-Za-z])", sign, tail) for sign in ("+", "-")]
    return [f"{head}={solution}" if head else solution for solution in solutions]
