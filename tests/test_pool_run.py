"""A run is opened once, and passed to other processes as it is."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from filters import trust
from helpers.small_run import small_run
from schemas.recipe import Recipe
from thresher.errors import StoreError
from thresher.pool.run import open_run
from thresher.pool.store import Store


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"it has no run\.json"):
        open_run(tmp_path)


def test_a_run_knows_its_recipe_and_the_command_that_completes_it(tmp_path: Path) -> None:
    sampled = small_run(tmp_path / "sampled", prompt_format="text")
    own = small_run(tmp_path / "own", [("sums", ["right"], None)], origin="brought")

    assert (sampled.sampled, sampled.command, sampled.prompt_format) == (True, "thresher run", "text")
    assert (own.sampled, own.command, own.model) == (False, "thresher filter", None)
    assert sampled.recipe == sampled.manifest.recipe


def test_a_run_can_be_pickled(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    copy = pickle.loads(pickle.dumps(run))

    assert (copy.root, copy.manifest) == (run.root, run.manifest)
    assert copy.store.entry("prompts") == run.store.entry("prompts")


def test_the_recipe_of_a_run_that_was_only_found_needs_consent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the user named for it was checked when it was read. What run.json calls the recipe's folder is no reason to trust
    what lies there, on an object store neither."""
    run = small_run(tmp_path / "run")
    judge = {"name": "own:build"}
    recipe = Recipe.model_validate(run.recipe.model_dump() | {"filters": [judge]})
    monkeypatch.delenv(trust.VARIABLE)
    monkeypatch.setenv(trust.CONFIG, str(tmp_path / "none.toml"))

    found = replace(run, manifest=run.manifest.model_copy(update={"recipe": recipe, "base": "/elsewhere"}))
    assert found.home == Path(run.store.base)
    with pytest.raises(StoreError, match=r"run\.json: recipe\.filters\[0\]\.name: own:build is code"):
        _ = found.base
    named = replace(found, named=True)
    assert (named.base, named.home) == (Path("/elsewhere"), Path("/elsewhere"))
    assert replace(found, store=Store("memory://run")).home == Path("memory:/run")
