"""Two models with their own weights in one run on real vLLM: one engine after the other in one process."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import load_dataset
from safetensors.torch import load_file, save_file

from thresher.errors import EngineError
from thresher.inputs import recipe_file
from thresher.inputs.models import EMBEDDED, embedded_model
from thresher.pool.judged import each_judged
from thresher.pool.store import Store
from thresher.running import steps
from thresher.running.progress import Progress

pytestmark = pytest.mark.slow

RECIPE: dict[str, Any] = {
    "name": "two",
    "prompts": [
        {
            "family": "colours",
            "source": {"kind": "jsonl", "path": "colours.jsonl"},
            "template": "Describe {{ name }}.",
            "reference": None,
        }
    ],
    "models": [{"name": EMBEDDED}, {"name": "./flat"}],
    "engine": {"kind": "vllm", "max_model_len": 256, "max_num_seqs": 16, "kv_cache_gib": 0.25, "enforce_eager": True},
    "sampling": {"samples_per_prompt": 8, "max_tokens": 24},
    "filters": [],
    "near_miss": None,
    "run": {"filter_workers": 0},
}


def flatter(folder: Path) -> None:
    """The embedded model with a weaker last norm: every distribution is flatter than that of the embedded model."""
    shutil.copytree(embedded_model().path, folder, dirs_exist_ok=True)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * 0.8
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def write(folder: Path) -> Path:
    (folder / "colours.jsonl").write_text("".join(f'{{"name": "{name}"}}\n' for name in ("red", "blue", "green", "black")))
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def test_one_engine_after_the_other(tmp_path: Path, warm_engines: None) -> None:
    """The second model's files are damaged at first: the first one's samples are kept, and the rerun draws the second one's. Each
    passes its own calibration, by tokens of its own weights, and the dataset names the model of each row."""
    path = write(tmp_path)
    (tmp_path / "flat").mkdir()
    flatter(tmp_path / "flat")
    whole = (tmp_path / "flat/model.safetensors").read_bytes()
    (tmp_path / "flat/model.safetensors").write_bytes(whole[: len(whole) // 2])
    begun = steps.begin(recipe_file.load(path), tmp_path / "run")
    with Progress() as progress, pytest.raises(EngineError, match=r"(?s)no samples of 1 of 2 models.*\./flat: "):
        steps.run_steps(begun, progress)
    assert {row for table in each_judged(Store(tmp_path / "run"), ["model"]) for row in table["model"].to_pylist()} == {EMBEDDED}
    assert not (tmp_path / "run/dataset.json").exists()

    (tmp_path / "flat/model.safetensors").write_bytes(whole)
    begun = steps.begin(recipe_file.load(path), tmp_path / "run")
    assert begun.lacking == ([], [0])
    with Progress() as progress:
        audit = steps.run_steps(begun, progress).audit

    assert audit.problems == ()
    assert audit.calibration_faults == ()
    assert [test.source for test in audit.calibration] == ["./flat: start 3", f"{EMBEDDED}: start 1"]
    assert [(model.model, model.samples) for model in audit.models] == [(EMBEDDED, 32), ("./flat", 32)]
    rows = load_dataset(str(tmp_path / "run/dataset"), "rollouts", split="train")
    surprisal = {}
    for name in (EMBEDDED, "./flat"):
        own = [row for row in rows if row["policy_model"] == name and not row["anchor"]]
        surprisal[name] = -sum(row["cumulative_logprob"] for row in own) / sum(len(row["completion_ids"]) for row in own)
    assert surprisal["./flat"] > surprisal[EMBEDDED] + 0.2
    assert len(set(rows["policy_revision"])) == 2
