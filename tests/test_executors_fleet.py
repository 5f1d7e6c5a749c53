"""thresher fleet: servers on a Ray cluster that are replaced when they end, and a run that follows them."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from helpers.deployment_page import block
from helpers.lora import write_adapter
from helpers.runs import pool_rows, run_recipe
from schemas.engines import VllmEngine
from thresher.cli import main
from thresher.errors import RecipeError, StoreError
from thresher.executors import fleet
from thresher.inputs import recipe_file
from thresher.inputs.adapters import Adapter
from thresher.inputs.models import Model
from thresher.pool.store import Store
from thresher.samplers import vllm_process
from thresher.samplers.orphans import command_line, descendants, parent_of, start_time

DEMO = "data/recipes/demo.yaml"
ON_RAY = ["--set", "executor={kind: ray, address: null, replicas: 1, cpus_per_replica: 1}"]


def until(condition: Callable[[], Any], process: subprocess.Popen[bytes], log: Path, seconds: float = 300) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def engines_of(process: subprocess.Popen[bytes]) -> set[tuple[int, str]]:
    return {(pid, started) for pid, started in descendants(process.pid) if b"VLLM::EngineCore" in command_line(pid)}


@pytest.mark.slow
def test_a_run_follows_a_fleet_whose_server_is_killed(tmp_path: Path) -> None:
    """With the commands of docs/deployment.md. After kill -9 of the engine of the only server, while the run samples, another
    server is started under another address; the run finds it and completes, and no process outlives the fleet."""
    pytest.importorskip("ray")
    file, out, log = tmp_path / "fleet", tmp_path / "run", tmp_path / "log"
    changed = {"recipe.yaml": DEMO, "other.yaml": DEMO, "/shared/fleet": str(file), "replicas=4": "replicas=1"}
    page = block("fleet")
    for old, new in changed.items():
        page = page.replace(old, new)
    fleet_of, run_of = ([sys.executable, "-m", "thresher.cli", *shlex.split(line)[1:]] for line in page.splitlines())
    here = ["--set", "executor.address=null", "--set", "executor.cpus_per_replica=1"]
    with log.open("wb") as output:
        started = subprocess.Popen([*fleet_of, *here], stdout=output, stderr=output)
    engines = set[tuple[int, str]]()
    try:
        (first,) = until(lambda: file.exists() and file.read_text().split(), started, log)
        with pytest.raises(StoreError, match=rf"belongs to another fleet, whose server {first} runs"):
            fleet.Addresses(file).create()
        file.unlink()
        assert until(lambda: file.exists() and file.read_text().split(), started, log) == [first]
        engines |= engines_of(started)
        small = ["sampling.samples_per_prompt=8", "run.shard_samples=16", *(f"prompts.{family}.limit=4" for family in range(5))]
        more = ["--no-prefect", "--out", str(out), *(part for change in small for part in ("--set", change))]
        with (tmp_path / "run.log").open("wb") as output:
            run = subprocess.Popen([*run_of, *more], stdout=output, stderr=output)
        until(lambda: list(out.glob("journal/*.arrows")), run, tmp_path / "run.log")  # its first samples; most are in flight
        for pid, _ in engines:
            os.kill(pid, signal.SIGKILL)
        run.wait(timeout=400)
        assert run.returncode == 0, (tmp_path / "run.log").read_text()
        (second,) = until(lambda: file.exists() and file.read_text().split(), started, log)
        engines |= engines_of(started)
        assert second != first
        started.terminate()  # Processes of an xdist worker ignore interrupts.
        started.wait(timeout=60)
    finally:
        started.kill()
    shards = sorted(path.stem for path in out.glob("samples/*.json"))
    rows = [row for shard in shards for row in Store(out).read_table(f"samples/{shard}").to_pylist()]
    assert len(rows) == len({row["sample_id"] for row in rows}) == 20 * 9
    assert {row["source"] for row in rows} == {urlsplit(url).netloc for url in (first, second)}
    assert not file.exists()
    printed = log.read_text()
    assert f"{first} is lost" in printed
    assert f"{second} is ready" in printed
    assert "the fleet has stopped" in printed
    assert len(engines) >= 2
    for _ in range(300):
        if not (left := [pid for pid, start in engines if start_time(pid) == start]):
            break
        time.sleep(0.1)
    assert not left


@pytest.mark.slow
def test_the_error_of_a_server_that_does_not_start_is_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    wrong = ["--set", "engine.options={no_such_argument: 1}"]

    assert main(["fleet", DEMO, *ON_RAY, *wrong, "--file", str(tmp_path / "fleet")]) == 1
    assert "unrecognized arguments: --no-such-argument" in capsys.readouterr().err
    assert not (tmp_path / "fleet").exists()


@pytest.mark.slow
@pytest.mark.parametrize("children_too", [False, True])
def test_a_bound_program_ends_with_the_process_that_started_it(tmp_path: Path, *, children_too: bool) -> None:
    """After kill -9 of a process, or of it and its children, as Ray kills those of an actor, the program and its child end."""
    program = (
        "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); time.sleep(60)"
    )
    script = (
        "import sys, time; from thresher.samplers.orphans import start_bound; "
        f"start_bound([sys.executable, '-c', {program!r}], open(sys.argv[1], 'wb')); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "log")])
    try:
        family = until(lambda: len(pids := descendants(process.pid)) == 4 and pids, process, tmp_path / "log", 20)
    finally:
        children = [pid for pid, _ in descendants(process.pid) if parent_of(pid) == process.pid] if children_too else []
        process.kill()
        process.wait()
    assert len(children) == children_too
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 20
    while left := [pid for pid, start in family if start_time(pid) == start]:
        assert time.monotonic() < end, left
        time.sleep(0.05)


def test_a_fleet_needs_a_cluster_and_vllm(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = ["--file", str(tmp_path / "fleet")]

    assert main(["fleet", DEMO, *file]) == 1
    assert "executor.kind: a fleet needs a Ray cluster, the recipe has local" in capsys.readouterr().err
    loaded = recipe_file.load(DEMO, ["engine={kind: openai_http, fleet: x}"])
    with pytest.raises(RecipeError, match="a fleet has vLLM servers, the recipe has openai_http"):
        fleet.start_fleet(loaded.recipe, loaded.base, tmp_path / "fleet")


def test_a_file_that_cannot_be_written_is_refused_before_a_cluster_is_joined(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    unreachable = ["--set", "executor={kind: ray, address: '127.0.0.1:9'}"]

    assert main(["fleet", DEMO, *unreachable, "--file", str(tmp_path / "no" / "fleet")]) == 1
    assert "fleet: cannot be written (No such file or directory); name another with --file" in capsys.readouterr().err


def test_the_servers_arguments_are_the_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_process, "dtype_for", lambda dtype: dtype)
    both = [fleet.arguments(VllmEngine(max_model_len=512, enforce_eager=True, options={"a": {"b": 1}})) for _ in range(2)]
    flags = list(fleet.flags(both[0]))

    assert both[0]["seed"] != both[1]["seed"]
    assert flags[flags.index("--max-model-len") + 1] == "512"
    assert flags[flags.index("--generation-config") + 1] == "vllm"
    assert flags[flags.index("--a") + 1] == '{"b":1}'
    assert "--enforce-eager" in flags
    assert list(fleet.flags({"enable_x": False})) == ["--no-enable-x"]
    assert "--max-num-seqs" not in flags


def test_a_server_has_the_adapter_under_its_name_in_the_recipe() -> None:
    adapted = Model("m", "m", None, None, None, None, Adapter("org/tuned", "/cache/tuned", "abc", 8))
    flags = list(fleet.flags(fleet.adapter_flags(adapted, "org/tuned@main")))

    assert flags[flags.index("--lora-modules") + 1] == '{"name":"org/tuned@main","path":"/cache/tuned"}'
    assert flags[flags.index("--max-lora-rank") + 1] == "8"
    assert "--enable-lora" in flags
    assert fleet.adapter_flags(Model("m", "m", None, None, None, None), None) == {}


def test_a_file_of_another_program_is_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "fleet"
    file.write_text("what I wrote yesterday\n")
    with pytest.raises(StoreError, match=r"lists no servers \(found 'what'\); it is not overwritten, name another"):
        fleet.Addresses(file).create()
    assert file.read_text() == "what I wrote yesterday\n"
    file.write_text("http://127.0.0.1:9/v1\n")  # Left by a fleet that was killed.
    addresses = fleet.Addresses(file)
    addresses.create()
    assert file.read_text() == ""
    addresses.write(["http://10.0.0.1:8000/v1"])
    assert addresses.kept()
    file.write_text("http://10.0.0.2:8000/v1\n")
    assert not addresses.kept()
    addresses.remove()
    assert file.read_text() == "http://10.0.0.2:8000/v1\n"
    addresses.write(["http://10.0.0.1:8000/v1"])
    addresses.remove()
    assert not file.exists()


@pytest.mark.slow
def test_a_server_draws_with_the_adapter_of_its_recipe(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """One recipe for the server and for runs on it: `vllm serve` says which adapter it is, and of which base model."""
    write_adapter(tmp_path / "tuned")
    vllm = {"kind": "vllm", "enforce_eager": True, "max_model_len": 256, "kv_cache_gib": 1}
    loaded = recipe_file.load(recipe(engine=vllm, model={"adapter": "tuned"}))
    sampling = {"samples_per_prompt": 1, "max_tokens": 8, "calibration": {"standard_error": 0}}
    with fleet.Server(loaded.recipe, loaded.base) as server:
        changes = {
            "engine": {"kind": "openai_http", "base_urls": [server.url]},
            "sampling": sampling,
            "filters": [{"name": "finished"}],
        }
        for name, model in (("plain", {}), ("adapted", {"adapter": "tuned"})):
            run_recipe(recipe(**changes, model=model), tmp_path / name, "prompts.0.limit=2")
    [claims] = [json.loads(path.read_text()) for path in (tmp_path / "adapted" / "servers").iterdir()]
    rows = {name: [row for row in pool_rows(tmp_path / name) if row["anchor"]] for name in ("plain", "adapted")}

    assert (claims["model"], claims["root"]) == ("tuned", str(tmp_path / "tuned"))
    assert (claims["parent"], claims["owned_by"]) == ("smollm2-135m-instruct", "vllm")
    assert {row["adapter"] for row in rows["adapted"]} == {"tuned"}
    assert {row["adapter"] for row in rows["plain"]} == {None}
    assert all(a["logprobs"][0] != b["logprobs"][0] for a, b in zip(rows["plain"], rows["adapted"], strict=True))
