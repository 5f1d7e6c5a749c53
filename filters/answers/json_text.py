"""Find the one JSON object in a completion, by strict rules and in linear time.

orjson reads a text wherever it is certain that the strict decoder would read the same; the strict decoder reads the rest. The
rules are those of the strict decoder: no repeated keys, no NaN, no infinite numbers.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, NoReturn

import orjson

from schemas.sample import to_json

TEXT_BYTES = 65536
MOST_STARTS = 16
"""Places where an object may start that are tried in a text."""
DEPTH = 64
"""Deepest nesting accepted. It is far below Python's own limit, which depends on how deep the caller already is."""
_EXACT = 2.0**63
"""Below this orjson reads integers as integers; from 2**64 on it reads them as floats."""
_SPACE = " \t\n\r"
_FIRST_CHARS = frozenset('{["-0123456789tfnNI')
"""First characters of the texts that the strict decoder accepts."""
_OPENING_FENCE = re.compile(r"(`{3,8}|~{3,8})[^\n`]*\n")
_LINE_END_CHARS = 80

Read = tuple[dict[str, Any], bytes | None]
"""An object and, where orjson read it, its canonical text: two objects with one text are equal, type for type."""


class RefusedError(ValueError):
    """A text without an acceptable JSON object; its first argument is the reason."""


def extract(text: str) -> dict[str, Any]:
    """The one JSON object of a text: the whole text, or its one fenced block, or the one object inside it.

    Raises RefusedError with the reason: `too_long` above 64 KiB, `not_json`, `ambiguous_json` for several, `duplicate_key`.
    Several objects are ambiguous, because taking the first would reward a model that sprays answers. For the same reason an
    object inside a list, or inside an object that breaks off, is not the answer. If one fenced block holds JSON, the rest of the
    text is not searched, so the reference cannot influence which object is judged.
    """
    return read_object(text)[0]


def read_object(text: str, wanted: bytes | None = None) -> Read:
    """The object of `extract`. `wanted`, the canonical text of the expected object, only makes reading it faster."""
    if len(text) > TEXT_BYTES or not (text.isascii() or len(text.encode("utf-8", "surrogatepass")) <= TEXT_BYTES):
        raise RefusedError("too_long")
    if text[:1] == "{" and (certain := certain_object(text, wanted)):
        return certain
    if "{" not in text:
        raise RefusedError("not_json")
    fenced = _fenced(text) if "```" in text or "~~~" in text else []
    for candidate in (text, *(fenced if len(fenced) == 1 else [])):
        if candidate.lstrip(_SPACE)[:1] not in _FIRST_CHARS:
            continue
        if candidate is not text and (certain := certain_object(candidate, wanted)):
            return certain
        try:
            value = _DECODER.decode(candidate)
        except (ValueError, RecursionError):
            continue  # the search below finds the object, or why it is refused
        if isinstance(value, dict):
            return _storable(value, candidate), None
        raise RefusedError("not_json")
    start, end = text.find("{"), text.rfind("}") + 1
    if 0 < start < end and text.find("{", end) < 0 and (certain := certain_object(text[start:end], wanted)):
        if _is_in_a_list(text, start, end):
            raise RefusedError("not_json")
        return certain
    return _searched(text), None


def _fenced(text: str) -> list[str]:
    """The contents of fenced blocks, of backticks or tildes, whatever language they name; the last may be unclosed.

    A block ends where a line starts or ends with its fence. That cuts no JSON string, because a string never spans lines.
    """
    bare = text.rstrip("\n")
    if bare.count("`") == 6 and bare[:3] == "```" == bare[-3:] and "\n" in bare:  # a single block, the most common case
        return [bare[bare.find("\n") + 1 : -3]]
    blocks, position = [], 0
    while opening := _OPENING_FENCE.search(text, position):
        fence, start = opening[1], opening.end()
        if opening.start() and not (text[opening.start() - 1].isspace() or text[opening.start() - 1] == ":"):
            position = opening.end(1)  # within a word: the end of inline code
            continue
        end = text.find(fence, start)
        while end >= 0 and not _ends_a_block(text, start, end, end + len(fence)):
            end = text.find(fence, end + 1)
        blocks.append(text[start:] if end < 0 else text[start:end])
        position = len(text) if end < 0 else end + len(fence)
    return blocks


