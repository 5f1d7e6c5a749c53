"""Compares answers by what they are: choices, words, dates, times, bases, intervals, sets, tuples, equations, quantities.

`compare` says True, False, or None where it does not know; then nothing has been decided. Both texts are somebody's and are only
parsed, never executed.
"""

import re
from functools import lru_cache
from typing import Any

from filters.maths.cleaning import cleaned
from filters.maths.expressions import UnknownError, equal_values, values
from filters.maths.quantities import Unit, based, dates, same_time, split_unit, time_of, unit_of

_CHOICE = re.compile(r"\(?\s*([A-Za-z])\s*[).:]?")
_LABELLED = re.compile(r"\(?\s*([A-H])\s*[).:]\s+\S.*")
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*[A-Za-z]")
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")
_SPACED = re.compile(r"(?<![\d.])\d{1,3}(?: \d{3})+(?![\d])")
_MIXED_FRAC = re.compile(
    r"(?<![\d.}\w])(\d+)\s*\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(?<![\d.}\w])(\d+)\s*\\frac\s*(\d)\s*(\d)(?!\d)"
)
_OF_ANGLE = re.compile(r"(?:sin|cos|tan|cot|sec|csc)\b")
_DIGITS = re.compile(r"\d+")
_REPEATING = re.compile(
    r"(?<![\d.])(\d{0,50})\.(?:(\d{0,50})\\(?:overline|bar|dot)\s*\{?(\d{1,50})\}?|(\d{1,50})(?:\.\.\.|\\(?:l|c)?dots|\u2026))"
)
_MIXED = re.compile(r"(?<![\d./])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d./])")
_SCIENTIFIC = re.compile(r"(?<![A-Za-z\d.])(\d+(?:\.\d*)?|\.\d+)[eE]([+-]?\d{1,4})(?![A-Za-z\d.])")
_UNDERSCORED = re.compile(r"\d{1,3}(?:_\d{3})+")
_CHAIN = re.compile(r"^(.+?)(<=|>=|<|>)([A-Za-z](?:_\{?\w+\}?)?)(<=|>=|<|>)(.+)$")
_BOUND = re.compile(r"^(.+?)(<=|>=|<|>)(.+)$")
_VARIABLE = re.compile(r"[A-Za-z](?:_\{?\w{1,4}\}?)?(?:\([A-Za-z]\))?'?|\\[a-z]+(?:_\{?\w{1,4}\}?)?")
_MEMBER = re.compile(r"^(?:[A-Za-z]|\\[a-z]+)\s*\\in(?![A-Za-z])\s*(.+)$")
_RATIO = re.compile(r"(\d{1,9})\s*:\s*(\d{1,9})")
_MATRIX = re.compile(r"\\begin\{([pbvB]?matrix|array)\}(?:\{[lcr| ]*\})?(.*)\\end\{\1\}", re.DOTALL)
_ATTACHED = re.compile(r"([+-]?[\d.,]+)([A-Za-z])")
_EMPTY = frozenset(
    {"\\emptyset", "\\varnothing", "\u27e8\u27e9", "no solution", "no solutions", "empty set", "the empty set", "none"}
)
_PARENS = {"(": ")", "[": "]", "\u27e8": "\u27e9", "{": "}"}
_CLOSING = frozenset(_PARENS.values())


def compare(gold: str, answer: str) -> bool | None:
    """Whether an answer equals the reference; None where this cannot tell."""
    return _same(cleaned(gold), cleaned(answer), depth=0)


def readable(text: str) -> bool:
    """Whether a reference can be told from other answers here: a choice, a word, a date ... or something that has a value."""
    text = cleaned(text)
    if _CHOICE.fullmatch(text) or _WORDS.fullmatch(text) or dates(text) or time_of(text) or based(text) or _RATIO.fullmatch(text):
        return True
    if text.lower() in _EMPTY or _valued(text):
        return True
    found = _elements(text)
    inner = [end for one in _intervals(text) or () for end in (one[0], one[2])] or (found[1] if found else [])
    inner = inner or [cell for row in _rows(text) or () for cell in row] or (text.split("=") if text.count("=") == 1 else [])
    return bool(inner) and all(one != text and readable(one) for one in inner)


