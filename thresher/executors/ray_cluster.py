"""A Ray cluster before any engine starts: joins it, and checks its room and its machines."""

import logging
import os
import socket
import tempfile
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filters import trust
from schemas.executors import RayExecutorSpec
from thresher.errors import EngineError, StoreError
from thresher.executors import machines
from thresher.executors.ray_calls import called
from thresher.pool.store import Store

REACH_S = 10.0
"""Seconds that a cluster has to accept a connection."""
PREFACE, SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5), b"\x04"
"""The first bytes of an HTTP/2 client, and the type of the frame with which a server such as Ray's answers (RFC 9113, 3.4)."""
ANSWER_S = 120.0
"""Seconds that machines have to answer a check."""
OLDEST = (2, 55)
"""The oldest version of Ray that was tested."""

Resources = Mapping[str, float]
"""Amounts of CPU, GPU and custom resources, by name."""


def import_ray() -> Any:
    """Import Ray. Raises EngineError where it is missing or too old."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise EngineError(f"executor: Ray cannot be imported ({error}); run `pip install 'thresher[ray]'`") from error
    if tuple(int(part) for part in ray.__version__.split(".")[:2]) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise EngineError(f"executor: Ray {ray.__version__} is too old, wanted is {wanted} or later: pip install 'thresher[ray]'")
    return ray


def join(ray: Any, address: str | None) -> None:
    """Join the cluster at `address`, or start one on this machine for null. Raises EngineError where there is no cluster, and for
    one elsewhere that the user has not allowed."""
    try:
        refused = trust.refused_cluster(address)
    except trust.ConfigError as error:
        raise EngineError(str(error)) from error
    if refused is not None:
        raise EngineError(f"executor.address: {refused}")
    _check_reachable(address)
    options: dict[str, Any] = {} if address else {"include_dashboard": False}
    try:
        # Without an address Ray would take that of the last cluster that was started here, which may be gone.
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if "ersion mismatch" in str(error):
            raise EngineError(f"executor.address {address}: {' '.join(str(error).split())}") from error
        hint = "; a cluster with authentication needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, here as where it was started"
        raise _no_cluster(f"executor.address {address}", str(error).splitlines()[0], hint) from error


def machines_of(ray: Any) -> dict[str, Resources]:
    """Return the machines that offer CPUs or GPUs, by their ids in Ray, with all that they offer."""
    alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    return {node: offered for node, offered in alive.items() if offered.get("CPU") or offered.get("GPU")}


def check_room(nodes: Mapping[str, Resources], spec: RayExecutorSpec, gpus: float, *, filters: bool) -> None:
    """Check that the replicas have room, and with `filters` a filter worker beside them. Raises EngineError."""
    need = {"CPU": spec.cpus_per_replica, "GPU": gpus, **spec.resources_per_replica}
    fit, fit_with_filters = machines.room(list(nodes.values()), need)
    if (fit_with_filters if filters else fit) >= spec.replicas:
        return
    needed = ", ".join(f"{amount:g} {name}" for name, amount in need.items() if amount)
    offered = ", ".join(
        f"{sum(node.get(name, 0) for node in nodes.values()):g} {name}" for name, amount in need.items() if amount
    )
    cause = f"it has room for {fit}" if fit < spec.replicas else "no CPU would be left for filters, which take one each"
    raise EngineError(
        f"executor.replicas: wanted {spec.replicas} of {needed} each, and the cluster has {offered} on {len(nodes)} machines: "
        f"{cause}; ask for fewer replicas or less for each (executor.cpus_per_replica, gpus_per_replica), add machines, or set "
        "executor.autoscaling to true if machines are added on demand"
    )


def check_machines(ray: Any, nodes: Mapping[str, Resources], root: str) -> None:
    """Check that each machine has the same thresher, Python and vLLM, a correct clock, and the run directory.

    A probe in the run directory is read and answered by every machine. Raises EngineError, StoreError.
    """
    store, probe, token = Store(root), f"{machines.PROBE}-{uuid.uuid4().hex}", socket.gethostname()
    store.write_bytes(probe, token.encode())
    asked, sent = time.time(), trust.consent()
    calls = {node: _look_task(ray, node).remote(machines.look, (root, probe, f"{probe}-{node}"), {}, sent) for node in nodes}
    own, faults, blind = machines.facts(), [], []
    try:
        ray.wait(list(calls.values()), num_returns=len(calls), timeout=ANSWER_S)
        for node, call in calls.items():
            try:
                facts = ray.get(call, timeout=0)
            except ray.exceptions.GetTimeoutError:
                faults.append(f"machine {node[:8]} of the cluster did not answer within {ANSWER_S:.0f} s")
                continue
            except ray.exceptions.RayError as error:
                last = str(error).strip().splitlines()[-1]
                faults.append(f"machine {node[:8]} of the cluster cannot call thresher ({last}); install it on all machines")
                continue
            faults += machines.differences(own, facts)
            if clock := machines.clock_fault(asked, facts, time.time()):
                faults.append(clock)
            if facts.trouble:
                blind.append(f"{facts.machine} cannot write there: {facts.trouble}")
            elif facts.sees != token or not store.exists(f"{probe}-{node}"):
                blind.append(f"{facts.machine} and {own.machine} do not see what the other wrote")
    finally:
        for name in (probe, *(f"{probe}-{node}" for node in nodes)):
            with suppress(StoreError, OSError):
                store.remove(name)
    if blind:
        raise StoreError(f"{root}: {listed(blind)}; the run directory must be on storage that all machines reach under one name")
    if faults:
        raise EngineError(f"executor: {listed(faults)}")


def listed(faults: list[str]) -> str:
    """Join up to five faults, and count the rest."""
    more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
    return "; ".join(faults[:5]) + more


def _look_task(ray: Any, node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    on_node = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(called).options(num_cpus=0, max_retries=0, scheduling_strategy=on_node)


def _check_reachable(given: str | None) -> None:
    """Raise EngineError where nothing, or another program, answers at the address. Ray itself would try for minutes to reach an
    address without a server, and forever where another program listens."""
    address, note = given or "", ""
    if address == "auto":
        last = Path(tempfile.gettempdir(), "ray", "ray_current_cluster")  # Written by the last `ray start` on this machine.
        address = os.environ.get("RAY_ADDRESS") or (last.read_text().strip() if last.exists() else "")
        note = f" (auto is {address})"
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S) as connection:
            if os.environ.get("RAY_USE_TLS") != "1":
                connection.sendall(PREFACE)
                if connection.recv(9)[3:4] != SETTINGS:
                    raise ConnectionError("another program answers there")
    except OSError as error:
        raise _no_cluster(f"executor.address {given}{note}", str(error)) from error


def _no_cluster(address: str, cause: str, hint: str = "") -> EngineError:
    return EngineError(
        f"{address}: no Ray cluster there ({cause}); start one with `ray start --head`, or set executor.address to null for a "
        f"cluster of this machine only{hint}"
    )
