"""Schedules against a real Prefect server, with thresher serve, a worker, and flow runs that are killed and cancelled."""

import asyncio
import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow.parquet as pq
import pytest

from flows.serving import STOPPED
from flows.slots import LEASE_SECONDS
from helpers.deployment_page import block
from helpers.prefect_server import Server, free_port
from helpers.printed import printed_json
from helpers.runs import run_recipe
from thresher.auditing.audit import Audit
from thresher.pool.run import Run, open_run

Write = Callable[..., Path]
pytestmark = pytest.mark.slow
CHROMIUM = "/usr/bin/chromium"

HELD = """
import os, time
from hashlib import sha256
from pathlib import Path
from pydantic import BaseModel
from filters.base import Filter, Role, Scope
from filters.judging import one_by_one
from schemas.sample import Verdict

class Config(BaseModel):
    folder: str
    variable: str = ""

def build(config):
    hold, pid = Path(config.folder, "hold"), Path(config.folder, "pid")

    name, _, value = config.variable.partition("=")

    def judge(sample):
        if name and sha256(os.environ.get(name, "").encode()).hexdigest() != value:
            raise ValueError(f"{name} is not what it should be")
        while hold.exists():
            pid.write_text(str(os.getpid()))
            time.sleep(0.05)
        return Verdict.keep()

    return Filter("held", "1", Scope.SAMPLE, Role.QUALITY, one_by_one(judge, ("completion",)), ("completion",))
"""
"""A filter that waits while FOLDER/hold exists, and writes down which process waits. It wants a variable whose value has that
hash."""


@pytest.fixture(scope="module")
def serving(server: Any) -> Any:
    """`thresher serve` beside the server, started in a directory that has nothing to do with thresher."""
    (server.folder / "held_filter.py").write_text(HELD)
    (server.folder / "elsewhere").mkdir()
    path = [str(Path(__file__).parents[1]), str(server.folder), os.environ.get("PYTHONPATH", "")]
    server.environment["PYTHONPATH"] = os.pathsep.join(path)
    command = [sys.executable, "-m", "thresher.cli", "serve", "--at-once", "6"]
    return server.start(command, "serve.log", server.folder / "elsewhere")


@pytest.fixture
def asked(server: Any, serving: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of that server; thresher's commands use the same server."""
    yield from client_of(server, monkeypatch)


def client_of(server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.syspath_prepend(str(server.folder))
    with temporary_settings({PREFECT_API_URL: server.url}), get_client(sync_client=True) as client:
        yield client
        for entry in client.read_deployments():
            client.delete_deployment(entry.id)


def thresher(*arguments: str) -> None:
    from thresher.cli import main

    assert main(arguments) == 0


def until(condition: Callable[[], Any], seconds: float = 180) -> Any:
    """Wait for the condition; returns its first true value."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {seconds} s for {condition}"
        time.sleep(0.2)
    return found


def runs(client: Any, name: str) -> list[Any]:
    """Flow runs of a schedule, the oldest first."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

    found = client.read_flow_runs(deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[name])), limit=200)
    return sorted(found, key=lambda run: run.expected_start_time)


def completed(client: Any, name: str) -> list[Any]:
    return [run for run in runs(client, name) if run.state_name == "Completed"]


def begin(client: Any, name: str) -> Any:
    """Start a run of a schedule now; returns its id."""
    return client.create_flow_run_from_deployment(client.read_deployment_by_name(f"thresher/{name}").id).id


def ended(client: Any, run: Any, seconds: float = 180) -> Any:
    """The state in which a flow run ends."""
    return until(lambda: (state := client.read_flow_run(run).state) and state.is_final() and state, seconds)


def waiting(folder: Path) -> int:
    """The process that waits in the filter `held`."""
    return int(until(lambda: (folder / "pid").exists() and (folder / "pid").read_text()))


def said(client: Any, run: Any) -> str:
    """What a flow run logged."""
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

    return "\n".join(
        entry.message for entry in client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run])), limit=200)
    )


def events(client: Any, name: str) -> list[dict[str, Any]]:
    """Thresher's events about a dataset, the oldest first."""
    asked = {"filter": {"event": {"prefix": ["thresher."]}, "resource": {"id": [f"thresher.dataset.{name}"]}}, "limit": 50}
    return sorted(client.request("POST", "/events/filter", json=asked).json()["events"], key=lambda event: event["occurred"])


def expire(server: Any, lease: UUID) -> None:
    """Let a lease of the server end now."""
    from prefect.server.concurrency.lease_storage.filesystem import ConcurrencyLeaseStorage

    leases = ConcurrencyLeaseStorage(server.folder / "home" / "concurrency_leases")
    assert asyncio.run(leases.renew_lease(lease, ttl=timedelta(seconds=-1)))


