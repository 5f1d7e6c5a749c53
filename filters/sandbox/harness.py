"""Run one job in the forked child: execute the program, evaluate the calls and write their values.

The harness holds private references to everything it uses after the program has started, and its builtins are a private copy
(see launch.BOOTSTRAP). A program that patches json, os or builtins therefore does not change the harness. Each call writes one
record to a private descriptor: index, length, JSON. This module runs inside the sandbox and uses only the standard library.
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
"""Indices of three special records: the program itself raised; the last record; the first record."""
RECORD = struct.Struct(">II")
RECORDS_BYTES = 1 << 20
BROKEN_CHANNEL = 121
"""Exit status when the program closed or replaced the descriptor that carries its values."""

_exit, _pack, _slice = os._exit, RECORD.pack, str.__getitem__
_getlimit, _setlimit = sys.getrecursionlimit, sys.setrecursionlimit
_threads_end, _run_atexit = threading._shutdown, atexit._run_exitfuncs  # type: ignore[attr-defined]


def _write(channel: int, data: bytes, *, _os_write: Any = os.write) -> None:
    view = memoryview(data)
    while view:
        view = view[_os_write(channel, view) :]


def _raised(error: BaseException) -> bytes:
    """Encode the type and message of an exception. `str(error)` runs the program's code and may itself raise."""
    try:
        message = str(error)
        message = _slice(message, slice(0, 300)) if isinstance(message, str) else ""
    except BaseException:  # noqa: BLE001 - whatever the program's __str__ raises
        message = ""
    return b'["r",' + encode(type_name(type(error))) + b"," + encode(message) + b"]"


def _quit(code: object = None) -> NoReturn:
    """`exit` and `quit` of a program."""
    raise SystemExit(code)


def _flush() -> None:
    sys.stdout.flush()  # the program may have replaced it


def _exit_status(error: SystemExit) -> int:
    code = error.code
    return 0 if code is None else code & 0xFF if type(code) is int else 1


def _recorder(channel: int) -> Any:
    """Return the function that writes one record (index, payload) and keeps the total below RECORDS_BYTES."""
    spent = 0

    def record(index: int, payload: bytes) -> None:
        nonlocal spent
        if len(payload) > FRAME_BYTES or (spent + len(payload) > RECORDS_BYTES - FRAME_BYTES and index < END):
            payload = b'["v",["o","too large, or too much in all"]]'
        spent += len(payload) + RECORD.size
        try:
            _write(channel, _pack(index, len(payload)) + payload)
        except BaseException:  # noqa: BLE001 - no further record can be written
            _exit(BROKEN_CHANNEL)

    return record


def _prepared(script: bool) -> tuple[dict[str, Any], Any]:
    """Create the program's module and standard streams. Returns its namespace and its standard output."""
    module = ModuleType("__main__" if script else "solution")
    namespace = module.__dict__
    namespace["__file__"] = "solution.py"
    namespace["__builtins__"] = sys.modules["builtins"]  # else it would share the harness's copy
    sys.modules[module.__name__] = module
    for name in ("exit", "quit"):  # which site.py would add
        setattr(sys.modules["builtins"], name, _quit)
    sys.argv = ["solution.py"]
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = sys.__stdout__ = output = open(1, "w", encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    return namespace, output


def _compiled(call: str) -> Any:
    """Compile one call; an error is returned, and raised when the call is due."""
    try:
        return compile(call, "<call>", "eval", 0, True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return error


def _executed(program: str, namespace: dict[str, Any], script: bool) -> BaseException | None:
    """Execute the program. Returns what it raised; a script that exits with status 0 raised nothing."""
    try:
        exec(compile(program, "solution.py", "exec", 0, True), namespace)  # noqa: S102 - this is the sandbox
        if script:
            _threads_end()
    except SystemExit as error:
        if not script:
            return error
        return SystemExit(_exit_status(error)) if _exit_status(error) else None
    except BaseException as error:  # noqa: BLE001 - a program may raise anything
        return error
    return None


def _answered(code: Any, namespace: dict[str, Any]) -> bytes:
    """Evaluate one compiled call and encode its value or its exception."""
    try:
        if isinstance(code, Exception):
            raise code
        value = eval(code, namespace)  # noqa: S307 - this is the sandbox
        if _getlimit() < 500:
            _setlimit(500)
        return b'["v",' + encode(value) + b"]"
    except BaseException as error:  # noqa: BLE001 - a program may raise anything
        return _raised(error)


def run(job: bytes, channel: int) -> NoReturn:
    """Run one job and end the process. Records are written to the descriptor `channel`."""
    record = _recorder(channel)
    task = json.loads(job)
    script, calls, program = task["script"], task["calls"], task["program"]
    namespace, output = _prepared(script)
    codes = [_compiled(call) for call in calls]
    del task, job, calls
    record(STARTED, b"")
    gc.enable()
    raised = _executed(program, namespace, script)
    if script:
        for finish in (_run_atexit, _flush, output.flush):
            with contextlib.suppress(BaseException):  # as at the end of any Python process
                finish()
    if raised is not None:
        record(FAILED, _raised(raised))
    else:
        for index, code in enumerate(codes):
            record(index, _answered(code, namespace))
    record(END, b"")
    _exit(0)
