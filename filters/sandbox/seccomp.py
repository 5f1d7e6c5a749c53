"""Assemble a seccomp filter that refuses the system calls no program needs to compute an answer.

The filter denies a list of calls, and every call from number 424 on (added in Linux 5.1 and later) except a few. It checks the
architecture and the x32 bit first. `clone3` is answered with ENOSYS, because a filter cannot see its flags; the C library then
falls back to `clone`, whose namespace flags are refused. A zygote in namespaces applies all of it but what it needs to make those
of a job; what is missing is a second, small filter that each job applies. This module uses only the standard library.
"""

import ctypes
import platform
import struct

_LD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NR, _ARCH = 0, 4
_EPERM, _ENOSYS = 1, 38
_NEW_NAMESPACES = 0x7E020000
_AF_UNIX = 1

_ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NUMBERS = {
    # name: (x86_64, aarch64); -1 where the architecture has no such call
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "shmdt": (67, 197),
    "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192),
    "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187),
    "mq_open": (240, 180), "mq_unlink": (241, 181), "mq_timedsend": (242, 182), "mq_timedreceive": (243, 183),
    "mq_notify": (244, 184), "mq_getsetattr": (245, 185),
    "personality": (135, 92), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "sethostname": (170, 161), "setdomainname": (171, 162), "acct": (163, 89), "quotactl": (179, 60), "iopl": (172, -1),
    "ioperm": (173, -1), "modify_ldt": (154, -1), "lookup_dcookie": (212, 18), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "fanotify_init": (300, 262), "syslog": (103, 116), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171), "vhangup": (153, 58),
    "memfd_create": (319, 279), "setpriority": (141, 140), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118), "sched_setattr": (314, 274), "ioprio_set": (251, 30), "migrate_pages": (256, 238),
    "move_pages": (279, 239), "mbind": (237, 235), "set_mempolicy": (238, 237), "capset": (126, 91), "seccomp": (317, 277),
    "vmsplice": (278, 75), "splice": (275, 76), "tee": (276, 77), "socket": (41, 198), "uselib": (134, -1),
    "io_setup": (206, 0), "io_submit": (209, 2), "remap_file_pages": (216, 234), "mlockall": (151, 230),
    "_sysctl": (156, -1), "nfsservctl": (180, 42), "create_module": (174, -1), "ustat": (136, -1), "sysfs": (139, -1),
    "io_pgetevents": (333, 292), "rt_tgsigqueueinfo": (297, 240), "rt_sigqueueinfo": (129, 138),
    "mincore": (27, 232), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "flock": (73, 32),
}  # fmt: skip
_OF_ZYGOTE = ("mount", "capset")
"""Calls that a zygote needs for the namespaces of its next job, besides `clone`."""
_PREADV2 = (327, 286)
"""Tells what the kernel has of a file in its cache. The C library then uses `preadv`."""
_CLONE, _PRLIMIT, _SOCKETPAIR, _IOCTL = (56, 220), (302, 261), (53, 199), (16, 29)
_KILL_CALL, _TGKILL, _TKILL, _FCNTL, _PRCTL = (62, 129), (234, 131), (200, 130), (72, 25), (157, 167)
_SETSID, _SETPGID = (112, 157), (109, 154)
# Not covered by Landlock, or not by its first versions: modes, owners, times, truncation.
_OPEN, _OPENAT, _OPENAT2, _FCHMODAT2, _O_TRUNC = (2, -1), (257, 56), 437, 452, 0o1000
_NO_CHANGES = {
    "creat": (85, -1), "truncate": (76, 45), "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "chown": (92, -1),
    "lchown": (94, -1), "fchown": (93, 55), "fchownat": (260, 54), "utime": (132, -1), "utimes": (235, -1),
    "futimesat": (261, -1), "utimensat": (280, 88),
}  # fmt: skip
_NEW_FROM = 424
_NEW_ALLOWED = (434, 436, 437, 439, 441, 449, 452, 454, 455, 456, 462)
"""pidfd_open, close_range, openat2, faccessat2, epoll_pwait2, futex_waitv, fchmodat2, futex_wake, _wait, _requeue, mseal."""
_TIOCSTI, _TIOCLINUX, _FIOSETOWN, _SIOCSPGRP = 0x5412, 0x541C, 0x8901, 0x8902


def _ins(code: int, k: int, jt: int = 0, jf: int = 0) -> bytes:
    return struct.pack("<HBBI", code, jt, jf, k)


def _ret(errno: int) -> bytes:
    return _ins(_RET, _ERRNO | errno)


def _arg(index: int, high: int = 0) -> bytes:
    return _ins(_LD, 16 + 8 * index + 4 * high)


def _when(number: int, *body: bytes) -> bytes:
    """Run `body` for this call only. It must end in a return, because it may overwrite the accumulator."""
    return _ins(_JEQ, number, 0, len(body)) + b"".join(body)


