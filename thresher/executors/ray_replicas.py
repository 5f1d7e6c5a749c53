"""Replicas of the engine as Ray actors: starts them, gives each call to the freest one, and replaces those that are lost.

A call under which actors died twice is repeated on an actor that has no other call, and is given up when that one dies, too: this
call kills its engine, and the calls beside it do not.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from filters import trust
from thresher.errors import DeadlyError, EngineError, StoppedError, ThresherError
from thresher.executors import machines
from thresher.executors.ray_calls import LostError, call_from_actor, translated
from thresher.executors.ray_cluster import listed

log = logging.getLogger(__name__)

T = TypeVar("T")

STARTS = 3
"""Starts of one actor that may die before it is given up."""
SUSPECT = 2
"""Deaths of actors under one call after which it gets an actor of its own."""
MOST_DEATHS = 10
"""Deaths of actors, without a finished call between them, after which the run ends."""
POLL_S = 5.0
"""Seconds between checks of how many replicas are wanted."""
WARN_S = 60.0
"""Seconds between warnings about replicas that wait for room."""
CLOSE_S = 20.0
"""Seconds that an actor has to close its engine before it is killed."""


class EngineActor:
    """The content of an actor: one engine, and calls on it from several threads."""

    def __init__(
        self,
        make: Callable[[], AbstractContextManager[Any]],
        slots: Callable[[Any], int],
        driver: machines.Facts,
        consent: trust.Consent,
    ) -> None:
        trust.inherit(consent)
        self._make, self._slots, self._driver, self._stack = make, slots, driver, ExitStack()

    def start(self) -> tuple[int, int, str, str]:
        """Open the engine; return how many calls it takes at the same time, this process, its machine, and its URL if it has
        one. Raises EngineError on a machine that joined after the check and does not fit."""
        if faults := machines.differences(self._driver, machines.facts()):
            raise EngineError(f"executor: {listed(faults)}")
        self._engine = self._stack.enter_context(self._make())
        return self._slots(self._engine), os.getpid(), socket.gethostname(), getattr(self._engine, "url", "")

    def call(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Call function(engine, call, *args)."""
        return function(self._engine, call_from_actor, *args)

    def close(self) -> None:
        """Close the engine."""
        self._stack.close()


@dataclass(eq=False)
class Replica:
    """An actor, as seen by the process that started it."""

    actor: Any
    slots: int = 0
    """Calls that it takes at the same time; 0 while it starts."""
    pid: int = 0
    machine: str = ""
    url: str = ""
    """URL of a server (thresher.executors.fleet)."""
    busy: int = 0
    """Calls that it works on."""
    alone: bool = False
    """Whether one call has it for itself."""
    draining: bool = False
    """Whether it gets no more calls, and ends when it is idle."""

    def takes(self, *, alone: bool) -> bool:
        """Whether it can take a call now."""
        if not self.slots or self.alone or self.draining:
            return False
        return self.busy == 0 if alone else self.busy < self.slots


