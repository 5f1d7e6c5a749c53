"""This machine: one engine in this process, threads that wait on it, processes that filter."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from thresher.executors.base import Engines, Executor

P = ParamSpec("P")
T = TypeVar("T")


class LocalExecutor(Executor):
    """A context manager that holds the filter processes; with none, `apart` works in this process."""

    def __init__(self, filter_workers: int) -> None:
        self.workers = filter_workers
        self._processes: ProcessPoolExecutor | None = None

    def __enter__(self) -> "LocalExecutor":
        if self.workers:
            # Spawned: a process forked from one with threads may deadlock.
            context = multiprocessing.get_context("spawn")
            self._processes = ProcessPoolExecutor(self.workers, mp_context=context, initializer=end_with_parent)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._processes is not None:
            self._processes.shutdown(cancel_futures=True)

    def apart(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of a module in a filter process and wait for its result."""
        if self._processes is None:
            return function(*args, **kwargs)
        return self._processes.submit(function, *args, **kwargs).result()

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


def end_with_parent() -> None:
    """Let this process end when the one that started it is gone: after kill -9 of that it would wait for work for ever."""
    parent = multiprocessing.parent_process()

    def wait_for_its_end() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait_for_its_end, daemon=True).start()
