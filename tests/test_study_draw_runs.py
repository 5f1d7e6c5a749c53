"""The two runs of a study."""

from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.studies import small_study
from thresher.inputs.recipe_file import load
from thresher.study.design import Design
from thresher.study.draw_runs import draw


@pytest.mark.slow
def test_a_study_draws_every_temperature_and_greedy_answers_to_changed_prompts(recipe: Callable[..., Path]) -> None:
    """Budgets and comparisons between prompts are left out; the second call draws nothing."""
    path = small_study(recipe)
    loaded = load(path, ["sampling.target_hits=1", "sampling.max_samples_per_prompt=9", "run.salt=mine", "prompts.0.limit=2"])
    design = Design((0.0, 0.5, 1.0), samples=2, wordings=("{} Thank you.",))

    draws, variants = draw(loaded, path.parent / "study", design)
    again, _ = draw(loaded, path.parent / "study", design)

    sampling = draws.recipe.sampling
    assert (sampling.temperature, sampling.samples_per_prompt, sampling.target_hits, sampling.anchor) == (
        (0.5, 1.0),
        2,
        None,
        True,
    )
    assert (variants.recipe.sampling.samples_per_prompt, variants.recipe.sampling.anchor) == (0, True)
    assert draws.recipe.run.salt == "mine study"
    assert variants.recipe.run.salt == "mine variants {} Thank you."
    samples = draws.store.read_table("samples/00000", ["prompt_id", "temperature", "anchor"])
    assert samples.num_rows == 2 * (2 * 2 + 1)
    assert variants.store.read_table("samples/00000", ["anchor"])["anchor"].to_pylist() == [True] * 2 * 4
    assert again.store.entry("samples/00000") == draws.store.entry("samples/00000")
