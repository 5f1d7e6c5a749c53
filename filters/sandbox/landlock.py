"""Landlock by its three system calls: files, and from newer kernels on TCP ports, abstract sockets and signals.

What the running kernel knows is asked for: version 1 (Linux 5.13) files, 4 TCP, 5 device ioctls, 6 abstract sockets and signals.
Everything that the kernel can handle is handled, so refused but where a rule allows it; no rule allows writing. Landlock does not
cover `stat`, `chdir` and `chmod` on what a path leads to. Standard library alone.
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
    """The kernel's version of Landlock; 0 where there is none."""
    return max(0, int(_libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION_FLAG))))


def ruleset(readable: Iterable[str], devices: Iterable[str]) -> int:
    """A descriptor of rules: these files and folders may be read, these devices read and written. Raises OSError."""
    known = version()
    if not known:
        raise OSError("this kernel has no Landlock, or it is not switched on")
    files = max(rights for since, rights in _FILE_RIGHTS.items() if since <= known)
    attributes = struct.pack("=QQQ", files, 3 if known >= 4 else 0, 3 if known >= 6 else 0)
    size = 8 if known < 4 else 16 if known < 6 else 24
    fd = int(_libc.syscall(_CREATE, attributes, ctypes.c_size_t(size), ctypes.c_uint(0)))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    for paths, rights in ((readable, _READ_FILE | _READ_DIR), (devices, _READ_FILE | _WRITE_FILE)):
        for path in paths:
            _allow(fd, path, rights)
    return fd


def _allow(fd: int, path: str, rights: int) -> None:
    try:
        there = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not os.path.isdir(path):
        rights &= ~_READ_DIR
    rule = struct.pack("=Qi", rights, there)
    if _libc.syscall(_ADD, ctypes.c_int(fd), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint(0)):
        raise OSError(ctypes.get_errno(), "landlock_add_rule", path)
    os.close(there)


def restrict(fd: int) -> None:
    """Put this process and all that it will start under the rules, for good. Raises OSError."""
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or _libc.syscall(_RESTRICT, ctypes.c_int(fd), ctypes.c_uint(0)):
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
