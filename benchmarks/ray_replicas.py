"""Two replicas of the engine on a Ray cluster against one, a core each, the same total work.

    python benchmarks/ray_replicas.py [--rounds 2] [--set sampling.samples_per_prompt=16]

Two raylets on this machine, each bound to one core and with room for one replica (vLLM on CPU). A round samples and filters the
recipe, in shards of 34 samples, with one replica and then with two; the clock runs from when all replicas are warm until the last
shard is filtered, so the start of engines is not in it. The driver and the filters share those cores, as they would anywhere.
The ratio to read is (samples/s of two) / (2 x samples/s of one).
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from schemas.recipe import RayExecutorSpec
from thresher import recipes, steps
from thresher.executors.ray import RayExecutor
from thresher.progress import Progress

CORES = (0, 1)


def one_round(loaded: recipes.Loaded, address: str, replicas: int, out: Path) -> tuple[float, int]:
    """Samples per second, and how many samples."""
    spec = RayExecutorSpec(kind="ray", address=address, replicas=replicas, cpus_per_replica=2)
    begun = steps.begin(loaded, out)
    with Progress() as progress, RayExecutor(spec, len(CORES), engine=loaded.recipe.engine) as executor:
        progress.begin(begun)
        with steps.engines_of(begun, progress, executor) as engines:
            while engines.replicas < replicas:
                time.sleep(0.1)
            began = time.perf_counter()
            steps.through(
                begun,
                engines,
                progress,
                executor,
                sample=lambda shard, found: steps.sample_on(found, begun.root, shard, progress),
                winnow=lambda shard: executor.apart(steps.winnow_shard, begun.root, shard).model_dump(),
            )
            return progress.samples / (time.perf_counter() - began), progress.samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="data/recipes/demo.yaml")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    every = os.sched_getaffinity(0)
    for core in CORES:  # 3 CPUs: one replica, and one filter beside it
        os.sched_setaffinity(0, {core})
        cluster.add_node(num_cpus=3, object_store_memory=100 * 2**20, include_dashboard=False)
    os.sched_setaffinity(0, every)
    rates: dict[int, list[float]] = {1: [], 2: []}
    loaded = recipes.load(options.recipe, ["run.shard_samples=34", *options.overrides])
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            for replicas, found in rates.items():
                rate, samples = one_round(loaded, cluster.address, replicas, Path(folder) / f"{number}-{replicas}")
                found.append(rate)
                print(f"round {number}, {replicas} replicas: {samples} samples, {rate:.2f} samples/s", flush=True)
    one, two = (statistics.median(rates[replicas]) for replicas in (1, 2))
    print(json.dumps({"samples_per_s": {"one": one, "two": two}, "share_of_twice_one": two / (2 * one)}, indent=1))
    cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
