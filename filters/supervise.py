"""Supervised workers: a task over many items, in processes that may hang, crash or eat memory without costing another item.

Every worker is a Python of its own (started anew, never forked from a process with threads), held by one socket. The deadline
of an item runs from the moment it is next on its worker, not while it queues. A late worker is killed with all it started, and
waited for; a warm spare takes its place. What it had not begun is queued again; the item that it died on is tried once more,
alone on an idle worker, before `timeout` or `crash` is recorded. So every item has exactly one Answer, and one bad item costs
the others nothing but time.

This guards against accidents and against libraries that choke on model text. It is no sandbox: a task that runs model text as a
program belongs in filters.sandbox.
"""

import atexit
import contextlib
import importlib
import os
import resource
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from filters.base import FilterError
from schemas.sample import Verdict

START_S = 180.0
"""Seconds a worker may take to import what its task needs."""
RECEIVE_BYTES = 1 << 18
MESSAGE_CHARS = 500
_OUT_OF_MEMORY = 77
_LENGTH = struct.Struct(">I")
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one item.

    `done`: the task answered, with `value`. `timeout`: it was late twice, the second time alone. `crash`: its worker died of it
    twice, of a signal, an exit or the memory limit. `error`: the task raised. `message` says why, but for `done`.
    """

    kind: Literal["done", "timeout", "crash", "error"]
    value: Any = None
    message: str = ""


def verdict_of(answer: Answer) -> Verdict:
    """The verdict on a sample whose item was not done: undecided, for it says nothing about the sample."""
    if answer.kind == "timeout":
        return Verdict.undecided("timeout", error=answer.message)
    if answer.kind == "crash":
        return Verdict.undecided("crash", error=answer.message)
    return Verdict.undecided("filter_error", error=answer.message)


class Pool:
    """Workers for one task. Nothing is started before the first `map`; `close`, the end of this process, however it ends, and
    being garbage collected all end the workers.

    `task` is `module:function`: a factory that is called once in each worker with `setup` and returns the function of one item.
    `setup`, items and values are JSON (integers of 64 bits, no lone surrogates). `seconds` is the deadline of an item,
    `memory_mib` bounds a worker's address space, `recycle_after` items it is replaced; `chunk` items travel at once; `workers`
    is how many run side by side, by default as `set_workers` says.
    """

    def __init__(
        self,
        task: str,
        setup: Any = None,
        *,
        seconds: float,
        memory_mib: int = 2048,
        recycle_after: int = 50_000,
        chunk: int = 32,
        workers: int | None = None,
    ) -> None:
        self._start: Callable[[], _Worker] = lambda: _Worker(task, setup, seconds, memory_mib)
        self._task, self._seconds, self._memory_mib = task, seconds, memory_mib
        self._recycle_after, self._chunk, self._wanted = recycle_after, chunk, workers
        self._workers: list[_Worker] = []
        self._spare: _Worker | None = None
        self._lock = threading.Lock()
        _pools.add(self)

    def map(self, items: Sequence[Any]) -> list[Answer]:
        """Answer every item, in order. Raises FilterError when no worker can be started: nothing can be said of any item."""
        if not items:
            return []
        with self._lock:
            try:
                return _Round(self, items).run()
            except BaseException:
                self._end()  # no worker may be left with an item of a round that is over
                raise

    def close(self) -> None:
        """End the workers and wait for them. The next `map` starts new ones."""
        with self._lock:
            self._end()

    def pids(self) -> list[int]:
        """Process ids of the workers there are, the spare among them."""
        return [worker.process.pid for worker in [*self._workers, *([self._spare] if self._spare else [])]]

    def _end(self) -> None:
        for worker in [*self._workers, *([self._spare] if self._spare else [])]:
            worker.kill()
        self._workers, self._spare = [], None

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._end()


def set_workers(count: int | None) -> None:
    """How many workers a pool runs that does not say so itself; None: one per core that this process may use."""
    global _default_workers  # noqa: PLW0603 - a setting of this process, like the number of threads of a numerical library
    _default_workers = count


_default_workers: int | None = None
_pools: "weakref.WeakSet[Pool]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for pool in list(_pools):
        pool.close()


# -- one round of items ----------------------------------------------------------------------------------------------------


class _Round:
    def __init__(self, pool: Pool, items: Sequence[Any]) -> None:
        self.pool, self.items = pool, items
        self.answers: list[Answer | None] = [None] * len(items)
        self.queue = deque(range(len(items)))
        self.suspects: deque[int] = deque()
        self.tried: set[int] = set()
        self.selector = selectors.DefaultSelector()

    def run(self) -> list[Answer]:
        pool = self.pool
        wanted = pool._wanted or _default_workers or len(os.sched_getaffinity(0))
        wanted = min(wanted, -(-len(self.items) // pool._chunk))
        while len(pool._workers) < wanted:
            pool._workers.append(pool._start())
        if pool._spare is None and len(self.items) > wanted * pool._chunk:
            pool._spare = pool._start()
        with self.selector:
            for worker in pool._workers:
                self.selector.register(worker.socket, selectors.EVENT_READ, worker)
            while True:
                for worker in list(pool._workers):
                    if worker.ready and not worker.given:
                        self.feed(worker)
                if not any(worker.given for worker in pool._workers) and not self.queue and not self.suspects:
                    break
                self.listen()
        assert all(answer is not None for answer in self.answers)
        return [answer for answer in self.answers if answer is not None]

    def feed(self, worker: "_Worker") -> None:
        """Hand out a chunk, smaller towards the end so that all workers end together; a suspect once nothing else is left."""
        pool = self.pool
        if self.queue:
            size = max(1, min(pool._chunk, -(-len(self.queue) // (2 * len(pool._workers)))))
            numbers = [self.queue.popleft() for _ in range(min(size, len(self.queue)))]
        elif self.suspects and not any(other.given for other in pool._workers if not other.alone):
            numbers = [self.suspects.popleft()]
        else:
            return
        if worker.answered >= pool._recycle_after:
            worker = self.replace(worker)
            if not worker.ready:
                (self.suspects if numbers[0] in self.tried else self.queue).extendleft(reversed(numbers))
                return
        worker.alone = numbers[0] in self.tried
        worker.give([(number, self.items[number]) for number in numbers])

    def listen(self) -> None:
        """Wait for answers, or for the first deadline."""
        now = time.monotonic()
        first = min((worker.deadline for worker in self.pool._workers if worker.given or not worker.ready), default=now + 1)
        for key, _ in self.selector.select(max(0.0, first - now)):
            worker: _Worker = key.data
            alive = worker.receive()
            for number, kind, value in worker.messages():
                if number < 0:
                    self.started(worker, kind, value)
                else:
                    self.answers[number] = Answer("done", value) if kind == "done" else Answer("error", message=value)
            if not alive:
                self.lost(worker, "crash")
        now = time.monotonic()
        for worker in list(self.pool._workers):
            if (worker.given or not worker.ready) and now > worker.deadline:
                self.lost(worker, "timeout")

    def started(self, worker: "_Worker", kind: str, value: Any) -> None:
        if kind == "failed":
            raise FilterError(f"{self.pool._task}: cannot be started in a worker: {value}")
        worker.ready = True

    def lost(self, worker: "_Worker", kind: Literal["timeout", "crash"]) -> None:
        given, ready = list(worker.given), worker.ready
        message = f"no answer within {self.pool._seconds:g} s"
        self.replace(worker)
        if kind == "crash":
            message = worker.epitaph(self.pool._memory_mib)
        if not ready:
            why = message if kind == "crash" else f"{START_S:g} s went by"
            raise FilterError(f"{self.pool._task}: a worker did not start: {why}")
        if not given:
            return
        number, *rest = given
        self.queue.extendleft(reversed(rest))
        if number in self.tried:
            self.answers[number] = Answer(kind, message=f"{message}, twice, the second time alone")
        else:
            self.tried.add(number)
            self.suspects.append(number)

    def replace(self, worker: "_Worker") -> "_Worker":
        """End a worker, and put the spare in its place."""
        pool = self.pool
        self.selector.unregister(worker.socket)
        worker.kill()
        fresh = pool._spare or pool._start()
        pool._spare = None
        pool._workers[pool._workers.index(worker)] = fresh
        pool._spare = pool._start()
        self.selector.register(fresh.socket, selectors.EVENT_READ, fresh)
        return fresh


# -- one worker, seen from outside ------------------------------------------------------------------------------------------

_CHILD = (
    "import sys, orjson; sys.path[:] = orjson.loads(sys.argv[2]); from filters.supervise import serve; serve(int(sys.argv[1]))"
)


@dataclass(eq=False)
class _Worker:
    task: str
    setup: Any
    seconds: float
    memory_mib: int
    ready: bool = False
    alone: bool = False
    answered: int = 0
    given: dict[int, None] = field(default_factory=dict)
    """Numbers of the items it has and has not answered, in its order."""
    deadline: float = 0.0
    buffer: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        with theirs:
            # The hash seed is fixed so that a verdict does not depend on the process that gave it.
            environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            self.process = subprocess.Popen(
                [sys.executable, "-c", _CHILD, str(theirs.fileno()), orjson.dumps(sys.path).decode()],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        self.deadline = time.monotonic() + START_S
        self._send([self.task, self.setup, self.seconds, self.memory_mib])

    def give(self, chunk: Sequence[tuple[int, Any]]) -> None:
        self.given = dict.fromkeys(number for number, _ in chunk)
        self._send(chunk)
        self.deadline = time.monotonic() + self.seconds

    def _send(self, message: Any) -> None:
        self.socket.settimeout(START_S)
        with contextlib.suppress(OSError):  # it died: reading says so
            self.socket.sendall(_framed(message))
        self.socket.setblocking(False)

    def receive(self) -> bool:
        """Read what there is; False when the worker is gone."""
        try:
            while got := self.socket.recv(RECEIVE_BYTES):
                self.buffer += got
                if len(got) < RECEIVE_BYTES:
                    return True
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def messages(self) -> list[tuple[int, str, Any]]:
        """The whole messages read so far. An answer starts the deadline of the next item."""
        found, at = [], 0
        while len(self.buffer) - at >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self.buffer, at)
            if len(self.buffer) - at - _LENGTH.size < size:
                break
            at += _LENGTH.size
            number, kind, value = orjson.loads(bytes(memoryview(self.buffer)[at : at + size]))
            at += size
            found.append((number, kind, value))
            if self.given.pop(number, False) is None:
                self.answered += 1
        del self.buffer[:at]
        if found:
            self.deadline = time.monotonic() + self.seconds
        return found

    def kill(self) -> None:
        """End it and all it started, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.socket.close()

    def epitaph(self, memory_mib: int) -> str:
        """How it ended, where it ended by itself."""
        status = self.process.returncode
        if status == _OUT_OF_MEMORY:
            return f"out of memory, {memory_mib} MiB allowed"
        return f"the worker died of {signal.Signals(-status).name}" if status < 0 else f"the worker exited with {status}"


