"""Which model drew a row of the pool."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from helpers.runs import run_recipe
from helpers.several import two_models
from thresher.pool.model_rows import COLUMNS, counts_by_model, drawn_by, has_samples, model_numbers, sources_of
from thresher.pool.run import Run, open_run
from thresher.pool.store import shard_name

Write = Callable[..., Path]


def finished(recipe: Write, folder: Path) -> Run:
    run_recipe(two_models(recipe, folder), folder / "run")
    return open_run(folder / "run")


def test_rows_are_told_apart_by_their_model(recipe: Write, tmp_path: Path) -> None:
    run = finished(recipe, tmp_path)
    rows = run.store.read_table(f"samples/{shard_name(0)}", [*COLUMNS, "source", "completion_ids"])
    numbers = model_numbers(run, rows)

    assert [run.models[number].recipe.model.name for number in numbers] == rows["model"].to_pylist()
    assert np.array_equal(drawn_by(run.models[1], rows), numbers == 1)
    assert set(sources_of(run, rows)) == {"first: table", "second: table"}
    assert counts_by_model(run, rows) == {one.model_key: {"rows": 5, "completion_tokens": 0} for one in run.models}
    assert not drawn_by(run, rows).any()


def test_settings_of_the_engine_tell_models_apart(recipe: Write, tmp_path: Path) -> None:
    """The same name and revision with another setting is another model."""
    run = finished(recipe, tmp_path)
    rows = run.store.read_table(f"samples/{shard_name(0)}", list(COLUMNS))
    first = run.models[0]
    noted = first.manifest.model_copy(update={"model": {**first.manifest.model, "settings": {"dtype": "float16"}}})

    assert drawn_by(first, rows).any()
    assert not drawn_by(Run(run.store, noted), rows).any()


def test_an_entry_tells_which_models_have_their_samples(recipe: Write, tmp_path: Path) -> None:
    run = finished(recipe, tmp_path)
    entry = run.store.entry(f"samples/{shard_name(0)}")
    assert entry is not None
    key = run.models[0].model_key
    noted = {"models": {key: entry.facts["wanted"]["models"][key]}}
    only = entry.model_copy(update={"facts": {"wanted": noted}})

    assert [has_samples(entry, run, one) for one in run.models] == [True, True]
    assert [has_samples(only, run, one) for one in run.models] == [True, False]
