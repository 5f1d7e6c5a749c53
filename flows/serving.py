"""`thresher serve`: run the schedules of this machine without a work pool."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any
from uuid import UUID

import anyio
import httpx
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner, _starter_engine
from prefect.states import Crashed
from prefect.utilities.processutils import run_process
from pydantic import PrivateAttr

from flows.pipeline import pipeline
from flows.schedules import all_deployments, find, machine
from flows.servers import server
from thresher.errors import ScheduleError

log = logging.getLogger(__name__)

LOOK_SECONDS = 10
"""How often to look for new schedules."""
REPORT_SECONDS = 15
"""How long to wait at the end until the server knows of the runs that were stopped."""
STOPPED = "stopped; the schedules are unchanged, and the next run of each resumes what is left"


def serve(names: Sequence[str], *, at_once: int, say: Callable[[str], None]) -> int:
    """Run these schedules, or all that were created on this machine, until a signal stops this process, at most `at_once` flow
    runs at the same time; returns the signal's number. Stopping it stops them, and reports that to the server; a second signal
    ends it at once. The schedules on the server do not change. Raises ScheduleError."""
    with server() as client:
        served = _of_this_machine(all_deployments(client)) if not names else [find(client, name) for name in names]
    if names and (pooled := [deployment for deployment in served if deployment.work_pool_name]):
        name, pool = pooled[0].name, pooled[0].work_pool_name
        raise ScheduleError(
            f"{name}: runs on the work pool {pool}; start a worker: prefect worker start --pool {pool}, or create the schedule "
            "again without --pool"
        )
    stop = Stop()
    with contextlib.suppress(asyncio.CancelledError), stop.caught():
        asyncio.run(_serve([deployment.name for deployment in served] if names else None, at_once, say, stop))
    return stop.number


# -- inside --------------------------------------------------------------------------------------------------------------


class Stop:
    """The signals that stop serving: Ctrl-C, SIGTERM, and the end of the terminal."""

    def __init__(self) -> None:
        self.number = 0
        self.runner: Serving | None = None
        self._end: Callable[[], Any] = bool

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Handle them in this block. Flow runs are processes of their own sessions, which Ctrl-C does not reach."""
        before = {}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, self.handle)
        _starter_engine.run_process = partial(run_process, start_new_session=True)  # type: ignore[attr-defined]
        try:
            yield
        finally:
            _starter_engine.run_process = run_process  # type: ignore[attr-defined]
            for number, handler in before.items():
                signal.signal(number, handler)

    def ends(self, task: "asyncio.Task[Any]") -> None:
        """From now on the first signal cancels this task."""
        loop = asyncio.get_running_loop()
        self._end = lambda: loop.call_soon_threadsafe(task.cancel)

    def handle(self, number: int, _frame: object = None) -> None:
        if self.number:
            for process in self.runner.processes() if self.runner is not None else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGTERM)
            os.write(2, f"thresher: {STOPPED}\n".encode())
            os._exit(128 + self.number)
        self.number = number
        for name in ("prefect.runner", "prefect.flow_runs.runner"):  # that its runs end is meant
            logging.getLogger(name).setLevel(logging.ERROR)
        self._end()


class ExistingDeployment(RunnerDeployment):
    """A deployment of the server that serving does not change."""

    _id: UUID = PrivateAttr()

    async def aapply(self, *_: Any, **__: Any) -> UUID:
        return self._id


