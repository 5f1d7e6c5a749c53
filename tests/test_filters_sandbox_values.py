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


class Lies(type):
    """A metaclass that gives its classes another name, text and kind."""

    __name__ = __qualname__ = "int"
    __class__ = type  # type: ignore[assignment]

    def __repr__(cls) -> str:
        return "<class 'int'>"

    def __eq__(cls, other: object) -> bool:
        return True

    def __hash__(cls) -> int:
        return hash(int)

    def __instancecheck__(cls, instance: object) -> bool:
        return True


def disguised(base: Any) -> Any:
    """An instance of a subclass that claims in every way to be of its base and to equal everything."""
    claims = {
        "__class__": property(lambda self: base),
        "__repr__": lambda self: "42",
        "__eq__": lambda self, other: True,
        "__hash__": lambda self: hash(42),
        "__iter__": lambda self: iter([42]),
        "__len__": lambda self: 1,
        "_fields": ("a",),
    }
    made: Any = Lies(base.__name__, (base,), claims)
    return base.__new__(made)


@pytest.mark.parametrize("base", [int, str, float, bytes, list, tuple, dict, set, frozenset, complex, object, Exception])
def test_a_disguise_changes_nothing(base: type) -> None:
    """Names, text, equality and class are the program's; the type is not."""
    for value in (disguised(base), [disguised(base)], {"key": disguised(base)}):
        rebuilt = crossed(value)
        while not isinstance(rebuilt, Other):
            rebuilt = next(iter(rebuilt.values() if isinstance(rebuilt, dict) else rebuilt))
        assert rebuilt.type_name == f"solution.{base.__name__}"


@pytest.mark.parametrize("name", ["ValueError", "int", "NoneType", "list", "Other"])
def test_a_class_cannot_take_the_name_of_another(name: str) -> None:
    assert values.type_name(type(name, (), {})) == f"solution.{name}"
    assert values.type_name(ValueError) == "ValueError"
    assert values.type_name(type(None)) == "NoneType"


def test_classes_that_were_there_before_keep_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the standard library, whatever a program renames them to."""
    kind = type("Kind", (), {})
    monkeypatch.setattr(values, "_known", {})
    values.note_classes()
    kind.__name__ = "int"

    assert values.type_name(kind) == "Kind"
    assert values.type_name(Counter) == "Counter"


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
