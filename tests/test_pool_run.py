"""A run is opened once, and passed to other processes as it is."""

import pickle
from pathlib import Path

import pytest

from helpers.small_run import small_run
from thresher.errors import StoreError
from thresher.pool.run import open_run


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