class Serving(Runner):
    """Prefect's runner, with two differences: an unreachable server does not end flow runs, and stopping the runner ends them and
    waits until the server knows. It uses private attributes of Prefect 3.7, because there is no public way: the poller gives up
    after three failures, and its end kills the flow runs."""

    def __init__(self, stop: Stop, seen: set[UUID], **more: Any) -> None:
        super().__init__(**more)
        self._stop, self._seen = stop, seen
        self._unreachable, self._unreported = False, bool(seen)

    def handle_sigterm(self, *_: Any, **__: Any) -> None:
        self._stop.handle(signal.SIGTERM)

    def processes(self) -> list[int]:
        """The processes of the flow runs."""
        return [handle.pid for handle in self._process_manager._process_map.values() if handle.pid is not None]

    async def __aenter__(self) -> "Serving":
        await super().__aenter__()
        poller = self._scheduled_run_poller
        poll = poller._get_and_submit_flow_runs

        async def patient(task_group: Any = None) -> None:
            """Wait for an unreachable server while a flow run is running. The runner may have stopped to watch for cancelled flow
            runs by then, so it ends as soon as nothing runs, and another one replaces it."""
            running = self._process_manager.flow_run_ids()
            self._seen.update(running)
            try:
                if self._unreported:
                    await self._report(self._seen - running)
                await poll(task_group)
            except httpx.HTTPError as error:
                self._unreported = True
                if not running:
                    raise
                if not self._unreachable:
                    log.warning("the Prefect server cannot be reached (%s); running flow runs continue", error)
                self._unreachable = True
            else:
                self._unreported = False
                self._seen.intersection_update(running)
                if self._unreachable and not running and not poller._submitting_flow_run_ids:
                    raise ScheduleError("the Prefect server could not be reached for a while")

        poller._get_and_submit_flow_runs = patient  # type: ignore[method-assign]
        return self

    async def __aexit__(self, *why: object) -> None:
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                for run in self._process_manager.flow_run_ids():
                    tasks.start_soon(self._kill, run)
            with anyio.move_on_after(REPORT_SECONDS):  # the task that waits for a process reports its flow run as crashed
                while self._scheduled_run_poller._submitting_flow_run_ids:
                    await anyio.sleep(0.1)
        await super().__aexit__(*why)

    async def _report(self, ended: set[UUID]) -> None:
        """Report flow runs to the server that ended while it was unreachable, and could not report it themselves."""
        for run in ended:
            with contextlib.suppress(ObjectNotFound):  # it was removed
                state = (await self._client.read_flow_run(run)).state
                if state is None or not state.is_final():
                    message = "It ended while the server could not be reached."
                    await self._client.set_flow_run_state(run, Crashed(message=message), force=True)

    async def _kill(self, run: UUID) -> None:
        try:
            await self._process_manager.kill(run)
        except Exception as error:  # noqa: BLE001 - the other flow runs are stopped all the same
            log.warning("the process of flow run %s was not stopped: %r", run, error)


async def _serve(names: Sequence[str] | None, at_once: int, say: Callable[[str], None], stop: Stop) -> None:
    """A runner without flow runs ends when the server is unreachable for a while. Another one starts when the server is back; it
    knows the flow runs that earlier ones have `seen`."""
    seen: set[UUID] = set()
    task = asyncio.current_task()
    assert task is not None
    stop.ends(task)
    while True:
        try:
            return await _serve_while_up(names, at_once, say, stop, seen)
        except Exception as error:  # noqa: BLE001 - serving continues after any error
            say(f"thresher serve: {_first(error)}; restarting when the server can be reached")
        while True:
            await anyio.sleep(LOOK_SECONDS)
            with contextlib.suppress(ScheduleError):
                await anyio.to_thread.run_sync(_served, names)
                break


async def _serve_while_up(
    names: Sequence[str] | None, at_once: int, say: Callable[[str], None], stop: Stop, seen: set[UUID]
) -> None:
    runner = stop.runner = Serving(stop, seen, name=f"thresher-{socket.gethostname()}", pause_on_shutdown=False, limit=at_once)
    known: set[UUID] = set()

    async def look() -> None:
        for deployment in await anyio.to_thread.run_sync(_served, names):
            if deployment.id not in known:
                existing = ExistingDeployment(name=deployment.name, flow_name=pipeline.name)
                existing._id = deployment.id
                await runner.aadd_deployment(existing)
                known.add(deployment.id)
                say(f"serving {deployment.name}")

    async def watch() -> None:
        while True:
            await anyio.sleep(LOOK_SECONDS)
            with contextlib.suppress(ScheduleError):
                await look()

    await look()
    if not known:
        say(f"no schedule was created on this machine ({machine()}) yet; waiting for one: thresher schedule RECIPE --cron ...")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await runner.start()
        tasks.cancel_scope.cancel()


def _served(names: Sequence[str] | None) -> list[DeploymentResponse]:
    with server() as client:
        deployments = all_deployments(client)
    if names is None:
        return _of_this_machine(deployments)
    return [deployment for deployment in deployments if deployment.name in names]


def _of_this_machine(deployments: Sequence[DeploymentResponse]) -> list[DeploymentResponse]:
    return [deployment for deployment in deployments if machine() in deployment.tags and not deployment.work_pool_name]


def _first(error: BaseException) -> BaseException:
    """The first of a group of errors."""
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
