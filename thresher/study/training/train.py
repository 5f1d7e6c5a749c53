"""Does diversity pay? Fine-tunes the model on its right answers at temperature 1, and compares three training sets.

Half of the prompts of each family (by their hash) are held out. On the others the model is trained with TRL, on

    one answer      one right answer per prompt, the first by sample_id;
    many answers    every solution: of right answers that are duplicates of each other, the first by sample_id, as the view `sft`
                    keeps one;
    near misses     after many answers, preference pairs (DPO): a near miss, and the right answer nearest to it.

The first two start from the same weights and take the same number of steps, so that many answers are not more training. Each
model then samples the held-out prompts at temperature 1, and the recipe's filters judge the answers. What the model did before
training is known from the study's own draws. Everything is under OUT/training; what was made from the same rows and weights is
kept. Nothing of it is published.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.recipe import Recipe
from thresher import ids
from thresher.errors import EngineError, RecipeError
from thresher.executors import open_executor
from thresher.inputs import models
from thresher.inputs.prompts import plan
from thresher.inputs.recipe_file import Loaded
from thresher.pool.run import Run
from thresher.pool.store import Store
from thresher.running import steps
from thresher.running.progress import Progress
from thresher.running.warm_engine import model_for
from thresher.study.draw_runs import sample_and_judge
from thresher.study.training.comparison import (
    BEFORE,
    MANY_ANSWERS,
    NEAR_MISSES,
    ONE_ANSWER,
    Outcomes,
    Tally,
    Training,
    compared,
    tally_of,
)
from thresher.study.training.training_rows import Rows, first_answers, held_out, training_rows

STEPS, BATCH, RATE = 60, 4, 5e-5
PAIR_STEPS, PAIR_RATE, BETA = 30, 5e-6, 0.1
FEWEST_PROMPTS = 8
"""Fewest prompts to train on, and to hold out."""


def check_trainable(loaded: Loaded) -> None:
    """Check, before anything is drawn, that training is possible.

    Raises EngineError where TRL is not installed, RecipeError where the weights are on a server or there are too few prompts.
    """
    if importlib.util.find_spec("trl") is None:
        raise EngineError("--train: TRL is not installed; run `pip install 'thresher[train]'`")
    if not model_for(loaded.recipe, loaded.base).path:
        raise RecipeError("--train: training needs the model's weights on this machine, and engine openai_http has none here")
    if loaded.recipe.model.adapter is not None:
        raise RecipeError("--train: training starts from the weights of model.name; merge model.adapter into them first")
    prompts = list(plan(loaded.recipe, loaded.base))
    held = held_out(prompts)
    if min(len(held), len(prompts) - len(held)) < FEWEST_PROMPTS:
        raise RecipeError(
            f"--train: of {len(prompts)} prompts {len(held)} would be held out and {len(prompts) - len(held)} trained on; wanted "
            f"{FEWEST_PROMPTS} of each: take more prompts"
        )


def train(loaded: Loaded, out: str | Path, draws: Run, samples: int, *, steps_each: int = STEPS) -> Training:
    """Train and evaluate a model per training set. `out` is a local directory.

    Raises what check_trainable raises, RecipeError where too few prompts have a right answer, EngineError where training fails.
    """
    check_trainable(loaded)
    folder = (Path(out) / "training").absolute()
    model = model_for(loaded.recipe, loaded.base)
    held = held_out(plan(loaded.recipe, loaded.base))
    answers, pairs = training_rows(draws, held)
    trained_on = len({row["prompt_id"] for row in answers})
    if trained_on < FEWEST_PROMPTS:
        raise RecipeError(
            f"--train: {trained_on} of the prompts that are not held out have a right answer at temperature 1; wanted "
            f"{FEWEST_PROMPTS}: take more --samples, or an easier task"
        )
    jobs = [(ONE_ANSWER, "sft", first_answers(answers)), (MANY_ANSWERS, "sft", answers)]
    if pairs:
        jobs.append((NEAR_MISSES, "dpo", pairs))
    outcomes = [Outcomes(BEFORE, 0, 0, tally_of(draws, held))]
    trained = original = _Weights(model.path, str(model.revision))
    for name, kind, rows in jobs:
        count = steps_each if kind == "sft" else max(1, steps_each * PAIR_STEPS // STEPS)
        Progress().say(f"training on {name}: {len(rows)} rows, {count} steps")
        where = folder / name.replace(" ", "_")
        trained = _trained(where, kind, rows, original if kind == "sft" else trained, count)
        tally = _sampled(loaded, where / "held_out", trained.path, held=held, samples=samples)
        outcomes.append(Outcomes(name, len(rows), count if kind == "sft" else steps_each + count, tally))
    settings = {"steps": steps_each, "batch": BATCH, "learning_rate": RATE, "pair_learning_rate": PAIR_RATE, "beta": BETA}
    return compared(outcomes, held=len(held), trained_on=trained_on, samples=samples, settings=settings)


@dataclass(frozen=True)
class _Weights:
    """A model directory, and the key of what it was made from."""

    path: str
    key: str


def _trained(folder: Path, kind: str, rows: Rows, start: _Weights, count: int) -> _Weights:
    """Train in a process of its own, unless these rows and weights were trained already; return the trained model."""
    job = {"kind": kind, "model": start.path, "out": str(folder / "model"), "rows": str(folder / "rows.parquet"), "steps": count,
        "batch": BATCH, "rate": RATE if kind == "sft" else PAIR_RATE, "beta": BETA}  # fmt: skip
    trained = _Weights(str(folder / "model"), ids.digest(job | {"rows": rows, "from": start.key}))
    marker = folder / "done.json"
    if marker.is_file() and json.loads(marker.read_text())["key"] == trained.key:
        return trained
    folder.mkdir(parents=True, exist_ok=True)
    marker.unlink(missing_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    (folder / "job.json").write_text(json.dumps(job, indent=1))
    command = [sys.executable, "-m", "thresher.study.training.trl_trainer", str(folder / "job.json")]
    process = subprocess.run(command, check=False, capture_output=True, text=True)
    (folder / "train.log").write_text(process.stdout + process.stderr)
    if process.returncode:
        last = (process.stderr.strip().splitlines() or ["no error message"])[-1]
        raise EngineError(f"training failed: {last}; the log is {folder / 'train.log'}; run the same command again to resume")
    marker.write_text(json.dumps({"key": trained.key}))
    return trained


def _sampled(loaded: Loaded, out: Path, model: str, *, held: set[str], samples: int) -> Tally:
    """Sample the held-out prompts from a trained model, as a run in `out`, and count its answers."""
    recipe = _evaluation_recipe(loaded.recipe, model, samples)
    prompts = [prompt for prompt in plan(loaded.recipe, loaded.base) if prompt.prompt_id in held]
    earlier = Store(out).manifest()
    if earlier is not None and earlier.model["revision"] != models.resolve(model, base=loaded.base).revision:
        shutil.rmtree(out)  # The samples of a model that was trained differently.
    begun = steps.begin(replace(loaded, recipe=recipe), out, prompts=prompts)
    with Progress() as progress, open_executor(recipe) as executor:
        sample_and_judge(begun, None, progress, executor)
    return tally_of(begun.run, held)


def _evaluation_recipe(recipe: Recipe, model: str, samples: int) -> Recipe:
    """The recipe with another model, without an adaptive budget, greedy answers and comparisons between answers."""
    budget = dict.fromkeys(("target_hits", "max_samples_per_prompt", "give_up_below", "target_rows"))
    sampling = {**budget, "temperature": 1.0, "samples_per_prompt": samples, "anchor": False}
    changed = {
        "model": recipe.model.model_copy(update={"name": model, "revision": None}),
        "sampling": recipe.sampling.model_copy(update=sampling),
        "dedupe": None,
        "near_miss": None,
        "run": recipe.run.model_copy(update={"salt": f"{recipe.run.salt} held out"}),
    }
    return Recipe.model_validate(recipe.model_copy(update=changed).model_dump())
