"""A Ray cluster: an actor for each replica of the engine, which stays warm, and tasks on its CPUs for filters.

Only functions of modules and names of shards travel; what is sampled goes from the actors to the run's directory, which all
machines must reach under one name. An actor that is lost (its process, its machine) is begun anew, and its calls are made again
elsewhere: a shard's journal says what it has. A call under which actors died twice is then made with an actor of its own, and
given up when that dies too: it kills its engine, and not its neighbour.

Actors belong to the process that began them: when that is killed, Ray ends them. Nothing is read from Ray but that.
"""

import logging
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from schemas.engines import Engine, VllmEngine
from schemas.executors import RayExecutorSpec
from thresher.errors import DeadlyError, EngineError, StoreError, ThresherError
from thresher.executors import machines
from thresher.executors.executor import Executor
from thresher.pool.store import Store

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

STARTS = 3
"""Starts of one actor that may die before it is given up."""
SUSPECT = 2
"""Deaths of actors under one call after which it is made alone."""
LOOK_S = 5.0
"""Seconds between two looks at how many replicas are wanted."""
REACH_S = 10.0
"""Seconds that a cluster has to take a connection."""
GREETING, SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5), b"\x04"
"""What a client of HTTP/2 says first, and the type of the frame that a server, as Ray's, answers with (RFC 9113, 3.4)."""
ANSWER_S = 120.0
"""Seconds that machines have to answer before an engine is begun."""
OLDEST = (2, 55)
"""The oldest Ray that this was tried with."""
SAY_S = 60.0
"""Seconds between two words about replicas that wait for room."""