def end_leases(server: Any) -> None:
    """Let the leases of a process that is gone end now; that of the turn at a dataset would have ended within a minute."""
    from prefect.server.concurrency.lease_storage.filesystem import ConcurrencyLeaseStorage

    async def end() -> list[float]:
        leases, left = ConcurrencyLeaseStorage(server.folder / "home" / "concurrency_leases"), []
        for lease in await leases.read_active_lease_ids():
            found = await leases.read_lease(lease)
            if found is not None:
                left.append((found.expiration - datetime.now(UTC)).total_seconds())
                await leases.renew_lease(lease, ttl=timedelta(seconds=-1))
        return left

    assert min(asyncio.run(end())) <= LEASE_SECONDS


def notes(folder: Path) -> dict[str, dict[str, Any]]:
    """Directories of scheduled runs, by their names."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/scheduled.json"))}


def ids(root: Path) -> set[str]:
    return {entry for file in root.glob("samples/*.parquet") for entry in pq.read_table(file)["sample_id"].to_pylist()}


def logged(log: Path, line: str, start: int) -> bool:
    """Whether the log has the text after its first `start` characters."""
    return line in log.read_text()[start:]


def pause(client: Any, name: str) -> None:
    """Pause a schedule, and wait until none of its runs is active."""
    from prefect.exceptions import ObjectNotFound

    thresher("schedule", name, "--pause")

    def over() -> bool:
        left = [run for run in runs(client, name) if not run.state.is_final()]
        for run in left:
            if run.state.is_scheduled():  # on a slow machine many are late by now
                with contextlib.suppress(ObjectNotFound):
                    client.delete_flow_run(run.id)
        return not left

    until(over)


def fires(client: Any, recipe: Write, tmp_path: Path, name: str) -> tuple[str, list[str]]:
    """Runs of a schedule of ten seconds: each draws its own samples, and appends a release."""
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    from thresher.releases.repository import releases

    repo, out = str(tmp_path / "released"), tmp_path / "runs"
    path = recipe(publish={"repo": repo, "versions": "semantic"}, dedupe={"within_run": None, "released": None})
    changed = ["--set", "sampling.max_tokens=12"]
    thresher("schedule", str(path), "--interval", "10", "--name", name, "--out", str(out), *changed)
    until(lambda: len(completed(client, name)) >= 2)
    pause(client, name)

    first, second = completed(client, name)[:2]
    assert first.end_time <= second.start_time
    roots = [f"small-{run.expected_start_time:%Y%m%dT%H%M%S}" for run in (first, second)]
    there = notes(out)
    assert [(there[root]["state"], there[root]["flow_runs"]) for root in roots] == [
        ("done", [str(first.id)]),
        ("done", [str(second.id)]),
    ]
    assert not ids(out / roots[0]) & ids(out / roots[1])
    assert json.loads((out / roots[0] / "run.json").read_text())["recipe"]["sampling"]["max_tokens"] == 12
    made = releases(repo).releases[:2]
    assert [(entry.version, entry.rows["rollouts"], entry.rows["sft"]) for entry in made] == [
        ("v1.0.0", 20, 4),
        ("v1.1.0", 20, 4),
    ]
    artifacts = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[second.id])))
    assert {"thresher-funnel", "thresher-audit", "thresher-report", "thresher-release"} <= {item.key for item in artifacts}
    return repo, roots


def test_a_schedule_fires_and_is_paused_resumed_and_removed(
    asked: Any, recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The events have the figures of the audit; the lists say how things are."""
    repo, _ = fires(asked, recipe, tmp_path, "fires")

    found = until(lambda: len(found := events(asked, repo)) >= 6 and found)
    assert [entry["event"] for entry in found[:3]] == [
        "thresher.run.sampled",
        "thresher.run.finished",
        "thresher.release.published",
    ]
    took = found.pop(0)["payload"]
    assert took["samples"] == 20
    assert took["waited_seconds"] >= 0, took  # the server may let a run begin half a second before its slot
    assert took["engine_seconds"] > 0 and took["first_seconds"] > 0, took
    figures = found[0]["payload"]
    assert {"samples": 16, "hits": 4, "undecided": 0, "name": "small"}.items() <= figures.items()
    assert 0 < figures["pass_rate_low"] < figures["pass_rate"] == 11 / 16 < figures["pass_rate_high"] <= 1
    assert (found[1]["payload"]["version"], found[1]["payload"]["repo"]) == ("v1.0.0", repo)

    capsys.readouterr()
    thresher("schedules", "--json")
    row = next(item for item in json.loads(capsys.readouterr().out) if item["name"] == "fires")
    assert (row["paused"], row["next"], row["last_state"], row["schedule"]) == (True, None, "Completed", "every 10s")
    before = len(completed(asked, "fires"))
    thresher("schedule", "fires", "--resume")
    until(lambda: len(completed(asked, "fires")) > before)
    thresher("schedules", "--csv")
    thresher("schedules")
    text = capsys.readouterr().out
    listed = list(csv.DictReader(io.StringIO(text[text.index("name,") :])))
    assert next(one for one in listed if one["name"] == "fires")["paused"] == "False"
    pause(asked, "fires")
    thresher("schedule", "fires", "--remove")
    from thresher.cli import main

    assert main(["schedule", "fires", "--pause"]) == 1
    assert "fires: no schedule of this name" in capsys.readouterr().err


