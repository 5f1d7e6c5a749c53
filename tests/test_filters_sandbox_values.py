"""Values that leave the sandbox: encoded inside, rebuilt outside."""

from collections import Counter, OrderedDict, defaultdict, deque
from enum import IntEnum
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.sandbox import Other, values
from filters.sandbox.values import MalformedError


def crossed(value: Any) -> Any:
    return values.build(values.parse(values.encode(value)))


class Number(IntEnum):
    ONE = 1


class Sly(list):  # type: ignore[type-arg]
    """A list that claims to be another."""

    def __iter__(self) -> Any:
        return iter([42])


class Point(NamedTuple):
    """As collections.namedtuple makes it."""

    x: int
    y: int


class Claims:
    """An object that claims to be an int."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return int


def plain_values() -> st.SearchStrategy[Any]:
    scalars = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text()
        | st.binary()
        | st.complex_numbers(allow_nan=False)
    )
    hashable = st.recursive(scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=6)
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner) | st.tuples(inner) | st.sets(hashable) | st.dictionaries(hashable, inner),
        max_leaves=20,
    )


@settings(max_examples=30)
@given(plain_values())
def test_plain_values_cross_unchanged(value: Any) -> None:
    """Value and type survive, at every depth."""
    assert crossed(value) == value
    assert repr(type(crossed(value))) == repr(type(value))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("inf"), float("inf")),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, {1: [2]}), {1: [2]}),
        (deque([1, 2]), [1, 2]),
        (Point(1, 2), (1, 2)),
        (True, True),
        ([1, 1.0, True], [1, 1.0, True]),
        ("\ud800", "\ud800"),
        (10**4000, 10**4000),
    ],
    ids=str,
)
def test_well_known_types_come_out_as_their_base(value: Any, expected: Any) -> None:
    """Counter, deque and the like become the plain type; a bool stays a bool."""
    assert crossed(value) == expected
    assert type(crossed(value)) is type(expected)


@pytest.mark.parametrize(
    "value",
    [
        Sly([1]),
        Claims(),
        object(),
        range(3),
        iter([1]),
        len,
        Number.ONE,
        10**5000,
        "x" * 70_000,
        [0] * 70_000,
        bytearray(b"x"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_types_equal_nothing(value: Any) -> None:
    """Subclasses, impostors, iterators and values that are too large do not even equal themselves."""
    rebuilt = crossed(value)
    assert isinstance(rebuilt, Other)
    assert rebuilt != rebuilt
    assert [rebuilt] != [crossed(value)]


def test_depth_is_bounded() -> None:
    """A list inside itself, and one deeper than 20 levels, is too deep."""
    endless: list[Any] = []
    endless.append(endless)
    deep: Any = 1
    for _ in range(21):
        deep = [deep]
    assert isinstance(crossed(endless), Other)
    assert isinstance(crossed(deep), Other)
    assert crossed(deep[0]) == deep[0]


@pytest.mark.parametrize(
    "frame",
    [b"", b"{", b'{"a":1}', b"[]", b'["x",1]', b'["l",["y"]]', b'["d",1]', b'["s",["l"]]', b'["b","zz"]', b'["c",1,2]',
     b"[" * 60_000, b'["l",' * 30 + b"1" + b"]" * 30, b"1" * 5_000, b'"' + b"x" * 70_000 + b'"', b"\xff"],
)  # fmt: skip
def test_a_malformed_frame_is_refused(frame: bytes) -> None:
    """It raises MalformedError and no other exception."""
    with pytest.raises(MalformedError):
        values.build(values.parse(frame))
