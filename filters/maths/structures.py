"""Take composed answers apart: groups, lists, sets, tuples, intervals and matrices. Texts are only parsed, never executed."""

import re
from collections.abc import Iterable
from functools import cmp_to_key
from typing import Any, NamedTuple

from filters.maths.expressions import equal_values
from filters.maths.numbers import THOUSANDS, VARIABLE, is_real, less, value_of

_CHAIN = re.compile(r"^(.+?)(<=|>=|<|>)([A-Za-z](?:_\{?\w+\}?)?)(<=|>=|<|>)(.+)$")
_BOUND = re.compile(r"^(.+?)(<=|>=|<|>)(.+)$")
_MEMBER = re.compile(r"^(?:[A-Za-z]|\\[a-z]+)\s*\\in(?![A-Za-z])\s*(.+)$")
_MATRIX = re.compile(
    r"(?:(?:\\vec\s*)?\{?[A-Za-z]\}?\s*=\s*)?(?P<factor>[^()\[\]&=,]{0,40}?)\s*(?P<opening>[(\[]?)\s*"
    r"\\begin\{(?P<kind>[pbB]?matrix\*?|smallmatrix|array)\}(?:\{[lcr| ]*\}|\[[lcr]\])?(?P<cells>(?:(?!\\begin).)*)"
    r"\\end\{(?P=kind)\}\s*(?P<closing>[)\]]?)(?P<transposed>\s*\^\s*\{?\s*(?:T|\\top|\\intercal)\s*\}?)?",
    re.DOTALL,
)
_RULE = re.compile(r"\\hline(?![A-Za-z])")
_UNION = re.compile(r"\\cup(?![A-Za-z])|\s+or\s+|\\(?:lor|vee)(?![A-Za-z])")
_BOTH = re.compile(r"\s+and\s+|\\(?:land|wedge)(?![A-Za-z])")
_UNEQUAL = re.compile(r"^([A-Za-z](?:_\{?\w+\}?)?)\s*(?:\\neq?(?![A-Za-z])|!=|\\not\s*=)(.+)$")
_REALS = re.compile(r"(?:all (?:the )?real numbers|all reals|\\mathbb\s*\{?\s*R\s*\}?|\\R)", re.IGNORECASE)
_SET_OF = re.compile(
    r"\u27e8\s*[A-Za-z]\s*(?:\\in\s*(?:\\mathbb\s*\{?\s*R\s*\}?|\\R)\s*)?(?:\\mid(?![A-Za-z])|\||:|\\vert(?![A-Za-z]))"
    r"([^\u27e8\u27e9]+)\u27e9"
)
_SYSTEM = re.compile(r"\\begin\{cases\}([^&]*)\\end\{cases\}")
_WITHOUT = re.compile(r"(?:\\mathbb\s*\{?\s*R\s*\}?)\s*(?:\\setminus|\\backslash|-)\s*\u27e8(.+)\u27e9")
_PARENS = {"(": ")", "[": "]", "\u27e8": "\u27e9", "{": "}"}
_CLOSING = frozenset(_PARENS.values())


Rows = list[list[str]]
Ends = tuple[Any, bool, Any, bool]
Elements = tuple[str, list[str]]


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


def matrix_rows(text: str) -> Rows | None:
    """The cells of a matrix, row by row; None for any other text, and for a determinant."""
    match = _MATRIX.fullmatch(text)
    if match and (match["opening"], match["closing"]) in (("", ""), ("(", ")"), ("[", "]")):
        cells = _RULE.sub("", match["cells"]).strip()
        rows = [[cell.strip() for cell in row.split("&")] for row in cells.split("\\\\") if row.strip()]
        if factor := match["factor"].strip():
            factor = f"{factor}1" if factor in "+-" else factor.removesuffix("\\cdot").removesuffix("\\times").strip()
            if value_of(factor) is None:
                return None
            rows = [[f"({factor})*({cell})" for cell in row] for row in rows]
        if match["transposed"]:
            return [list(row) for row in zip(*rows, strict=True)] if len({len(row) for row in rows}) == 1 else None
        return rows
    if text.startswith("[[") and text.endswith("]]"):
        groups = [group_of(row) for row in parts_of(text[1:-1])]
        if all(group is not None and group.opening == "[" for group in groups):
            return [group.parts for group in groups if group is not None]
    return None


