"""Create, list and change schedules on the user's Prefect server. A schedule is a deployment of the flow `thresher`."""

import asyncio
import re
import socket
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions, State, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.server.schemas.schedules import CronSchedule as PlannedSchedule
from prefect.utilities.callables import parameter_schema
from pydantic import ValidationError

from filters.tools import Tools
from flows.pipeline import pipeline
from flows.servers import server
from flows.slots import located
from thresher.credentials import is_secret
from thresher.errors import ScheduleError
from thresher.inputs import recipe_file
from thresher.inputs.recipe_file import Loaded
from thresher.judging.build import build_filters
from thresher.pool.store import Store

ENTRYPOINT = "flows.pipeline.pipeline"
"""A module, not a file: no code is copied to the machine that runs it, and it runs in any directory."""
LENGTHS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
"""Seconds of the units of --interval."""
LONGEST = 10 * 365 * 86_400
"""Seconds of the longest interval."""
FORBIDDEN = "/%&<>"
"""Characters that Prefect takes in no name."""
_BLOCK = r"\s*\{\{\s*prefect\.(?:blocks\.secret|variables)\.[\w-]+\s*\}\}\s*"
"""A value that Prefect reads from a Secret block, or from a variable of its own, when a job starts."""
PLAN_SECONDS = 20
"""How long to wait until the server has planned the first run of a new schedule; it takes a few seconds."""


def schedule(
    recipe: str,
    *,
    cron: str | None,
    interval: str | None,
    timezone: str | None,
    overrides: Sequence[str],
    name: str | None,
    out: str | None,
    pool: str | None,
    env: Sequence[str] = (),
) -> dict[str, Any]:
    """Create or change the schedule of a recipe; returns its row of `schedules`. `env` holds variables of its jobs on the pool,
    as NAME=VALUE; without any, an existing schedule keeps its own. Raises RecipeError, ScheduleError."""
    timing = _timing(cron, interval, timezone)
    variables = _variables(env, pool)
    loaded = recipe_file.load(recipe, overrides)
    build_filters(loaded.recipe, Tools(loaded.base), imported=False, where=loaded.where)
    name = name or loaded.recipe.name
    if wrong := sorted(set(name) & set(FORBIDDEN)):
        raise ScheduleError(f"--name {name}: Prefect takes no {wrong[0]} in a name; give another")
    parameters = _parameters(recipe, loaded, overrides, out)
    with server() as client:
        before = _existing(client, name)
        job_variables: dict[str, Any] = {"env": variables}  # with {} the server keeps the old variables
        if before is not None and before.work_pool_name == pool:
            job_variables = {**before.job_variables, **({"env": variables} if variables else {})}
        try:
            deployment = client.create_deployment(
                flow_id=client.create_flow(pipeline),
                name=name,
                entrypoint=ENTRYPOINT,
                schedules=[DeploymentScheduleCreate(schedule=_anchored(timing, before))],
                parameters=parameters,
                parameter_openapi_schema=parameter_schema(pipeline).model_dump_for_openapi(),
                enforce_parameter_schema=True,
                concurrency_limit=1,
                concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.ENQUEUE),
                description=loaded.recipe.dataset.description or f"{loaded.recipe.name}: {recipe}",
                tags=["thresher", machine()],
                work_pool_name=pool,
                job_variables=job_variables,
            )
        except PrefectHTTPStatusError as error:
            if pool is None or error.response.status_code != 404:
                raise
            raise ScheduleError(
                f"--pool {pool}: the Prefect server has no such work pool; create it: "
                f"prefect work-pool create --type process {pool}"
            ) from error
        if before is not None and before.work_pool_name != pool:
            moved = DeploymentUpdate(work_pool_name=pool, work_queue_name=None, job_variables=job_variables)
            client.update_deployment(deployment, moved)
        return _planned(client, deployment)


def schedules() -> list[dict[str, Any]]:
    """Return a row for each schedule of thresher on the server, by name. Raises ScheduleError."""
    with server() as client:
        return [_row(client, deployment) for deployment in all_deployments(client)]


