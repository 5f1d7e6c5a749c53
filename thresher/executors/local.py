"""This machine: threads that wait on the engine, processes that filter."""

import contextvars
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class LocalExecutor:
    """A context manager that holds the filter processes; with none, `apart` works in this process."""

    def __init__(self, filter_workers: int) -> None:
        self._workers = filter_workers
        self._processes: ProcessPoolExecutor | None = None

    def __enter__(self) -> "LocalExecutor":
        if self._workers:
            # Spawned: a process forked from one with threads may deadlock.
            context = multiprocessing.get_context("spawn")
            self._processes = ProcessPoolExecutor(self._workers, mp_context=context, initializer=end_with_parent)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._processes is not None:
            self._processes.shutdown(cancel_futures=True)

    def apart(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of a module in a filter process and wait for its result."""
        if self._processes is None:
            return function(*args, **kwargs)
        return self._processes.submit(function, *args, **kwargs).result()

    def each(self, call: Callable[[Any], Any], items: Iterable[Any]) -> None:
        """Call with each of the items, as many at once as there are filter processes. After an error nothing new is begun."""
        with ThreadPoolExecutor(max(1, self._workers)) as threads:
            calls = [threads.submit(contextvars.copy_context().run, call, item) for item in items]
            try:
                for made in calls:
                    made.result()
            except BaseException:
                for made in calls:
                    made.cancel()
                raise

    def overlap(
        self,
        missing: Iterable[int],
        every: Iterable[int],
        sample: Callable[[int], Any],
        winnow: Callable[[int], Any],
        *,
        in_flight: int,
        stop: Callable[[], None] = lambda: None,
        enough: Callable[[], bool] = lambda: False,
    ) -> list[int]:
        """Call `sample` on the missing shards, up to `in_flight` at a time, and `winnow` on every shard as soon as its samples
        are there. After an error nothing new is begun; what is under way ends, and the first error is raised. An interrupt
        calls `stop`, which ends what is under way. Once `enough` says so no further shard is sampled; returns those left out."""
        todo = list(missing)
        sampled_later = set(todo)
        ready = [shard for shard in every if shard not in sampled_later]
        todo.reverse()
        ready.reverse()
        workers = max(1, self._workers)
        failure: BaseException | None = None
        with ThreadPoolExecutor(in_flight) as samplers, ThreadPoolExecutor(workers) as winnowers:
            sampling: dict[Future[Any], int] = {}
            winnowing: set[Future[Any]] = set()
            while True:
                # Twice as many filtered shards may wait as are filtered at once; sampling then waits for them.
                while (
                    todo
                    and not failure
                    and not enough()
                    and len(sampling) < in_flight
                    and len(winnowing) <= 2 * workers + in_flight
                ):
                    shard = todo.pop()
                    sampling[_submit(samplers, sample, shard)] = shard
                while ready and not failure and len(winnowing) <= 2 * workers:
                    winnowing.add(_submit(winnowers, winnow, ready.pop()))
                if not sampling and not winnowing:
                    break
                try:
                    done, _ = wait([*sampling, *winnowing], return_when=FIRST_COMPLETED)
                except BaseException:
                    stop()
                    raise
                for future in done:
                    shard_done = sampling.pop(future, None)
                    winnowing.discard(future)
                    if error := future.exception():
                        failure = failure or error
                    elif shard_done is not None:
                        ready.append(shard_done)
        if failure:
            raise failure
        return todo[::-1]


def end_with_parent() -> None:
    """Let this process end when the one that started it is gone: after kill -9 of that it would wait for work for ever."""
    parent = multiprocessing.parent_process()

    def wait_for_its_end() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait_for_its_end, daemon=True).start()


def _submit(threads: ThreadPoolExecutor, function: Callable[[int], Any], shard: int) -> Future[Any]:
    """Submit with the caller's context variables, as asyncio.to_thread does: a Prefect task finds its flow in them."""
    return threads.submit(contextvars.copy_context().run, function, shard)
