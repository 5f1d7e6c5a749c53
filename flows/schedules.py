"""Schedules on the user's Prefect server: made, listed, changed, and run on this machine without a work pool."""

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import anyio
import httpx
import prefect
from prefect.client.base import ServerType
from prefect.client.orchestration import SyncPrefectClient, get_client
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
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.runner import Runner
from prefect.settings import PREFECT_API_URL
from prefect.utilities.callables import parameter_schema
from pydantic import PrivateAttr, ValidationError

from flows.pipeline import pipeline
from flows.slots import located
from thresher import recipes
from thresher.errors import ScheduleError

ENTRYPOINT = "flows.pipeline.pipeline"
"""A module, not a file: nothing is copied to where the run happens, and it may be any directory."""
LENGTHS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
"""Seconds of the units of --interval."""
LOOK_SECONDS = 10
"""How often `thresher serve` looks for schedules that are new."""
OLDEST = (3, 7)
"""The oldest server that this was tried with."""
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
    loaded = recipes.load(recipe, overrides)
    recipes.build_filters(loaded)
    name, overrides = name or loaded.recipe.name, list(overrides)
    if (repo := loaded.recipe.publish.repo) and located(repo) != repo:
        overrides.append(f"publish.repo={located(repo)}")  # as it is from here
    place = out or "data/runs"
    parameters = {
        "recipe": str(Path(recipe).absolute()),
        "overrides": overrides,
        "out": place if "://" in place else str(Path(place).absolute()),
    }
    with _server() as client:
        before = _find(client, name, missing=None)
        variables: dict[str, Any] = {"env": given}  # of none at all the server makes nothing, and leaves what is there
        if before is not None and before.work_pool_name == pool:
            variables = {**before.job_variables, **({"env": given} if given else {})}
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
                tags=["thresher", _machine()],
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
    with _server() as client:
        return [_row(client, one) for one in _all(client)]


def change(name: str, what: Literal["pause", "resume", "remove"]) -> None:
    """Pause, resume or remove a schedule. Raises ScheduleError where there is none of this name."""
    with _server() as client:
        found = _find(client, name)
        assert found is not None
        {"pause": client.pause_deployment, "resume": client.resume_deployment, "remove": client.delete_deployment}[what](found.id)


def serve(names: Sequence[str], *, at_once: int, say: Callable[[str], None] = print) -> None:
    """Run these schedules, or all that were made on this machine, in this process until it is stopped. They stay as they are on
    the server when it is. Raises ScheduleError."""
    with _server() as client:
        here = _mine(_all(client)) if not names else [_find(client, name) for name in names]
        pooled = [one for one in here if one is not None and one.work_pool_name]
    if pooled and names:
        one = pooled[0]
        raise ScheduleError(
            f"{one.name}: runs on the work pool {one.work_pool_name}; start a worker: prefect worker start --pool "
            f"{one.work_pool_name}, or make the schedule again without --pool"
        )
    asyncio.run(_serve([one.name for one in here if one is not None] if names else None, at_once, say))


# -- inside --------------------------------------------------------------------------------------------------------------


class Standing(RunnerDeployment):
    """A deployment that stands on the server, and that serving it leaves as it is."""

    _id: UUID = PrivateAttr()

    async def aapply(self, *_: Any, **__: Any) -> UUID:
        return self._id


async def _serve(names: Sequence[str] | None, at_once: int, say: Callable[[str], None]) -> None:
    """A runner of Prefect's gives up when the server is away for about half a minute; another one begins when it is back."""
    while True:
        try:
            return await _serve_while_up(names, at_once, say)
        except Exception as error:  # noqa: BLE001 - whatever it was, the schedules are to be served
            say(f"thresher serve: {error}; beginning again when the server is there")
        while True:
            await anyio.sleep(LOOK_SECONDS)
            with contextlib.suppress(ScheduleError):
                await anyio.to_thread.run_sync(_served, names)
                break