def _same(gold: str, answer: str, *, depth: int) -> bool | None:
    if gold == answer:
        return True
    if not gold or not answer or depth > 6:
        return None
    for rule in (_choices, _dates, _times, _bases):
        if (said := rule(gold, answer)) is not None:
            return said
    for composed in (_matrices, _lists):
        if (said := composed(gold, answer, depth)) is not None:
            return said
    for rule in (_ratios, _words):
        if (said := rule(gold, answer)) is not None:
            return said
    return _quantities(gold, answer)


# -- one kind after the other --------------------------------------------------------------------------------------------------


def _choices(gold: str, answer: str) -> bool | None:
    first = _CHOICE.fullmatch(gold)
    if first is None:
        return None
    second = _CHOICE.fullmatch(answer) or _LABELLED.fullmatch(answer)
    if second is not None:
        return first[1] == second[1]
    return None


def _words(gold: str, answer: str) -> bool | None:
    gold, answer = gold.strip("\"'"), answer.strip("\"'")
    if gold.lower() in _EMPTY and answer.lower() in _EMPTY:
        return True
    one, other = _WORDS.fullmatch(gold), _WORDS.fullmatch(answer)
    if one and other and min(len(gold), len(answer)) > 2:
        return " ".join(gold.lower().replace("-", " ").split()) == " ".join(answer.lower().replace("-", " ").split())
    if (one and len(gold) > 3 and re.search(r"\d", answer)) or (other and len(answer) > 3 and re.search(r"\d", gold)):
        return False
    return None


def _dates(gold: str, answer: str) -> bool | None:
    one, other = dates(gold), dates(answer)
    if one and other:
        if len(one) == len(other) == 2 and one == other:  # day first or month first, whichever it is
            return [int(part) for part in _DIGITS.findall(gold)] == [int(part) for part in _DIGITS.findall(answer)]
        return any(a[1:] == b[1:] and (a[0] == b[0] or None in (a[0], b[0])) for a in one for b in other)
    return False if one or other else None


def _times(gold: str, answer: str) -> bool | None:
    one, other = time_of(gold), time_of(answer)
    if one and other:
        return same_time(one, other)
    if (one or other) and not (_RATIO.fullmatch(gold) or _RATIO.fullmatch(answer)):
        return False
    return None


def _ratios(gold: str, answer: str) -> bool | None:
    one, other = _RATIO.fullmatch(gold), _RATIO.fullmatch(answer)
    if one is None or other is None:
        return None
    return int(one[1]) * int(other[2]) == int(one[2]) * int(other[1])


def _bases(gold: str, answer: str) -> bool | None:
    one, other = based(gold), based(answer)
    if one and other:
        return one[0] == other[0]
    if one or other:
        named, bare, text = (one, answer, gold) if one else (other, gold, answer)
        if "_" not in text and named:  # 0x1F
            found = _value(bare)
            return None if found is None else equal_values([named[0]], found)
        digits = bare.replace(" ", "").replace(",", "").lstrip("0").lower()
        return digits == named[1] if named and re.fullmatch(r"[0-9a-f]+", digits) else None
    return None


def _matrices(gold: str, answer: str, depth: int) -> bool | None:
    one, other = _rows(gold), _rows(answer)
    if one is None or other is None:
        return None
    if [len(row) for row in one] != [len(row) for row in other]:
        return False
    return _every(
        _same(a, b, depth=depth + 1) for row, their in zip(one, other, strict=True) for a, b in zip(row, their, strict=True)
    )


