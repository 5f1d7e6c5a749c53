"""What an executor does: call functions on filter workers, and hold engines."""

import contextvars
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

Call = Callable[..., Any]
"""Calls `function(*args)` on a filter worker and returns its result: `Executor.call`, or `call_here`."""
Map = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], list[Any]]
"""Calls a function with each tuple of arguments on filter workers; results in order: `Executor.map`, or `map_here`."""


def call_here(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in this process."""
    return function(*args, **kwargs)


def map_here(function: Callable[..., Any], items: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Call a function with each tuple of arguments in this process."""
    return [function(*item) for item in items]


def map_on_cores(function: Callable[..., Any], items: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Call a function with each tuple of arguments on a thread per core of this process: for functions that spend their time in
    Arrow and hashing, which leave the interpreter to others."""
    return map_threads(function, items, threads=os.cpu_count() or 1)


class Engines(Protocol):
    """Warm engines, one or many, shared by several threads."""

    in_process: bool
    """Whether the engine runs in this process."""

    @property
    def replicas(self) -> int:
        """Engines that are ready."""
        ...

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call `function(engine, call, *args)` where an engine is; `call` calls a function on a filter worker. A call that is
        lost with its machine or process is repeated on another engine. Raises what the function raises; EngineError when
        no engine can be reached."""
        ...

    def close(self) -> None:
        """Close the engines; calls that wait raise EngineError."""
        ...


class Executor(ABC):
    """A context manager: while it is open, functions can be called on filter workers and engines be held warm."""

    workers: int
    """Functions that run on filter workers at the same time."""

    @abstractmethod
    def __enter__(self) -> "Executor": ...

    @abstractmethod
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def check(self, root: str) -> None:  # noqa: B027 - a single machine has nothing to agree on
        """Check before an engine starts that every machine can work on the run. Raises EngineError, StoreError."""

    def stop(self) -> None:  # noqa: B027 - a cluster ends what its driver no longer waits for
        """End what runs on filter workers, because of an interrupt; calls that wait raise StoppedError."""

    @abstractmethod
    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a module-level function on a filter worker and wait for its result."""

    @abstractmethod
    def engines(
        self, make: Callable[[], AbstractContextManager[Any]], *, slots: Callable[[Any], int], wanted: Callable[[], int | None]
    ) -> AbstractContextManager[Engines]:
        """Hold engines. `make` opens one where it is to run; `slots` returns how many calls one takes at the same time; `wanted`
        is polled for another number of engines than the recipe's, and returns None to keep it."""

    def map(self, function: Callable[..., T], items: Sequence[tuple[Any, ...]]) -> list[T]:
        """Call a function with each tuple of arguments on the filter workers; the results in order. With one worker or none it is
        called in this process."""
        if self.workers < 2:
            return [function(*item) for item in items]
        return map_threads(lambda *item: self.call(function, *item), items, threads=self.workers, stop=self.stop)


def map_threads(
    function: Callable[..., T], items: Sequence[tuple[Any, ...]], *, threads: int, stop: Callable[[], None] = lambda: None
) -> list[T]:
    """Call a function with each tuple of arguments on some threads, in the caller's context, where a Prefect task finds its flow;
    the results in order. After an error nothing new is started; an interrupt calls `stop`, which ends what is under way."""
    with ThreadPoolExecutor(max(1, threads)) as pool:
        futures = [pool.submit(contextvars.copy_context().run, function, *item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException as error:
            for future in futures:
                future.cancel()
            if not isinstance(error, Exception):
                stop()
            raise
