"""Bounded attempts to break out of the sandbox, for the self-test and the tests. Each returns how far it got.

Every function returns plain values; code outside decides whether they are harmless. Only the standard library is used.
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
    """Run an attempt. Returns `came through`, or the name of the error."""
    try:
        attempt()
    except BaseException as error:  # noqa: BLE001 - any error means that the attempt failed
        return type(error).__name__
    return "came through"


def read(path: str) -> str:
    """Read the start of a file. Returns its text, or the name of the error."""
    try:
        with open(path, "rb") as file:
            return file.read(100).decode(errors="replace")
    except OSError as error:
        return type(error).__name__


def write(*paths: str) -> list[str]:
    """Try to create files. Returns the paths where it worked."""
    return [path for path in paths if tried(lambda: open(path, "x").close()) == "came through"]  # noqa: B023


def listing(path: str) -> list[str]:
    """List a folder. Returns an empty list if it cannot be read."""
    try:
        return os.listdir(path)
    except OSError:
        return []


def connect(port: int) -> str:
    """Try to connect to a TCP port of this machine."""

    def attempt() -> None:
        with socket.socket() as client:
            client.settimeout(1)
            client.connect(("127.0.0.1", port))

    return tried(attempt)


def connect_abstract(name: str) -> str:
    """Try to connect to an abstract socket of this machine."""

    def attempt() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            client.connect("\0" + name)

    return tried(attempt)


def environment() -> list[str]:
    """Return the names of the environment variables."""
    return sorted(os.environ)


def send_signal(pid: int) -> str:
    """Try to kill a process."""
    return tried(lambda: os.kill(pid, signal.SIGKILL))


def end_zygote() -> str:
    """Send every signal to the parent. Returns `came through` if it ended."""
    parent = os.getppid()
    for number in range(1, 65):
        tried(lambda: os.kill(parent, number))  # noqa: B023
    time.sleep(0.01)
    return "came through" if os.getppid() != parent else "no effect"


def forks(wanted: int) -> int:
    """Start up to `wanted` processes that sleep until they are killed. Returns how many started."""
    for count in range(wanted):
        try:
            if os.fork() == 0:
                time.sleep(30)
                os._exit(0)
        except OSError:
            return count
    return wanted


def memory(wanted_mib: int) -> int:
    """Map up to `wanted_mib` MiB in steps of 64, without touching them. Returns how many MiB were mapped."""
    maps = []
    for count in range(wanted_mib // 64):
        try:
            maps.append(mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        except OSError:
            maps.clear()
            return count * 64
    return wanted_mib


def fill(folder: str, wanted_mib: int) -> int:
    """Write up to `wanted_mib` files of 1 MiB into a folder. Returns how many were written."""
    block = bytes(1 << 20)
    for count in range(wanted_mib):
        try:
            with open(f"{folder}/block{count}", "xb") as file:
                file.write(block)
        except OSError:
            return count
    return wanted_mib


def one_file(path: str, wanted_mib: int) -> int:
    """Write a single file of up to `wanted_mib` MiB. Returns the size reached, in MiB."""
    try:
        with open(path, "xb", buffering=0) as file:
            for count in range(wanted_mib):
                if file.write(bytes(1 << 20)) != 1 << 20:
                    return count
    except OSError:
        return count if "count" in locals() else 0
    return wanted_mib


def daemon() -> str:
    """Try to leave a process behind, outside our process group and session."""
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
    """Make one system call by its number. Returns `came through` or the error."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    return "came through" if result >= 0 else os.strerror(ctypes.get_errno())


def deaf() -> None:
    """Ignore every signal that can be ignored, and never end."""
    for number in range(1, 65):
        tried(lambda: signal.signal(number, signal.SIG_IGN))  # noqa: B023
    while True:
        time.sleep(1)