def _rows(text: str) -> list[list[str]] | None:
    if match := _MATRIX.fullmatch(text):
        return [[cell.strip() for cell in row.split("&")] for row in match[2].strip().split("\\\\") if row.strip()]
    if text.startswith("[[") and text.endswith("]]"):
        inner = [_grouped(row) for row in _parts(text[1:-1])]
        if all(one is not None and one[0] == "[" for one in inner):
            return [one[1] for one in inner if one is not None]
    return None


def _lists(gold: str, answer: str, depth: int) -> bool | None:
    """Intervals, sets, tuples and lists of solutions."""
    one, other = _intervals(gold), _intervals(answer)
    if one is not None and other is not None and not (_pair(gold) and _pair(answer)):
        if len(one) != len(other):
            return False
        return _matched([_Ends(a) for a in one], [_Ends(b) for b in other], depth)
    first, second = _elements(gold), _elements(answer)
    if first is None and second is None:
        return None
    if first is None or second is None:
        kind, items = first or second or ("", [])
        bare = answer if second is None else gold
        if kind in ("set", "list") and len(items) == 1:
            return _same(items[0], bare, depth=depth + 1)
        # One thing is not several; whether it is one thing is known where it has a value.
        return False if kind and len(items) > 1 and _valued(bare) else None
    kinds = {first[0], second[0]}
    if len(first[1]) != len(second[1]):
        return False
    if kinds <= {"set", "list"}:
        return _matched(first[1], second[1], depth)
    if len(kinds) > 1:
        return False
    return _every(_same(a, b, depth=depth + 1) for a, b in zip(first[1], second[1], strict=True))


class _Ends(tuple[Any, ...]):
    """An interval: lower end, whether it belongs, upper end, whether it belongs."""

    __slots__ = ()


def _every(found: Any) -> bool | None:
    unknown = False
    for one in found:
        if one is False:
            return False
        unknown = unknown or one is None
    return None if unknown else True


def _matched(gold: list[Any], answer: list[Any], depth: int) -> bool | None:
    """Whether two lists hold the same, in any order, each as often."""
    left, unknown = list(answer), False
    for item in gold:
        said = [_item_same(item, other, depth) for other in left]
        if True in said:
            del left[said.index(True)]
        elif None in said:
            unknown = True
        else:
            return False
    return None if unknown else True


def _item_same(gold: Any, answer: Any, depth: int) -> bool | None:
    if isinstance(gold, _Ends):
        if (gold[1], gold[3]) != (answer[1], answer[3]):
            return False
        return _every(_same(gold[at], answer[at], depth=depth + 1) for at in (0, 2))
    return _same(gold, answer, depth=depth + 1)


def _grouped(text: str) -> tuple[str, list[str], str] | None:
    """What opens a text, the parts between its commas, what closes it; None where it is not one group."""
    text = text.strip()
    if len(text) < 2 or text[0] not in "([\u27e8" or text[-1] not in ")]\u27e9":
        return None
    level = 0
    for at, mark in enumerate(text):
        if mark in _PARENS:
            level += 1
        elif mark in _CLOSING:
            level -= 1
            if level == 0 and at < len(text) - 1:
                return None
    return text[0], _parts(text[1:-1]), text[-1]


def _parts(text: str) -> list[str]:
    """Split at commas and semicolons that stand in no group; a number with separators of thousands stays whole."""
    if _THOUSANDS.search(text) and not re.search(r"\d,\s+\d", text):
        text = _THOUSANDS.sub(lambda m: m[0].replace(",", ""), text)
    found, level, begin = [], 0, 0
    for at, mark in enumerate(text):
        if mark in _PARENS:
            level += 1
        elif mark in _CLOSING:
            level -= 1
        elif mark in ",;" and level == 0:
            found.append(text[begin:at].strip())
            begin = at + 1
    return [*found, text[begin:].strip()]


def _pair(text: str) -> bool:
    found = _grouped(text)
    return found is not None and len(found[1]) == 2 and (found[0], found[2]) in (("(", ")"), ("[", "]"))