def short_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of `schedules` with the columns that fit a terminal; times are UTC, to the minute. Why runs failed is a column
    if any did."""
    failed = any(row["last_message"] for row in rows)
    return [
        {
            "name": row["name"],
            "schedule": row["schedule"],
            "next (UTC)": "paused" if row["paused"] else _minutes(row["next"]),
            "last (UTC)": _minutes(row["last"]),
            "ended": row["last_state"],
            **({"why": (row["last_message"] or "").partition(". ")[0]} if failed else {}),
        }
        for row in rows
    ]


def lines_of(row: Mapping[str, Any]) -> list[str]:
    """Return a row of `schedules` as lines of text, with the command that executes its runs."""
    lines = [f"{row['name']}: {row['schedule']}{', paused' if row['paused'] else ''}; run directories go to {row['out']}"]
    if row["next"]:
        start = f"prefect worker start --pool {row['pool']}" if row["pool"] else f"thresher serve {row['name']}"
        lines.append(f"next run: {row['next']}, executed by: {start}")
    return lines


def change(name: str, what: Literal["pause", "resume", "remove"]) -> None:
    """Pause, resume or remove a schedule. Raises ScheduleError if there is none of this name, or if it is to be removed while a
    flow run of it is running."""
    with server() as client:
        deployment = find(client, name)
        if what == "remove":
            _stop_if_running(client, deployment)
        calls = {"pause": client.pause_deployment, "resume": client.resume_deployment, "remove": client.delete_deployment}
        calls[what](deployment.id)


def all_deployments(client: SyncPrefectClient) -> list[DeploymentResponse]:
    """Return the schedules of thresher on a server, by name."""
    deployments: list[DeploymentResponse] = []
    this_flow = FlowFilter(name=FlowFilterName(any_=[pipeline.name]))
    while page := client.read_deployments(flow_filter=this_flow, limit=200, offset=len(deployments)):
        deployments += page
    return sorted(deployments, key=lambda deployment: deployment.name)


def find(client: SyncPrefectClient, name: str) -> DeploymentResponse:
    """Return the schedule of a name. Raises ScheduleError if there is none."""
    if (deployment := _existing(client, name)) is None:
        names = ", ".join(listed.name for listed in all_deployments(client)) or "none"
        raise ScheduleError(f"{name}: no schedule of this name; there are: {names}")
    return deployment


def machine() -> str:
    """Return the tag of schedules that were created on this machine."""
    return f"machine:{socket.gethostname()}"


# -- inside --------------------------------------------------------------------------------------------------------------


def _parameters(recipe: str, loaded: Loaded, overrides: Sequence[str], out: str | None) -> dict[str, Any]:
    """The parameters of the flow, with absolute paths: a flow run may have another working directory."""
    overrides = list(overrides)
    if (repo := loaded.recipe.publish.repo) and located(repo) != repo:
        overrides.append(f"publish.repo={located(repo)}")
    folder = out or "data/runs"
    Store(folder)
    return {
        "recipe": str(Path(recipe).absolute()),
        "overrides": overrides,
        "out": folder if "://" in folder else str(Path(folder).absolute()),
    }


def _timing(cron: str | None, interval: str | None, timezone: str | None) -> CronSchedule | IntervalSchedule:
    if (cron is None) == (interval is None):
        raise ScheduleError('wanted either --cron, such as --cron "0 2 * * *", or --interval, such as --interval 6h')
    try:
        if cron is not None:
            return _comes(CronSchedule(cron=cron, timezone=timezone or "UTC"))
        assert interval is not None
        if timezone not in (None, "UTC"):
            raise ScheduleError(
                f"--timezone {timezone}: an interval is a length of time and has no time zone (where clocks change, Prefect 3.7 "
                'would run it twice on a day); leave it out, or name a time of day: --cron "0 2 * * *"'
            )
        parts = re.fullmatch(rf"(\d+)([{''.join(LENGTHS)}]?)", interval)
        if parts is None or not int(parts[1]):
            raise ScheduleError(
                f"--interval {interval}: wanted a number above 0, of seconds or with one of s, m, h, d, w, such as 6h"
            )
        seconds = int(parts[1]) * LENGTHS[parts[2] or "s"]
        if seconds > LONGEST:
            raise ScheduleError(f"--interval {interval}: that is more than ten years; wanted such as 6h")
        return IntervalSchedule(interval=timedelta(seconds=seconds), timezone="UTC")
    except ValidationError as error:
        first = error.errors()[0]
        raise ScheduleError(f"--{first['loc'][0]} {first['input']}: {first['msg'].removeprefix('Value error, ')}") from error


def _comes(schedule: CronSchedule) -> CronSchedule:
    """The schedule. Raises ScheduleError for one with seconds, and for one whose day never comes."""
    fields = schedule.cron.split()
    if len(fields) != 5 and not schedule.cron.startswith("@"):
        raise ScheduleError(
            f"--cron {schedule.cron}: wanted five fields, minute, hour, day, month and day of the week; found {len(fields)} "
            "(a sixth would count seconds)"
        )
    planned = PlannedSchedule(cron=schedule.cron, timezone=schedule.timezone)
    try:
        dates = asyncio.run(planned.get_dates(1))
    except ValueError:  # what Prefect's reader of crons raises where there is none
        dates = []
    if not dates:
        raise ScheduleError(f"--cron {schedule.cron}: no such day ever comes; correct its day or month")
    return schedule


def _anchored(timing: CronSchedule | IntervalSchedule, before: DeploymentResponse | None) -> CronSchedule | IntervalSchedule:
    """A schedule that is created again with the same interval keeps its times."""
    if isinstance(timing, IntervalSchedule):
        for earlier in before.schedules if before is not None else ():
            own = earlier.schedule
            if isinstance(own, IntervalSchedule) and (own.interval, own.timezone) == (timing.interval, timing.timezone):
                return own
    return timing


def _variables(env: Sequence[str], pool: str | None) -> dict[str, str]:
    if env and pool is None:
        raise ScheduleError("--env: is for the jobs of a work pool (--pool); set variables where `thresher serve` runs instead")
    for variable in env:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*=.*", variable, re.DOTALL):
            raise ScheduleError(f"--env {variable.partition('=')[0]}: wanted NAME=VALUE, such as HF_HOME=/shared/hub")
        name, _, value = variable.partition("=")
        rest = re.sub(_BLOCK, "", value)
        if is_secret(name if rest == value else "", rest):
            block = name.lower().replace("_", "-")
            raise ScheduleError(
                f"--env {name}: holds a key, which everybody with access to the Prefect server could read in the schedule; save "
                f"it in a Secret block of Prefect named {block}, and give --env '{name}={{{{ prefect.blocks.secret.{block} }}}}'"
            )
    return dict(variable.split("=", 1) for variable in env)


def _planned(client: SyncPrefectClient, deployment: UUID) -> dict[str, Any]:
    """The row of a schedule, after waiting up to PLAN_SECONDS until the server has planned a run of it."""
    until = time.monotonic() + PLAN_SECONDS
    while True:
        row = _row(client, client.read_deployment(deployment))
        if row["next"] or row["paused"] or time.monotonic() > until:
            return row
        time.sleep(0.5)


def _existing(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    if set(name) & set(FORBIDDEN):
        return None
    try:
        return client.read_deployment_by_name(f"{pipeline.name}/{name}")
    except ObjectNotFound:
        return None


def _stop_if_running(client: SyncPrefectClient, deployment: DeploymentResponse) -> None:
    """Raise ScheduleError if a flow run of a schedule is running: without the schedule it cannot find its directory."""
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING]))
    own = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
    if runs := client.read_flow_runs(deployment_filter=own, flow_run_filter=FlowRunFilter(state=state), limit=1):
        run = runs[0]
        raise ScheduleError(
            f"{deployment.name}: its run {run.name} is {run.state_name or 'running'}; wait for its end, or cancel it: prefect "
            f"flow-run cancel {run.id}; if its process is gone, delete it: prefect flow-run delete {run.id}. `--pause` prevents "
            "further runs"
        )


def _row(client: SyncPrefectClient, deployment: DeploymentResponse) -> dict[str, Any]:
    """A schedule as a row; times are UTC, in ISO 8601."""
    own = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
    scheduled = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
    started = FlowRunFilterState(type=FlowRunFilterStateType(not_any_=[StateType.SCHEDULED]))
    upcoming = client.read_flow_runs(
        deployment_filter=own,
        flow_run_filter=FlowRunFilter(state=scheduled),
        sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC,
        limit=1,
    )
    last = client.read_flow_runs(
        deployment_filter=own,
        flow_run_filter=FlowRunFilter(state=started),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=1,
    )
    times = [_spelled(schedule.schedule) for schedule in deployment.schedules if schedule.active]
    tags, parameters = deployment.tags, deployment.parameters
    return {
        "name": deployment.name,
        "schedule": "; ".join(times) or None,
        "paused": deployment.paused,
        "next": _iso(upcoming[0].next_scheduled_start_time) if upcoming and not deployment.paused else None,
        "last": _iso(last[0].expected_start_time) if last else None,
        "last_state": last[0].state_name if last else None,
        "last_message": _why(last[0].state) if last else None,
        "pool": deployment.work_pool_name,
        "machine": next((tag.removeprefix("machine:") for tag in tags if tag.startswith("machine:")), None),
        "recipe": parameters.get("recipe"),
        "out": parameters.get("out"),
    }


def _why(state: State[Any] | None) -> str | None:
    """Why a run failed, in a line; None if it did not."""
    if state is None or not (state.is_failed() or state.is_crashed()) or not state.message:
        return None
    first, *more = re.sub(r"^\w+ run encountered an exception:? \w+: ", "", state.message.strip()).splitlines()
    reasons = "; ".join(line.strip() for line in more) if first.startswith("not released;") else ""
    return f"not released: {reasons}" if reasons else first


def _spelled(timing: Any) -> str:
    if isinstance(timing, CronSchedule):
        return f"{timing.cron} ({timing.timezone or 'UTC'})"
    if isinstance(timing, IntervalSchedule):
        seconds = int(timing.interval.total_seconds())
        letter, size = next((letter, size) for letter, size in LENGTHS.items() if seconds % size == 0)
        return f"every {seconds // size}{letter}"
    return str(timing)


def _minutes(time: str | None) -> str | None:
    return None if time is None else time[:16].replace("T", " ")


def _iso(time: Any) -> str | None:
    return None if time is None else str(time.strftime("%Y-%m-%dT%H:%M:%SZ"))