def _begun(machine: str | None) -> tuple[str, int, list[bytes]]:
    """The machine, its column in the tables, and the beginning of a filter: the check of the architecture."""
    machine = machine or platform.machine()
    if machine not in _ARCHES:
        raise OSError(f"no seccomp table for {machine}")
    start = [_ins(_LD, _ARCH), _ins(_JEQ, _ARCHES[machine], 1, 0), _ins(_RET, _KILL), _ins(_LD, _NR)]
    return machine, list(_ARCHES).index(machine), start


def _no_namespaces(column: int) -> bytes:
    return _when(_CLONE[column], _arg(0), _ins(_JSET, _NEW_NAMESPACES, 0, 1), _ret(_EPERM), _ins(_RET, _ALLOW))


def of_job(machine: str | None = None) -> bytes:
    """Assemble the filter that a job adds to its zygote's: what `program` leaves to a zygote."""
    _, column, code = _begun(machine)
    code += [_when(_NUMBERS[name][column], _ret(_EPERM)) for name in _OF_ZYGOTE]
    return b"".join([*code, _no_namespaces(column), _ins(_RET, _ALLOW)])


def program(own_pid: int | None = None, machine: str | None = None, *, zygote: bool = False) -> bytes:
    """Assemble the filter for this machine, as struct sock_filter[].

    Pass `own_pid` for a process without a PID namespace of its own. It may then signal only itself, and may neither leave its
    process group nor disable the signal that ends it with its supervisor. With `zygote`, namespaces and mounts are allowed,
    which `of_job` refuses. Raises OSError on an unsupported architecture.
    """
    machine, column, code = _begun(machine)
    if machine == "x86_64":
        code += [_ins(_JGE, 0x40000000, 0, 1), _ret(_ENOSYS), _ins(_JGE, 512, 0, 1), _ret(_ENOSYS)]
    refused = [numbers[column] for name, numbers in _NUMBERS.items() if not (zygote and name in _OF_ZYGOTE)]
    code += [_when(number, _ret(_EPERM)) for number in refused if number >= 0]
    allow = _ins(_RET, _ALLOW)
    code += [] if zygote else [_no_namespaces(column)]
    code += [
        _when(_PREADV2[column], _ret(_ENOSYS)),
        _when(_PRLIMIT[column], _arg(0), _ins(_JEQ, 0, 1, 0), _ret(_EPERM), allow),
        _when(_SOCKETPAIR[column], _arg(0), _ins(_JEQ, _AF_UNIX, 1, 0), _ret(_EPERM), allow),
    ]
    ioctls = [_TIOCSTI, _TIOCLINUX]
    if own_pid is not None:
        ioctls += [_FIOSETOWN, _SIOCSPGRP]
        itself = (_arg(0), _ins(_JEQ, own_pid, 1, 0), _ret(_EPERM), allow)
        code += [_when(number[column], *itself) for number in (_KILL_CALL, _TGKILL)]
        code += [_when(number[column], _ret(_EPERM)) for number in (_TKILL, _SETSID, _SETPGID)]
        code += [_when(numbers[column], _ret(_EPERM)) for numbers in _NO_CHANGES.values() if numbers[column] >= 0]
        code += [
            _when(number[column], _arg(flags), _ins(_JSET, _O_TRUNC, 0, 1), _ret(_EPERM), allow)
            for number, flags in ((_OPEN, 1), (_OPENAT, 2))
            if number[column] >= 0
        ]
        code += [_when(number, _ret(_ENOSYS)) for number in (_OPENAT2, _FCHMODAT2)]
        # F_SETOWN, F_SETSIG, F_SETOWN_EX let the kernel send the signal.
        code.append(
            _when(
                _FCNTL[column],
                _arg(1),
                *(_ins(_JEQ, v, 3 - n, 0) for n, v in enumerate((8, 10, 15))),
                allow,
                _ret(_EPERM),
            )
        )
        # PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE
        code.append(
            _when(_PRCTL[column], _arg(0), *(_ins(_JEQ, v, 3 - n, 0) for n, v in enumerate((1, 36, 4))), allow, _ret(_EPERM))
        )
    count = len(ioctls)
    code.append(_when(_IOCTL[column], _arg(1), *(_ins(_JEQ, v, count - n, 0) for n, v in enumerate(ioctls)), allow, _ret(_EPERM)))
    code += [_ins(_JGE, _NEW_FROM, 1, 0), allow]
    code += [_when(number, allow) for number in _NEW_ALLOWED]
    return b"".join([*code, _ret(_ENOSYS)])


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_prctl = ctypes.CDLL(None, use_errno=True).prctl


class Ready:
    """A filter that can be applied at once."""

    def __init__(self, code: bytes) -> None:
        self._code = ctypes.create_string_buffer(code, len(code))
        self._program = _Program(len(code) // 8, ctypes.cast(self._code, ctypes.c_void_p))
        self._pointer = ctypes.byref(self._program)

    def apply(self) -> None:
        """Apply the filter to this process and all its future children, irrevocably. Raises OSError."""
        if _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, self._pointer, 0, 0):
            raise OSError(ctypes.get_errno(), "seccomp")


def load(code: bytes) -> None:
    """Apply a filter to this process and all its future children, irrevocably. Raises OSError."""
    Ready(code).apply()
