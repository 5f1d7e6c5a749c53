"""What fleet and scale refuse; tests/test_thresher_fleet.py and tests/test_thresher_ray.py have them on a cluster."""

from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.small_run import small_run
from thresher.cli import main


def test_a_run_has_one_engine_at_least(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scale", small_run(tmp_path).root, "0"]) == 1
    assert capsys.readouterr().err == "thresher: scale: N must be 1 or more, found 0; to stop a run, interrupt it\n"


def test_a_run_on_this_machine_is_not_scaled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scale", small_run(tmp_path).root, "2"]) == 1
    assert "executor.kind" in capsys.readouterr().err


def test_a_fleet_needs_vllm(recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fleet", str(recipe()), "--file", str(tmp_path / "fleet")]) == 1
    assert "engine.kind" in capsys.readouterr().err
    assert not (tmp_path / "fleet").exists()
