"""A probe samples and judges the given prompts, and leaves nothing behind."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from thresher.errors import SourceError
from thresher.inputs import recipe_file
from thresher.inputs.prompts import plan
from thresher.pool.judged import each_judged
from thresher.running.probe import probe

Write = Callable[..., Path]


def test_a_probe_is_judged_and_gone_afterwards(recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets of the recipe do not count, and the prompts are those that were given."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    loaded = recipe_file.load(str(recipe()), ["sampling.target_hits=4", "sampling.max_samples_per_prompt=64"])
    prompts = list(plan(loaded.recipe, loaded.base))[1:3]

    with probe(loaded, prompts, samples_per_prompt=2, anchor=False) as probed:
        assert Path(probed.run.root).is_relative_to(tmp_path / "scratch")
        rows = [row for table in each_judged(probed.run.store) for row in table.to_pylist()]

    assert [(row["messages"][0]["content"], row["completion"], row["kind"]) for row in rows] == [
        ("Capital of Spain?", "Madrid", "hit"),
        ("Capital of Spain?", "Madrid", "duplicate"),
        ("Capital of Japan?", "Kyoto", "miss"),
        ("Capital of Japan?", "Tokyo", "hit"),
    ]
    assert (probed.samples, probed.tokens) == (4, 0)
    assert probed.sampling_s > 0
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_probe_that_fails_leaves_nothing(recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    path = recipe()
    (tmp_path / "answers.jsonl").write_text('{"prompt": "?", "completion": "!"}\n')
    loaded = recipe_file.load(str(path), [])

    with pytest.raises(SourceError, match="no completion for the prompt"), probe(loaded, list(plan(loaded.recipe, loaded.base))):
        pass
    assert list((tmp_path / "scratch").iterdir()) == []
