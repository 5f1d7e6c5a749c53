"""Which sampler an engine gets."""

import subprocess
import sys
from pathlib import Path

import pytest

from schemas.engines import Engine, HttpEngine, ReplayEngine, VllmEngine
from schemas.sampling import Sampling
from thresher.errors import EngineError
from thresher.inputs.models import Model
from thresher.samplers.open_sampler import open_sampler
from thresher.samplers.openai_http import HttpSampler
from thresher.samplers.replay import ReplaySampler
from thresher.samplers.vllm_offline import VllmSampler

MODEL = Model("m", "m", None, None, None, None)


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        (ReplayEngine(kind="replay", path="answers.jsonl"), ReplaySampler),
        (HttpEngine(kind="openai_http", base_urls=("http://127.0.0.1:9/v1",)), HttpSampler),
        (VllmEngine(), VllmSampler),
    ],
)
def test_each_engine_has_its_sampler(engine: Engine, kind: type, tmp_path: Path) -> None:
    """Paths are relative to the recipe's directory; nothing starts yet."""
    (tmp_path / "answers.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    opened = open_sampler(
        engine, MODEL, prompt_format="auto", sampling=Sampling(), base=tmp_path, start=lambda: pytest.fail("started")
    )

    assert isinstance(opened, kind)


def test_the_file_of_a_fleet_is_relative_to_the_recipe(tmp_path: Path) -> None:
    engine = HttpEngine(kind="openai_http", fleet="fleet")
    with pytest.raises(EngineError, match=f"engine.fleet: {tmp_path / 'fleet'} cannot be read"):
        open_sampler(engine, MODEL, prompt_format="auto", sampling=Sampling(), base=tmp_path, start=lambda: (1, 1))


def test_heavy_libraries_are_imported_only_when_an_engine_starts() -> None:
    program = "import sys, thresher.samplers.open_sampler; print(*{'vllm', 'torch', 'transformers', 'aiohttp'} & {*sys.modules})"
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout

    assert output.split() == []
