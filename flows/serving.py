"""thresher serve: the schedules of this machine, run here, without a work pool."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import anyio
import httpx
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner
from prefect.states import Crashed
from pydantic import PrivateAttr

from flows.pipeline import pipeline
from flows.schedules import every, find, machine
from flows.servers import server
from thresher.errors import ScheduleError

log = logging.getLogger(__name__)

LOOK_SECONDS = 10
"""How often `thresher serve` looks for schedules that are new."""
TOLD_SECONDS = 15
"""How long the server is given to hear of runs that were ended."""


def serve(names: Sequence[str], *, at_once: int, say: Callable[[str], None] = print) -> None:
    """Run these schedules, or all that were made on this machine, in this process until it is stopped; what runs then is ended,
    and the server told. The schedules stay as they are on the server. Raises ScheduleError."""
    with server() as client:
        here = _mine(every(client)) if not names else [find(client, name) for name in names]
    if names and (pooled := [one for one in here if one.work_pool_name]):
        one = pooled[0]
        raise ScheduleError(
            f"{one.name}: runs on the work pool {one.work_pool_name}; start a worker: prefect worker start --pool "
            f"{one.work_pool_name}, or make the schedule again without --pool"
        )
    with contextlib.suppress(asyncio.CancelledError):  # by SIGTERM
        asyncio.run(_serve([one.name for one in here] if names else None, at_once, say))


# -- inside --------------------------------------------------------------------------------------------------------------


class Standing(RunnerDeployment):
    """A deployment that stands on the server, and that serving it leaves as it is."""

    _id: UUID = PrivateAttr()

    async def aapply(self, *_: Any, **__: Any) -> UUID:
        return self._id


class Serving(Runner):
    """Prefect's runner, but that a server which is away does not end what runs, and that stopping it does, before the server is
    told. It reaches into Prefect 3.7's private parts, for there is no other way in: the poller gives up after three failures, and
    its end kills the runs."""

    def __init__(self, stop: Callable[[], Any], seen: set[UUID], **more: Any) -> None:
        super().__init__(**more)
        self._stop, self._seen = stop, seen
        self._away, self._untold = False, bool(seen)

    def handle_sigterm(self, *_: Any, **__: Any) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop)

    async def __aenter__(self) -> "Serving":
        await super().__aenter__()
        poller = self._scheduled_run_poller
        poll = poller._get_and_submit_flow_runs

        async def patient(task_group: Any = None) -> None:
            """While something runs a server that is away is waited for. Then the cancelling of runs may have been given up, and
            another runner is wanted as soon as nothing runs."""
            running = self._process_manager.flow_run_ids()
            self._seen.update(running)
            try:
                if self._untold:
                    await self._tell(self._seen - running)
                await poll(task_group)
            except httpx.HTTPError as error:
                self._untold = True
                if not running:
                    raise
                if not self._away:
                    log.warning("the Prefect server is away (%s); what runs goes on", error)
                self._away = True
            else:
                self._untold = False
                self._seen.intersection_update(running)
                if self._away and not running and not poller._submitting_flow_run_ids:
                    raise ScheduleError("the Prefect server was away")

        poller._get_and_submit_flow_runs = patient  # type: ignore[method-assign]
        return self

    async def __aexit__(self, *why: object) -> None:
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as ended:
                for run in self._process_manager.flow_run_ids():
                    ended.start_soon(self._killed, run)
            with anyio.move_on_after(TOLD_SECONDS):  # each is noted as crashed by whoever waits for its process
                while self._scheduled_run_poller._submitting_flow_run_ids:
                    await anyio.sleep(0.1)
        await super().__aexit__(*why)

    async def _tell(self, ended: set[UUID]) -> None:
        """Tell the server of runs that ended while it was away, and could not say so themselves."""
        for run in ended:
            with contextlib.suppress(ObjectNotFound):  # somebody removed it
                state = (await self._client.read_flow_run(run)).state
                if state is None or not state.is_final():
                    await self._client.set_flow_run_state(run, Crashed(message="It ended while the server was away."), force=True)

    async def _killed(self, run: UUID) -> None:
        try:
            await self._process_manager.kill(run)
        except Exception as error:  # noqa: BLE001 - the others are to be ended all the same
            log.warning("the process of run %s was not ended: %r", run, error)


async def _serve(names: Sequence[str] | None, at_once: int, say: Callable[[str], None]) -> None:
    """Where nothing runs, a runner gives up when the server is away for a while; another one begins when it is back, and knows
    what the one before has `seen` run."""
    seen: set[UUID] = set()
    while True:
        try:
            return await _serve_while_up(names, at_once, say, seen)
        except Exception as error:  # noqa: BLE001 - whatever it was, the schedules are to be served
            say(f"thresher serve: {_first(error)}; beginning again when the server is there")
        while True:
            await anyio.sleep(LOOK_SECONDS)
            with contextlib.suppress(ScheduleError):
                await anyio.to_thread.run_sync(_served, names)
                break


async def _serve_while_up(names: Sequence[str] | None, at_once: int, say: Callable[[str], None], seen: set[UUID]) -> None:
    task = asyncio.current_task()
    assert task is not None
    runner = Serving(task.cancel, seen, name=f"thresher-{socket.gethostname()}", pause_on_shutdown=False, limit=at_once)
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
        say(f"no schedule was made on this machine ({machine()}) yet; waiting for one: thresher schedule RECIPE --cron ...")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await runner.start()
        tasks.cancel_scope.cancel()


def _served(names: Sequence[str] | None) -> list[DeploymentResponse]:
    with server() as client:
        found = every(client)
        return _mine(found) if names is None else [one for one in found if one.name in names]


def _mine(found: Sequence[DeploymentResponse]) -> list[DeploymentResponse]:
    return [one for one in found if machine() in one.tags and not one.work_pool_name]


def _first(error: BaseException) -> BaseException:
    """The first of a group of errors."""
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
