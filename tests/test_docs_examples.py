"""The examples of README and docs/ do what they say, and a stale generated page is found."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

import filters
from filters.judging import judge
from helpers.docs import ROOT, block, make_reference
from thresher.inputs import recipe_file
from thresher.pool.judged import JUDGED

Write = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("untrusting")


def test_the_first_recipe_has_25_lines_at_most_and_loads(tmp_path: Path) -> None:
    """Saved in the root of a checkout, as README says."""
    text = block("README.md", "yaml")
    assert len(text.splitlines()) <= 25
    (tmp_path / "data" / "prompts").mkdir(parents=True)
    shutil.copy(ROOT / "data/prompts/capital.jsonl", tmp_path / "data/prompts")
    (tmp_path / "capitals.yaml").write_text(text)

    loaded = recipe_file.load(str(tmp_path / "capitals.yaml"), [])

    assert loaded.recipe.name == "capitals"
    assert text == block("docs/tutorial.md", "yaml", "name: capitals")


def test_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 200


def test_the_filter_of_your_own_drops_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the consent that the page names."""
    (tmp_path / "haste.py").write_text(block("docs/filters.md", "python"))
    (tmp_path / "config.toml").write_text('trusted_code = ["haste"]\n')
    monkeypatch.setenv("THRESHER_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.syspath_prepend(tmp_path)
    (spec,) = yaml.safe_load(block("docs/filters.md", "yaml", "haste"))["filters"]
    haste = filters.build(spec["name"], spec["parameters"])

    verdicts = judge(haste, pa.table({"completion": ["Sure: 4", "As an AI I do not know"]}))

    assert verdicts["reason"].to_pylist() == ["", "gave_up"]


def test_the_python_page_runs(
    recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it is written, with a recipe that needs no engine: 2 shards with 2 prompts each, 4 samples and an anchor each."""
    recipe()
    monkeypatch.chdir(tmp_path)

    exec(compile(block("docs/python.md", "python"), "docs/python.md", "exec"), {})

    assert "10 samples" in capsys.readouterr().out
    assert (tmp_path / "released" / "README.md").is_file()


@pytest.mark.slow
def test_a_stale_page_is_found_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = make_reference()
    for name in reference.pages():
        text = (ROOT / "docs" / name).read_text("utf-8")
        (tmp_path / name).write_text(text.replace("| `samples_per_prompt` |", "| `samples` |"), "utf-8")
    monkeypatch.setattr(reference, "FOLDER", tmp_path)

    assert reference.main(["--check"]) == 1
    reference.main([])
    assert reference.main(["--check"]) == 0
    assert "| `samples_per_prompt` |" in (tmp_path / "recipe.md").read_text("utf-8")


def test_every_column_of_what_became_of_samples_is_documented() -> None:
    section = (ROOT / "docs" / "formats.md").read_text("utf-8").split("\n### judged/*.parquet\n")[1].split("\n#")[0]

    assert re.findall(r"^\| `(\w+)`", section, re.MULTILINE) == list(JUDGED)


def test_the_generated_part_names_every_key_of_a_recipe() -> None:
    reference = make_reference()
    schema = reference.recipe_schema()
    part = reference.recipe_part()

    assert [key for key in reference.recipe_keys(schema) if f"| `{key.split('.')[-1]}` |" not in part] == []
    assert {"sampling.max_tokens", "prompts[].source.path", "dedupe.semantic.engine.dtype"} <= reference.recipe_keys(schema)


SOURCES = "".join(path.read_text("utf-8") for folder in ("thresher", "flows") for path in (ROOT / folder).rglob("*.py"))


def test_every_variable_of_the_telemetry_page_is_set() -> None:
    text = (ROOT / "docs" / "telemetry.md").read_text("utf-8")
    table = set(re.findall(r"`([A-Z_]+)=(\w+)`", text))

    assert len(table) == 7
    assert [name for name, value in table if not re.search(rf'"{name}"\s*[,:]\s*"{value}"', SOURCES)] == []


TELEMETRY = """
import importlib.util, sys
from pathlib import Path
import thresher
import huggingface_hub.constants, datasets.config
from huggingface_hub.utils import build_hf_headers
from prefect._internal.analytics import enabled
from prefect.settings import get_current_settings
from ray._common.usage import usage_lib
from transformers.utils import is_env_variable_true

enabled.is_ci_environment = lambda: False
vllm = Path(importlib.util.find_spec("vllm").origin).parent / "envs.py"
found = importlib.util.spec_from_file_location("vllm_envs", vllm)
envs = importlib.util.module_from_spec(found)
found.loader.exec_module(envs)
print(
    enabled.is_telemetry_enabled(), get_current_settings().server.analytics_enabled, usage_lib.usage_stats_enabled(),
    not (envs.VLLM_NO_USAGE_STATS and envs.VLLM_DO_NOT_TRACK), not huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY,
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS, not is_env_variable_true("DISABLE_SAFETENSORS_CONVERSION"),
    "torch" in build_hf_headers()["user-agent"],
)
"""
"""Each library of the page is asked whether it would send anything, after `import thresher` alone."""


@pytest.mark.slow
def test_every_library_of_the_telemetry_page_is_silent() -> None:
    table = re.findall(r"`([A-Z_]+)=\w+`", (ROOT / "docs" / "telemetry.md").read_text("utf-8"))
    environment = {name: value for name, value in os.environ.items() if name not in table} | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", TELEMETRY], env=environment, capture_output=True, text=True, check=False)

    assert ended.stdout.split() == ["False"] * 8, ended.stderr