async def _serve_while_up(names: Sequence[str] | None, at_once: int, say: Callable[[str], None]) -> None:
    runner = Runner(name=f"thresher-{socket.gethostname()}", pause_on_shutdown=False, limit=at_once)
    known: set[UUID] = set()

    async def look() -> None:
        for one in await anyio.to_thread.run_sync(_served, names):
            if one.id not in known:
                standing = Standing(name=one.name, flow_name=pipeline.name)
                standing._id = one.id
                await runner.aadd_deployment(standing)
                known.add(one.id)
                say(f"serving {one.name}")

    async def watch() -> None:
        while True:
            await anyio.sleep(LOOK_SECONDS)
            with contextlib.suppress(ScheduleError):
                await look()

    await look()
    if not known:
        say(f"no schedule was made on this machine ({_machine()}) yet; waiting for one: thresher schedule RECIPE --cron ...")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await runner.start()
        tasks.cancel_scope.cancel()


def _served(names: Sequence[str] | None) -> list[DeploymentResponse]:
    with _server() as client:
        every = _all(client)
        return _mine(every) if names is None else [one for one in every if one.name in names]


def _mine(found: Sequence[DeploymentResponse]) -> list[DeploymentResponse]:
    return [one for one in found if _machine() in one.tags and not one.work_pool_name]


def _machine() -> str:
    return f"machine:{socket.gethostname()}"


@contextlib.contextmanager
def _server() -> Iterator[SyncPrefectClient]:
    """A client of the user's server. Raises ScheduleError where there is none."""
    how = "start one: `prefect server start`, and say where it is: export PREFECT_API_URL=http://127.0.0.1:4200/api"
    if not (url := PREFECT_API_URL.value()):
        raise ScheduleError(f"no Prefect server: PREFECT_API_URL is not set, and schedules need one; {how}")
    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            raise ScheduleError(f"no Prefect server at {url} (PREFECT_API_URL): {error}; {how}")
        if client.server_type != ServerType.CLOUD and (found := _version(client)) < OLDEST:
            raise ScheduleError(
                f"the Prefect server at {url} (PREFECT_API_URL) is of version {'.'.join(map(str, found))}, wanted is "
                f"{'.'.join(map(str, OLDEST))} or later; upgrade it: pip install 'prefect=={prefect.__version__}' where it runs"
            )
        try:
            yield client
        except httpx.HTTPError as error:
            raise ScheduleError(f"the Prefect server at {url} did not do it: {error}; its log says more") from error


def _version(client: SyncPrefectClient) -> tuple[int, int]:
    """Major and minor of the server's version."""
    try:
        major, minor = str(client.api_version()).split(".")[:2]
        return int(major), int(minor)
    except (ValueError, httpx.HTTPError):
        return 0, 0


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
        return IntervalSchedule(interval=timedelta(seconds=int(parts[1]) * LENGTHS[parts[2] or "s"]), timezone=timezone or "UTC")
    except OverflowError as error:
        raise ScheduleError(f"--interval {interval}: no calendar is that long; wanted such as 6h") from error
    except ValidationError as error:
        at = error.errors()[0]
        raise ScheduleError(f"--{at['loc'][0]} {at['input']}: {at['msg'].removeprefix('Value error, ')}") from error


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


def _all(client: SyncPrefectClient) -> list[DeploymentResponse]:
    found: list[DeploymentResponse] = []
    while page := client.read_deployments(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[pipeline.name])), limit=200, offset=len(found)
    ):
        found += page
    return sorted(found, key=lambda one: one.name)


def _find(client: SyncPrefectClient, name: str, missing: type[ScheduleError] | None = ScheduleError) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(f"{pipeline.name}/{name}")
    except ObjectNotFound as error:
        if missing is None:
            return None
        there = ", ".join(one.name for one in _all(client)) or "none"
        raise missing(f"{name}: no schedule of this name; there are: {there}") from error


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


def _iso(time: Any) -> str | None:
    return None if time is None else str(time.strftime("%Y-%m-%dT%H:%M:%SZ"))
