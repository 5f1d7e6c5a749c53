"""The main function of a supervised worker, and the messages it exchanges with its pool: a length and JSON."""

import importlib
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import orjson

MESSAGE_CHARS = 500
OUT_OF_MEMORY = 77
"""Exit status of a worker that ran out of memory."""
LENGTH = struct.Struct(">I")
_MIB = 1 << 20


def framed(message: Any) -> bytes:
    """Encode a message: its length in bytes, then its JSON."""
    text = orjson.dumps(message)
    return LENGTH.pack(len(text)) + text


def serve(descriptor: int) -> None:
    """Answer items until the other end of the socket is closed."""
    with socket.socket(fileno=descriptor) as channel, channel.makefile("rb") as reader:
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
        task, setup, seconds, memory_mib = _read(reader)
        resource.setrlimit(resource.RLIMIT_AS, (memory_mib * _MIB, memory_mib * _MIB))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            module, _, name = task.partition(":")
            answer = getattr(importlib.import_module(module), name)(setup)
        except Exception as error:  # noqa: BLE001 - sent to the pool, which raises it
            channel.sendall(framed([-1, "failed", _short(error)]))
            return
        channel.sendall(framed([-1, "ready", None]))
        while (chunk := _read(reader)) is not None:
            _limit_processor_time(seconds * len(chunk))
            for number, item in chunk:
                channel.sendall(_answered(answer, number, item))


def _answered(answer: Callable[[Any], Any], number: int, item: Any) -> bytes:
    try:
        return framed([number, "done", answer(item)])
    except MemoryError:
        os._exit(OUT_OF_MEMORY)  # the state of this process can no longer be trusted
    except Exception as error:  # noqa: BLE001 - an exception is the answer
        return framed([number, "error", _short(error)])


def _short(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}"[:MESSAGE_CHARS]
    return text.encode(errors="backslashreplace").decode()


def _read(reader: Any) -> Any:
    head = reader.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    return orjson.loads(reader.read(LENGTH.unpack(head)[0]))


def _limit_processor_time(seconds: float) -> None:
    """Let a worker that never releases the interpreter end by itself, even when its parent can no longer kill it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    limit = int(used.ru_utime + used.ru_stime + seconds) + 60
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
