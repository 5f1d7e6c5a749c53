"""Give every job a PID namespace and a mount namespace of its own, with an empty /tmp that no other job has used.

So what counts in them begins anew: process ids, and the file numbers, times and directory positions of /tmp. The zygote keeps one
capability in its user namespace for this, CAP_SYS_ADMIN; the process that it starts gives it up before it reads the job. This
module runs inside the sandbox and uses only the standard library.
"""

import ctypes
import os
import platform
import signal
import struct
from collections.abc import Iterable

from filters.sandbox.seccomp import Ready, load, of_job, program

_NUMBER = {"x86_64": 56, "aarch64": 220}.get(platform.machine(), -1)
"""The system call `clone`."""
_CLONE_NEWNS, _CLONE_NEWPID, _CLONE_CHILD_SETTID = 0x00020000, 0x20000000, 0x01000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_SAME_FLAGS = 2 | 4 | 8 | 1024 | 2048
"""Flags of a mount that have the same bits in statvfs and in mount: nosuid, nodev, noexec, noatime, nodiratime."""
_ST_RELATIME, _MS_RELATIME = 4096, 1 << 21
_CAPABILITY_VERSION_3 = 0x20080522
_NOTHING = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), struct.pack("=6I", 0, 0, 0, 0, 0, 0)
"""This process, and no capability."""
_libc = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter's lock during a call, so that a child can go on with it
_capset, _clone, _waitpid = _libc.capset, _libc.syscall, _libc.waitpid
_clone.restype = _waitpid.restype = None
_status, _child = ctypes.c_int(), ctypes.c_int()


def prepare(devices: Iterable[str]) -> Ready:
    """Once, in the zygote: keep mounts of jobs to themselves, make the devices' files read-only, so that no program can leave a
    time on them (their data can be written as before), and refuse itself all that programs may not do but make namespaces.
    Returns the filter that refuses this to the job. Raises OSError."""
    if _libc.unshare(_CLONE_NEWNS):  # with --disable-userns the present mount namespace belongs to another user namespace
        raise OSError(ctypes.get_errno(), "unshare")
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    for device in devices:
        flags = os.statvfs(device).f_flag
        kept = flags & _SAME_FLAGS | (_MS_RELATIME if flags & _ST_RELATIME else 0)
        _mount("none", device, "", _MS_REMOUNT | _MS_BIND | _MS_RDONLY | kept)
    load(program(zygote=True))
    return Ready(of_job())


def fork(*, namespaces: bool) -> bool:
    """Fork, into new namespaces for processes and mounts (the child is process 1 of its own) or not. Returns whether this is the
    child. Raises OSError.

    No process id comes into the memory of the zygote, where it would count the jobs before. Python's handlers after a fork do
    not run; the caller must be the only thread.
    """
    flags = signal.SIGCHLD | _CLONE_CHILD_SETTID | (_CLONE_NEWNS | _CLONE_NEWPID if namespaces else 0)
    child = ctypes.addressof(_child)  # the kernel writes the child's id there, in the child's memory only
    places = (0, child, 0) if platform.machine() == "x86_64" else (0, 0, child)
    ctypes.set_errno(0)
    _clone(ctypes.c_long(_NUMBER), *(ctypes.c_ulong(value) for value in (flags, 0, *places)))
    if error := ctypes.get_errno():
        raise OSError(error, "clone")
    return _child.value != 0


def fork_plainly() -> int:
    """Fork by the C library, without Python's handlers, which take as long as the fork and have nothing to do in a process with a
    single thread. Returns what `os.fork` does. The child must seed `random`. Raises OSError."""
    ctypes.set_errno(0)
    pid = int(_libc.fork())
    if pid < 0:
        raise OSError(ctypes.get_errno(), "fork")
    return pid


def wait() -> int:
    """Wait for the end of any child. Returns its wait status, or -1 if there is none."""
    ctypes.set_errno(0)
    _waitpid(-1, ctypes.byref(_status), 0)
    return -1 if ctypes.get_errno() else _status.value


def settle(folder: str, folder_bytes: int, confinement: Ready) -> None:
    """In the child: mount an empty `folder` of so many bytes and go there, give up the capability, and apply the filter. Raises
    OSError."""
    _mount("tmpfs", folder, f"size={folder_bytes},mode=0700", _MS_NOSUID | _MS_NODEV)
    os.chdir(folder)
    if _capset(*_NOTHING):
        raise OSError(ctypes.get_errno(), "capset")
    confinement.apply()


def _mount(kind: str, target: str, options: str, flags: int) -> None:
    if _libc.mount(kind.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()):
        raise OSError(ctypes.get_errno(), "mount", target)
