"""The flow that judges the sampled shards of a run, and the tasks of judging."""

from collections.abc import Callable, Sequence
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.generate import not_stopped
from flows.parameters import check_places, check_roots
from thresher.executors.executor import Executor, map_threads
from thresher.executors.local import LocalExecutor
from thresher.pool.run import open_run
from thresher.running import steps
from thresher.running.progress import Progress


@task(task_run_name="winnow-{shard}", cache_policy=NO_CACHE, persist_result=False)
def judge_shard(plain: steps.Plain, shard: int) -> dict[str, Any]:
    """Judge one shard on a filter worker."""
    return plain.judge(shard)


@task(task_run_name="winnow-corpus", cache_policy=NO_CACHE, persist_result=False)
def compare(plain: steps.Plain) -> None:
    """Run the filters that need every sample; the parts of a large search for duplicates are task runs of their own."""
    executor = plain.executor

    def map_parts(function: Callable[..., Any], items: Sequence[tuple[Any, ...]]) -> list[Any]:
        parts = [(f"{function.__name__}-{number}", function, item, executor) for number, item in enumerate(items)]
        return map_threads(compare_part, parts, threads=executor.workers, stop=executor.stop)

    steps.compare(plain.run, map_parts)


@task(
    task_run_name="{name}",
    retries=2,
    retry_delay_seconds=2,
    retry_condition_fn=not_stopped,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def compare_part(
    name: str,  # noqa: ARG001 - the name of the task run
    function: Callable[..., None],
    arguments: tuple[Any, ...],
    executor: Executor,
) -> None:
    """One part of the search for duplicates in a run whose signatures do not fit in memory (thresher.dedupe.out_of_core)."""
    executor.call(function, *arguments)


class JudgeSteps:
    """The steps of a run as Prefect tasks, as far as judging goes (thresher.running.steps.Steps)."""

    def __init__(self, plain: steps.Plain) -> None:
        self.plain = plain

    def sample(self, shard: int, engines: Any) -> Any:
        return self.plain.sample(shard, engines)

    def judge(self, shard: int) -> dict[str, Any]:
        return judge_shard(self.plain, shard)

    def compare(self) -> None:
        compare(self.plain)

    def finish(self) -> steps.Finished:
        return self.plain.finish()


@flow(name="thresher-winnow")
def winnow(root: str, workers: int = 1) -> str:
    """Judge all sampled shards of a run by its current filters; returns the run directory. Verdicts that still hold are kept."""
    check_roots(root)
    run = open_run(root)
    check_places(run.recipe, run.base)
    with LocalExecutor(workers) as executor:
        plain = steps.Plain(run, Progress(), executor)
        steps.judge_again(plain.run, JudgeSteps(plain), executor)
    return root
