"""Starts of a run's engine."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from helpers.lora import write_adapter
from thresher.errors import ModelError
from thresher.inputs import identity, recipe_file
from thresher.running import steps, warm_engine
from thresher.running.progress import Progress
from thresher.running.warm_engine import note_start, warm


def test_no_start_of_an_engine_has_the_seed_of_another(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """They are numbered in the run directory; another salt has others."""
    path = recipe()
    begun = steps.begin(recipe_file.load(path), tmp_path / "run")
    salted = steps.begin(recipe_file.load(path), tmp_path / "salted", salt="night")
    again = steps.begin(recipe_file.load(path), tmp_path / "again")
    starts = [note_start(begun.run), note_start(begun.run), note_start(salted.run)]

    assert [number for number, _ in starts] == [1, 2, 1]
    assert len({seed for _, seed in starts}) == 3
    assert note_start(again.run) == starts[0]


def test_a_machine_with_another_version_of_the_adapter_is_refused(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Before its engine is started."""
    write_adapter(tmp_path / "tuned")
    begun = steps.begin(recipe_file.load(recipe(engine={"kind": "vllm"}, model={"adapter": "tuned"})), tmp_path / "run")
    write_adapter(tmp_path / "tuned", seed=1)

    with (
        pytest.raises(ModelError, match=r"model.adapter 'tuned': .* has \w+, the run was started with \w+"),
        warm(begun.run, Progress()),
    ):
        pass


@pytest.mark.parametrize(("asked", "started"), [("auto", "float32"), ("float16", "float16")])
def test_the_engine_has_the_precision_that_identifies_its_samples(
    recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, started: str
) -> None:
    """What `auto` stood for when the run was started, whatever it would stand for on this machine."""
    engines: list[Any] = []

    def open_sampler(engine: Any, *_: Any, **__: Any) -> Any:
        engines.append(engine)
        return nullcontext()

    monkeypatch.setattr(identity, "resolved_dtype", lambda dtype, config: "float32" if dtype == "auto" else dtype)
    begun = steps.begin(recipe_file.load(recipe(engine={"kind": "vllm", "dtype": asked})), tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setattr(warm_engine, "open_sampler", open_sampler)
    with warm(begun.run, Progress()):
        pass

    assert [engine.dtype for engine in engines] == [started]