class RayExecutor(Executor):
    """Filters as tasks of one CPU each, engines as actors. Joins the cluster at `address` (`auto`: the one this machine belongs
    to), or begins one on this machine where it is null; raises EngineError where there is none."""

    def __init__(self, spec: RayExecutorSpec, filter_workers: int, *, engine: Engine) -> None:
        self.workers = max(1, filter_workers)
        self._spec = spec
        self._parallel = engine.tensor_parallel_size if isinstance(engine, VllmEngine) else 0
        self._joined = False

    def __enter__(self) -> "RayExecutor":
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError as error:
            raise EngineError(f"executor: Ray cannot be imported ({error}); run `pip install 'thresher[ray]'`") from error
        if tuple(int(part) for part in ray.__version__.split(".")[:2]) < OLDEST:
            wanted = ".".join(map(str, OLDEST))
            raise EngineError(
                f"executor: Ray {ray.__version__} is too old, wanted is {wanted} or later: pip install 'thresher[ray]'"
            )
        self._ray = ray
        if not ray.is_initialized():
            self._reachable()
            try:
                more: dict[str, Any] = {} if self._spec.address else {"include_dashboard": False}
                # Of no address Ray makes that of a cluster which was begun here once, and may be gone.
                ray.init(address=self._spec.address or "local", log_to_driver=False, logging_level=logging.ERROR, **more)
            except (ConnectionError, RuntimeError, ValueError) as error:
                if "ersion mismatch" in str(error):
                    raise EngineError(f"executor.address {self._spec.address}: {' '.join(str(error).split())}") from error
                raise EngineError(
                    f"executor.address {self._spec.address}: no Ray cluster there ({str(error).splitlines()[0]}); begin one with "
                    "`ray start --head`, or set executor.address to null for one of this machine alone. One that wants a token "
                    "takes nobody without: RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, here as where it was begun"
                ) from error
            self._joined = True
        self._task = ray.remote(_called).options(num_cpus=1, max_retries=3)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._joined:
            self._ray.shutdown()

    def check(self, root: str) -> None:
        """Room for all replicas; and on each machine the same thresher, Python and vLLM, a clock that is right, and the run
        directory, seen by a probe that each machine reads and answers. Raises EngineError, StoreError."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = self.room()
        store, probe, token = Store(root), f"{machines.PROBE}-{uuid.uuid4().hex}", socket.gethostname()
        store.write_bytes(probe, token.encode())
        asked = time.time()
        calls = {}
        for node in there:
            on = NodeAffinitySchedulingStrategy(node, soft=False)
            task = self._ray.remote(_called).options(num_cpus=0, max_retries=0, scheduling_strategy=on)
            calls[node] = task.remote(machines.look, (root, probe, f"{probe}-{node}"), {})
        mine, faults, blind = machines.facts(), [], []
        try:
            self._ray.wait(list(calls.values()), num_returns=len(calls), timeout=ANSWER_S)
            for node, call in calls.items():
                try:
                    found = self._ray.get(call, timeout=0)
                except self._ray.exceptions.GetTimeoutError:
                    faults.append(f"machine {node[:8]} of the cluster did not answer within {ANSWER_S:.0f} s")
                    continue
                except self._ray.exceptions.RayError as error:
                    last = str(error).strip().splitlines()[-1]
                    faults.append(f"machine {node[:8]} of the cluster cannot call thresher ({last}); install it on all machines")
                    continue
                faults += machines.differences(mine, found)
                if off := machines.apart(asked, found, time.time()):
                    faults.append(off)
                if found.trouble:
                    blind.append(f"{found.machine} cannot write there: {found.trouble}")
                elif found.sees != token or not store.exists(f"{probe}-{node}"):
                    blind.append(f"{found.machine} and {mine.machine} do not see what the other wrote")
        finally:
            for name in (probe, *(f"{probe}-{node}" for node in there)):
                with suppress(StoreError, OSError):
                    store.remove(name)
        if blind:
            raise StoreError(
                f"{root}: {_listed(blind)}; the run directory must be on storage that all machines reach under one name"
            )
        if faults:
            raise EngineError(f"executor: {_listed(faults)}")

    def room(self, *, filters: bool = True) -> dict[str, dict[str, float]]:
        """See that the replicas have room, and a filter beside them; returns the machines. Raises EngineError."""
        there = self._machines()
        if not self._spec.autoscaling:
            self._holds_all(there, filters=filters)
        return there

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of a module on a CPU of the cluster. A machine that is lost is none of its faults: three times it is
        called again elsewhere."""
        with _plain(self._ray, function.__name__):
            found: T = self._ray.get(self._task.remote(function, args, kwargs))
            return found

    @contextmanager
    def engines(
        self, make: Callable[[], AbstractContextManager[Any]], *, slots: Callable[[Any], int], wanted: Callable[[], int | None]
    ) -> "Iterator[Replicas]":
        """An actor for each replica."""
        options = {
            "num_gpus": self._gpus(),
            "num_cpus": self._spec.cpus_per_replica,
            "resources": dict(self._spec.resources_per_replica) or None,
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": 1000,
        }
        actor = self._ray.remote(Holder).options(**options)
        mine = machines.facts()
        held = Replicas(self._ray, lambda: actor.remote(make, slots, mine), self._spec.replicas, wanted)
        try:
            held.ready()
            yield held
        finally:
            held.close()

    def _reachable(self) -> None:
        """Ray itself tries for minutes to reach an address at which there is nobody, and for ever where somebody else is."""
        address, said = self._spec.address or "", ""
        if address == "auto":
            noted = Path(tempfile.gettempdir(), "ray", "ray_current_cluster")  # by the last `ray start` on this machine
            address = os.environ.get("RAY_ADDRESS") or (noted.read_text().strip() if noted.exists() else "")
            said = f" (auto is {address})"
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        if not colon or not port.isdigit():
            return
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S) as there:
                if os.environ.get("RAY_USE_TLS") != "1":
                    there.sendall(GREETING)
                    if there.recv(9)[3:4] != SETTINGS:
                        raise ConnectionError("what answers there is something else")
        except OSError as error:
            raise EngineError(
                f"executor.address {self._spec.address}{said}: no Ray cluster there ({error}); begin one with "
                "`ray start --head`, or set executor.address to null for one of this machine alone"
            ) from error

    def _gpus(self) -> float:
        """Of one replica."""
        if self._spec.gpus_per_replica is not None:
            return self._spec.gpus_per_replica
        found: dict[str, float] = self._ray.cluster_resources()  # type: ignore[no-untyped-call]
        return self._parallel if found.get("GPU", 0) else 0

    def _machines(self) -> dict[str, dict[str, float]]:
        """Machines that offer CPUs or GPUs, by their ids in Ray, and what they offer in all."""
        found = {one["NodeID"]: one["Resources"] for one in self._ray.nodes() if one["Alive"]}  # type: ignore[no-untyped-call]
        return {node: has for node, has in found.items() if has.get("CPU") or has.get("GPU")}

    def _holds_all(self, there: dict[str, dict[str, float]], *, filters: bool) -> None:
        """Raise where the replicas, and a filter beside them, have no room."""
        spec = self._spec
        need = {"CPU": spec.cpus_per_replica, "GPU": self._gpus(), **spec.resources_per_replica}
        fit, beside = machines.room(list(there.values()), need)
        if (beside if filters else fit) >= spec.replicas:
            return
        one = ", ".join(f"{amount:g} {name}" for name, amount in need.items() if amount)
        sums = ", ".join(f"{sum(has.get(name, 0) for has in there.values()):g} {name}" for name, amount in need.items() if amount)
        why = f"it has room for {fit}" if fit < spec.replicas else "no CPU would be left for filters, which take one each"
        raise EngineError(
            f"executor.replicas: {spec.replicas} of {one} each were asked for, and the cluster has {sums} on {len(there)} "
            f"machines: {why}; ask for fewer replicas or less for each (executor.cpus_per_replica, gpus_per_replica), add "
            "machines, or set executor.autoscaling to true where they come when they are wanted"
        )


