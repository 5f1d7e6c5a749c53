"""Filter the sampled shards of a run."""

from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from thresher import pool, steps
from thresher.executors.local import LocalExecutor
from thresher.store import Store


@task(task_run_name="winnow-{shard}", cache_policy=NO_CACHE, persist_result=False)
def winnow_shard(root: str, shard: int, executor: LocalExecutor) -> dict[str, Any]:
    """Filter one shard, in a process of its own."""
    return executor.apart(steps.winnow_shard, root, shard).model_dump()


@task(task_run_name="winnow-corpus", cache_policy=NO_CACHE, persist_result=False)
def winnow_corpus(root: str) -> int:
    """Run the filters that must see every sample."""
    return steps.winnow_corpus(root)


@flow(name="thresher-winnow")
def winnow(root: str, workers: int = 1) -> str:
    """Filter all sampled shards of a run again where the recipe's filters changed; returns the run directory."""
    with LocalExecutor(workers) as executor:
        executor.overlap(
            [],
            pool.sampled(Store(root)),
            lambda shard: None,
            lambda shard: winnow_shard(root, shard, executor),
            in_flight=1,
        )
    winnow_corpus(root)
    return root
