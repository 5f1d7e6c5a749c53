"""Filter the sampled shards of a run."""

from collections.abc import Callable, Sequence
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from thresher.executors.executor import Executor
from thresher.executors.local import LocalExecutor
from thresher.pool import judged
from thresher.pool.store import Store
from thresher.run import steps


@task(task_run_name="winnow-{shard}", cache_policy=NO_CACHE, persist_result=False)
def winnow_shard(root: str, shard: int, executor: Executor) -> dict[str, Any]:
    """Filter one shard, in a process of its own."""
    return executor.apart(steps.winnow_shard, root, shard).model_dump()


@task(task_run_name="winnow-corpus", cache_policy=NO_CACHE, persist_result=False)
def winnow_corpus(root: str, executor: Executor) -> int:
    """Run the filters that must see every sample."""

    def each(function: Callable[..., None], items: Sequence[tuple[Any, ...]]) -> None:
        step = function.__name__
        executor.each(lambda item: compare_part(f"{step}-{item[0]}", function, item[1], executor), enumerate(items))

    return steps.winnow_corpus(root, each)


@task(task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False, retries=2, retry_delay_seconds=2)
def compare_part(
    name: str,  # noqa: ARG001 - of the task run
    function: Callable[..., None],
    arguments: tuple[Any, ...],
    executor: Executor,
) -> None:
    """A part of the search for duplicates in a run that has more samples than memory holds (thresher.dedupe.out_of_core)."""
    executor.apart(function, *arguments)


@flow(name="thresher-winnow")
def winnow(root: str, workers: int = 1) -> str:
    """Filter all sampled shards of a run again where the recipe's filters changed; returns the run directory."""
    with LocalExecutor(workers) as executor:
        executor.overlap(
            [],
            judged.sampled(Store(root)),
            lambda shard: None,
            lambda shard: winnow_shard(root, shard, executor),
            in_flight=lambda: 1,
        )
        winnow_corpus(root, executor)
    return root
