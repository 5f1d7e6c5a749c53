"""Encode values inside the sandbox as JSON with type tags, and rebuild them outside.

Inside, a value is encoded by its exact type, with the methods of the built-in types, so that nothing a program defines
(`__iter__`, `__eq__`, `__class__`) has any effect. Types are named as they were before the program ran; a class that was not
there is named `solution.NAME`, so that no program can pass off a class of its own as another. Outside, plain built-in objects are
built from the JSON; nothing is unpickled or evaluated. None, bool, int, float and str are encoded as they are; every other value
is an array that starts with its tag. Scalars and arrays of numpy leave with their type, where the sandbox has numpy.

This module runs inside and outside the sandbox, so it uses only the standard library.
"""

import json
import json.encoder
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
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


_LONG = (("f", 16), ("f", 12), ("c", 32), ("c", 24))
"""Kind and bytes of numpy's extended precision, which JSON does not hold."""
_numpy: dict[str, Any] = {}
_scalars: set[int] = set()


def _note_numpy() -> None:
    """Note the types of numpy whose values leave, and their own methods, which no program can replace: they are compiled."""
    numpy: Any = sys.modules["numpy"]
    names = "bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128"
    _scalars.update(id(getattr(numpy, name)) for name in names.split())
    array, kind = numpy.ndarray, numpy.dtype
    fields = {"dtype": array.dtype, "shape": array.shape, "size": array.size, "kind": kind.kind, "width": kind.itemsize}
    _numpy.update({name: field.__get__ for name, field in fields.items()})
    _numpy.update(array=array, ravel=array.ravel, list=array.tolist, item=numpy.generic.item, of=numpy.generic.dtype.__get__)


def _of_numpy(value: Any, kind: Any, left: list[int]) -> Any:
    """A scalar or array of numpy as its type, its shape and its items; None for any other value and for items of other types."""
    shape: Any = None
    if id(kind) in _scalars:
        dtype, items = _numpy["of"](value), [_numpy["item"](value)]
    elif kind is _numpy["array"]:
        dtype, shape = _numpy["dtype"](value), _numpy["shape"](value)
        if _numpy["kind"](dtype) not in "biufcU" or (_numpy["kind"](dtype), _numpy["width"](dtype)) in _LONG:
            return None
        _spend(left, _numpy["size"](value))
        items = _numpy["list"](_numpy["ravel"](value))
    else:
        return None
    letter = _numpy["kind"](dtype)
    name = letter if letter == "U" else f"{letter}{_numpy['width'](dtype)}"
    return ["n", name, None if shape is None else [*shape], [_plain(item, DEPTH, left) for item in items]]


def note_classes() -> None:
    """Note the classes that there are now, and their names. To be called before any program runs."""
    if "numpy" in sys.modules:
        _note_numpy()
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
    if _numpy and (tree := _of_numpy(value, kind, left)) is not None:
        return tree
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


Arrays = Callable[[str, tuple[int, ...] | None, list[Any]], Any]
"""Makes a scalar (shape None) or an array of numpy from its type (`f8`), shape and items. Raises ValueError or TypeError."""


def _built(tree: Any, depth: int, arrays: Arrays | None) -> Any:
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
    if tag == "n" and arrays is not None and len(rest) == 3 and type(rest[0]) is str and type(rest[2]) is list:
        shape = None if rest[1] is None else tuple(map(_length, rest[1]))
        return arrays(rest[0], shape, [_built(item, DEPTH, None) for item in rest[2]])
    items = [_built(item, depth + 1, arrays) for item in rest]
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


def _length(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise MalformedError("a length that is none")
    return value


def parse(frame: bytes) -> Any:
    """Parse the JSON of a frame. Raises MalformedError."""
    if len(frame) > FRAME_BYTES:
        raise MalformedError("longer than a frame")
    try:
        return json.loads(frame)
    except (ValueError, RecursionError) as error:
        raise MalformedError(type(error).__name__) from None


def build(tree: Any, arrays: Arrays | None = None) -> Any:
    """Build the value that parsed JSON encodes; `arrays` builds those of numpy. Raises MalformedError for what `encode` cannot
    have written."""
    try:
        return _built(tree, 0, arrays)
    except (TypeError, ValueError, OverflowError) as error:
        raise MalformedError(type(error).__name__) from None