def intervals_of(text: str) -> list[Interval] | None:
    """The intervals of a union, from brackets or from inequalities; None for any other text."""
    if match := _MEMBER.match(text):
        text = match[1]
    if match := _SET_OF.fullmatch(text):
        text = match[1].strip()
    if _REALS.fullmatch(text):
        return [Interval("-\\infty", False, "\\infty", False)]
    if match := _WITHOUT.fullmatch(text):
        return _without(parts_of(match[1]))
    if len(pieces := _UNION.split(text)) > 1:
        parts = [intervals_of(part.strip()) for part in pieces]
        return [interval for part in parts if part for interval in part] if all(parts) else None
    if len(bounds := _BOTH.split(text)) == 2:
        return _intersection([intervals_of(bound.strip()) for bound in bounds])
    if match := _UNEQUAL.fullmatch(text):
        return _without([match[2].strip()])
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


def _without(points: list[str]) -> list[Interval] | None:
    """All real numbers but one."""
    if len(points) != 1:
        return None
    return [Interval("-\\infty", False, points[0], False), Interval(points[0], False, "\\infty", False)]


def _intersection(parts: list[list[Interval] | None]) -> list[Interval] | None:
    """What a lower and an upper bound have in common; None of any other parts."""
    bounds = sorted((part[0] for part in parts if part and len(part) == 1), key=lambda bound: bound.low == "-\\infty")
    if len(bounds) != 2 or (bounds[0].high, bounds[1].low) != ("\\infty", "-\\infty") or bounds[0].low == "-\\infty":
        return None
    return [Interval(bounds[0].low, bounds[0].low_closed, bounds[1].high, bounds[1].high_closed)]


def _half_line(left: str, sign: str, right: str) -> list[Interval] | None:
    """The interval of an inequality between a variable and a bound."""
    if VARIABLE.fullmatch(right) and not VARIABLE.fullmatch(left):
        left, right, sign = right, left, {"<": ">", ">": "<"}[sign[0]] + sign[1:]
    if not VARIABLE.fullmatch(left) or "<" in right or ">" in right:
        return None
    closed = "=" in sign
    return [Interval("-\\infty", False, right, closed) if sign[0] == "<" else Interval(right, closed, "\\infty", False)]


def merged(intervals: list[Interval]) -> list[Ends] | None:
    """A union as intervals in order that do not touch; None if an end is no real number, or an interval is empty."""
    ends = list[Ends]()
    for interval in intervals:
        low, high = value_of(interval.low), value_of(interval.high)
        if low is None or high is None or len(low) != 1 or len(high) != 1 or not (is_real(low[0]) and is_real(high[0])):
            return None
        if not less(low[0], high[0]) and not (equal_values(low, high) and interval.low_closed and interval.high_closed):
            return None  # it holds nothing: is it one?
        ends.append((low[0], interval.low_closed, high[0], interval.high_closed))
    union: list[Ends] = []
    for low, low_closed, high, high_closed in sorted(ends, key=cmp_to_key(_by_low)):
        if union:
            before, before_closed, until, until_closed = union[-1]
            touches = equal_values([low], [until])
            if (less(low, until) and not touches) or (touches and (low_closed or until_closed)):
                starts_closed = before_closed or (low_closed and equal_values([low], [before]))
                ends_closed = (high_closed and not less(high, until)) or (until_closed and not less(until, high))
                union[-1] = (before, starts_closed, high if less(until, high) else until, ends_closed)
                continue
        union.append((low, low_closed, high, high_closed))
    return union


def elements_of(text: str) -> Elements | None:
    """The kind of a collection (`set`, `tuple`, `array`, `list`) and its elements; a list of solutions needs no brackets. None
    for a single element."""
    if match := _SYSTEM.fullmatch(text):
        text = ", ".join(row.strip().rstrip(",") for row in match[1].split("\\\\") if row.strip())
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


def _by_low(first: Ends, second: Ends) -> int:
    return -1 if less(first[0], second[0]) else int(less(second[0], first[0]))


def _both_signs(text: str) -> list[str]:
    """The two solutions of a text with `\\pm`."""
    if "\\pm" not in text:
        return [text]
    head, _, tail = text.partition("=") if "=" in text else ("", "", text)
    solutions = [re.sub(r"\\pm(?![A-Za-z])", sign, tail) for sign in ("+", "-")]
    return [f"{head}={solution}" if head else solution for solution in solutions]


def only_false(verdict: bool | None) -> bool | None:
    """What is equal in another form may be meant or not."""
    return False if verdict is False else None


def any_of(verdicts: Iterable[bool | None]) -> bool | None:
    """True if any verdict is, else None if any is unknown, else False."""
    found = list(verdicts)
    return True if True in found else None if None in found else False


def all_of(verdicts: Iterable[bool | None]) -> bool | None:
    """False if any verdict is, else None if any is unknown, else True."""
    unknown = False
    for verdict in verdicts:
        if verdict is False:
            return False
        unknown = unknown or verdict is None
    return None if unknown else True
