"""Encode values inside the sandbox as JSON with type tags, and rebuild them outside.

Inside, a value is encoded by its exact type, with the methods of the built-in types, so that nothing a program defines
(`__iter__`, `__eq__`, `__class__`) has any effect. Types are named as they were before the program ran; a class that was not
there is named `solution.NAME`, so that no program can pass off a class of its own as another. Outside, plain built-in objects are
built from the JSON; nothing is unpickled or evaluated. None, bool, int, float and str are encoded as they are; every other value
is an array that starts with its tag.

This module runs inside and outside the sandbox, so it uses only the standard library.
"""

import json
import json.encoder
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

FRAME_BYTES = 65_536
DEPTH = 20
DIGITS = 4_300
OWN = "solution."
"""Before the name of a class that was not there before the program."""
_BITS = 14_284
"""4,300 decimal digits."""


class MalformedError(Exception):
    """A frame that the harness cannot have written."""


class Other:
    """A value that cannot leave the sandbox (its type, size or depth). It equals nothing, not even itself."""

    __slots__ = ("type_name",)

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"Other({self.type_name!r})"


class _TooMuchError(Exception):
    pass


def _refuse(_: object) -> object:
    raise TypeError


# The C encoder itself, held from before any program runs: patching json in a program does not reach it.
_write = json.encoder.c_make_encoder(  # type: ignore[attr-defined]
    None, _refuse, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, True
)
_name, _mro, _fields = type.__dict__["__name__"].__get__, type.__dict__["__mro__"].__get__, type.__dict__["__dict__"].__get__
_flags, _below = type.__dict__["__flags__"].__get__, type.__subclasses__
_HEAP_TYPE = 1 << 9
"""The flag of a class that is not compiled in. Only these can be made or renamed by a program."""
_known: dict[int, tuple[Any, str]] = {}
_text, _bits, _items, _hex = str.__getitem__, int.bit_length, dict.items, bytes.hex
_iter: dict[int, Any] = {id(kind): kind.__iter__ for kind in (list, tuple, set, frozenset, deque)}
_OF_A_TUPLE = tuple(
    f"__{name}__"
    for name in "eq ne lt le gt ge hash iter len getitem contains add mul rmul class getattribute getattr bool".split()
)
"""What decides how a tuple looks to its user."""
# By id, because a metaclass of the program decides what a class is equal to.
_dicts = frozenset(map(id, (dict, defaultdict, OrderedDict, Counter)))
_tags: dict[int, str] = {id(list): "l", id(deque): "l", id(tuple): "t", id(set): "s", id(frozenset): "z"}


def note_classes() -> None:
    """Note the classes that there are now, and their names. To be called before any program runs."""
    left: list[Any] = [object]
    while left:
        kind = left.pop()
        if id(kind) not in _known:
            _known[id(kind)] = kind, _text(_name(kind), slice(0, 80))
            left.extend(_below(kind))


def type_name(kind: Any) -> str:
    """Return the name of a class, at most 80 characters: the real one, whatever the class and its metaclass say."""
    known = _known.get(id(kind))
    name: str = known[1] if known is not None else _text(_name(kind), slice(0, 80))
    return name if known is not None or not _flags(kind) & _HEAP_TYPE else OWN + name


def _namedtuple(kind: Any) -> bool:
    """Whether a class is as collections.namedtuple makes it: it changes nothing about a tuple but names its items."""
    order, names = _mro(kind), _fields(kind)
    if len(order) != 3 or order[1] is not tuple or type(names.get("_fields")) is not tuple:
        return False
    return not any(method in names for method in _OF_A_TUPLE)


def _spend(left: list[int], characters: int) -> None:
    left[0] -= characters
    if left[0] < 0:
        raise _TooMuchError


def _plain(value: Any, depth: int, left: list[int]) -> Any:
    """Convert `value` to the types of JSON. `left[0]` is the number of characters still allowed."""
    kind: Any = type(value)
    _spend(left, 1)
    if depth > DEPTH:
        raise _TooMuchError
    if value is None or kind is bool or kind is float:
        return value
    if kind is int:
        if _bits(value) > _BITS:
            return ["o", f"int of more than {DIGITS} digits"]
        _spend(left, _bits(value) // 4)
        return value
    if kind is str:
        _spend(left, len(value))
        return value
    tag = _tags.get(id(kind))
    if tag is None and _namedtuple(kind):
        kind, tag = tuple, "t"
    if tag is not None:
        return [tag, *[_plain(item, depth + 1, left) for item in _iter[id(kind)](value)]]
    if id(kind) in _dicts:
        tree = ["d"]
        for key, item in _items(value):
            tree.append(_plain(key, depth + 1, left))
            tree.append(_plain(item, depth + 1, left))
        return tree
    if kind is bytes:
        _spend(left, 2 * len(value))
        return ["b", _hex(value)]
    if kind is complex:
        return ["c", value.real, value.imag]
    return ["o", type_name(kind)]


def encode(value: Any) -> bytes:
    """Encode one value as ASCII JSON of at most FRAME_BYTES. A value that does not fit becomes the name of its type."""
    try:
        text: str = "".join(_write(_plain(value, 0, [FRAME_BYTES]), 0))
        if len(text) <= FRAME_BYTES - 64:  # room for the frame around it
            return text.encode()
    except (_TooMuchError, RecursionError, RuntimeError, ValueError, MemoryError):
        pass
    return "".join(_write(["o", f"{type_name(type(value))}, too large or too deep"], 0)).encode()


def _built(tree: Any, depth: int) -> Any:
    if type(tree) is not list:
        if type(tree) is dict:
            raise MalformedError("an object")
        return tree
    if depth > DEPTH or not tree:
        raise MalformedError("too deep, or no tag")
    tag, rest = tree[0], tree[1:]
    if tag == "b" and len(rest) == 1 and type(rest[0]) is str:
        return bytes.fromhex(rest[0])
    if tag == "o" and len(rest) == 1 and type(rest[0]) is str:
        return Other(rest[0])
    if tag == "c" and len(rest) == 2 and type(rest[0]) is type(rest[1]) is float:
        return complex(rest[0], rest[1])
    items = [_built(item, depth + 1) for item in rest]
    if tag == "l":
        return items
    if tag == "t":
        return tuple(items)
    if tag == "s":
        return set(items)
    if tag == "z":
        return frozenset(items)
    if tag == "d" and len(items) % 2 == 0:
        return dict(zip(items[::2], items[1::2], strict=True))
    raise MalformedError(f"tag {str(tag)[:20]}")


def parse(frame: bytes) -> Any:
    """Parse the JSON of a frame. Raises MalformedError."""
    if len(frame) > FRAME_BYTES:
        raise MalformedError("longer than a frame")
    try:
        return json.loads(frame)
    except (ValueError, RecursionError) as error:
        raise MalformedError(type(error).__name__) from None


def build(tree: Any) -> Any:
    """Build the value that parsed JSON encodes. Raises MalformedError for what `encode` cannot have written."""
    try:
        return _built(tree, 0)
    except (TypeError, ValueError, OverflowError) as error:
        raise MalformedError(type(error).__name__) from None
