"""What happens in the forked child: the program is executed, its calls are evaluated, and their values written out.

Everything that the harness uses after the program has started is held by its own names (its builtins are a private copy, see
launch.BOOTSTRAP), so a program that patches json, os or builtins changes its own world and not the harness. One record a call is
written to a private descriptor: index, length, JSON. The standard library alone, because it runs inside.
"""

import atexit
import contextlib
import gc
import json
import os
import struct
import sys
import threading
from types import ModuleType
from typing import Any, NoReturn

from filters.sandbox.values import FRAME_BYTES, encode, type_name

FAILED, END, STARTED = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
"""Indices of the record that says that the program itself raised, of the last record and of the first."""
RECORD = struct.Struct(">II")
RECORDS_BYTES = 1 << 20
BROKEN_CHANNEL = 121
"""Exit status: the program closed or replaced the descriptor that its values leave by."""

_exit, _pack, _slice = os._exit, RECORD.pack, str.__getitem__
_getlimit, _setlimit = sys.getrecursionlimit, sys.setrecursionlimit
_threads_end, _run_atexit = threading._shutdown, atexit._run_exitfuncs  # type: ignore[attr-defined]


def _write(channel: int, data: bytes, *, _os_write: Any = os.write) -> None:
    view = memoryview(data)
    while view:
        view = view[_os_write(channel, view) :]


def _raised(error: BaseException) -> bytes:
    """Type and message; making the message runs the program's code, and may fail."""
    try:
        message = str(error)
        message = _slice(message, slice(0, 300)) if isinstance(message, str) else ""
    except BaseException:  # noqa: BLE001 - whatever the program's __str__ raises
        message = ""
    return b'["r",' + encode(type_name(type(error))) + b"," + encode(message) + b"]"


def _flush() -> None:
    sys.stdout.flush()  # the program's own, if it made one


def _exit_status(error: SystemExit) -> int:
    code = error.code
    return 0 if code is None else code & 0xFF if type(code) is int else 1


def run(job: bytes, channel: int) -> NoReturn:
    """Run one job and end the process. `channel` is the descriptor that the records are written to."""
    spent = 0

    def record(index: int, payload: bytes) -> None:
        nonlocal spent
        if len(payload) > FRAME_BYTES or (spent + len(payload) > RECORDS_BYTES - FRAME_BYTES and index < END):
            payload = b'["v",["o","too large, or too much in all"]]'
        spent += len(payload) + RECORD.size
        try:
            _write(channel, _pack(index, len(payload)) + payload)
        except BaseException:  # noqa: BLE001 - nothing can be said any more
            _exit(BROKEN_CHANNEL)

    task = json.loads(job)
    script, calls, program = task["script"], task["calls"], task["program"]
    module = ModuleType("__main__" if script else "solution")
    namespace = module.__dict__
    namespace["__file__"] = "solution.py"
    namespace["__builtins__"] = sys.modules["builtins"]  # else it would share the harness's copy
    sys.modules[module.__name__] = module
    sys.argv = ["solution.py"]
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = sys.__stdout__ = output = open(1, "w", encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    codes: list[Any] = []
    for call in calls:
        try:
            codes.append(compile(call, "<call>", "eval", 0, True))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            codes.append(error)
    del task, job, calls
    record(STARTED, b"")
    gc.enable()
    gone = None
    try:
        exec(compile(program, "solution.py", "exec", 0, True), namespace)  # noqa: S102 - this is the sandbox
        if script:
            _threads_end()
    except SystemExit as error:
        if not script or _exit_status(error):
            gone = error if not script else SystemExit(_exit_status(error))
    except BaseException as error:  # noqa: BLE001 - whatever a program raises
        gone = error  # type: ignore[assignment]
    if script:
        for finish in (_run_atexit, _flush, output.flush):
            with contextlib.suppress(BaseException):  # as at the end of any Python process
                finish()
    if gone is not None:
        record(FAILED, _raised(gone))
    else:
        for index, code in enumerate(codes):
            try:
                if isinstance(code, Exception):
                    raise code
                value = eval(code, namespace)  # noqa: S307 - this is the sandbox
                if _getlimit() < 500:
                    _setlimit(500)
                payload = b'["v",' + encode(value) + b"]"
            except BaseException as error:  # noqa: BLE001 - whatever a program raises
                payload = _raised(error)
            record(index, payload)
    record(END, b"")
    _exit(0)
