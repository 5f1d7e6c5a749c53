"""What the self-test and the tests run inside: bounded attempts to get out, each of which says how far it came.

Every function answers in plain values; whether the answer is harmless is judged outside. The standard library alone.
"""

import ctypes
import mmap
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any


def tried(attempt: Callable[[], Any]) -> str:
    """`came through`, or the name of the error."""
    try:
        attempt()
    except BaseException as error:  # noqa: BLE001 - any error means that the attempt failed
        return type(error).__name__
    return "came through"


def read(path: str) -> str:
    """What is in a file, or the error."""
    try:
        with open(path, "rb") as file:
            return file.read(100).decode(errors="replace")
    except OSError as error:
        return type(error).__name__


def write(*paths: str) -> list[str]:
    """The paths at which a file could be made."""
    return [path for path in paths if tried(lambda: open(path, "x").close()) == "came through"]  # noqa: B023


def listing(path: str) -> list[str]:
    """Names in a folder; none when it cannot be read."""
    try:
        return os.listdir(path)
    except OSError:
        return []


def connect(port: int) -> str:
    """A connection to a port of this machine."""

    def attempt() -> None:
        with socket.socket() as made:
            made.settimeout(1)
            made.connect(("127.0.0.1", port))

    return tried(attempt)


def connect_abstract(name: str) -> str:
    """A connection to an abstract socket of this machine."""

    def attempt() -> None:
        with socket.socket(socket.AF_UNIX) as made:
            made.settimeout(1)
            made.connect("\0" + name)

    return tried(attempt)


def environment() -> list[str]:
    """The names of environment variables."""
    return sorted(os.environ)


def send_signal(pid: int) -> str:
    """End a process."""
    return tried(lambda: os.kill(pid, signal.SIGKILL))


def end_zygote() -> str:
    """Send every signal to the parent; `came through` if it is gone."""
    parent = os.getppid()
    for number in range(1, 65):
        tried(lambda: os.kill(parent, number))  # noqa: B023
    time.sleep(0.01)
    return "came through" if os.getppid() != parent else "no effect"


def forks(wanted: int) -> int:
    """How many processes could be started; they sleep until they are killed."""
    for count in range(wanted):
        try:
            if os.fork() == 0:
                time.sleep(30)
                os._exit(0)
        except OSError:
            return count
    return wanted


def memory(wanted_mib: int) -> int:
    """How many MiB one process could map, in steps of 64; they are not touched."""
    held = []
    for count in range(wanted_mib // 64):
        try:
            held.append(mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        except OSError:
            held.clear()
            return count * 64
    return wanted_mib


def fill(folder: str, wanted_mib: int) -> int:
    """How many MiB could be written to files in a folder."""
    block = bytes(1 << 20)
    for count in range(wanted_mib):
        try:
            with open(f"{folder}/block{count}", "xb") as file:
                file.write(block)
        except OSError:
            return count
    return wanted_mib


def one_file(path: str, wanted_mib: int) -> int:
    """How large a single file may become, in MiB."""
    try:
        with open(path, "xb", buffering=0) as file:
            for count in range(wanted_mib):
                if file.write(bytes(1 << 20)) != 1 << 20:
                    return count
    except OSError:
        return count if "count" in locals() else 0
    return wanted_mib


def daemon() -> str:
    """Leave a process behind that belongs to no parent, session or group of ours, if it can."""
    if os.fork() == 0:
        tried(os.setsid)
        tried(lambda: os.setpgid(0, 0))
        for name in ("SIGTERM", "SIGHUP", "SIGINT"):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)
    time.sleep(0.02)
    return "left"


def system_call(number: int, *arguments: int) -> str:
    """One system call by its number."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    return "came through" if result >= 0 else os.strerror(ctypes.get_errno())


def deaf() -> None:
    """Ignore every signal that can be ignored, and stay."""
    for number in range(1, 65):
        tried(lambda: signal.signal(number, signal.SIG_IGN))  # noqa: B023
    while True:
        time.sleep(1)
