"""The flow that deployments name: all steps, from a recipe to a dataset."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
from prefect import flow, get_run_logger, runtime
from prefect.settings import PREFECT_API_URL

from flows import reporting, slots
from flows.explained import explain_once
from flows.generate import Reported, sample_shard
from flows.judge import compare, judge_shard
from flows.parameters import ALL, DEMO, NO_OVERRIDES, Empty, Limits, check_places, check_roots, load
from flows.release import publish_run, release_run, results
from flows.servers import server
from flows.temporary_server import NoServerError, temporary_server
from thresher.errors import ScheduleError
from thresher.executors import open_executor
from thresher.executors.executor import Engines
from thresher.running import steps
from thresher.running.progress import Progress
from thresher.running.shortfalls import shortfalls


class Tasks:
    """The steps of a run as Prefect tasks, with retries and artifacts (thresher.running.steps.Steps)."""

    def __init__(self, plain: steps.Plain) -> None:
        self.plain = plain
        self.results: dict[str, Any] = {}
        """The results of the flow, set by `finish`: JSON values of the audit, the dataset, the report and the release."""

    def sample(self, shard: int, engines: Engines) -> dict[str, Any]:
        return sample_shard(self.plain, shard, engines)

    def judge(self, shard: int) -> dict[str, Any]:
        return judge_shard(self.plain, shard)

    def compare(self) -> None:
        compare(self.plain)

    def finish(self) -> steps.Finished:
        audit, dataset, report = release_run(self.plain)
        published = publish_run(self.plain) if self.plain.run.recipe.publish.repo else None
        self.results = results(audit, dataset, report, published)
        return steps.Finished(audit, dataset, published)


@flow(name="thresher", validate_parameters=True)
def pipeline(
    recipe: str = DEMO,
    overrides: list[str] | Empty = NO_OVERRIDES,
    limits: Limits = ALL,
    out: str | Empty = "",
    salt: str | Empty = "",
) -> dict[str, Any]:
    """Sample a recipe, judge the samples meanwhile, write the dataset, and publish it to the repository that the recipe names.

    Args:
        recipe: Path of the recipe, a YAML file on the machine that runs this, within its root (THRESHER_ROOT).
        overrides: Changes to the recipe, such as `sampling.max_tokens=64` or `publish.repo=your-name/sums`.
        limits: How much of the recipe to do; an empty field leaves the value of the recipe.
        out: Folder of the runs, or an fsspec URL, within the root; each run creates a directory in it, NAME-TIME. Empty takes
            data/runs.
            (Without a deployment this is the run directory itself, and empty takes data/runs/NAME.)
        salt: Another salt draws other samples. Leave it empty: the salt is the time that the run is scheduled for, so no two runs
            draw the same samples. (Without a deployment empty takes the recipe's.)
    """
    explain_once()
    out, salt = out or None, salt or None
    check_roots(str(Path(recipe).absolute()), out or "data/runs")
    loaded = load(recipe, overrides, limits)
    check_places(loaded.recipe, loaded.base)
    opened = slots.slot(loaded, out, salt) if runtime.deployment.id else nullcontext(steps.begin(loaded, out, salt=salt))
    with (
        opened as begun,
        begun.run.store.writing(begun.run.command),
        Reported() as report,
        Progress(report=report) as progress,
        open_executor(begun.recipe) as executor,
    ):
        tasks = Tasks(steps.Plain(begun.run, progress, executor))
        steps.fill_pool(begun, tasks, progress, executor)
        if slot := runtime.flow_run.scheduled_start_time:
            reporting.sampled(begun.run, progress, slot)
        finished = tasks.finish()
    if faults := shortfalls(begun.run, finished.audit):
        get_run_logger().warning("%s is not to be relied on: %s", begun.root, "; ".join(faults))
    return tasks.results


def run_here(recipe: str, overrides: list[str], out: str, salt: str | None, say: Callable[[str], None]) -> None:
    """Run the pipeline in this process, reported to the user's server, or to a temporary one without PREFECT_API_URL. If the
    temporary one cannot be used, `say` is told why, and the same steps run without Prefect. Raises ScheduleError if the user's
    server cannot be reached or is too old, or becomes unreachable; and the errors of the steps."""
    if not (url := PREFECT_API_URL.value()):
        try:
            with temporary_server():
                pipeline(recipe, overrides, out=out, salt=salt)
        except NoServerError as error:
            say(f"going on without Prefect: {error}")
            _run_plainly(recipe, overrides, out, salt)
        return
    how = "start it, or run without it: --no-prefect"
    with server(how):
        pass
    try:
        pipeline(recipe, overrides, out=out, salt=salt)
    except httpx.HTTPError as error:
        raise ScheduleError(
            f"the Prefect server ({url}) became unreachable: {error or type(error).__name__}; finished work is kept, and "
            f"the same command resumes the run; {how}"
        ) from error


def _run_plainly(recipe: str, overrides: list[str], out: str, salt: str | None) -> None:
    """The steps that are left, without Prefect."""
    begun = steps.begin(load(recipe, overrides, ALL), out, salt=salt)
    if steps.finished(begun) is None:
        with Progress() as progress:
            steps.run_steps(begun, progress)
