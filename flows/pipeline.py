"""The whole way, from a recipe to a dataset: what deployments name."""

from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import httpx
from prefect import flow, runtime
from prefect.settings import PREFECT_API_URL

from flows import reporting, slots
from flows.generate import Reported, sample_shard
from flows.judge import compare, judge_shard
from flows.parameters import ALL, DEMO, NO_OVERRIDES, Empty, Limits, load
from flows.release import Opaque, publish_run, release_run
from flows.servers import server
from thresher.errors import ScheduleError
from thresher.executors import open_executor
from thresher.executors.executor import Engines
from thresher.run import steps
from thresher.run.progress import Progress


class Tasks:
    """The steps of a run as Prefect tasks, with retries and artifacts (thresher.run.steps.Steps)."""

    def __init__(self, plain: steps.Plain) -> None:
        self.plain = plain
        self.results: dict[str, Any] = {}
        """What the flow returns, once `finish` is done: JSON values of the audit, the dataset, the report and the release."""

    def sample(self, shard: int, engines: Engines) -> dict[str, Any]:
        return sample_shard(self.plain, shard, engines)

    def judge(self, shard: int) -> dict[str, Any]:
        return judge_shard(self.plain, shard)

    def compare(self) -> None:
        compare(self.plain)

    def finish(self) -> steps.Finished:
        run, executor = self.plain.run, self.plain.executor
        audit, dataset, report = release_run(Opaque(run), executor)
        self.results = {"audit": audit.to_dict(), "dataset": dataset, "report": report}
        published = publish_run(Opaque(run)) if run.recipe.publish.repo else None
        self.results["published"] = None if published is None else asdict(published)
        return steps.Finished(audit, dataset, published)


@flow(name="thresher", validate_parameters=True)
def pipeline(
    recipe: str = DEMO,
    overrides: list[str] | Empty = NO_OVERRIDES,
    limits: Limits = ALL,
    out: str | Empty = "",
    salt: str | Empty = "",
) -> dict[str, Any]:
    """Sample a recipe, filter while sampling goes on, write the dataset, and publish it where the recipe says.

    Args:
        recipe: Path of the recipe, a YAML file on the machine that runs this.
        overrides: Changes to the recipe, such as `sampling.max_tokens=64` or `publish.repo=your-name/sums`.
        limits: How much to do; what is left empty stays as the recipe says.
        out: Folder of the runs, or an fsspec URL; each run makes a directory of its own in it, NAME-TIME. Empty takes data/runs.
            (Without a deployment this is the run's directory itself, and empty takes data/runs/NAME.)
        salt: Another salt draws other samples. Leave it empty: the time the run is scheduled for is its salt, so no two runs draw
            the same. (Without a deployment empty takes the recipe's.)
    """
    loaded = load(recipe, overrides, limits)
    out, salt = out or None, salt or None
    with slots.slot(loaded, out, salt) if runtime.deployment.id else nullcontext(steps.begin(loaded, out, salt=salt)) as begun:
        with Reported() as report, Progress(report=report) as progress, open_executor(begun.recipe) as executor:
            tasks = Tasks(steps.Plain(begun.run, progress, executor))
            steps.fill_pool(begun, tasks, progress, executor)
            if slot := runtime.flow_run.scheduled_start_time:
                reporting.sampled(begun.run, progress, slot)
            tasks.finish()
        return tasks.results


def run_here(recipe: str, overrides: list[str], out: str, salt: str | None) -> None:
    """Run it in this process, told to the user's server, or to a temporary one where there is none. Raises ScheduleError where
    the server is not there, is too old, or goes away before it has heard of the end; and what the steps raise."""
    how = "start it, or run without it: --no-prefect"
    if PREFECT_API_URL.value():
        with server(how):
            pass
    try:
        pipeline(recipe, overrides, out=out, salt=salt)
    except httpx.HTTPError as error:
        where = PREFECT_API_URL.value() or "this run's own"
        raise ScheduleError(
            f"the Prefect server ({where}) went away: {error or type(error).__name__}; what is finished is kept and the same "
            f"command goes on once it is there; {how}"
        ) from error
