"""The cost of control at a thousand replicas and 1e9 samples: measures the costs per shard here, then simulates the whole run.

    python benchmarks/scale_sim.py [--ray] [--prefect] [--replicas 1000] [--samples 1e9]

Measured on this machine: the loop over shards (threads, futures, progress) with steps that do nothing; a call of an actor
through thresher's Ray executor (--ray); two task runs on a Prefect server (--prefect, started on 127.0.0.1), and the requests
to it; opening a run again (listing and reading the entries of finished shards); the memory that the loop keeps per shard. The
simulation then passes every shard of the run through engines that take as long as the model of their speed says, and through
one driver, one Prefect server and the filter workers, which take the measured times. It prints how busy each is, and which is
saturated first. Times are those of this machine; the ratios are what to read.
"""

import argparse
import heapq
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from schemas.sample import PROMPTS
from thresher.pool import judged as pool
from thresher.pool.store import Store, shard_name
from thresher.running.progress import Progress
from thresher.running.shard_loop import overlap

SHARD_SAMPLES = 2048
DROPPED = {"host", "content-length", "connection", "accept-encoding"}
IN_FLIGHT = 2000
"""Shards of a thousand replicas, two each."""


@dataclass(frozen=True)
class Cost:
    """Costs of one shard, in seconds of one core except for `requests` and `kept_bytes`."""

    loop_s: float
    """The driver's loop, both steps."""
    ray_s: float = 0.0
    """The driver's share of a call of an actor and of a filter task."""
    prefect_s: float = 0.0
    """The Prefect server's share of two task runs."""
    prefect_driver_s: float = 0.0
    """The driver's share of two task runs."""
    requests: float = 0.0
    """Requests to the Prefect server."""
    open_s: float = 0.0
    """Recognising a finished shard when a run is opened again."""
    kept_bytes: float = 0.0
    """Memory that the driver keeps."""


# -- measuring ---------------------------------------------------------------------------------------------------------------


