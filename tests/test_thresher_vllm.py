"""The demo's recipe, cut short, on real vLLM with SmolLM2: sampled, killed, resumed, read by datasets."""

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
from thresher.samplers.orphans import _descendants, _started

pytestmark = pytest.mark.slow

PROMPTS, SAMPLES = 10, 4
SHORT = [
    *(f"prompts.{family}.limit=2" for family in range(5)),
    f"sampling.samples_per_prompt={SAMPLES}",
    "run.shard_samples=5",
    "run.shards_in_flight=2",
]
COMMAND = [sys.executable, "-m", "thresher.cli", "run", "data/recipes/demo.yaml", *(x for one in SHORT for x in ("--set", one))]


def start(out: Path, *more: str, **environment: str) -> subprocess.Popen[bytes]:
    """What it prints goes to a file beside the run: its engine would hold a pipe open after its death."""
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


def whole(process: subprocess.Popen[bytes], out: Path) -> str:
    process.wait(timeout=600)
    said = out.with_suffix(".log").read_text()
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def killed_and_resumed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run whose process is killed after its first shard, and that is then run again to its end."""
    out = tmp_path_factory.mktemp("vllm") / "run"
    process = start(out, "--no-prefect")
    wait_for_shard(process, out)
    engine = _descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("samples/*.parquet") if path.with_suffix(".json").exists()}
    deadline = time.monotonic() + 20
    while (left := [pid for pid, started in engine if _started(pid) == started and alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.2)
    said = whole(start(out, "--no-prefect"), out)
    return {"out": out, "before": before, "left": left, "said": said}


def alive(pid: int) -> bool:
    """Not a zombie that its new parent has not read yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def command_of(pid: int) -> bytes:
    """Its command line; nothing where it has ended, as a sandboxed program may at any time."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def rows(out: Path) -> list[dict[str, Any]]:
    store = Store(out)
    return [row for name in store.names("samples", ".parquet") for row in store.read_table(f"samples/{name[:-8]}").to_pylist()]


def test_a_killed_run_leaves_no_engine_behind(killed_and_resumed: dict[str, Any]) -> None:
    """kill -9 of the process that holds the engine: its engine and filter processes end too."""
    assert killed_and_resumed["left"] == []


def test_a_killed_run_is_finished_without_redoing_shards(killed_and_resumed: dict[str, Any]) -> None:
    """Every sample once, the finished shards untouched."""
    found = rows(killed_and_resumed["out"])
    after = {path.name: path.stat().st_mtime_ns for path in killed_and_resumed["out"].glob("samples/*.parquet")}

    assert killed_and_resumed["before"]
    assert killed_and_resumed["before"].items() <= after.items()
    assert len(found) == len({row["sample_id"] for row in found}) == PROMPTS * (SAMPLES + 1)


def test_the_engine_has_another_seed_after_the_restart(killed_and_resumed: dict[str, Any]) -> None:
    """A resumed run does not repeat the noise of its first start; no seed is vLLM's default."""
    seeds = {row["engine_seed"] for row in rows(killed_and_resumed["out"])}

    assert len(seeds) == 2
    assert 0 not in seeds


def test_samples_carry_tokens_logprobs_and_parameters(killed_and_resumed: dict[str, Any]) -> None:
    """One log-probability per token, their sum, and what was in force."""
    for row in rows(killed_and_resumed["out"]):
        assert len(row["completion_ids"]) == len(row["logprobs"]) > 0
        assert max(row["logprobs"]) <= 1e-6
        np.testing.assert_allclose(row["cumulative_logprob"], np.sum(row["logprobs"]), rtol=1e-4)
        assert row["finish_reason"] in {"stop", "length"}
        assert json.loads(row["sampling"])["temperature"] == (0.0 if row["anchor"] else 1.0)
        assert (row["engine"], row["logprobs_kind"], row["model"]) == ("vllm", "raw", "smollm2-135m-instruct")
        assert row["prompt_ids"]


def test_hot_samples_differ_and_anchors_are_greedy(killed_and_resumed: dict[str, Any]) -> None:
    """The anchor's tokens are likelier than the samples' on the whole: greedy takes the likeliest each time."""
    found = rows(killed_and_resumed["out"])
    hot = np.concatenate([row["logprobs"] for row in found if not row["anchor"]])
    greedy = np.concatenate([row["logprobs"] for row in found if row["anchor"]])

    assert len({row["completion"] for row in found if not row["anchor"]}) > PROMPTS
    assert greedy.mean() > hot.mean()


def test_datasets_reads_every_view(killed_and_resumed: dict[str, Any]) -> None:
    """With default verification."""
    from datasets import load_dataset

    path = str(killed_and_resumed["out"] / "dataset")
    assert load_dataset(path, "rollouts", split="train").num_rows == PROMPTS * (SAMPLES + 1)
    assert load_dataset(path, "prompts", split="train").num_rows == PROMPTS


def test_a_second_run_says_within_seconds_that_it_is_finished(killed_and_resumed: dict[str, Any]) -> None:
    """Without starting Prefect or an engine."""
    began = time.monotonic()
    said = whole(start(killed_and_resumed["out"]), killed_and_resumed["out"])

    assert "already finished" in said
    assert time.monotonic() - began < 30


def test_an_engine_that_dies_is_started_again_under_prefect(tmp_path: Path) -> None:
    """Its processes are killed while the second shard is sampled; the task is tried again and the run ends whole."""
    out = tmp_path / "run"
    process = start(out, PREFECT_HOME=str(tmp_path / "prefect"))
    wait_for_shard(process, out)
    engines = [pid for pid, _ in _descendants(process.pid) if b"EngineCore" in command_of(pid)]
    assert engines
    for pid in engines:
        os.kill(pid, signal.SIGKILL)
    whole(process, out)

    found = rows(out)
    assert len(found) == len({row["sample_id"] for row in found}) == PROMPTS * (SAMPLES + 1)


def test_engines_of_a_cluster_draw_a_run_together(tmp_path: Path) -> None:
    """Two actors, each with an engine of its own seed; the ids are those of the local run, and no engine outlives it."""
    pytest.importorskip("ray")
    out = tmp_path / "run"
    engines = set[tuple[int, str]]()
    spec = "executor={kind: ray, address: null, replicas: 2, cpus_per_replica: 0.5}"
    process = start(out, "--no-prefect", "--set", spec, "--set", "run.shards_in_flight=1")
    killed = False
    for _ in range(6000):
        if process.poll() is not None:
            break
        found = {one for one in _descendants(process.pid) if b"VLLM::EngineCore" in command_of(one[0])}
        engines |= found
        if not killed and len(finished_shards(out)) >= 2 and len(found) > 1:
            os.kill(found.pop()[0], signal.SIGKILL)  # its actor begins another
            killed = True
        time.sleep(0.05)
    whole(process, out)
    rows = [row for shard in sorted(finished_shards(out)) for row in Store(out).read_table(f"samples/{shard[:-5]}").to_pylist()]
    ids = [row["sample_id"] for row in rows]
    assert len(ids) == len(set(ids)) == PROMPTS * (SAMPLES + 1)
    seeds = {row["engine_seed"] for row in rows}
    assert len(seeds) >= 2
    assert len({row["source"] for row in rows}) == len(seeds)
    assert killed
    assert len(engines) >= 2
    for _ in range(600):
        if not (left := [one for one in engines if _started(one[0]) == one[1]]):
            break
        time.sleep(0.05)
    assert not left
