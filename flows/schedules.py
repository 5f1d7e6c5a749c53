"""Schedules on the user's Prefect server: made, listed and changed."""

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
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.utilities.callables import parameter_schema
from pydantic import ValidationError

from filters.tools import Tools
from flows.pipeline import pipeline
from flows.servers import server
from flows.slots import located
from thresher.errors import ScheduleError
from thresher.inputs import recipe_file
from thresher.judging.build import build_filters
from thresher.pool.store import Store

ENTRYPOINT = "flows.pipeline.pipeline"
"""A module, not a file: nothing is copied to where the run happens, and it may be any directory."""
LENGTHS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
"""Seconds of the units of --interval."""
LONGEST = 10 * 365 * 86_400
"""Seconds of the longest interval."""
NAMELESS = "/%&<>"
"""What Prefect takes in no name."""
PLAN_SECONDS = 20
"""A server plans the runs of a new schedule within seconds; one that has not by then never will."""


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
    """Make or change the schedule of a recipe; returns its row of `schedules`. `env` are variables of its jobs on the pool, as
    NAME=VALUE; those of a schedule that is there stay where none are given. Raises RecipeError, ScheduleError."""
    when = _when(cron, interval, timezone)
    given = _variables(env, pool)
    loaded = recipe_file.load(recipe, overrides)
    build_filters(loaded.recipe, Tools(loaded.base), imported=False, where=loaded.where)
    name, overrides = name or loaded.recipe.name, list(overrides)
    if wrong := sorted(set(name) & set(NAMELESS)):
        raise ScheduleError(f"--name {name}: Prefect takes no {wrong[0]} in a name; give another")
    if (repo := loaded.recipe.publish.repo) and located(repo) != repo:
        overrides.append(f"publish.repo={located(repo)}")  # as it is from here
    place = out or "data/runs"
    Store(place)
    parameters = {
        "recipe": str(Path(recipe).absolute()),
        "overrides": overrides,
        "out": place if "://" in place else str(Path(place).absolute()),
    }
    with server() as client:
        before = _standing(client, name)
        variables: dict[str, Any] = {"env": given}  # of none at all the server makes nothing, and leaves what is there
        if before is not None and before.work_pool_name == pool:
            variables = {**before.job_variables, **({"env": given} if given else {})}
        when = _anchored(when, before)
        try:
            made = client.create_deployment(
                flow_id=client.create_flow(pipeline),
                name=name,
                entrypoint=ENTRYPOINT,
                schedules=[DeploymentScheduleCreate(schedule=when)],
                parameters=parameters,
                parameter_openapi_schema=parameter_schema(pipeline).model_dump_for_openapi(),
                enforce_parameter_schema=True,
                concurrency_limit=1,
                concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.ENQUEUE),
                description=loaded.recipe.dataset.description or f"{loaded.recipe.name}: {recipe}",
                tags=["thresher", machine()],
                work_pool_name=pool,
                job_variables=variables,
            )
        except PrefectHTTPStatusError as error:
            if pool is None or error.response.status_code != 404:
                raise
            raise ScheduleError(
                f"--pool {pool}: the Prefect server has no such work pool; make it: "
                f"prefect work-pool create --type process {pool}"
            ) from error
        if before is not None and before.work_pool_name != pool:
            client.update_deployment(made, DeploymentUpdate(work_pool_name=pool, work_queue_name=None, job_variables=variables))
        return _planned(client, made)


def schedules() -> list[dict[str, Any]]:
    """Every schedule of thresher's on the server, by name. Raises ScheduleError."""
    with server() as client:
        return [_row(client, one) for one in every(client)]


def short_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of `schedules` with the columns that fit a terminal; times are UTC, to the minute."""
    return [
        {
            "name": row["name"],
            "schedule": row["schedule"],
            "next (UTC)": "paused" if row["paused"] else _minutes(row["next"]),
            "last (UTC)": _minutes(row["last"]),
            "ended": row["last_state"],
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
    """Pause, resume or remove a schedule. Raises ScheduleError where there is none of this name, and where one is to be removed
    of which a run is under way."""
    with server() as client:
        found = find(client, name)
        if what == "remove":
            _under_way(client, found)
        {"pause": client.pause_deployment, "resume": client.resume_deployment, "remove": client.delete_deployment}[what](found.id)


def every(client: SyncPrefectClient) -> list[DeploymentResponse]:
    """Every schedule of thresher's on a server, by name."""
    found: list[DeploymentResponse] = []
    while page := client.read_deployments(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[pipeline.name])), limit=200, offset=len(found)
    ):
        found += page
    return sorted(found, key=lambda one: one.name)


def find(client: SyncPrefectClient, name: str) -> DeploymentResponse:
    """The schedule of a name. Raises ScheduleError where there is none."""
    if (found := _standing(client, name)) is None:
        there = ", ".join(one.name for one in every(client)) or "none"
        raise ScheduleError(f"{name}: no schedule of this name; there are: {there}")
    return found


def machine() -> str:
    """The tag of schedules that were made on this machine."""
    return f"machine:{socket.gethostname()}"


# -- inside --------------------------------------------------------------------------------------------------------------


