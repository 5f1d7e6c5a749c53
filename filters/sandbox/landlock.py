"""Landlock through its three system calls: restricts files and, on newer kernels, TCP ports, abstract sockets and signals.

The rules use all that the running kernel supports: version 1 (Linux 5.13) covers files, 4 TCP, 5 device ioctls, 6 abstract
sockets and signals. Everything the kernel can restrict is refused unless a rule allows it, and no rule allows writing. Landlock
does not cover `stat`, `chdir` and `chmod` on a path. This module uses only the standard library.
"""

import ctypes
import os
import struct
from collections.abc import Iterable

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_PR_SET_NO_NEW_PRIVS = 38
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """Return the kernel's version of Landlock, 0 if it has none."""
    return max(0, int(_libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION_FLAG))))


def ruleset(readable: Iterable[str], devices: Iterable[str]) -> int:
    """Return a descriptor of rules that allow reading these files and folders, and reading and writing these devices.

    Raises OSError.
    """
    supported = version()
    if not supported:
        raise OSError("this kernel has no Landlock, or it is not enabled")
    files = max(rights for since, rights in _FILE_RIGHTS.items() if since <= supported)
    attributes = struct.pack("=QQQ", files, 3 if supported >= 4 else 0, 3 if supported >= 6 else 0)
    size = 8 if supported < 4 else 16 if supported < 6 else 24
    fd = int(_libc.syscall(_CREATE, attributes, ctypes.c_size_t(size), ctypes.c_uint(0)))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    for paths, rights in ((readable, _READ_FILE | _READ_DIR), (devices, _READ_FILE | _WRITE_FILE)):
        for path in paths:
            _allow(fd, path, rights)
    return fd


def _allow(fd: int, path: str, rights: int) -> None:
    try:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not os.path.isdir(path):
        rights &= ~_READ_DIR
    rule = struct.pack("=Qi", rights, target)
    if _libc.syscall(_ADD, ctypes.c_int(fd), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint(0)):
        raise OSError(ctypes.get_errno(), "landlock_add_rule", path)
    os.close(target)


def restrict(fd: int) -> None:
    """Apply the rules to this process and all its future children, irrevocably. Raises OSError."""
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or _libc.syscall(_RESTRICT, ctypes.c_int(fd), ctypes.c_uint(0)):
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
