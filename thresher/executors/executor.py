"""Where the steps run: what every executor does, and the loop over shards that all share."""

import contextvars
import queue
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MOST = 4096
"""Shards in flight, at most: each has a thread that waits for it."""


class Engines(Protocol):
    """Warm engines, one or many, that several threads share."""

    here: bool
    """Whether they are in this process."""

    @property
    def replicas(self) -> int:
        """Engines that are ready."""
        ...

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call function(engine, apart, *args) where one of the engines is; `apart` calls a function on a filter worker. The
        function is called again, on another engine, when that machine or process is lost under it. Raises what it raises;
        EngineError when it cannot be called."""
        ...

    def close(self) -> None:
        """End the engines; calls that wait raise EngineError."""
        ...


class Executor(ABC):
    """A context manager: inside it, functions can be called on filter workers and engines be held warm."""

    workers: int
    """Functions that run on filter workers at once."""

    @abstractmethod
    def __enter__(self) -> "Executor": ...

    @abstractmethod
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def check(self, root: str) -> None:  # noqa: B027 - one machine has nothing to agree on
        """See that all machines can work at the run, before an engine starts. Raises EngineError, StoreError."""

    @abstractmethod
    def apart(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of a module on a filter worker and wait for its result."""

    @abstractmethod
    def engines(
        self, make: Callable[[], AbstractContextManager[Any]], *, slots: Callable[[Any], int], wanted: Callable[[], int | None]
    ) -> AbstractContextManager[Engines]:
        """Hold engines: `make` opens one where it is to run, `slots` says how many calls one takes at once. `wanted` is asked now
        and then for another number of engines than the recipe's; None leaves it."""

    def each(self, call: Callable[[Any], Any], items: Iterable[Any]) -> None:
        """Call with each of the items, as many at once as there are filter workers. After an error nothing new is begun."""
        with ThreadPoolExecutor(max(1, self.workers)) as threads:
            calls = [threads.submit(contextvars.copy_context().run, call, item) for item in items]
            try:
                for made in calls:
                    made.result()
            except BaseException:
                for made in calls:
                    made.cancel()
                raise

    def gather(self, function: Callable[..., T], items: Sequence[tuple[Any, ...]]) -> list[T]:
        """Call the function with each tuple of arguments on the filter workers; returns what it returns, in order. Where there is
        one worker at most, it is called here."""
        if self.workers < 2:
            return [function(*item) for item in items]
        found: list[Any] = [None] * len(items)

        def call(at: int) -> None:
            found[at] = self.apart(function, *items[at])

        self.each(call, range(len(items)))
        return found

    def overlap(
        self,
        missing: Iterable[int],
        every: Iterable[int],
        sample: Callable[[int], Any],
        winnow: Callable[[int], Any],
        *,
        in_flight: Callable[[], int],
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
        workers = max(1, self.workers)
        failure: BaseException | None = None
        ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        with ThreadPoolExecutor(MOST) as samplers, ThreadPoolExecutor(workers) as winnowers:
            sampling: dict[Future[Any], int] = {}
            winnowing: set[Future[Any]] = set()
            while True:
                most = min(MOST, in_flight())
                # Twice as many filtered shards may wait as are filtered at once; sampling then waits for them.
                while todo and not failure and not enough() and len(sampling) < most and len(winnowing) <= 2 * workers + most:
                    shard = todo.pop()
                    future = _submit(samplers, sample, shard)
                    sampling[future] = shard
                    future.add_done_callback(ended.put)
                while ready and not failure and len(winnowing) <= 2 * workers:
                    future = _submit(winnowers, winnow, ready.pop())
                    winnowing.add(future)
                    future.add_done_callback(ended.put)
                if not sampling and not winnowing:
                    break
                try:  # a queue, for to wait for thousands of futures anew at each costs more than all else
                    future = ended.get(timeout=LOOK_S)
                except queue.Empty:
                    continue
                except BaseException:
                    stop()
                    raise
                shard_done = sampling.pop(future, None)
                winnowing.discard(future)
                if error := future.exception():
                    failure = failure or error
                elif shard_done is not None:
                    ready.append(shard_done)
        if failure:
            raise failure
        return todo[::-1]


LOOK_S = 5.0
"""Seconds after which `in_flight` is asked again though nothing has ended."""


def _submit(threads: ThreadPoolExecutor, function: Callable[[int], Any], shard: int) -> Future[Any]:
    """Submit with the caller's context variables, as asyncio.to_thread does: a Prefect task finds its flow in them."""
    return threads.submit(contextvars.copy_context().run, function, shard)