def _intervals(text: str) -> list[tuple[Any, ...]] | None:
    """Unions of intervals, from brackets or from inequalities; None for anything else."""
    if match := _MEMBER.match(text):
        text = match[1]
    if "\\cup" in text:
        parts = [_intervals(part.strip()) for part in text.split("\\cup")]
        return [one for part in parts if part for one in part] if all(parts) else None
    squeezed = text.replace(" ", "")
    if chain := _CHAIN.fullmatch(squeezed):
        low, below, _, above, high = chain.groups()
        if below[0] != above[0]:
            return None
        if below[0] == ">":
            low, below, above, high = high, above, below, low
        return [(low, "=" in below, high, "=" in above)]
    if bound := _BOUND.fullmatch(squeezed):
        left, sign, right = bound.groups()
        if _VARIABLE.fullmatch(right) and not _VARIABLE.fullmatch(left):
            left, right, sign = right, left, {"<": ">", ">": "<"}[sign[0]] + sign[1:]
        if not _VARIABLE.fullmatch(left) or "<" in right or ">" in right:
            return None
        closed = "=" in sign
        return [("-\\infty", False, right, closed)] if sign[0] == "<" else [(right, closed, "\\infty", False)]
    found = _grouped(text)
    if found is None or len(found[1]) != 2 or found[0] not in "([" or found[2] not in ")]":
        return None
    return [(found[1][0], found[0] == "[", found[1][1], found[2] == "]")]


def _elements(text: str) -> tuple[str, list[str]] | None:
    """A set, tuple or list and its elements; a list of solutions needs no brackets. None for a single thing."""
    found = _grouped(text)
    if found is not None:
        kind = {"(": "tuple", "[": "array", "\u27e8": "set"}[found[0]]
        if kind == "tuple" and len(found[1]) == 1:
            return _elements(found[1][0])
        return kind, [part for part in found[1] if part or len(found[1]) > 1]
    items = [piece for part in _parts(text) for piece in re.split(r"\s+(?:and|or)\s+|\s*\\(?:lor|vee)\s*", part) if piece]
    items = [re.sub(r"^(?:and|or)\s+", "", item) for item in items]
    items = [signed for item in items for signed in _both_signs(item)]
    return ("list", items) if len(items) > 1 else None


def _both_signs(text: str) -> list[str]:
    if "\\pm" not in text:
        return [text]
    head, _, tail = text.partition("=") if "=" in text else ("", "", text)
    made = [re.sub(r"\\pm(?![A-Za-z])", sign, tail) for sign in ("+", "-")]
    return [f"{head}={one}" if head else one for one in made]


# -- numbers and what they count ---------------------------------------------------------------------------------------------


def _quantities(gold: str, answer: str) -> bool | None:
    equation = _equations(gold, answer)
    if equation is not None:
        return equation
    one, other = _quantity(_right_side(gold)), _quantity(_right_side(answer))
    if one is None or other is None:
        return None
    (first, unit), (second, their) = one, other
    if unit is not None and their is not None:
        if unit.dimensions != their.dimensions:
            return False
        return equal_values(_scaled(first, unit), _scaled(second, their))
    known = unit or their
    if known is None:
        return equal_values(first, second)
    if (attached := _ATTACHED.fullmatch(answer if their is None else gold)) and (letter := unit_of(attached[2], attached=False)):
        return letter == known and equal_values(_value(attached[1]) or [], first if their is None else second)
    if not known.dimensions:  # percent
        return equal_values(_scaled(first, unit), _scaled(second, their))
    if equal_values(first, second):
        return True
    if known.dimensions == (("angle", 1),):
        return equal_values(_radians(first, unit), _radians(second, their))
    return False


def _scaled(found: list[Any], unit: Unit | None) -> list[Any]:
    return found if unit is None else [value * unit.scale.numerator / unit.scale.denominator for value in found]


def _radians(found: list[Any], unit: Unit | None) -> list[Any]:
    from mpmath import mp

    return found if unit is None else [value * mp.pi / 180 for value in found]