class Holder:
    """What runs in an actor: one engine, and calls on it from several threads."""

    def __init__(
        self, make: Callable[[], AbstractContextManager[Any]], slots: Callable[[Any], int], driver: machines.Facts
    ) -> None:
        self._make, self._slots, self._driver, self._stack = make, slots, driver, ExitStack()

    def start(self) -> tuple[int, int, str, str]:
        """Open the engine; returns the calls it takes at once, this process, its machine, and its address where it has one. A
        machine that came later than the check must fit too."""
        if faults := machines.differences(self._driver, machines.facts()):
            raise EngineError(f"executor: {_listed(faults)}")
        self._engine = self._stack.enter_context(self._make())
        return self._slots(self._engine), os.getpid(), socket.gethostname(), getattr(self._engine, "url", "")

    def call(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Call function(engine, call, *args)."""
        return function(self._engine, _call, *args)

    def close(self) -> None:
        """Close the engine."""
        self._stack.close()


@dataclass(eq=False)
class Replica:
    """An actor, as the one who began it sees it."""

    actor: Any
    slots: int = 0
    """0 while it starts."""
    pid: int = 0
    machine: str = ""
    url: str = ""
    """Of a server (thresher.executors.fleet)."""
    busy: int = 0
    alone: bool = False
    """Whether a call has it for itself."""
    draining: bool = False

    def takes(self, *, alone: bool) -> bool:
        """Whether it can be given a call now."""
        if not self.slots or self.alone or self.draining:
            return False
        return self.busy == 0 if alone else self.busy < self.slots


class Replicas:
    """The actors, and who is given the next call. Safe to share between threads."""

    in_process = False

    def __init__(self, ray: Any, begin: Callable[[], Any], replicas: int, wanted: Callable[[], int | None]) -> None:
        self._ray, self._begin, self._aim, self._wanted = ray, begin, replicas, wanted
        self._changed = threading.Condition()
        self._all: list[Replica] = []
        self._failure: BaseException | None = None
        self._closed = False
        self._deaths = 0  # since the last call that ended
        for _ in range(replicas):
            self._add()
        self._looking = threading.Thread(target=self._look, daemon=True)
        self._looking.start()

    @property
    def replicas(self) -> int:
        """Replicas that are ready."""
        with self._changed:
            return sum(one.slots > 0 and not one.draining for one in self._all)

    @property
    def members(self) -> list[Replica]:
        """All of them, those that start too."""
        with self._changed:
            return list(self._all)

    def ready(self) -> None:
        """Wait for the first to be ready; raises what kept all of them from it."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure or any(one.slots for one in self._all))
            if self._failure:
                raise self._failure

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call function(engine, call, *args) on a replica; again, on another, when it is lost."""
        deaths = 0
        while True:
            alone = deaths >= SUSPECT
            replica = self._take(alone=alone)
            try:
                with _plain(self._ray, function.__name__):
                    found: T = self._ray.get(replica.actor.call.remote(function, args))
                self._deaths = 0
                return found
            except LostError as error:
                deaths += 1
                self._lost(replica, str(error))
                if alone:
                    raise DeadlyError(
                        f"{function.__name__}{args[1:]}: the engine's process died of it {deaths} times, the last time with "
                        "nothing else to do; what is finished is kept"
                    ) from error
            finally:
                self._give(replica)

    def close(self) -> None:
        """End all replicas; calls that wait raise EngineError."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            members, self._all = self._all, []
            self._changed.notify_all()
        self._looking.join(timeout=LOOK_S)
        with suppress(Exception):  # what does not end in time is killed
            ending = [one.actor.close.remote() for one in members if one.slots]
            self._ray.wait(ending, num_returns=len(ending), timeout=20)
        for one in members:
            with suppress(Exception):
                self._ray.kill(one.actor)

    # -- inside

    def _add(self) -> None:
        with self._changed:
            if self._closed:
                return
            replica = Replica(self._begin())
            self._all.append(replica)
        threading.Thread(target=self._start, args=(replica,), daemon=True).start()

    def _start(self, replica: Replica) -> None:
        """Wait until an actor has its engine; begin it anew when it dies before that."""
        for left in reversed(range(STARTS)):
            fault: BaseException
            try:
                with _plain(self._ray, "the start of a replica"):
                    slots, pid, machine, url = self._ray.get(replica.actor.start.remote())
            except LostError as error:
                fault = EngineError(f"the process of an engine died {STARTS} times while it started: {error}")
                if replica not in self.members:
                    return  # there is no use for it any more, and it was killed for that
                if left:
                    replica.actor = self._begin()
                    continue
            except Exception as error:  # noqa: BLE001 - shown to whoever waits for replicas
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
                self._aim -= 1  # one that would not start is not tried for ever
            if not self._all and not self._closed:
                self._failure = fault
            elif not self._closed:
                log.warning("a replica would not start: %s", fault)
            self._changed.notify_all()

    def _take(self, *, alone: bool) -> Replica:
        with self._changed:
            while True:
                if self._failure:
                    raise self._failure
                if self._closed:
                    raise EngineError("the engines are closed")
                free = [one for one in self._all if one.takes(alone=alone)]
                if free:
                    found = max(free, key=lambda one: one.slots - one.busy)
                    found.busy += 1
                    found.alone = alone
                    return found
                self._changed.wait(LOOK_S)

    def _give(self, replica: Replica) -> None:
        with self._changed:
            replica.busy -= 1
            replica.alone = False
            self._changed.notify_all()

    def _lost(self, replica: Replica, why: str) -> None:
        """Begin another in its place, once for all calls that were under way on it."""
        with self._changed:
            if replica not in self._all or self._closed:
                return
            self._all.remove(replica)
            self._deaths += 1
            if self._deaths > 10:
                self._failure = EngineError(f"{self._deaths} engines died with no shard finished between them; the last: {why}")
                self._changed.notify_all()
                return
            self._add()  # at once, or `_look` would find one too few and begin another
        log.warning("a replica on %s (process %d) is lost: %s; another is begun", replica.machine, replica.pid, why)
        with suppress(Exception):
            self._ray.kill(replica.actor)

    def _look(self) -> None:
        """Bring the number of replicas to what is wanted, and say when some wait for room."""
        said, asked = time.monotonic(), None
        while not self._closed:
            with self._changed:
                self._changed.wait(LOOK_S)
            with suppress(ThresherError, OSError):
                if (wanted := self._wanted()) != asked and wanted:
                    asked, self._aim = wanted, wanted
            with self._changed:
                there = [one for one in self._all if not one.draining]
                for one in sorted(there, key=lambda one: (one.slots > 0, one.busy))[: max(0, len(there) - self._aim)]:
                    one.draining = True
                done = [one for one in self._all if one.draining and one.busy == 0]
                for one in done:
                    self._all.remove(one)
                for _ in range(self._aim - len(there)):
                    self._add()
                waiting = sum(one.slots == 0 for one in self._all)
            for one in done:
                with suppress(Exception):
                    self._ray.wait([one.actor.close.remote()], timeout=20)
                    self._ray.kill(one.actor)
            if waiting and time.monotonic() - said > SAY_S:
                said = time.monotonic()
                log.warning("%d of %d replicas start or wait for room in the cluster", waiting, self._aim)


def _listed(faults: list[str]) -> str:
    more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
    return "; ".join(faults[:5]) + more


class LostError(Exception):
    """The process or the machine of an actor is gone."""


@contextmanager
def _plain(ray: Any, what: str) -> Iterator[None]:
    """Raise a function's own error as it was raised there, and LostError where there is nobody left to answer."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, Exception) else EngineError(f"{what} failed on the cluster: {error}")) from None
    except (ray.exceptions.RayActorError, ray.exceptions.ActorUnavailableError) as error:
        raise LostError(str(error).strip().splitlines()[0]) from error
    except ray.exceptions.RayError as error:
        raise EngineError(f"{what}: Ray could not do it: {str(error).strip().splitlines()[0]}") from error


def address_here() -> str:
    """This machine's address in the cluster."""
    import ray

    found: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return found


def _called(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return function(*args, **kwargs)


def _call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """RayExecutor.call, from inside an actor."""
    import ray

    with _plain(ray, function.__name__):
        found: T = ray.get(ray.remote(_called).options(num_cpus=1, max_retries=3).remote(function, args, kwargs))
        return found