def test_a_killed_run_is_resumed_by_the_next(asked: Any, server: Any, recipe: Write, tmp_path: Path) -> None:
    """kill -9 of the flow's process: the state is Crashed, the turn is free when its lease ends, and the next run ends what was
    begun, with the samples of an uninterrupted run. The crashed run, tried again, works at the same directory."""
    from prefect.states import Scheduled

    from thresher.releases.repository import releases

    repo, out = str(tmp_path / "released"), tmp_path / "runs"
    held = [
        {"name": "finished"},
        {"name": "exact_answer"},
        {"name": "held_filter:build", "parameters": {"folder": str(tmp_path)}},
    ]
    path = recipe(filters=held, publish={"repo": repo, "versions": "semantic"}, run={"shard_samples": 10, "filter_workers": 0})
    (tmp_path / "hold").touch()
    thresher("schedule", str(path), "--interval", "1d", "--name", "killed", "--out", str(out))
    first = begin(asked, "killed")
    os.kill(waiting(tmp_path), signal.SIGKILL)
    assert ended(asked, first).is_crashed()
    (name, note), *more = notes(out).items()
    assert (note["state"], note["flow_runs"], more) == ("begun", [str(first)], [])

    (tmp_path / "hold").unlink()
    end_leases(server)
    second = begin(asked, "killed")
    assert ended(asked, second, 240).is_completed()
    assert notes(out) == {name: note | {"state": "done", "flow_runs": [str(first), str(second)]}}
    until(lambda: "resuming" in said(asked, second))  # the server has logs some time after they were written
    run_recipe(path, tmp_path / "whole", salt=note["salt"])
    assert ids(out / name) == ids(tmp_path / "whole")

    asked.set_flow_run_state(first, Scheduled(), force=True)
    assert ended(asked, first).is_completed()
    assert list(notes(out)) == [name]
    assert [release.version for release in releases(repo).releases] == ["v1.0.0"]


def test_a_cancelled_run_is_resumed_unless_the_recipe_has_changed(asked: Any, recipe: Write, tmp_path: Path) -> None:
    """Cancelled from the API: the process ends, the directory stays. A run of the changed recipe says that it leaves the
    directory, and begins its own; the cancelled run, tried again with the old recipe, ends its own."""
    from prefect.states import Cancelling, Scheduled

    out = tmp_path / "runs"
    held = [{"name": "finished"}, {"name": "held_filter:build", "parameters": {"folder": str(tmp_path)}}]
    path = recipe(filters=held, run={"shard_samples": 10, "filter_workers": 0})
    (tmp_path / "hold").touch()
    thresher("schedule", str(path), "--interval", "1d", "--name", "cancelled", "--out", str(out))
    first = begin(asked, "cancelled")
    process = waiting(tmp_path)
    asked.set_flow_run_state(first, Cancelling(), force=True)
    (tmp_path / "hold").unlink()  # or the process would be killed after 30 s, and its turn taken for another 30
    assert ended(asked, first).is_cancelled()
    until(lambda: not Path(f"/proc/{process}").exists())
    (name, note), *_ = notes(out).items()
    assert note["state"] == "begun"

    thresher(
        "schedule", str(path), "--interval", "1d", "--name", "cancelled", "--out", str(out), "--set", "sampling.max_tokens=8"
    )
    second = begin(asked, "cancelled")
    assert ended(asked, second).is_completed()
    until(lambda: f"{name} is left unfinished" in said(asked, second))
    assert "max_tokens was 16 and is now 8" in said(asked, second)
    assert [value["state"] for value in notes(out).values()] == ["begun", "done"]

    thresher("schedule", str(path), "--interval", "1d", "--name", "cancelled", "--out", str(out))
    asked.set_flow_run_state(first, Scheduled(), force=True)
    assert ended(asked, first).is_completed()
    assert [item["state"] for item in notes(out).values()] == ["done", "done"]


