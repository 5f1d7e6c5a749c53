"""The demo recipe, shortened, on real vLLM with SmolLM2: sampled, killed, resumed, read by datasets."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thresher.pool.store import Store
from thresher.samplers.orphans import ProcessId, command_line, descendants, is_running

pytestmark = pytest.mark.slow

PROMPTS, SAMPLES = 10, 4
OVERRIDES = [
    *(f"prompts.{family}.limit=2" for family in range(5)),
    f"sampling.samples_per_prompt={SAMPLES}",
    "run.shard_samples=5",
    "run.shards_in_flight=2",
]
COMMAND = [sys.executable, "-m", "thresher.cli", "run", "data/recipes/demo.yaml"]
ONE_PROCESS = "engine.options.distributed_executor_backend=vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""The engine computes in its own process, as on a GPU, and starts in half of the time."""
COMMAND += [part for override in OVERRIDES for part in ("--set", override)]


def start(out: Path, *more: str, **environment: str) -> subprocess.Popen[bytes]:
    """Its output goes to a file beside the run: the engine would keep a pipe open after the process is killed."""
    with out.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            [*COMMAND, "--out", str(out), *more], stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )


def finished_shards(out: Path) -> set[str]:
    return {path.name for path in out.glob("samples/*.json")}


def wait_for_shard(process: subprocess.Popen[bytes], out: Path) -> None:
    """Wait until the first shard is finished; the engine takes about a minute to start."""
    for _ in range(6000):
        if finished_shards(out):
            return
        assert process.poll() is None, out.with_suffix(".log").read_text()
        time.sleep(0.05)
    raise AssertionError("no shard in 300 s")


def output_of(process: subprocess.Popen[bytes], out: Path) -> str:
    """What the command prints until it ends, successfully."""
    process.wait(timeout=600)
    output = out.with_suffix(".log").read_text()
    assert process.returncode == 0, output
    return output


def engines_of(process: subprocess.Popen[bytes]) -> set[ProcessId]:
    return {child for child in descendants(process.pid) if b"EngineCore" in command_line(child.pid)}


