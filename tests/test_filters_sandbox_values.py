"""The system call filter, and the values that cross the wall."""

import struct
from collections import Counter, OrderedDict, defaultdict, deque
from enum import IntEnum
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.sandbox import (
    Other,
    seccomp,
    values,
)
from filters.sandbox.values import MalformedError

# -- the system call filter ------------------------------------------------------------------------------------------------


def filtered(code: bytes, arch: int, number: int, *arguments: int) -> str:
    """What a seccomp program answers, run step by step as the kernel would."""
    data = struct.pack("=iIQ6Q", number, arch, 0, *[*arguments, *[0] * (6 - len(arguments))])
    at, accumulator = 0, 0
    while True:
        operation, yes, no, k = struct.unpack_from("<HBBI", code, at * 8)
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif operation == 0x06:
            return {0x7FFF0000: "allowed", 0x80000000: "killed"}.get(k) or f"error {k & 0xFFFF}"
        else:
            holds = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[operation]
            at += yes if holds else no


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (("x86_64", 0), "allowed"),  # read
        (("x86_64", 0x40000000), "error 38"),  # the same by the x32 interface
        (("x86_64", 41, 2), "error 1"),  # socket
        (("x86_64", 53, 1), "allowed"),  # socketpair, AF_UNIX
        (("x86_64", 53, 2), "error 1"),
        (("x86_64", 56, 17), "allowed"),  # clone
        (("x86_64", 56, 0x10000000 | 17), "error 1"),
        (("x86_64", 435), "error 38"),  # clone3
        (("x86_64", 436), "allowed"),  # close_range
        (("x86_64", 999), "error 38"),
        (("x86_64", 302, 0), "allowed"),  # prlimit64 of oneself, of process 1
        (("x86_64", 302, 1), "error 1"),
        (("x86_64", 16, 0, 0x5412), "error 1"),  # ioctl TIOCSTI, TCGETS
        (("x86_64", 16, 0, 0x5401), "allowed"),
        (("x86_64", 62, 7, 9), "allowed"),  # kill
        (("aarch64", 63), "allowed"),
        (("aarch64", 198, 2), "error 1"),
        (("aarch64", 220, 0x10000000), "error 1"),
        (("aarch64", 435), "error 38"),
        (("aarch64", 425), "error 38"),
        (("aarch64", 117), "error 1"),
    ],
)
def test_the_filter_answers_each_call(call: tuple[Any, ...], said: str) -> None:
    """For both architectures, and a call made as another architecture's ends the process."""
    machine, number, *arguments = call
    code = seccomp.program(machine=machine)

    assert filtered(code, seccomp._ARCHES[machine], number, *arguments) == said
    assert filtered(code, 0x40000003, number, *arguments) == "killed"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ((62, 7, 9), "allowed"),  # kill: itself, another, everybody, a group
        ((62, 8, 9), "error 1"),
        ((62, 0xFFFFFFFF, 9), "error 1"),
        ((62, 0, 9), "error 1"),
        ((112,), "error 1"),  # setsid, setpgid
        ((109,), "error 1"),
        ((72, 3, 8), "error 1"),  # fcntl F_SETOWN, F_GETFL
        ((72, 3, 3), "allowed"),
        ((157, 1), "error 1"),  # prctl PR_SET_PDEATHSIG, PR_SET_NAME
        ((157, 15), "allowed"),
        ((257, 0, 0, 0o1000), "error 1"),  # openat O_TRUNC, O_RDONLY
        ((257, 0, 0, 0), "allowed"),
        ((90,), "error 1"),  # chmod
    ],
)
def test_without_namespaces_a_program_reaches_only_itself(call: tuple[int, ...], said: str) -> None:
    """The filter for Landlock lets a process signal itself alone and change no file's state."""
    assert filtered(seccomp.program(own_pid=7, machine="x86_64"), seccomp._ARCHES["x86_64"], *call) == said


# -- values ----------------------------------------------------------------------------------------------------------------


def crossed(value: Any) -> Any:
    return values.build(values.parse(values.encode(value)))


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
    """Counter, deque and their like are what they hold; bool stays bool."""
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
        IntEnum("E", "A").A,
        10**5000,
        "x" * 70_000,
        [0] * 70_000,
        bytearray(b"x"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_types_cross_as_nothing(value: Any) -> None:
    """Subclasses, impostors, iterators and what is too large equal nothing, themselves included."""
    found = crossed(value)
    assert isinstance(found, Other)
    assert found != found
    assert [found] != [crossed(value)]


def test_depth_is_bounded() -> None:
    """A list inside of itself, and one deeper than 20, is too deep."""
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
    """What the harness cannot have written raises MalformedError, and nothing else."""
    with pytest.raises(MalformedError):
        values.build(values.parse(frame))
