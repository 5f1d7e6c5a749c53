"""An estimate before a run agrees with the run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.runs import run_recipe
from thresher.inputs import recipe_file

Write = Callable[..., Path]


@pytest.mark.slow
def test_an_estimate_agrees_with_the_run(recipe: Write, tmp_path: Path) -> None:
    """With all prompts and as many samples as the run draws; the run's directory is not touched."""
    from thresher.running.estimate import estimate

    path = recipe()
    found = estimate(recipe_file.load(path), prompts=4, samples=4)
    audited = run_recipe(path, tmp_path / "run").audit.to_dict()

    assert found.samples.value == audited["samples"] + audited["anchors"]
    assert found.hits.value == pytest.approx(audited["kinds"]["hit"])
    assert found.pass_rate.low <= found.pass_rate.value <= found.pass_rate.high
    assert found.tokens.value == 0  # a table has none
    fewer = estimate(recipe_file.load(path, ["sampling.target_rows=2"]), prompts=4, samples=4)
    assert fewer.hits.value == pytest.approx(2)
    assert fewer.samples.value == pytest.approx(found.samples.value / 2)
