"""This machine: one engine in this process, threads that wait for it, and processes that filter."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from thresher.errors import DeadlyError, EngineError, StoppedError
from thresher.executors.executor import Call, Engines, Executor
from thresher.pool.run import Run

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class LocalExecutor(Executor):
    """A context manager that holds the filter processes; without any, `call` runs in this process."""

    def __init__(self, filter_workers: int) -> None:
        self.workers = filter_workers
        self._processes: ProcessPoolExecutor | None = None
        self._single: ProcessPoolExecutor | None = None
        """Repeats the calls of a process that died, one at a time."""
        self._lock, self._alone, self._stopped = threading.Lock(), threading.Lock(), threading.Event()

    def __enter__(self) -> "LocalExecutor":
        if self.workers:
            self._processes = _processes(self.workers)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self.stop()
        if self._processes is not None:
            self._processes.shutdown(cancel_futures=True)

    def stop(self) -> None:
        """Kill the filter processes. A shard that was being judged has no verdicts yet; the next run judges it."""
        self._stopped.set()
        with self._lock:
            pools = (self._processes, self._single)
        for pool in pools:
            for process in list((pool._processes or {}).values()) if pool is not None else ():  # 3.14 has kill_workers
                process.kill()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a module-level function in a filter process and wait for its result. When a process dies, its calls are repeated
        one at a time in a process of their own, so that the call at fault costs no other. Raises DeadlyError when that one
        dies too, StoppedError after `stop`."""
        if (processes := self._processes) is None:
            return function(*args, **kwargs)
        try:
            return self._submit(processes, function, *args, **kwargs).result()
        except BrokenProcessPool:
            self._replace(processes)
        try:
            with self._alone, _processes(1) as self._single:
                return self._submit(self._single, function, *args, **kwargs).result()
        except BrokenProcessPool as error:
            self._check_not_stopped()
            arguments = ", ".join(str(getattr(value, "root", value)) for value in args if isinstance(value, (str, int, Run)))
            raise DeadlyError(
                f"{function.__name__}({arguments}): the filter process died twice, the second time with nothing else to do "
                "(killed, or out of memory?); what is finished is kept; fewer run.filter_workers leave more memory to each"
            ) from error

    def _submit(self, processes: ProcessPoolExecutor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit a call. It may start a process, which an interrupt from the terminal must not reach before it ignores them: a
        signal that is blocked here is blocked there too."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._check_not_stopped()
            return processes.submit(function, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _replace(self, broken: ProcessPoolExecutor) -> None:
        """Replace the process pool after one of its processes died, once for all calls that were under way."""
        self._check_not_stopped()
        with self._lock:
            if self._processes is broken:
                self._processes = _processes(self.workers)
                log.warning("a filter process died; it is replaced, and what was under way is repeated")
        broken.shutdown(wait=False)

    def _check_not_stopped(self) -> None:
        if self._stopped.is_set():
            raise StoppedError("the filter processes were stopped")

    @contextmanager
    def engines(
        self,
        make: Callable[[], AbstractContextManager[Any]],
        *,
        slots: Callable[[Any], int],  # noqa: ARG002 - one process shares nothing out
        wanted: Callable[[], int | None],  # noqa: ARG002 - there is one
    ) -> Iterator[Engines]:
        """One engine, in this process. Threads call it side by side."""
        with make() as engine:
            yield LocalEngine(engine, self.call)


class LocalEngine:
    """The engine of this process."""

    replicas, in_process = 1, True

    def __init__(self, engine: Any, call: Call) -> None:
        self._engine, self._call = engine, call
        self._closed = False

    def call(self, function: Callable[..., T], *args: Any) -> T:
        try:
            return function(self._engine, self._call, *args)
        except EngineError as error:
            if self._closed and not isinstance(error, StoppedError):
                raise StoppedError(str(error)) from error
            raise

    def close(self) -> None:
        self._closed = True
        self._engine.close()


def _processes(count: int) -> ProcessPoolExecutor:
    """Spawned: a process forked from one with threads may deadlock."""
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"), initializer=follow_parent)


def follow_parent() -> None:
    """Leave interrupts from the terminal to the parent, and end when it is gone: after kill -9 of the parent this process would
    wait for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    parent = multiprocessing.parent_process()

    def wait_for_its_end() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait_for_its_end, daemon=True).start()