def _ends_a_block(text: str, start: int, fence: int, after: int) -> bool:
    before = text[max(start, fence - _LINE_END_CHARS) : fence].rstrip(" \t")
    return before[-1:] in ("", "\n") or text[after : after + _LINE_END_CHARS].lstrip(" \t\r")[:1] in ("", "\n")


def certain_object(text: str, wanted: bytes | None = None) -> Read | None:
    """The object that a text is as a whole; None wherever the strict decoder might read something else.

    Of two equal keys orjson keeps the last. The object or text that it discards takes its quotes along, and without \\u escapes a
    value is written with as many quotes as it was read from. orjson also reads integers of more than 64 bits as floats, which it
    writes with e+; an object that equals `wanted`, which has none, has no such float.
    """
    if "\\" in text and "\\u" in text:
        return None
    try:
        value = orjson.loads(text)
        written = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    if type(value) is not dict or written.count(b'"') != text.count('"'):
        return None
    if written == wanted and b"e+" not in written:
        return (value, written) if written.count(b"{") + written.count(b"[") <= DEPTH else None
    return (value, written) if _is_exact(value.values(), 1) else None


def _is_exact(values: Iterable[Any], depth: int) -> bool:
    """Whether no float can have been an integer, and nothing is nested too deep."""
    for value in values:
        kind = type(value)
        if kind is float:
            if not -_EXACT < value < _EXACT:
                return False
        elif (kind is dict or kind is list) and (
            depth == DEPTH or not _is_exact(value.values() if kind is dict else value, depth + 1)
        ):
            return False
    return True


def _searched(text: str) -> dict[str, Any]:
    """The one object inside a text."""
    objects: list[tuple[dict[str, Any], int, int]] = []
    broken: int | None = None
    position = text.find("{")
    for _ in range(MOST_STARTS):
        if position < 0:
            break
        try:
            value, end = _DECODER.raw_decode(text, position)
            objects.append((value, position, end))
        except RefusedError:
            raise
        except json.JSONDecodeError as error:
            end = max(error.pos, position + 1)
            broken = position if broken is None else broken
        except (ValueError, RecursionError) as error:  # too many digits, too deep
            raise RefusedError("not_json") from error
        position = text.find("{", end)
    if len(objects) != 1 or position >= 0:
        raise RefusedError("ambiguous_json" if objects else "not_json")
    ((value, start, end),) = objects
    if broken is not None and text.count("{", broken, start) > text.count("}", broken, start):
        raise RefusedError("not_json")  # the object that broke off is still open here
    if _is_in_a_list(text, start, end):
        raise RefusedError("not_json")
    return _storable(value, text)


def _is_in_a_list(text: str, start: int, end: int) -> bool:
    """Whether the object is an element of a list, complete or broken off. LaTeX's `\\[` opens no list."""
    before, after = text[:start].rstrip(_SPACE), text[end:].lstrip(_SPACE)
    if before.endswith("[") and not before.endswith("\\[") and after[:1] in ("", ",", "]"):
        return True
    position = start
    for _ in range(MOST_STARTS):
        position = text.rfind("[", 0, position)
        if position < 0:
            break
        try:
            if _DECODER.raw_decode(text, position)[1] > start:
                return True
        except (ValueError, RecursionError):
            continue
    return False


def _storable(value: dict[str, Any], text: str) -> dict[str, Any]:
    """The value, unless it is nested too deep or holds half a surrogate pair, which no library accepts."""
    if text.count("{") + text.count("[") > DEPTH and _depth(value) > DEPTH:
        raise RefusedError("not_json")
    if "\\u" in text:
        try:
            to_json(value).encode()
        except UnicodeEncodeError as error:
            raise RefusedError("not_json") from error
    return value


def _depth(value: Any) -> int:
    """Levels of objects and lists, counted by a loop because recursion is what it guards against."""
    depth, level = 0, [value]
    while level := [inner for inner in level if isinstance(inner, dict | list)]:
        depth += 1
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
    return depth


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise RefusedError("duplicate_key")
    return members


def _no_constant(name: str) -> NoReturn:
    raise RefusedError("not_json", name)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise RefusedError("not_json", text)
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
