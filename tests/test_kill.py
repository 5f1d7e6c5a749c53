"""kill -9 at random instants: a run that is started again ends with exactly the samples of one that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from helpers import known
from helpers.fake_openai import FakeOpenAI
from helpers.processes import left_running, marked
from helpers.runs import pool_rows
from thresher import ids
from thresher.cli.command_line import INTERRUPTED
from thresher.inputs import recipe_file
from thresher.pool.rows import series_of
from thresher.pool.store import Store
from thresher.running import steps

KILLS = 15
PROMPTS, SAMPLES, IN_FLIGHT = 400, 8, 16
"""Two requests at a time for a prompt's samples and its anchor; an uninterrupted run takes longer than the kills are apart."""


def write_recipe(folder: Path, url: str) -> Path:
    document = {
        "name": "killed",
        "prompts": [
            {
                "family": "numbers",
                "source": {"kind": "grid", "fields": {"n": list(range(PROMPTS))}},
                "template": "Number {{ n }}",
                "reference": None,
            }
        ],
        "model": {"name": "small"},
        "engine": {"kind": "openai_http", "base_urls": [url], "requests_in_flight": IN_FLIGHT},
        "sampling": {"samples_per_prompt": SAMPLES, "max_tokens": 8},
        "filters": [{"name": "finished"}],
        "dedupe": {"run_characters": 0},
        "run": {"shard_samples": 180, "shards_in_flight": 3, "filter_workers": 1},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def start(path: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "thresher.cli", "run", str(path), "--out", str(out), "--no-prefect"]
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def planned(path: Path, out: Path) -> set[str]:
    """The ids that a run of this recipe is to have, from its plan alone."""
    begun = steps.begin(recipe_file.load(path), out)
    series = series_of(begun.recipe.sampling, known(begun.run.model), begun.recipe.run.salt)
    prompts = [p for shard in range(begun.shards) for p in Store(out).read_group("prompts", shard)["prompt_id"].to_pylist()]
    return {
        name
        for prompt in prompts
        for part in series
        for name in ids.sample_ids(prompt, part.key, [-1] if part.anchor else range(SAMPLES))
    }


@pytest.mark.slow
def test_a_run_killed_at_15_random_instants_has_every_sample_once(tmp_path: Path) -> None:
    """None missing, none twice; and what was redrawn is what was in flight: no more requests than the run needs, and those that
    were out at each kill."""
    instants = random.Random(11)
    out, kills = tmp_path / "run", 0
    asked: list[int] = []
    with FakeOpenAI(delay_s=0.25) as server:
        path = write_recipe(tmp_path, server.url)
        wanted = planned(path, out)
        while kills < KILLS:
            process = start(path, out)
            before = len(server.bodies)
            while len(server.bodies) == before and process.poll() is None:
                time.sleep(0.01)  # it is sampling, or has nothing left to sample
            time.sleep(instants.uniform(0, 0.9))
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
            process.wait()
            if process.returncode == 0 and kills < KILLS:
                pytest.fail(f"the run ended after {kills} kills; it is too short for this test")
            asked.append(len(server.bodies) - before)
        process = start(path, out)
        assert process.wait(timeout=300) == 0, out.with_suffix(".log").read_text()
        requests = len(server.bodies)
    rows = pool_rows(out)

    found = [row["sample_id"] for row in rows]
    assert len(found) == len(set(found)) == PROMPTS * (SAMPLES + 1)
    assert set(found) == wanted
    assert requests <= 2 * PROMPTS + KILLS * IN_FLIGHT
    assert len({(row["prompt_id"], row["index"]) for row in rows}) == len(rows)
    assert not list(out.glob("journal/*"))
    from datasets import load_dataset

    assert load_dataset(str(out / "dataset"), "rollouts", split="train").num_rows == len(found)


SLOW = """
import time
from pathlib import Path
from pydantic import BaseModel
from filters.base import Filter, Role, Scope
from filters.judging import one_by_one
from schemas.sample import Verdict

class Config(BaseModel):
    hold: str

def build(config):
    def judge(sample):
        while Path(config.hold).exists():
            Path(config.hold + "-judging").touch()
            time.sleep(0.05)
        return Verdict.keep()

    return Filter("slow", "1", Scope.SAMPLE, Role.QUALITY, one_by_one(judge, ("completion",)), ("completion",))
"""


@pytest.mark.slow
def test_an_interrupted_run_says_one_line_leaves_no_process_and_is_resumed(tmp_path: Path) -> None:
    """While a filter process judges and requests wait for the engine: SIGTERM, which one process gets, and Ctrl-C, which all
    processes of the terminal get. The same command then draws only what was in flight."""
    (tmp_path / "slow_filter.py").write_text(SLOW)
    hold, judging = tmp_path / "hold", tmp_path / "hold-judging"
    hold.touch()
    environment, mark = marked({**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{tmp_path}:{Path.cwd()}"})
    prompts = 60
    with FakeOpenAI(misbehave=lambda count, _: 503 if count >= prompts and hold.exists() else None) as server:
        path = write_recipe(tmp_path, server.url)
        filters = f"filters=[{{name: finished}}, {{name: 'slow_filter:build', parameters: {{hold: {hold}}}}}]"
        options = ["--set", filters, "--set", f"prompts.0.limit={prompts}", "--out", str(tmp_path / "run"), "--no-prefect"]
        command = [sys.executable, "-m", "thresher.cli", "run", str(path), *options]
        for number in (signal.SIGTERM, signal.SIGINT):
            judging.unlink(missing_ok=True)
            with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True) as run:
                while not judging.exists() and run.poll() is None:
                    time.sleep(0.02)
                os.killpg(run.pid, number) if number == signal.SIGINT else run.send_signal(number)
                errors = known(run.stderr).read()
            assert (run.returncode, errors.splitlines()[-1]) == (128 + number, f"thresher: {INTERRUPTED}"), errors
            assert [line for line in errors.splitlines()[:-1] if "sampl" not in line and "503" not in line] == []
            assert left_running(mark) == []

        asked = len(server.bodies)
        hold.unlink()
        assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
        assert len(server.bodies) - asked < 2 * prompts
    assert len(pool_rows(tmp_path / "run")) == prompts * (SAMPLES + 1)
