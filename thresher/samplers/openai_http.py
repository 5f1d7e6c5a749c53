"""Samples from an OpenAI-compatible server, or several of one model: `vllm serve` replicas, a hosted API.

An event loop on its own thread runs thresher.samplers.http; streams in other threads share it.

Seeds are sent only with `seeds: sample`. A seeded request whose prompt is prefilled in pieces kills vLLM's CPU engine ("CPU
Generator does not use offset"), no server reports its platform, and it is undocumented how other servers seed the n choices of
one request. vLLM seeds choice i with seed + i; other servers are therefore asked for one completion at a time.
"""

import asyncio
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from schemas.engines import HttpEngine
from thresher.errors import EngineError, ThresherError
from thresher.estimators.calibration import Quota
from thresher.samplers.finished import FinishedGroups
from thresher.samplers.http.balancer import Balancer
from thresher.samplers.http.claims import Note, Remembered
from thresher.samplers.http.connection import AttemptError, Waits, read_key
from thresher.samplers.http.protocol import RESERVED_FIELDS, Service, Tokenised
from thresher.samplers.sampler import Drawn, EngineFacts, Group


class HttpStream:
    """See thresher.samplers.sampler.Stream."""

    def __init__(self, sampler: "HttpSampler", priority: int) -> None:
        self._sampler, self._priority = sampler, priority
        self._finished = FinishedGroups()

    def __enter__(self) -> "HttpStream":
        self._sampler.balancer.open(self._finished)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._sampler.balancer.leave(self._finished)
        with suppress(EngineError):
            self._sampler.call(self._sampler.balancer.cancel, self._finished)

    def submit(self, groups: Iterable[Group]) -> None:
        self._sampler.call(self._sampler.balancer.submit, self._finished, self._priority, list(groups))

    def take(self, timeout: float) -> list[Drawn]:
        return self._finished.take(timeout)


class HttpSampler:
    """A context manager that holds the connections; see thresher.samplers.sampler.Sampler.

    `model_name` is the name by which the servers have the model or, with an adapter, the adapter; `base_model` is that of the
    adapter's base model.
    """

    facts: EngineFacts
    token_bytes: NDArray[np.int32] | None = None

    def __init__(
        self,
        spec: HttpEngine,
        model_name: str,
        *,
        quota: Quota,
        seeds: Literal["auto", "sample", "engine"],
        base: Path | None = None,
        note: Note | None = None,
        base_model: str | None = None,
        waits: Waits | None = None,
        tells_kind: bool = False,
    ) -> None:
        reserved = sorted(set(spec.extra_body) & RESERVED_FIELDS)
        if reserved:
            raise EngineError(f"engine.extra_body.{reserved[0]}: thresher sets this itself; remove it from the recipe")
        service = Service(spec, model_name, seeds == "sample", note or Remembered(), base_model, tells_kind)
        self.balancer = Balancer(service, read_key(spec.api_key_env), base=base or Path(), quota=quota, waits=waits or Waits())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run_loop, name="openai_http", daemon=True)

    def __enter__(self) -> "HttpSampler":
        self._thread.start()
        try:
            self._started.result()
        except BaseException:
            self.close()
            raise
        self.facts = self.balancer.facts
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def stream(self, priority: int = 0) -> HttpStream:
        return HttpStream(self, priority)

    def close(self) -> None:
        """Cancel all requests; streams that wait for one raise EngineError."""
        self.balancer.end(EngineError("the engine was stopped"))
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # the loop is already closed
                self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(timeout=30)

    def tokenise(self, group: Group, timeout_s: float = 60.0) -> Tokenised | None:
        """Return the prompt of a group as a server reads it; None if the server does not tell. Raises EngineError, and
        SourceError with the server's words for a prompt that it refuses."""
        if self._loop is None:
            raise EngineError("the engine was not started; use it as a context manager")
        asked = asyncio.wait_for(self.balancer.tokenise(group), timeout_s)
        try:
            return asyncio.run_coroutine_threadsafe(asked, self._loop).result()
        except (AttemptError, TimeoutError) as error:
            raise EngineError(f"POST /tokenize: {type(error).__name__} {error}".strip()) from error

    def call(self, function: Any, *arguments: Any) -> None:
        """Call a function on the event loop, without waiting for it."""
        if self.balancer.ended is not None:
            raise EngineError(str(self.balancer.ended))
        if self._loop is None:
            raise EngineError("the engine was not started; use it as a context manager")
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError as error:
            raise EngineError("the engine was stopped") from error

    def _run_loop(self) -> None:
        try:
            asyncio.run(self._run())
        except asyncio.CancelledError:
            pass
        except ThresherError as error:
            self._started.set_exception(error)
        except BaseException as error:
            message = f"{type(error).__name__}: {error}; finished samples are kept, run again to continue"
            self.balancer.end(EngineError(message))
            raise
        finally:
            if not self._started.done():
                self._started.set_exception(self.balancer.ended or EngineError("the engine was stopped"))

    async def _run(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self.balancer.ended is None:
            await self.balancer.run(ready=lambda: self._started.set_result(None))