def _when(cron: str | None, interval: str | None, timezone: str | None) -> CronSchedule | IntervalSchedule:
    if (cron is None) == (interval is None):
        raise ScheduleError('wanted either --cron, such as --cron "0 2 * * *", or --interval, such as --interval 6h')
    try:
        if cron is not None:
            return CronSchedule(cron=cron, timezone=timezone or "UTC")
        assert interval is not None
        parts = re.fullmatch(rf"(\d+)([{''.join(LENGTHS)}]?)", interval)
        if parts is None or not int(parts[1]):
            raise ScheduleError(
                f"--interval {interval}: wanted a number above 0, of seconds or with one of s, m, h, d, w, such as 6h"
            )
        seconds = int(parts[1]) * LENGTHS[parts[2] or "s"]
        if seconds > LONGEST:
            raise ScheduleError(f"--interval {interval}: that is more than ten years; wanted such as 6h")
        return IntervalSchedule(interval=timedelta(seconds=seconds), timezone=timezone or "UTC")
    except ValidationError as error:
        at = error.errors()[0]
        raise ScheduleError(f"--{at['loc'][0]} {at['input']}: {at['msg'].removeprefix('Value error, ')}") from error


def _anchored(when: CronSchedule | IntervalSchedule, before: DeploymentResponse | None) -> CronSchedule | IntervalSchedule:
    """A schedule that is made again with the same interval goes on at the same times."""
    if isinstance(when, IntervalSchedule):
        for one in before.schedules if before is not None else ():
            own = one.schedule
            if isinstance(own, IntervalSchedule) and (own.interval, own.timezone) == (when.interval, when.timezone):
                return own
    return when


def _variables(env: Sequence[str], pool: str | None) -> dict[str, str]:
    if env and pool is None:
        raise ScheduleError("--env: is for the jobs of a work pool (--pool); set variables where `thresher serve` runs instead")
    for one in env:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*=.*", one, re.DOTALL):
            raise ScheduleError(f"--env {one.partition('=')[0]}: wanted NAME=VALUE, such as HF_HOME=/shared/hub")
    return dict(one.split("=", 1) for one in env)


def _planned(client: SyncPrefectClient, made: UUID) -> dict[str, Any]:
    """The row of a schedule, once the server has planned a run of it, or should have."""
    until = time.monotonic() + PLAN_SECONDS
    while True:
        row = _row(client, client.read_deployment(made))
        if row["next"] or row["paused"] or time.monotonic() > until:
            return row
        time.sleep(0.5)


def _standing(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    if set(name) & set(NAMELESS):
        return None
    try:
        return client.read_deployment_by_name(f"{pipeline.name}/{name}")
    except ObjectNotFound:
        return None


def _under_way(client: SyncPrefectClient, one: DeploymentResponse) -> None:
    """Raise where a run of a schedule is under way: without the schedule it would not know its directory any more."""
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING]))
    this = DeploymentFilter(id=DeploymentFilterId(any_=[one.id]))
    if found := client.read_flow_runs(deployment_filter=this, flow_run_filter=FlowRunFilter(state=state), limit=1):
        run = found[0]
        raise ScheduleError(
            f"{one.name}: its run {run.name} is {run.state_name or 'under way'}; wait for its end, or end it: prefect flow-run "
            f"cancel {run.id}. `--pause` keeps others from beginning"
        )


def _row(client: SyncPrefectClient, one: DeploymentResponse) -> dict[str, Any]:
    """A schedule in a line; times are UTC, in ISO 8601."""
    this = DeploymentFilter(id=DeploymentFilterId(any_=[one.id]))
    coming = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
    gone = FlowRunFilterState(type=FlowRunFilterStateType(not_any_=[StateType.SCHEDULED]))
    then = client.read_flow_runs(
        deployment_filter=this,
        flow_run_filter=FlowRunFilter(state=coming),
        sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC,
        limit=1,
    )
    last = client.read_flow_runs(
        deployment_filter=this,
        flow_run_filter=FlowRunFilter(state=gone),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=1,
    )
    times = [_spelled(each.schedule) for each in one.schedules if each.active]
    return {
        "name": one.name,
        "schedule": "; ".join(times) or None,
        "paused": one.paused,
        "next": _iso(then[0].next_scheduled_start_time) if then and not one.paused else None,
        "last": _iso(last[0].expected_start_time) if last else None,
        "last_state": last[0].state_name if last else None,
        "pool": one.work_pool_name,
        "machine": next((tag.removeprefix("machine:") for tag in one.tags if tag.startswith("machine:")), None),
        "recipe": one.parameters.get("recipe"),
        "out": one.parameters.get("out"),
    }


def _spelled(when: Any) -> str:
    if isinstance(when, CronSchedule):
        return f"{when.cron} ({when.timezone or 'UTC'})"
    if isinstance(when, IntervalSchedule):
        seconds = int(when.interval.total_seconds())
        letter, size = next((letter, size) for letter, size in LENGTHS.items() if seconds % size == 0)
        return f"every {seconds // size}{letter}"
    return str(when)


def _minutes(time: str | None) -> str | None:
    return None if time is None else time[:16].replace("T", " ")


def _iso(time: Any) -> str | None:
    return None if time is None else str(time.strftime("%Y-%m-%dT%H:%M:%SZ"))
