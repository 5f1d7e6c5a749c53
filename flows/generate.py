"""Sample the shards of a recipe that lack samples."""

from inspect import isawaitable
from typing import Any

from prefect import State, Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun

from thresher import recipes, steps
from thresher.errors import EngineError
from thresher.executors.local import LocalExecutor
from thresher.progress import Progress
from thresher.samplers.base import Sampler


async def engine_failed(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Try again after an engine's failure; bad input would only fail again."""
    found: Any = state.result(raise_on_failure=False)
    return isinstance(await found if isawaitable(found) else found, EngineError)


@task(
    task_run_name="sample-{shard}",
    retries=2,
    retry_delay_seconds=2,
    retry_condition_fn=engine_failed,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def sample_shard(root: str, shard: int, sampler: Sampler, progress: Progress) -> dict[str, Any]:
    """Sample one shard; what is done is read from the run directory, never from Prefect."""
    return steps.sample_shard(root, shard, sampler, progress).model_dump()


@flow(name="thresher-generate", validate_parameters=True)
def generate(recipe: str, out: str | None = None, overrides: list[str] | None = None, salt: str | None = None) -> str:
    """Sample a recipe into its run directory, without filtering; returns the directory."""
    begun = steps.begin(recipes.load(recipe, overrides or ()), out, salt=salt)
    with Progress() as progress, LocalExecutor(0) as executor:
        steps.drive(begun, progress, executor, sample=sample_shard, winnow=lambda shard: None)
    return begun.root