class Replicas:
    """The actors of an executor. Safe to share between threads."""

    in_process = False

    def __init__(self, ray: Any, start: Callable[[], Any], replicas: int, wanted: Callable[[], int | None]) -> None:
        self._ray, self._start_actor, self._target, self._wanted = ray, start, replicas, wanted
        self._changed = threading.Condition()
        self._all: list[Replica] = []
        self._failure: BaseException | None = None
        self._closed = False
        self._deaths = 0  # Since the last call that ended.
        for _ in range(replicas):
            self._add()
        self._scaling = threading.Thread(target=self._scale, daemon=True)
        self._scaling.start()

    @property
    def replicas(self) -> int:
        """Number of replicas that are ready."""
        with self._changed:
            return sum(replica.slots > 0 and not replica.draining for replica in self._all)

    @property
    def members(self) -> list[Replica]:
        """All replicas, including those that start."""
        with self._changed:
            return list(self._all)

    def ready(self) -> None:
        """Wait for the first replica; raise the error of the last one if none starts."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure or any(replica.slots for replica in self._all))
            if self._failure:
                raise self._failure

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call function(engine, call, *args) on a replica, and on another one when that is lost. Raises DeadlyError when the call
        itself kills its engines."""
        deaths = 0
        while True:
            alone = deaths >= SUSPECT
            replica = self._take(alone=alone)
            try:
                with translated(self._ray, function.__name__):
                    result: T = self._ray.get(replica.actor.call.remote(function, args))
                self._deaths = 0
                return result
            except LostError as error:
                deaths += 1
                self._replace(replica, str(error))
                if alone:
                    raise DeadlyError(
                        f"{function.__name__}{args[1:]}: the engine's process died of it {deaths} times, the last time with "
                        "nothing else to do; what is finished is kept"
                    ) from error
            finally:
                self._release(replica)

    def close(self) -> None:
        """End all replicas; calls that wait raise EngineError."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            members, self._all = self._all, []
            self._changed.notify_all()
        self._scaling.join(timeout=POLL_S)
        with suppress(Exception):  # An actor that does not close in time is killed.
            closing = [replica.actor.close.remote() for replica in members if replica.slots]
            self._ray.wait(closing, num_returns=len(closing), timeout=CLOSE_S)
        for replica in members:
            with suppress(Exception):
                self._ray.kill(replica.actor)

    def _add(self) -> None:
        with self._changed:
            if self._closed:
                return
            replica = Replica(self._start_actor())
            self._all.append(replica)
        threading.Thread(target=self._start, args=(replica,), daemon=True).start()

    def _start(self, replica: Replica) -> None:
        """Wait until an actor has its engine; replace it when it dies before that."""
        for left in reversed(range(STARTS)):
            fault: BaseException
            try:
                with translated(self._ray, "the start of a replica"):
                    slots, pid, machine, url = self._ray.get(replica.actor.start.remote())
            except LostError as error:
                fault = EngineError(f"the process of an engine died {STARTS} times while it started: {error}")
                if replica not in self.members:
                    return  # It was killed because it is not needed any more.
                if left:
                    replica.actor = self._start_actor()
                    continue
            except Exception as error:  # noqa: BLE001 - raised to the threads that wait for replicas
                fault = error
            else:
                with self._changed:
                    replica.slots, replica.pid, replica.machine, replica.url = max(1, slots), pid, machine, url
                    self._changed.notify_all()
                return
            break
        with self._changed:
            if replica in self._all:
                self._all.remove(replica)
                self._target -= 1  # A replica that does not start is not tried again.
            if not self._all and not self._closed:
                self._failure = fault
            elif not self._closed:
                log.warning("a replica did not start: %s", fault)
            self._changed.notify_all()

    def _take(self, *, alone: bool) -> Replica:
        with self._changed:
            while True:
                if self._failure:
                    raise self._failure
                if self._closed:
                    raise StoppedError("the engines are closed")
                free = [replica for replica in self._all if replica.takes(alone=alone)]
                if free:
                    freest = max(free, key=lambda replica: replica.slots - replica.busy)
                    freest.busy += 1
                    freest.alone = alone
                    return freest
                self._changed.wait(POLL_S)

    def _release(self, replica: Replica) -> None:
        with self._changed:
            replica.busy -= 1
            replica.alone = False
            self._changed.notify_all()

    def _replace(self, replica: Replica, cause: str) -> None:
        """Start another replica after this one was lost, once for all of its calls."""
        with self._changed:
            if replica not in self._all or self._closed:
                return
            self._all.remove(replica)
            self._deaths += 1
            if self._deaths > MOST_DEATHS:
                self._failure = EngineError(f"{self._deaths} engines died with no shard finished between them; the last: {cause}")
                self._changed.notify_all()
                return
            self._add()  # Inside the lock: otherwise `_scale` would find one too few, and start another.
        log.warning("a replica on %s (process %d) is lost: %s; another is started", replica.machine, replica.pid, cause)
        with suppress(Exception):
            self._ray.kill(replica.actor)

    def _scale(self) -> None:
        """Change the number of replicas to the wanted one, and warn when some wait for room."""
        warned, last_wanted = time.monotonic(), None
        while not self._closed:
            with self._changed:
                self._changed.wait(POLL_S)
            with suppress(ThresherError, OSError):
                if (wanted := self._wanted()) != last_wanted and wanted:
                    last_wanted, self._target = wanted, wanted
            self._end_idle(self._drain_and_add())
            starting = sum(replica.slots == 0 for replica in self.members)
            if starting and time.monotonic() - warned > WARN_S:
                warned = time.monotonic()
                log.warning("%d of %d replicas start or wait for room in the cluster", starting, self._target)

    def _drain_and_add(self) -> list[Replica]:
        """Drain the replicas above the target, or start those below it; return the drained ones that are idle."""
        with self._changed:
            active = [replica for replica in self._all if not replica.draining]
            least_used = sorted(active, key=lambda replica: (replica.slots > 0, replica.busy))
            for replica in least_used[: max(0, len(active) - self._target)]:
                replica.draining = True
            idle = [replica for replica in self._all if replica.draining and replica.busy == 0]
            for replica in idle:
                self._all.remove(replica)
            for _ in range(self._target - len(active)):
                self._add()
            return idle

    def _end_idle(self, idle: list[Replica]) -> None:
        for replica in idle:
            with suppress(Exception):
                self._ray.wait([replica.actor.close.remote()], timeout=CLOSE_S)
                self._ray.kill(replica.actor)
