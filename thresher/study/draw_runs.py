"""Draws the samples of a study as two ordinary runs: OUT/draws has every prompt at every temperature, OUT/variants the greedy
answer to every changed prompt. Both can be resumed, and both are judged by the recipe's filters."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from schemas.recipe import Recipe
from schemas.sample import Prompt
from schemas.sampling import CalibrationSpec
from thresher.errors import RecipeError
from thresher.executors import open_executor
from thresher.executors.executor import Engines, Executor
from thresher.inputs.prompts import plan
from thresher.inputs.recipe_file import Loaded
from thresher.pool.run import Run
from thresher.running import steps
from thresher.running.open_run import Begun
from thresher.running.progress import Progress
from thresher.study.design import Design
from thresher.study.prompt_variants import VARIANT, variants

SHARD_SAMPLES = 4096
"""Least samples per shard: a study draws many more samples of a prompt than an ordinary run."""


def draw(loaded: Loaded, out: str | Path, design: Design) -> tuple[Run, Run]:
    """Sample and judge what both runs still lack; return the runs (draws, variants). Raises what a run raises."""
    recipe = loaded.recipe
    changed = _changed_prompts(loaded, design.wordings)
    runs = [
        steps.begin(replace(loaded, recipe=_draws_recipe(recipe, design)), f"{out}/draws"),
        steps.begin(replace(loaded, recipe=_greedy_recipe(recipe, design)), f"{out}/variants", prompts=changed),
    ]
    with open_executor(recipe) as executor, ExitStack() as stack:
        incomplete, engines = [begun for begun in runs if begun.missing], None
        progress = stack.enter_context(Progress())
        for begun in incomplete:
            steps.prepare(begun, progress, executor)
        if incomplete:
            engines = stack.enter_context(steps.engines_of(incomplete[0].run, progress, executor))
        for begun in runs:
            sample_and_judge(begun, engines, progress, executor)
    return runs[0].run, runs[1].run


def sample_and_judge(begun: Begun, engines: Engines | None, progress: Progress, executor: Executor) -> None:
    """Sample and judge what a run still lacks, without writing or publishing a dataset. Where no `engines` are given, they are
    started if there is anything to sample."""
    judged_only = steps.JudgedOnly(steps.Plain(begun.run, progress, executor))
    if engines is None or not begun.missing:
        steps.fill_pool(begun, judged_only, progress, executor)
    else:
        steps.sample_through(begun, engines, judged_only, progress, executor)


# -- recipes -------------------------------------------------------------------------------------------------------------


def _draws_recipe(recipe: Recipe, design: Design) -> Recipe:
    temperatures = tuple(sorted(temperature for temperature in design.temperatures if temperature > 0))
    return _study_recipe(recipe, f"{recipe.run.salt} study", {"samples_per_prompt": design.samples, "temperature": temperatures})


def _greedy_recipe(recipe: Recipe, design: Design) -> Recipe:
    salt = f"{recipe.run.salt} variants {'; '.join(design.wordings)}"
    return _study_recipe(recipe, salt, {"samples_per_prompt": 0, "temperature": 1.0})


def _study_recipe(recipe: Recipe, salt: str, sampling: dict[str, object]) -> Recipe:
    """The recipe without an adaptive budget, with a greedy answer to each prompt, and comparing answers only within a prompt."""
    budget = dict.fromkeys(("target_hits", "max_samples_per_prompt", "give_up_below", "target_rows"))
    always = {"anchor": True, "calibration": CalibrationSpec(standard_error=0.0, expect="declared")}
    dedupe = recipe.dedupe and recipe.dedupe.model_copy(update={"within_run": None, "released": None})
    changed = {
        "sampling": recipe.sampling.model_copy(update={**budget, **always, **sampling}),
        "run": recipe.run.model_copy(update={"salt": salt, "shard_samples": max(recipe.run.shard_samples, SHARD_SAMPLES)}),
        "dedupe": dedupe,
    }
    return Recipe.model_validate(recipe.model_copy(update=changed).model_dump())


def _changed_prompts(loaded: Loaded, wordings: tuple[str, ...]) -> list[Prompt]:
    by_id: dict[str, Prompt] = {}
    for prompt in plan(loaded.recipe, loaded.base):
        for name, changed in variants(prompt, wordings):
            metadata = {**prompt.metadata, VARIANT: {"of": prompt.prompt_id, "name": name}}
            by_id.setdefault(changed.prompt_id, replace(changed, metadata=metadata))
    if not by_id:
        raise RecipeError(f"{loaded.where(())}: the recipe has no prompts to change")
    return list(by_id.values())