def loop_cost(shards: int) -> tuple[float, float]:
    """Processor seconds of the loop per shard, and bytes kept, with steps that do nothing."""
    progress = Progress()

    def loop(count: int) -> float:
        start = time.process_time()
        overlap(
            range(count),
            range(count),
            sample=lambda _: None,
            judge=lambda shard: progress.judged(shard, 1),
            judges=8,
            in_flight=lambda: IN_FLIGHT,
            stop=lambda: None,
            enough=lambda: False,
        )
        return time.process_time() - start

    loop(1000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spent = loop(shards)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return spent / shards, 1024 * grown / shards


def open_cost(shards: int) -> float:
    """Seconds per finished shard to recognise it, on a local disk."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        store.write_table("samples/00000", PROMPTS.empty_table(), key="k", facts={})
        text, data = Path(folder, "samples/00000.json").read_text(), Path(folder, "samples/00000.parquet").read_bytes()
        for shard in range(1, shards):
            Path(folder, f"samples/{shard_name(shard)}.parquet").write_bytes(data)
            Path(folder, f"samples/{shard_name(shard)}.json").write_text(text.replace("00000", shard_name(shard)))
        start = time.perf_counter()
        assert len(pool.sampled(store)) == shards
        for shard in range(shards):
            assert store.finished(f"samples/{shard_name(shard)}", "k", hashed=False)
        return (time.perf_counter() - start) / shards


@contextmanager
def idle_engine() -> Iterator[str]:
    yield "engine"


def slots(_engine: str) -> int:
    return 64


def do_nothing(_engine: str, _call: Any) -> None:
    return None


def ray_cost(shards: int) -> float:
    """The driver's processor seconds per shard: one call of an actor and one filter task."""
    from schemas.engines import ReplayEngine
    from schemas.executors import RayExecutorSpec
    from thresher.executors.ray import RayExecutor

    spec = RayExecutorSpec(kind="ray", address=None, replicas=1, cpus_per_replica=0.5)
    with (
        RayExecutor(spec, 1, engine=ReplayEngine(kind="replay", path="")) as executor,
        executor.engines(idle_engine, slots=slots, wanted=lambda: None) as engines,
        ThreadPoolExecutor(32) as threads,
    ):

        def both(_: int) -> None:
            engines.call(do_nothing)
            executor.call(len, ())

        list(threads.map(both, range(64)))
        start = time.process_time()
        list(threads.map(both, range(shards)))
        return (time.process_time() - start) / shards


class Counter(BaseHTTPRequestHandler):
    """Forwards requests to a Prefect server, and counts them."""

    target: ClassVar[str] = ""
    count: ClassVar[int] = 0
    lock: ClassVar[threading.Lock] = threading.Lock()
    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        with Counter.lock:
            Counter.count += 1
        kept = {name: value for name, value in self.headers.items() if name.lower() not in DROPPED}
        request = urllib.request.Request(self.target + self.path, data=body or None, headers=kept, method=self.command)
        try:
            with urllib.request.urlopen(request) as answer:
                status, data, kind = answer.status, answer.read(), answer.headers.get("content-type")
        except urllib.error.HTTPError as error:
            status, data, kind = error.code, error.read(), error.headers.get("content-type")
        self.send_response(status)
        self.send_header("content-type", kind or "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _pass  # noqa: N815 - http.server's names

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


_FLOW = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from prefect import flow
from flows.judge import compare_part
import contextvars
class Idle:
    def call(self, function, *arguments): return None
@flow(name="nothing")
def nothing(count):
    start = time.process_time()
    with ThreadPoolExecutor(8) as threads:
        futures = []
        for n in range(count):
            run = contextvars.copy_context().run
            futures.append(threads.submit(run, compare_part, f"part-{n}", len, (), Idle()))
        [future.result() for future in futures]
    print(time.process_time() - start)
nothing(int(sys.argv[1]))
"""


def prefect_cost(tasks: int) -> tuple[float, float, float]:
    """Return what two task runs cost: processor seconds of the server and of the driver, and requests."""
    home = tempfile.mkdtemp(prefix="prefect-")
    port = random.randrange(20000, 40000)
    environment = os.environ | {
        "PREFECT_HOME": home, "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "CRITICAL", "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    }  # fmt: skip
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with open(f"{home}/server.log", "wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health").close()
                break
            except OSError:
                time.sleep(0.5)
        Counter.target = f"http://127.0.0.1:{port}"
        proxy = ThreadingHTTPServer(("127.0.0.1", 0), Counter)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        # Requests are counted through the proxy, which cannot forward the socket of events; time is measured without it.
        by_proxy, direct = f"http://127.0.0.1:{proxy.server_address[1]}/api", f"http://127.0.0.1:{port}/api"

        def flow(count: int, url: str) -> float:
            process = subprocess.run(
                [sys.executable, "-c", _FLOW, str(count)], env=environment | {"PREFECT_API_URL": url}, check=False,
                capture_output=True, text=True,
            )  # fmt: skip
            if process.returncode:
                raise RuntimeError(f"the flow failed: {process.stderr[-2000:]}")
            return float(process.stdout.split()[-1])

        requests = []
        for count in (2, 52):
            Counter.count = 0
            flow(count, by_proxy)
            requests.append(Counter.count)
        flow(2, direct)
        before = cpu_of(server.pid)
        driver = flow(tasks, direct)
        time.sleep(10)  # The server continues to write for a while.
        spent = cpu_of(server.pid) - before
        proxy.shutdown()
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
    return 2 * spent / tasks, 2 * driver / tasks, 2 * (requests[1] - requests[0]) / 50


def cpu_of(pid: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# -- the simulation ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """The simulated run."""

    replicas: int
    samples: float
    tokens: float
    """Mean tokens of a sample."""
    tokens_per_s: float
    """Speed of one replica."""
    filter_s: float
    """Core seconds of filters per sample."""
    filter_workers: int
    slots: int
    """Shards that a replica works on at the same time."""

    @property
    def shards(self) -> int:
        return round(self.samples / SHARD_SAMPLES)

    @property
    def shard_s(self) -> float:
        """Seconds of a replica's work per shard."""
        return SHARD_SAMPLES * self.tokens / self.tokens_per_s


def simulate(plan: Plan, cost: Cost, shards: int, *, prefect: bool, seed: int = 0) -> dict[str, float]:
    """Pass `shards` shards through; return the seconds it took, and the share of them that each resource was busy.

    The driver and Prefect's server take shards one after the other. A replica works on up to `slots` shards at the same time,
    each at its share of the replica's speed, which is equal to one at a time. Lengths vary: a shard takes lognormal(0, 0.2) of
    the mean.
    """
    generator = random.Random(seed)
    driver = server = 0.0  # When each is free.
    busy = dict.fromkeys(("replicas", "driver", "prefect", "filters"), 0.0)
    per_driver = cost.loop_s + cost.ray_s + (cost.prefect_driver_s if prefect else 0.0)
    free = [0.0] * plan.replicas  # When each replica has finished its shards.
    heapq.heapify(free)
    filters = [0.0] * plan.filter_workers
    heapq.heapify(filters)
    in_flight: list[float] = []  # When shards in flight are sampled.
    end = 0.0
    for _ in range(shards):
        if len(in_flight) >= plan.replicas * plan.slots:
            driver = max(driver, heapq.heappop(in_flight))
        driver += per_driver
        busy["driver"] += per_driver
        if prefect:
            server = max(server, driver) + cost.prefect_s
            busy["prefect"] += cost.prefect_s
        work = plan.shard_s * generator.lognormvariate(-0.02, 0.2)
        sampled = max(heapq.heappop(free), driver, server if prefect else 0.0) + work
        busy["replicas"] += work
        heapq.heappush(free, sampled)
        judged = max(heapq.heappop(filters), sampled) + plan.filter_s * SHARD_SAMPLES
        busy["filters"] += plan.filter_s * SHARD_SAMPLES
        heapq.heappush(filters, judged)
        heapq.heappush(in_flight, sampled)
        end = max(end, judged)
    many = {"replicas": plan.replicas, "filters": plan.filter_workers}
    return {"seconds": end, **{name: spent / end / many.get(name, 1) for name, spent in busy.items()}}


def limits(plan: Plan, cost: Cost) -> dict[str, float]:
    """The number of replicas at which the driver and the Prefect server are saturated."""
    driver, both = cost.loop_s + cost.ray_s, cost.loop_s + cost.ray_s + cost.prefect_driver_s
    replicas = {"driver": plan.shard_s / driver}
    if cost.prefect_s:
        replicas |= {"driver with Prefect": plan.shard_s / both, "Prefect server": plan.shard_s / cost.prefect_s}
    return replicas


def main() -> None:
    """Measure, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=1000)
    parser.add_argument("--samples", type=float, default=1e9)
    parser.add_argument("--tokens", type=float, default=500, help="mean tokens of a sample")
    parser.add_argument("--tokens-per-s", type=float, default=5000, help="of one replica")
    parser.add_argument("--filter-ms", type=float, default=1.0, help="core milliseconds of filters per sample")
    parser.add_argument("--shards", type=int, default=200_000, help="simulated shards, at most")
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--prefect", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    loop_s, kept = loop_cost(100_000)
    server_s, driver_s, requests = prefect_cost(400) if options.prefect else (0.0, 0.0, 0.0)
    cost = Cost(loop_s, ray_cost(2000) if options.ray else 0.0, server_s, driver_s, requests, open_cost(5000), kept)
    rate = options.replicas * options.tokens_per_s / options.tokens  # samples/s
    workers = max(1, round(1.25 * rate * options.filter_ms / 1000))
    plan = Plan(
        options.replicas, options.samples, options.tokens, options.tokens_per_s, options.filter_ms / 1000, workers, slots=2
    )
    ways = {"without Prefect": False} | ({"with Prefect": True} if options.prefect else {})
    shards = min(options.shards, plan.shards)
    busy = {name: simulate(plan, cost, shards, prefect=prefect) for name, prefect in ways.items()}
    report = {
        "cost_per_shard": asdict(cost),
        "shards": plan.shards,
        "shard_s": plan.shard_s,
        "filter_workers": workers,
        "simulated_shards": shards,
        "busy": busy,
        "full_at_replicas": limits(plan, cost),
        "opening_again_s": cost.open_s * plan.shards,
        "driver_keeps_mb": cost.kept_bytes * plan.shards / 1e6,
        "requests_per_shard": requests,
    }
    if options.json:
        print(json.dumps(report, indent=1))
        return
    for name, value in report.items():
        print(f"{name}: {json.dumps(value, indent=1) if isinstance(value, dict) else value}")


if __name__ == "__main__":
    main()