def _right_side(text: str) -> str:
    """`x = 5` means 5; so does `f(2) = 5`."""
    left, sign, right = text.rpartition("=")
    if not sign or not right.strip() or left.rstrip().endswith(("<", ">", "!")):
        return text
    left = left.rpartition("=")[2].strip() if "=" in left else left.strip()
    return right.strip() if _VARIABLE.fullmatch(left.replace(" ", "")) or re.fullmatch(r"[A-Za-z]\([^()=]{1,8}\)", left) else text


def _equations(gold: str, answer: str) -> bool | None:
    """Both are equations: the same one, or one a multiple of the other."""
    if gold.count("=") != 1 or answer.count("=") != 1 or any(mark in gold + answer for mark in "<>"):
        return None
    (left, right), (their_left, their_right) = gold.split("="), answer.split("=")
    one, other = left.replace(" ", ""), their_left.replace(" ", "")
    if _VARIABLE.fullmatch(one) and _VARIABLE.fullmatch(other) and one != other and len(_value(right) or []) == 1:
        return False  # x = 5 is not y = 5
    try:
        mine = [a - b for a, b in zip(*_stretch(_value(left), _value(right)), strict=True)]
        theirs = [a - b for a, b in zip(*_stretch(_value(their_left), _value(their_right)), strict=True)]
        if len(mine) != len(theirs) or len(mine) == 1:
            return None
        return equal_values([a * theirs[0] for a in mine[1:]], [b * mine[0] for b in theirs[1:]])
    except (TypeError, ZeroDivisionError):
        return None


def _stretch(first: list[Any] | None, second: list[Any] | None) -> tuple[list[Any], list[Any]]:
    if first is None or second is None:
        raise TypeError
    length = max(len(first), len(second))
    return (first * length if len(first) == 1 else first), (second * length if len(second) == 1 else second)


def _quantity(text: str) -> tuple[list[Any], Unit | None] | None:
    """The values of a quantity and its unit. A unit stands apart from its number (`5 m`), or has two letters (`5cm`)."""
    rest, unit = split_unit(text)
    if unit is not None and not _OF_ANGLE.search(rest) and (value := _value(rest)) is not None:
        return value, unit
    found = _value(text)
    return None if found is None else (found, None)


def _valued(text: str) -> bool:
    return _quantity(_right_side(text)) is not None


@lru_cache(maxsize=4_096)  # the samples of a prompt share their reference
def _value(text: str) -> list[Any] | None:
    """The values of an expression at the points of filters.maths.expressions, or None where it has none."""
    try:
        return values(_spelled(text))
    except (UnknownError, ZeroDivisionError, ValueError, OverflowError, RecursionError, TypeError, IndexError):
        return None


def _spelled(text: str) -> str:
    """Numbers as people write them, made plain: separators, mixed numbers, scientific notation."""
    if _UNDERSCORED.fullmatch(text):
        text = text.replace("_", "")
    text = _THOUSANDS.sub(lambda m: m[0].replace(",", ""), text)
    if _SPACED.fullmatch(text):
        text = text.replace(" ", "")
    text = _REPEATING.sub(_repeated, text)
    text = _MIXED_FRAC.sub(lambda m: f"({m[1]}+{m[2]}/{m[3]})" if m[1] else f"({m[4]}+{m[5]}/{m[6]})", text)
    text = _MIXED.sub(r"(\1+\2/\3)", text)
    return _SCIENTIFIC.sub(r"(\1*10^{\2})", text)


def _repeated(match: "re.Match[str]") -> str:
    """A repeating decimal as the fraction that it is: 0.1\\overline{6}, 0.333..."""
    whole, once, period = match[1] or "0", match[2] or "", match[3]
    if period is None:  # 0.1666...: the last digit, three times or more
        digits = match[4].rstrip(match[4][-1])
        once, period = digits, match[4][-1]
        if len(match[4]) - len(digits) < 3:
            return match[0]
    above = int(whole + once + period) - int(whole + once)
    return f"({above}/{(10 ** len(period) - 1) * 10 ** len(once)})"
