"""The Ray executor: an actor for each replica of the engine, which stays warm, and tasks on the cluster's CPUs for filters.

Only module-level functions and names of shards are sent. Samples go from the actors to the run directory, which all machines must
reach under one name. An actor that is lost (its process or its machine) is replaced, and its calls are repeated elsewhere: a
shard's journal has the samples that were already drawn.

Actors belong to the process that started them: when it is killed, Ray ends them. No other state of Ray is used.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from filters import trust
from schemas.engines import Engine, VllmEngine
from schemas.executors import RayExecutorSpec
from thresher.executors import machines, ray_cluster
from thresher.executors.executor import Executor
from thresher.executors.ray_calls import filter_task, translated
from thresher.executors.ray_replicas import EngineActor, Replicas

P = ParamSpec("P")
T = TypeVar("T")

CALLS_PER_ACTOR = 1000
"""Threads of an actor: more than any engine takes calls at the same time."""


@contextmanager
def own_sigterm() -> Iterator[None]:
    """Keep this process's handler of SIGTERM, which Ray replaces by one that exits with 1 wherever the process is."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


class RayExecutor(Executor):
    """Filters as tasks of one CPU each, engines as actors. Joins the cluster at `address` (`auto`: the one of this machine), or
    starts one on this machine where it is null. Raises EngineError where there is none."""

    def __init__(self, spec: RayExecutorSpec, filter_workers: int, *, engine: Engine) -> None:
        self.workers = max(1, filter_workers)
        self._spec = spec
        self._parallel = engine.devices if isinstance(engine, VllmEngine) else 0
        self._joined = False

    def __enter__(self) -> "RayExecutor":
        self._ray = ray_cluster.import_ray()
        if not self._ray.is_initialized():
            with own_sigterm():
                ray_cluster.join(self._ray, self._spec.address)
            self._joined = True
        self._task = filter_task(self._ray)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._joined:
            self._ray.shutdown()

    def check(self, root: str) -> None:
        """Check the room for all replicas, and that each machine has the same software, a correct clock and the run directory.
        Raises EngineError, StoreError."""
        ray_cluster.check_machines(self._ray, self.check_room(), root)

    def check_room(self, *, filters: bool = True) -> dict[str, ray_cluster.Resources]:
        """Check that the replicas have room, and with `filters` a filter worker beside them; return the machines. Raises
        EngineError."""
        nodes = ray_cluster.machines_of(self._ray)
        if not self._spec.autoscaling:
            ray_cluster.check_room(nodes, self._spec, self._gpus(), filters=filters)
        return nodes

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a module-level function on a CPU of the cluster. If its machine is lost, the call is repeated up to three
        times."""
        with translated(self._ray, function.__name__):
            result: T = self._ray.get(self._task.remote(function, args, kwargs, trust.consent()))
            return result

    @contextmanager
    def engines(
        self, make: Callable[[], AbstractContextManager[Any]], *, slots: Callable[[Any], int], wanted: Callable[[], int | None]
    ) -> "Iterator[Replicas]":
        """Hold an actor for each replica."""
        options = {
            "num_gpus": self._gpus(),
            "num_cpus": self._spec.cpus_per_replica,
            "resources": dict(self._spec.resources_per_replica) or None,
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": CALLS_PER_ACTOR,
        }
        actor = self._ray.remote(EngineActor).options(**options)
        driver, consent = machines.facts(), trust.consent()
        replicas = Replicas(self._ray, lambda: actor.remote(make, slots, driver, consent), self._spec.replicas, wanted)
        try:
            replicas.ready()
            yield replicas
        finally:
            replicas.close()

    def _gpus(self) -> float:
        """GPUs of one replica."""
        if self._spec.gpus_per_replica is not None:
            return self._spec.gpus_per_replica
        offered: dict[str, float] = self._ray.cluster_resources()
        return self._parallel if offered.get("GPU", 0) else 0
