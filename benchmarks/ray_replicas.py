"""Two replicas of the engine on a Ray cluster against one, with one core each and the same total work.

    python benchmarks/ray_replicas.py [--rounds 1] [--set sampling.samples_per_prompt=192]

The raylets are on this machine, each bound to a core and with room for one replica (vLLM on CPU). A round samples and filters
the recipe on one core with one replica, which shares the core with driver and filters, and on two cores with two. Time is
measured from when all replicas are warm until the last shard is filtered, so it does not include the start of engines. It does
include the start of filter processes and the smaller batches at the end, on every core: 20 to 30 s, however much work there is.
The figure to read is (samples/s of two) / (2 x samples/s of one), and how it grows with the work.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from schemas.executors import RayExecutorSpec
from thresher.executors.ray import RayExecutor
from thresher.inputs import recipe_file
from thresher.running import steps
from thresher.running.progress import Progress

REPLICAS = {"one on one core": 1, "two on two cores": 2}


def one_round(loaded: recipe_file.Loaded, address: str, replicas: int, out: Path) -> tuple[float, int]:
    """Samples per second, and the number of samples."""
    spec = RayExecutorSpec(kind="ray", address=address, replicas=replicas, cpus_per_replica=2)
    begun = steps.begin(loaded, out)
    with Progress() as progress, RayExecutor(spec, 2, engine=loaded.recipe.engine) as executor:
        steps.prepare(begun, progress, executor)
        judged_only = steps.JudgedOnly(steps.Plain(begun.run, progress, executor))
        with steps.engines_of(begun.run, progress, executor) as engines:
            while engines.replicas < replicas:
                time.sleep(0.1)
            start = time.perf_counter()
            steps.sample_through(begun, engines, judged_only, progress, executor)
            return progress.samples / (time.perf_counter() - start), progress.samples


def cluster_on(cores: int) -> Any:
    """Start a raylet on each of the first cores, with 3 CPUs in Ray's count: for a replica and a filter. Bind this process to
    these cores, too."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    for core in range(cores):
        os.sched_setaffinity(0, {core})
        cluster.add_node(num_cpus=3, object_store_memory=100 * 2**20, include_dashboard=False)
    os.sched_setaffinity(0, set(range(cores)))
    return cluster


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="data/recipes/demo.yaml")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    loaded = recipe_file.load(options.recipe, ["run.shard_samples=65", "sampling.samples_per_prompt=64", *options.overrides])
    rates: dict[str, list[float]] = {name: [] for name in REPLICAS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            for name, replicas in REPLICAS.items():
                cluster = cluster_on(replicas)
                rate, samples = one_round(loaded, cluster.address, replicas, Path(folder) / f"{number}-{replicas}")
                cluster.shutdown()
                rates[name].append(rate)
                print(f"round {number}, {name}: {samples} samples, {rate:.2f} samples/s", flush=True)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    single, double = medians.values()
    print(json.dumps({"samples_per_s": medians, "share_of_twice": double / (2 * single)}, indent=1))


if __name__ == "__main__":
    main()