def _framed(message: Any) -> bytes:
    text = orjson.dumps(message)
    return _LENGTH.pack(len(text)) + text


# -- one worker, seen from inside -------------------------------------------------------------------------------------------


def serve(descriptor: int) -> None:
    """Answer items until the other end of the socket is closed. The main function of a worker."""
    with socket.socket(fileno=descriptor) as channel, channel.makefile("rb") as reader:
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
        task, setup, seconds, memory_mib = _read(reader)
        resource.setrlimit(resource.RLIMIT_AS, (memory_mib * _MIB, memory_mib * _MIB))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            module, _, name = task.partition(":")
            answer = getattr(importlib.import_module(module), name)(setup)
        except Exception as error:  # noqa: BLE001 - told to the other end, which raises it
            channel.sendall(_framed([-1, "failed", _short(error)]))
            return
        channel.sendall(_framed([-1, "ready", None]))
        while (chunk := _read(reader)) is not None:
            _bound_processor_time(seconds * len(chunk))
            for number, item in chunk:
                channel.sendall(_answered(answer, number, item))


def _answered(answer: Callable[[Any], Any], number: int, item: Any) -> bytes:
    try:
        return _framed([number, "done", answer(item)])
    except MemoryError:
        os._exit(_OUT_OF_MEMORY)  # what is left of this process is not to be trusted
    except Exception as error:  # noqa: BLE001 - an exception is the answer
        return _framed([number, "error", _short(error)])


def _short(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}"[:MESSAGE_CHARS]
    return text.encode(errors="backslashreplace").decode()


def _read(reader: Any) -> Any:
    head = reader.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    return orjson.loads(reader.read(_LENGTH.unpack(head)[0]))


def _bound_processor_time(seconds: float) -> None:
    """A worker in a loop that lets no other thread run ends by itself even when nobody is left to kill it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    wanted = int(used.ru_utime + used.ru_stime + seconds) + 60
    resource.setrlimit(resource.RLIMIT_CPU, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
