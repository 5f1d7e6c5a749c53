"""This machine: one engine in this process, threads that wait on it, processes that filter."""

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from thresher.errors import DeadlyError
from thresher.executors.executor import Engines, Executor

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class LocalExecutor(Executor):
    """A context manager that holds the filter processes; with none, `apart` works in this process."""

    def __init__(self, filter_workers: int) -> None:
        self.workers = filter_workers
        self._processes: ProcessPoolExecutor | None = None
        self._lock, self._alone = threading.Lock(), threading.Lock()

    def __enter__(self) -> "LocalExecutor":
        if self.workers:
            self._processes = _processes(self.workers)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._processes is not None:
            self._processes.shutdown(cancel_futures=True)

    def apart(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of a module in a filter process and wait for its result. When processes die, what they had is called
        again, one after the other in a process apart, so that it costs no others theirs. Raises DeadlyError when that dies."""
        if (processes := self._processes) is None:
            return function(*args, **kwargs)
        try:
            return processes.submit(function, *args, **kwargs).result()
        except BrokenProcessPool:
            self._begin_again(processes)
        try:
            with self._alone, _processes(1) as alone:
                return alone.submit(function, *args, **kwargs).result()
        except BrokenProcessPool as error:
            told = ", ".join(str(one) for one in args if isinstance(one, (str, int)))
            raise DeadlyError(
                f"{function.__name__}({told}): the filter process died of it twice, the second time with nothing else to do "
                "(killed, or out of memory?); what is finished is kept, and fewer run.filter_workers leave each more memory"
            ) from error

    def _begin_again(self, broken: ProcessPoolExecutor) -> None:
        """Have new processes in the place of those of which one died, once for all calls that were under way on them."""
        with self._lock:
            if self._processes is broken:
                self._processes = _processes(self.workers)
                log.warning("a filter process died; others are begun, and what was under way is done again")
        broken.shutdown(wait=False)

    @contextmanager
    def engines(
        self,
        make: Callable[[], AbstractContextManager[Any]],
        *,
        slots: Callable[[Any], int],  # noqa: ARG002 - there is nothing to share out
        wanted: Callable[[], int | None],  # noqa: ARG002 - there is one
    ) -> Iterator[Engines]:
        """One engine, in this process. Threads call it side by side."""
        with make() as engine:
            yield Here(engine, self.apart)


class Here:
    """An engine of this process."""

    replicas, here = 1, True

    def __init__(self, engine: Any, apart: Callable[..., Any]) -> None:
        self._engine, self._apart = engine, apart

    def call(self, function: Callable[..., T], *args: Any) -> T:
        return function(self._engine, self._apart, *args)

    def close(self) -> None:
        self._engine.close()


def _processes(count: int) -> ProcessPoolExecutor:
    """Spawned: a process forked from one with threads may deadlock."""
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"), initializer=end_with_parent)


def end_with_parent() -> None:
    """Let this process end when the one that started it is gone: after kill -9 of that it would wait for work for ever."""
    parent = multiprocessing.parent_process()

    def wait_for_its_end() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait_for_its_end, daemon=True).start()
