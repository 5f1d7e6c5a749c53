"""The flow that samples a recipe and judges nothing."""

import contextvars
import logging
from concurrent.futures import ThreadPoolExecutor
from inspect import isawaitable
from pathlib import Path
from typing import Any

from prefect import State, Task, flow, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun

from flows.parameters import check_roots
from flows.reporting import if_it_can
from thresher.errors import DeadlyError, EngineError, StoppedError
from thresher.executors import open_executor
from thresher.executors.executor import Engines
from thresher.inputs import recipe_file
from thresher.running import steps
from thresher.running.progress import Progress

log = logging.getLogger(__name__)


async def engine_failed(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Retry after an engine's failure. Bad input would fail again, what kills an engine (DeadlyError) would kill another, and an
    interrupt (StoppedError) is meant."""
    result: Any = state.result(raise_on_failure=False)
    error = await result if isawaitable(result) else result
    return isinstance(error, EngineError) and not isinstance(error, DeadlyError | StoppedError)


async def not_stopped(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Retry after any failure but an interrupt."""
    result: Any = state.result(raise_on_failure=False)
    return not isinstance(await result if isawaitable(result) else result, StoppedError)


@task(
    task_run_name="sample-{shard}",
    retries=2,
    retry_delay_seconds=2,
    retry_condition_fn=engine_failed,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def sample_shard(plain: steps.Plain, shard: int, engines: Engines) -> dict[str, Any]:
    """Sample one shard. Its state is read from the run directory, never from Prefect."""
    return plain.sample(shard, engines)


class SampleSteps:
    """The steps of a run that is sampled and not judged (thresher.running.steps.Steps)."""

    def __init__(self, plain: steps.Plain) -> None:
        self.plain = plain

    def sample(self, shard: int, engines: Engines) -> dict[str, Any]:
        return sample_shard(self.plain, shard, engines)

    def judge(self, shard: int) -> None:  # noqa: ARG002 - nothing is judged
        return None

    def compare(self) -> None:
        return None

    def finish(self) -> steps.Finished:
        return self.plain.finish()


class Reported:
    """A progress artifact of the flow run. Call it with the share done (0 to 1) and a line of text. It is written by its own
    thread, so sampling never waits for the server, and never fails with it."""

    def __init__(self) -> None:
        self._artifact: Any = None
        self._thread = ThreadPoolExecutor(1)

    def __call__(self, share: float, text: str) -> None:
        self._thread.submit(contextvars.copy_context().run, self._write, share, text)

    def _write(self, share: float, text: str) -> None:
        with if_it_can("progress artifact"):
            if self._artifact is None:
                self._artifact = create_progress_artifact(100 * share, key="thresher-progress", description=text)
            else:
                update_progress_artifact(self._artifact, 100 * share, description=text)

    def __enter__(self) -> "Reported":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()


@flow(name="thresher-generate", validate_parameters=True)
def generate(recipe: str, out: str | None = None, overrides: list[str] | None = None, salt: str | None = None) -> str:
    """Sample a recipe into its run directory, without filtering; returns the directory."""
    check_roots(str(Path(recipe).absolute()), out or "data/runs")
    begun = steps.begin(recipe_file.load(recipe, overrides or ()), out, salt=salt)
    with Reported() as report, Progress(report=report) as progress, open_executor(begun.recipe) as executor:
        steps.fill_pool(begun, SampleSteps(steps.Plain(begun.run, progress, executor)), progress, executor)
    return begun.root
