"""Pools of supervised workers, and the object that makes pools and ends them together."""

import os
import threading
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from filters.supervise.rounds import Answer, Crew, Round
from filters.supervise.worker import Worker


class Pool:
    """Workers for one task. Thread-safe: rounds of several threads run one after the other.

    `task` is `module:function`: a factory that each worker calls once with `setup`; it returns the function of one item. `setup`,
    items and values are JSON (integers of 64 bits, no lone surrogates). `seconds` is the deadline of an item, `memory_mib` the
    address space of a worker. A worker is replaced after `recycle_after` items; up to `chunk` items are sent together. `workers`
    is the number of processes; None: one per core this process may use.

    Processes start with the first `map`. They end with `close`, when this object is collected, and at exit.
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
        self.workers = workers
        self._crew = Crew(task, seconds, recycle_after, chunk, lambda: Worker(task, setup, seconds, memory_mib))
        self._lock, self._pid = threading.Lock(), os.getpid()
        weakref.finalize(self, _end, self._crew, self._pid)

    def map(self, items: Sequence[Any]) -> list[Answer]:
        """Answer every item, in order. Raises FilterError if no worker can be started."""
        if not items:
            return []
        if self._pid != os.getpid():  # this process was forked: the workers belong to its parent
            self._crew.forget()
            self._lock, self._pid = threading.Lock(), os.getpid()
            weakref.finalize(self, _end, self._crew, self._pid)
        with self._lock:
            try:
                return Round(self._crew, items, self.workers or len(os.sched_getaffinity(0))).run()
            except BaseException:
                self._crew.end()  # no worker may keep an item of a round that is over
                raise

    def close(self) -> None:
        """End the workers and wait for them. The next `map` starts new ones."""
        with self._lock:
            _end(self._crew, self._pid)

    def pids(self) -> list[int]:
        """Process ids of the running workers, including the spare."""
        return [worker.process.pid for worker in self._crew.everyone()]


class Workers:
    """Makes pools of `count` workers each (None: one per core this process may use), and ends them together."""

    def __init__(self, count: int | None = None) -> None:
        self.count = count
        self._pools: weakref.WeakSet[Pool] = weakref.WeakSet()

    def pool(self, task: str, setup: Any = None, *, seconds: float, memory_mib: int = 2048, chunk: int = 32) -> Pool:
        """Make a pool for a task (see Pool). No process is started yet."""
        pool = Pool(task, setup, seconds=seconds, memory_mib=memory_mib, chunk=chunk, workers=self.count)
        self._pools.add(pool)
        return pool

    def pids(self) -> list[int]:
        """Process ids of all workers of all pools."""
        return [pid for pool in list(self._pools) for pid in pool.pids()]

    def close(self) -> None:
        """End the workers of every pool and wait for them."""
        for pool in list(self._pools):
            pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _end(crew: Crew, pid: int) -> None:
    """End the workers that this process started. In a forked child they belong to the parent and are left alone."""
    if pid == os.getpid():
        crew.end()
    else:
        crew.forget()