def test_a_run_outlives_an_outage_of_the_server(
    asked: Any, server: Any, recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For longer than Prefect's runner waits for it. A run that is under way when the server is back ends as any other; of one
    that was killed meanwhile the server is told so, by the next runner."""
    monkeypatch.setattr("flows.schedules.machine", lambda: "machine:of-its-own")
    monkeypatch.setitem(server.environment, "PREFECT_CLIENT_MAX_RETRIES", "0")  # that it is away is noticed at once
    held = [{"name": "finished"}, {"name": "held_filter:build", "parameters": {"folder": str(tmp_path)}}]
    path = recipe(filters=held, run={"shard_samples": 10, "filter_workers": 0})
    thresher("schedule", str(path), "--interval", "1d", "--name", "away", "--out", str(tmp_path / "runs"))
    own, log = server.start([sys.executable, "-m", "thresher.cli", "serve", "away"], "away.log"), server.folder / "away.log"
    for killed in (False, True):
        (tmp_path / "hold").touch()
        (tmp_path / "pid").unlink(missing_ok=True)
        run = begin(asked, "away")
        process = waiting(tmp_path)
        before = len(log.read_text())
        server.down(signal.SIGKILL)
        until(partial(logged, log, "the Prefect server cannot be reached", before))
        time.sleep(8)  # seven looks of the runner
        assert Path(f"/proc/{process}").exists()
        if killed:
            os.kill(process, signal.SIGKILL)
            until(partial(logged, log, "restarting when the server can be reached", before))
        server.up()
        if not killed:
            assert asked.read_flow_run(run).state_name == "Running"
            (tmp_path / "hold").unlink()
        state = ended(asked, run)
        assert (state.is_crashed(), state.is_completed()) == (killed, not killed), state
        assert list(notes(tmp_path / "runs").values())[-1]["state"] == ("begun" if killed else "done")
        until(partial(logged, log, "restarting when the server can be reached", before))
    assert own.poll() is None
    assert len(notes(tmp_path / "runs")) == 2
    server.stop(own)


def test_serve_that_is_stopped_ends_its_runs_and_tells_the_server(  # noqa: PLR0917
    asked: Any, server: Any, recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C, which is for serve and not for its runs. Until then its schedule cannot be removed."""
    from thresher.cli import main

    monkeypatch.setattr("flows.schedules.machine", lambda: "machine:of-its-own")
    held = [{"name": "finished"}, {"name": "held_filter:build", "parameters": {"folder": str(tmp_path)}}]
    path = recipe(filters=held, run={"shard_samples": 10, "filter_workers": 0})
    (tmp_path / "hold").touch()
    thresher("schedule", str(path), "--interval", "1d", "--name", "stopped", "--out", str(tmp_path / "runs"))
    own = server.start([sys.executable, "-m", "thresher.cli", "serve", "stopped"], "stopped.log")
    run = begin(asked, "stopped")
    process = waiting(tmp_path)
    assert main(["schedule", "stopped", "--remove"]) == 1
    assert f"is Running; wait for its end, or cancel it: prefect flow-run cancel {run}" in capsys.readouterr().err
    os.killpg(own.pid, signal.SIGINT)
    (tmp_path / "hold").unlink()  # or its process would be killed after 30 s
    log = server.folder / "stopped.log"
    assert own.wait(60) == 130, log.read_text()
    assert log.read_text().splitlines()[-1] == f"thresher: {STOPPED}"
    assert "Traceback" not in log.read_text()
    assert asked.read_flow_run(run).state.is_crashed()
    assert not Path(f"/proc/{process}").exists()
    assert [value["state"] for value in notes(tmp_path / "runs").values()] == ["begun"]
    thresher("schedule", "stopped", "--remove")


def test_a_run_whose_worker_died_before_it_began_gives_up_its_turn(
    asked: Any, server: Any, recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A worker takes a run, so that it is Pending, and is gone. The next run waits until the server takes the turn back, which is
    five minutes after it gave it; here the lease is made to end now. The dead run can be deleted."""
    from prefect.states import Pending, Scheduled

    from thresher.cli import main

    thresher("schedule", str(recipe()), "--interval", "1d", "--name", "pending", "--out", str(tmp_path / "runs"))
    deployment = asked.read_deployment_by_name("thresher/pending").id
    dead = asked.create_flow_run_from_deployment(
        deployment, state=Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=1))
    ).id
    assert asked.set_flow_run_state(dead, Pending()).status.value == "ACCEPT"
    following = begin(asked, "pending")
    until(lambda: asked.read_flow_run(following).state_name == "AwaitingConcurrencySlot")
    expire(server, asked.read_flow_run(dead).state.state_details.deployment_concurrency_lease_id)
    assert ended(asked, following).is_completed()
    assert (asked.read_flow_run(dead).state_name, len(notes(tmp_path / "runs"))) == ("Pending", 1)

    assert main(["schedule", "pending", "--remove"]) == 1
    assert f"prefect flow-run delete {dead}" in capsys.readouterr().err
    asked.delete_flow_run(dead)
    thresher("schedule", "pending", "--remove")


def test_runs_of_two_schedules_take_turns_at_one_dataset(asked: Any, recipe: Write, tmp_path: Path) -> None:
    """A second run of a schedule waits in the state AwaitingConcurrencySlot; a run of another schedule with the same dataset has
    begun, says what it waits for, and touches nothing before its turn. What the first released no other does again."""
    from thresher.releases.repository import releases

    repo, out = str(tmp_path / "released"), tmp_path / "runs"
    held = [{"name": "finished"}, {"name": "held_filter:build", "parameters": {"folder": str(tmp_path)}}]
    changes = {
        "publish": {"repo": repo, "versions": "semantic", "gates": {"hits": 0}},
        "run": {"shard_samples": 10, "filter_workers": 0},
    }
    path = recipe(filters=held, dedupe={}, **changes)
    (tmp_path / "hold").touch()
    for name in ("left", "right"):
        thresher("schedule", str(path), "--interval", "1d", "--name", name, "--out", str(out / name))
    first = begin(asked, "left")
    waiting(tmp_path)
    other, second = begin(asked, "right"), begin(asked, "left")
    until(lambda: asked.read_flow_run(second).state_name == "AwaitingConcurrencySlot")
    until(lambda: "waiting for the turn" in said(asked, other))
    assert (asked.read_flow_run(other).state_name, notes(out / "right")) == ("Running", {})

    (tmp_path / "hold").unlink()
    states = [ended(asked, run) for run in (first, other, second)]
    assert [state.name for state in states] == ["Completed"] * 3, states[-1].message
    assert len(notes(out / "left")) == 2
    assert len(notes(out / "right")) == 1
    assert [(release.rows["rollouts"], release.rows["sft"]) for release in releases(repo).releases] == [(20, 6), (20, 0), (20, 0)]
    assert [Path(name).parents[1].name for name in sorted(map(str, out.rglob("index.json")))] == ["released"] * 2


def test_a_gate_refuses_and_an_automation_pauses_the_schedule(
    asked: Any, recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run fails with the gate's reasons, the event names them, and the automation of docs/schedules.md pauses the schedule.
    The next run, of gates that are opened, leaves what was refused alone."""
    import yaml
    from prefect.events.schemas.automations import AutomationCore

    from thresher.releases.repository import releases

    document = Path("docs/schedules.md").read_text()
    automation = yaml.safe_load(document.split("```yaml\n# automation\n")[1].split("```")[0])
    asked.request("POST", "/automations/", json=AutomationCore.model_validate(automation).model_dump(mode="json"))
    repo, out = str(tmp_path / "released"), tmp_path / "runs"
    filters = [{"name": "finished"}, {"name": "exact_answer"}, {"name": "majority"}]
    path = recipe(
        filters=filters, publish={"repo": repo, "versions": "semantic", "gates": {"undecided": 0.0, "self_check": False}}
    )
    scheduled = ("schedule", str(path), "--interval", "1d", "--name", "gated", "--out", str(out))
    thresher(*scheduled)
    first = begin(asked, "gated")
    state = ended(asked, first)
    assert (state.type.value, "undecided, more than 0.0%" in state.message) == ("FAILED", True)
    (row,) = [row for row in printed_json(capsys, "schedules") if row["name"] == "gated"]
    assert re.fullmatch(r"not released: [0-9.]+% of the samples are undecided, more than 0.0%", row["last_message"])
    assert [(one["state"], (out / name / "dataset/README.md").exists()) for name, one in notes(out).items()] == [
        ("refused", True)
    ]
    gate = until(lambda: [entry for entry in events(asked, repo) if entry["event"] == "thresher.gate.failed"])[0]
    assert "undecided, more than 0.0%" in gate["payload"]["reasons"][0]
    until(lambda: asked.read_deployment_by_name("thresher/gated").paused)

    until(lambda: "Finished in state Failed" in said(asked, first))
    assert said(asked, first).count("undecided, more than") == 1

    thresher(*scheduled, "--set", "publish.gates.undecided=1.0")
    assert asked.read_deployment_by_name("thresher/gated").paused
    thresher("schedule", "gated", "--resume")
    second = begin(asked, "gated")
    assert ended(asked, second).is_completed()
    assert [value["state"] for value in notes(out).values()] == ["refused", "done"]
    assert [release.version for release in releases(repo).releases] == ["v1.0.0"]


def test_missed_slots_run_late_when_a_worker_starts(asked: Any, server: Any, serving: Any, recipe: Write, tmp_path: Path) -> None:
    """A schedule of a work pool without workers, and then a server that is killed and back again: the missed slot is Late, and
    runs with its own salt once a worker is there, with a variable that a Secret block fills. The worker runs the deployments of
    prefect.yaml too. `thresher serve` has outlived the server."""
    import httpx
    from prefect.blocks.system import Secret
    from prefect.client.schemas.actions import WorkPoolCreate

    asked.create_work_pool(WorkPoolCreate(name="thresher", type="process"))
    Secret(value="hush, hush").save("a-key", overwrite=True)
    out = tmp_path / "runs"
    variable = f"A_KEY={hashlib.sha256(b'hush, hush').hexdigest()}"
    held = {"name": "held_filter:build", "parameters": {"folder": str(tmp_path), "variable": variable}}
    path = recipe(filters=[{"name": "finished"}, held])
    pooled = ("schedule", str(path), "--interval", "1h", "--name", "missed", "--out", str(out), "--pool", "thresher")
    thresher(*pooled, "--env", "A_KEY={{ prefect.blocks.secret.a-key }}")
    thresher(*pooled)  # changed without it, the variable stays
    missed = begin(asked, "missed")
    until(lambda: asked.read_flow_run(missed).state_name == "Late")
    server.down(signal.SIGKILL)
    with pytest.raises(httpx.HTTPError):
        asked.read_flow_run(missed)
    server.up()
    assert asked.read_flow_run(missed).state_name == "Late"
    assert serving.poll() is None

    prefect = str(Path(sys.executable).with_name("prefect"))
    worker = server.start([prefect, "worker", "start", "--pool", "thresher"], "worker.log")
    assert ended(asked, missed).is_completed()
    slot = f"{asked.read_flow_run(missed).expected_start_time:%Y%m%dT%H%M%S}"
    assert [(name, one["salt"], one["state"]) for name, one in notes(out).items()] == [
        (f"small-{slot}", f"{slot}-missed", "done")
    ]
    assert {reason for item in out.glob("*/verdicts/*.parquet") for reason in pq.read_table(item)["outcome"].to_pylist()} == {
        "keep",
        "drop",
    }
    assert not [file for file in out.rglob("*") if file.is_file() and b"hush" in file.read_bytes()]
    assert "hush" not in said(asked, missed)

    home = str(Path(__file__).parents[1])
    deploy = [prefect, "--no-prompt", "deploy", "--all"]
    subprocess.run(deploy, cwd=home, env={**server.environment, "THRESHER_HOME": home}, check=True, capture_output=True)
    shipped = asked.read_deployment_by_name("thresher/json")
    small = {"recipe": str(recipe()), "out": str(tmp_path / "shipped")}
    assert ended(asked, asked.create_flow_run_from_deployment(shipped.id, parameters=small).id).is_completed()
    assert [value["state"] for value in notes(tmp_path / "shipped").values()] == ["done"]
    server.stop(worker)

    thresher("schedule", str(recipe()), "--interval", "1h", "--name", "missed", "--out", str(out))
    assert asked.read_deployment_by_name("thresher/missed").job_variables == {"env": {}}
    assert ended(asked, begin(asked, "missed")).is_completed()  # by thresher serve, now that it has no pool


def test_a_shard_costs_the_server_few_requests(asked: Any, server: Any, recipe: Write, tmp_path: Path) -> None:
    """The HTTP requests of a run of 16 shards and of one of 4, from the server's log: at most 1 more per shard. States of task
    runs travel as events, over one websocket."""
    requests = {}
    for shards in (4, 16):
        before = len(server.log.read_text().splitlines())
        rows = [json.dumps({"country": f"Land {at}", "answer": "Town"}) + "\n" for at in range(shards)]
        path = recipe(filters=[{"name": "finished"}], run={"shard_samples": 5, "filter_workers": 0})
        (tmp_path / "prompts.jsonl").write_text("".join(rows))
        answers = [json.dumps({"prompt": f"Capital of Land {at}?", "completion": "Town"}) + "\n" for at in range(shards)]
        (tmp_path / "answers.jsonl").write_text("".join(answers))
        thresher(
            "schedule", str(path), "--interval", "1d", "--name", f"shards-{shards}", "--out", str(tmp_path / f"runs-{shards}")
        )
        run = begin(asked, f"shards-{shards}")
        assert ended(asked, run).is_completed()
        assert len(list((tmp_path / f"runs-{shards}").glob("*/samples/*.parquet"))) == shards
        others = (
            "/flow_runs/filter",
            "/get_scheduled_flow_runs",
            "/deployments/",
            f"/flow_runs/{run} ",
            "/health",
            "/csrf-token",
        )
        lines = [line for line in server.log.read_text().splitlines()[before:] if " /api/" in line and " HTTP/1.1" in line]
        requests[shards] = len([line for line in lines if not any(entry in line for entry in others)])
    per_shard = (requests[16] - requests[4]) / 12
    print(f"{requests[4]} requests for 4 shards, {requests[16]} for 16: {per_shard:.2f} per shard")
    assert per_shard <= 1


def test_a_schedule_fires_with_postgresql(tmp_path_factory: pytest.TempPathFactory, recipe: Write, tmp_path: Path) -> None:
    """The server keeps its state in PostgreSQL, with the settings of docs/deployment.md."""
    monkeypatch = pytest.MonkeyPatch()
    program = shutil.which("initdb", path="/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin")
    if program is None:
        pytest.skip("no PostgreSQL here (initdb)")
    bin_, data = Path(program).parent, Path(tempfile.mkdtemp(prefix="thresher-pg-"))
    user: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    if user:
        os.chown(data, 65534, 65534)
    subprocess.run([program, "-D", data / "db", "-U", "thresher", "-A", "trust", "--no-sync"], check=True, cwd=data, **user)
    port = free_port()
    told = (f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={data}", "fsync=off")
    options = [part for entry in told for part in ("-c", entry)]
    postgres = subprocess.Popen([bin_ / "postgres", "-D", data / "db", *options], cwd=data, **user)
    try:
        ready: list[str | Path] = [bin_ / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
        until(lambda: subprocess.run(ready, check=False).returncode == 0)
        page = block("postgresql")
        settings = dict(line.removeprefix("export ").split("=", 1) for line in page.splitlines() if line.startswith("export "))
        address = "prefect:PASSWORD@db/prefect"
        settings = {name: value.replace(address, f"thresher@127.0.0.1:{port}/postgres") for name, value in settings.items()}
        assert (len(settings), address in str(settings)) == (2, False)
        path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        folder = tmp_path_factory.mktemp("postgres")
        with Server(folder, PYTHONPATH=path, **settings) as server:
            server.start([sys.executable, "-m", "thresher.cli", "serve"], "serve.log")
            for client in client_of(server, monkeypatch):
                fires(client, recipe, tmp_path, "fires")
            ask: list[str | Path] = [
                bin_ / "psql",
                "-h",
                "127.0.0.1",
                "-p",
                str(port),
                "-U",
                "thresher",
                "-d",
                "postgres",
                "-Atc",
            ]
            count = subprocess.run([*ask, "select count(*) from flow_run"], check=True, capture_output=True, text=True)
            assert int(count.stdout) >= 2
    finally:
        postgres.send_signal(signal.SIGQUIT)
        postgres.wait(60)
        shutil.rmtree(data)
        monkeypatch.undo()


@pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"no {CHROMIUM}")
def test_the_form_of_a_run_can_be_filled_in(
    asked: Any, server: Any, recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the server's own UI: every field is described, and what is left empty stays as it was."""
    from playwright.sync_api import sync_playwright
    from prefect.client.schemas.actions import WorkPoolCreate

    from thresher.cli import main

    scheduled = [
        "schedule",
        str(recipe()),
        "--interval",
        "1d",
        "--name",
        "form",
        "--out",
        str(tmp_path / "runs"),
        "--pool",
        "nobody",
    ]
    assert main(scheduled) == 1
    assert (
        "--pool nobody: the Prefect server has no such work pool; create it: prefect work-pool create" in capsys.readouterr().err
    )
    asked.create_work_pool(WorkPoolCreate(name="nobody", type="process"))
    assert main(scheduled) == 0
    deployment = asked.read_deployment_by_name("thresher/form")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1100, "height": 1700})
        tab.goto(f"{server.url.removesuffix('/api')}/deployments/deployment/{deployment.id}/run?parameters=%7B%7D")
        tab.wait_for_selector("text=Target Rows")
        text = tab.inner_text("body")
        described = [
            "a YAML file on the machine",
            "Changes to the recipe",
            "Take only the first prompts",
            "Another salt draws other",
        ]
        assert [entry for entry in described if entry not in text] == []
        assert "Property is type" not in text
        tab.locator("input[type=number]").first.fill("2")
        tab.get_by_role("button", name="Submit").click()
        browser_run = until(lambda: [run for run in runs(asked, "form") if not run.auto_scheduled])
        browser.close()
    given = browser_run[0].parameters
    assert given["limits"] == {"prompts": 2}
    assert {name: given.get(name) for name in ("recipe", "out", "salt")} == {
        **{name: deployment.parameters[name] for name in ("recipe", "out")},
        "salt": "",
    }


def test_drift_since_the_run_before_is_an_event_and_no_event_fails_a_run(
    asked: Any, recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 12 prompts, 10 are answered right by one run and 2 by the next. An event that cannot be sent is logged."""
    from flows import reporting
    from thresher.errors import PublishError

    def run(root: Path, right: int) -> tuple[Run, Audit]:
        path = recipe()
        rows = [{"country": f"Land {number}", "answer": "Town"} for number in range(12)]
        (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        answers = [
            {"prompt": f"Capital of Land {number}?", "completion": "Town" if number < right else "Pond"} for number in range(12)
        ]
        (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
        changes = [f"publish.repo={tmp_path / 'drifts'}", "publish.gates.pass_rate_drop=1"]
        audit = run_recipe(path, root, *changes).audit
        return open_run(root), audit

    run(tmp_path / "runs/one", 10)
    second, audit = run(tmp_path / "runs/two", 2)
    reporting.finished(second, audit)
    drift = until(lambda: [item for item in events(asked, str(tmp_path / "drifts")) if item["event"] == "thresher.drift.found"])[
        0
    ]
    assert drift["payload"]["against"] == str(tmp_path / "runs/one")
    assert {entry["of"] for entry in drift["payload"]["drifted"]} == {"pass rate", "exact_answer"}

    def fails(*_: Any, **__: Any) -> None:
        raise OSError("connection refused")

    warnings: list[str] = []
    monkeypatch.setattr(reporting, "emit_event", fails)
    monkeypatch.setattr(reporting.log, "warning", lambda text, *values: warnings.append(text % values))
    reporting.refused(second, PublishError("not released; and why:\n  it is not there"))
    assert warnings == ["the event thresher.gate.failed did not reach the Prefect server: OSError('connection refused')"]


@pytest.mark.parametrize(
    ("when", "wanted"),
    [
        (["--cron", "0 2 * *"], "--cron 0 2 * *: "),
        (["--cron", "0 2 * * *", "--timezone", "Berlin"], "--timezone Berlin: "),
        (["--cron", "0 0 31 2 *"], "--cron 0 0 31 2 *: no such day ever comes"),
        (
            ["--cron", "0 0 * * * 30"],
            "--cron 0 0 * * * 30: wanted five fields",
        ),
        (["--interval", "24h", "--timezone", "Europe/Berlin"], "--timezone Europe/Berlin: an interval is a length of time"),
        (["--interval", "often"], "--interval often: wanted a number above 0, of seconds or with one of s, m, h, d, w"),
        (["--interval", "0h"], "--interval 0h: wanted"),
        (["--interval", "9999999999w"], "--interval 9999999999w: that is more than ten years"),
        (["--interval", "6h", "--name", "a/b"], "--name a/b: Prefect takes no / in a name"),
        (["--interval", "6h", "--out", "nowhere://x"], "nowhere://x: unknown storage"),
        (["--interval", "6h", "--env", "A=b"], "--env: is for the jobs of a work pool"),
        (["--interval", "6h", "--pool", "x", "--env", "1=secret"], "--env 1: wanted NAME=VALUE"),
        (["--interval", "6h", "--pool", "x", "--env", "HF_TOKEN=abc"], "--env HF_TOKEN: holds a key"),
        (["--interval", "6h", "--pool", "x", "--env", f"A=sk-{'x' * 20}"], "prefect.blocks.secret.a }}'"),
    ],
)
def test_invalid_times_are_named(recipe: Write, capsys: pytest.CaptureFixture[str], when: list[str], wanted: str) -> None:
    """Before any server is asked."""
    from thresher.cli import main

    assert main(["schedule", str(recipe()), *when]) == 1
    assert wanted in capsys.readouterr().err
