"""Jobs for the sandbox, their results, and the parser of the child's records, which validates every byte."""

import json
import os
import re
import signal
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from filters.sandbox import values
from filters.sandbox.harness import BROKEN_CHANNEL, END, FAILED, RECORD, STARTED
from filters.sandbox.values import MalformedError

_DTYPE = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|U")
_TEXT_CHARS = 1 << 20


class SandboxError(Exception):
    """No sandbox works on this machine, or a running one failed. The message says how to fix it."""


@dataclass(frozen=True, slots=True)
class Job:
    """One program and how to run it.

    With `stdin` None the program is executed as a module named `solution`; then every expression of `calls` is evaluated in its
    namespace, in order, and a call that raises does not stop the next. With `stdin` text the program runs as a script
    (`__main__`) with that standard input, and its standard output is captured. `seconds` limits the wall time of the whole job.
    """

    program: str
    calls: tuple[str, ...] = ()
    stdin: str | None = None
    seconds: float = 5.0

    def message(self) -> bytes:
        """Encode the job for the sandbox. It contains no expected values; none ever enter the sandbox."""
        task = {"program": self.program, "calls": () if self.stdin is not None else self.calls, "script": self.stdin is not None}
        return json.dumps(task).encode()


@dataclass(frozen=True, slots=True)
class Frame:
    """One evaluated call: its value, or the type name and message of its exception."""

    value: Any
    raised: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Ran:
    """How a job ended.

    `kind`: `done` (ran to its end), `timeout` (exceeded its seconds), `crash` (its process died of a signal or `os._exit`),
    `tampering` (the output is not what the harness writes) or `error` (the sandbox itself failed). `frames` holds the calls that
    were evaluated. `failed` is the (type name, message) of an exception of the program itself, after which no call is evaluated;
    for a script, how it exited. `stdout` is a script's standard output, cut after 1 MiB (`stdout_cut`). `broken`: the machine is
    to blame for a time-out or a crash, as far as can be told, and not the program.
    """

    kind: Literal["done", "timeout", "crash", "tampering", "error"]
    frames: tuple[Frame, ...] = ()
    stdout: str = ""
    stdout_cut: bool = False
    failed: tuple[str, str] | None = None
    message: str = ""
    broken: bool = False


def ran(job: Job, head: dict[str, Any], records: bytes, output: bytes) -> Ran:
    """Interpret the zygote's answer to a job."""
    script = job.stdin is not None
    stdout, cut = output.decode("utf-8", errors="replace"), bool(head["cut"])
    try:
        read = _read(records, len(job.calls) if not script else 0)
    except MalformedError as error:
        return Ran("tampering", message=f"the records are not the harness's: {error}")
    frames, failed = read.frames, read.failed
    if head["end"] == "flood":
        return Ran("tampering", frames, message="more records than the harness writes")
    if head["end"] == "timeout":
        return Ran("timeout", frames, stdout, cut, failed, f"more than {job.seconds:g} s")
    if not read.started:
        return Ran("error", message="the program could not be started inside the sandbox")
    if cut:
        return Ran("done", frames, stdout, True, failed, "the standard output was cut, the program was stopped")
    code = os.waitstatus_to_exitcode(head["status"])
    if code == -signal.SIGXCPU:
        return Ran("timeout", frames, stdout, cut, failed, "more processor time than wall time was allowed")
    if code < 0:
        return Ran("crash", frames, stdout, cut, failed, f"ended by {_signal(-code)}")
    if read.ended:
        if code:
            return Ran("tampering", frames, message=f"exit status {code} after the last record")
        return Ran("done", frames, stdout, cut, failed)
    if code == BROKEN_CHANNEL or read.torn:
        return Ran("tampering", frames, message="the program closed or replaced the channel of its values")
    if script:
        return Ran("done", frames, stdout, cut, ("SystemExit", str(code)) if code else None)
    return Ran("crash", frames, message=f"the program ended its process with status {code}")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@dataclass(slots=True)
class _Records:
    frames: tuple[Frame, ...] = ()
    failed: tuple[str, str] | None = None
    started: bool = False
    ended: bool = False
    torn: bool = False


def _read(records: bytes, calls: int) -> _Records:
    """Parse `started`, then one frame per call in order or one `failed`, then `end`. Raises MalformedError for anything else."""
    parsed, position = _Records(), 0
    frames: list[Frame] = []
    while position < len(records):
        if parsed.ended:
            raise MalformedError("data after the last record")
        if len(records) - position < RECORD.size:
            parsed.torn = True
            break
        index, length = RECORD.unpack_from(records, position)
        payload = records[position + RECORD.size : position + RECORD.size + length]
        if length > values.FRAME_BYTES:
            raise MalformedError("a record is too long")
        if len(payload) < length:
            parsed.torn = True
            break
        position += RECORD.size + length
        if not parsed.started:
            if index != STARTED or length:
                raise MalformedError("the first record is missing")
            parsed.started = True
        elif index == END:
            if length or (parsed.failed is None and len(frames) != calls):
                raise MalformedError("the last record is early")
            parsed.ended = True
        elif index == FAILED and parsed.failed is None and not frames:
            parsed.failed = _frame(payload).raised
            if parsed.failed is None:
                raise MalformedError("a failure that is a value")
        elif index == len(frames) < calls and parsed.failed is None:
            frames.append(_frame(payload))
        else:
            raise MalformedError(f"record {index} where {len(frames)} was due")
    parsed.frames = tuple(frames)
    return parsed


def _frame(payload: bytes) -> Frame:
    tree = values.parse(payload)
    if type(tree) is list and len(tree) == 2 and tree[0] == "v":
        return Frame(values.build(tree[1], _of_numpy))
    if type(tree) is list and len(tree) == 3 and tree[0] == "r" and type(tree[1]) is type(tree[2]) is str:
        return Frame(None, (tree[1], tree[2]))
    raise MalformedError("neither a value nor an exception")


def _of_numpy(name: str, shape: tuple[int, ...] | None, items: list[Any]) -> Any:
    """A scalar (shape None) or array of numpy; `values` writes no other types than these."""
    if not _DTYPE.fullmatch(name):
        raise MalformedError(f"the type {name[:20]}")
    if name == "U" and len(items) * max(map(len, items), default=0) > _TEXT_CHARS:
        raise MalformedError("an array of texts that is too large")
    array = np.array(items, dtype=name).reshape(shape or ())
    return array[()] if shape is None else array
