"""The system call filter, run step by step as the kernel would."""

import struct
from functools import partial
from typing import Any

import pytest

from filters.sandbox import seccomp

CALLS = (seccomp._CLONE, seccomp._NUMBERS["mount"], seccomp._NUMBERS["capset"])


def filtered(code: bytes, arch: int, number: int, *arguments: int) -> str:
    """Run a seccomp program step by step, as the kernel would. Returns its answer."""
    data = struct.pack("=iIQ6Q", number, arch, 0, *[*arguments, *[0] * (6 - len(arguments))])
    position, accumulator = 0, 0
    while True:
        operation, yes, no, k = struct.unpack_from("<HBBI", code, position * 8)
        position += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif operation == 0x06:
            return {0x7FFF0000: "allowed", 0x80000000: "killed"}.get(k) or f"error {k & 0xFFFF}"
        else:
            holds = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[operation]
            position += yes if holds else no


@pytest.mark.parametrize(
    ("call", "answer"),
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
def test_the_filter_answers_each_call(call: tuple[Any, ...], answer: str) -> None:
    """For both architectures. A call made as another architecture ends the process."""
    machine, number, *arguments = call
    code = seccomp.program(machine=machine)

    assert filtered(code, seccomp._ARCHES[machine], number, *arguments) == answer
    assert filtered(code, 0x40000003, number, *arguments) == "killed"


@pytest.mark.parametrize(
    ("call", "answer"),
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
def test_without_namespaces_a_program_reaches_only_itself(call: tuple[int, ...], answer: str) -> None:
    """With Landlock's filter a process can signal only itself, and cannot change the state of a file."""
    assert filtered(seccomp.program(own_pid=7, machine="x86_64"), seccomp._ARCHES["x86_64"], *call) == answer


def test_the_filter_of_the_zygote_lacks_what_the_filter_of_a_job_refuses() -> None:
    """Together they are the whole filter."""
    for machine in ("x86_64", "aarch64"):
        whole, zygote, job = (
            make(machine=machine) for make in (seccomp.program, partial(seccomp.program, zygote=True), seccomp.of_job)
        )
        for number in {*range(0, 512, 11), *(numbers[0] for numbers in CALLS), *(numbers[1] for numbers in CALLS)}:
            for first in (0, 0x20000011):
                both = {filtered(code, seccomp._ARCHES[machine], number, first) for code in (zygote, job)} - {"allowed"}
                assert (both or {"allowed"}) == {filtered(whole, seccomp._ARCHES[machine], number, first)}