def still_running(processes: set[ProcessId], seconds: float) -> list[ProcessId]:
    """The processes that do not end in time."""
    deadline = time.monotonic() + seconds
    while (running := [process for process in processes if is_running(process)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return running


@pytest.fixture(scope="module")
def killed_and_resumed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run whose process is killed after its first shard, and then run again to the end."""
    out = tmp_path_factory.mktemp("vllm") / "run"
    process = start(out, "--no-prefect")
    wait_for_shard(process, out)
    children = descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("samples/*.parquet") if path.with_suffix(".json").exists()}
    running = still_running(children, 20)
    output_of(start(out, "--no-prefect", "--set", ONE_PROCESS), out)
    return {"out": out, "before": before, "still_running": running}


def rows(out: Path) -> list[dict[str, Any]]:
    store = Store(out)
    return [row for name in store.names("samples", ".parquet") for row in store.read_table(f"samples/{name[:-8]}").to_pylist()]


def test_a_killed_run_leaves_no_process_behind(killed_and_resumed: dict[str, Any]) -> None:
    """kill -9 of the process that holds the engine: its engine and filter processes end too."""
    assert killed_and_resumed["still_running"] == []


def test_a_killed_run_is_resumed_without_redoing_shards(killed_and_resumed: dict[str, Any]) -> None:
    """Each sample exists once; the finished shards are unchanged."""
    samples = rows(killed_and_resumed["out"])
    after = {path.name: path.stat().st_mtime_ns for path in killed_and_resumed["out"].glob("samples/*.parquet")}

    assert killed_and_resumed["before"]
    assert killed_and_resumed["before"].items() <= after.items()
    assert len(samples) == len({row["sample_id"] for row in samples}) == PROMPTS * (SAMPLES + 1)


def test_the_engine_has_another_seed_after_the_restart(killed_and_resumed: dict[str, Any]) -> None:
    """A resumed run does not repeat the noise of its first start; no seed is vLLM's default."""
    seeds = {row["engine_seed"] for row in rows(killed_and_resumed["out"])}

    assert len(seeds) == 2
    assert 0 not in seeds


def test_samples_carry_tokens_logprobs_and_parameters(killed_and_resumed: dict[str, Any]) -> None:
    for row in rows(killed_and_resumed["out"]):
        assert len(row["completion_ids"]) == len(row["logprobs"]) > 0
        assert max(row["logprobs"]) <= 1e-6
        np.testing.assert_allclose(row["cumulative_logprob"], np.sum(row["logprobs"]), rtol=1e-4)
        assert row["finish_reason"] in {"stop", "length"}
        assert json.loads(row["sampling"])["temperature"] == (0.0 if row["anchor"] else 1.0)
        assert (row["engine"], row["logprobs_kind"], row["model"]) == ("vllm", "raw", "smollm2-135m-instruct")
        assert row["prompt_ids"]


def test_hot_samples_differ_and_anchors_are_greedy(killed_and_resumed: dict[str, Any]) -> None:
    """Tokens of anchors are likelier on average: greedy decoding takes the likeliest each time."""
    samples = rows(killed_and_resumed["out"])
    hot = np.concatenate([row["logprobs"] for row in samples if not row["anchor"]])
    greedy = np.concatenate([row["logprobs"] for row in samples if row["anchor"]])

    assert len({row["completion"] for row in samples if not row["anchor"]}) > PROMPTS
    assert greedy.mean() > hot.mean()


def test_datasets_reads_every_view(killed_and_resumed: dict[str, Any]) -> None:
    """With its default verification."""
    from datasets import load_dataset

    path = str(killed_and_resumed["out"] / "dataset")
    assert load_dataset(path, "rollouts", split="train").num_rows == PROMPTS * (SAMPLES + 1)
    assert load_dataset(path, "prompts", split="train").num_rows == PROMPTS


def test_a_second_run_reports_within_seconds_that_it_is_finished(killed_and_resumed: dict[str, Any]) -> None:
    """Without starting Prefect or an engine."""
    started = time.monotonic()
    output = output_of(start(killed_and_resumed["out"], "--set", ONE_PROCESS), killed_and_resumed["out"])

    assert "already finished" in output
    assert time.monotonic() - started < 30


def test_an_engine_that_dies_is_started_again_under_prefect(tmp_path: Path) -> None:
    """Its processes are killed while the second shard is sampled; the run still ends complete."""
    out = tmp_path / "run"
    process = start(out, "--set", ONE_PROCESS, PREFECT_HOME=str(tmp_path / "prefect"))
    wait_for_shard(process, out)
    engines = engines_of(process)
    assert engines
    for pid, _ in engines:
        os.kill(pid, signal.SIGKILL)
    output_of(process, out)

    samples = rows(out)
    assert len(samples) == len({row["sample_id"] for row in samples}) == PROMPTS * (SAMPLES + 1)


def test_engines_of_a_cluster_draw_a_run_together(tmp_path: Path) -> None:
    """Two actors with engines of different seeds, one of which is killed: the samples are those of a local run, and no engine
    outlives the run."""
    pytest.importorskip("ray")
    out = tmp_path / "run"
    engines = set[ProcessId]()
    executor = "executor={kind: ray, address: null, replicas: 2, cpus_per_replica: 0.5}"
    samples_each = 120  # enough work that both engines are ready before it is done, also on a busy machine
    changes = [executor, ONE_PROCESS, "run.shards_in_flight=1", f"sampling.samples_per_prompt={samples_each}"]
    more = [part for change in changes for part in ("--set", change)]
    process = start(out, "--no-prefect", *more)
    killed = False
    for _ in range(6000):
        if process.poll() is not None:
            break
        alive = engines_of(process)
        engines |= alive
        if not killed and finished_shards(out) and len(alive) > 1:
            os.kill(alive.pop().pid, signal.SIGKILL)  # its actor starts another
            killed = True
        time.sleep(0.05)
    output_of(process, out)
    samples = rows(out)
    ids = [row["sample_id"] for row in samples]
    assert len(ids) == len(set(ids)) == PROMPTS * (samples_each + 1)
    seeds = {row["engine_seed"] for row in samples}
    assert len(seeds) >= 2
    assert len({row["source"] for row in samples}) == len(seeds)
    assert killed
    assert len(engines) >= 2
    assert still_running(engines, 30) == []
