"""Draws what a study looks at, as two plain runs: OUT/draws, every prompt at every temperature, and OUT/variants, the greedy
answer to every changed prompt. Both go on where they were stopped, and are judged by the recipe's filters."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from schemas.recipe import Recipe
from schemas.sample import Prompt
from schemas.sampling import CalibrationSpec
from thresher.errors import RecipeError, ThresherError
from thresher.executors import open_executor
from thresher.executors.executor import Engines, Executor
from thresher.inputs.prompts import plan
from thresher.inputs.recipe_file import Loaded
from thresher.judging.check import check_golds
from thresher.pool.store import Store
from thresher.run import steps
from thresher.run.begun import Begun
from thresher.run.progress import Progress
from thresher.study.prompt_variants import WORDINGS, variants

TEMPERATURES = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5)
SAMPLES = 16
SHARD = 4096
"""Samples of a shard, at least: prompts have many more of them than in a plain run."""
VARIANT = "thresher_variant"
"""Key of a changed prompt's metadata: {prompt_id of the prompt it was made of, name of the change}."""


@dataclass(frozen=True)
class Design:
    """What to draw: `samples` completions of every prompt at each temperature above 0, and one greedy answer."""

    temperatures: tuple[float, ...] = TEMPERATURES
    samples: int = SAMPLES
    wordings: tuple[str, ...] = WORDINGS

    def __post_init__(self) -> None:
        drawn = [one for one in self.temperatures if one > 0]
        if 1.0 not in drawn or len(drawn) < 2 or len(set(drawn)) < len(drawn) or min(self.temperatures) < 0:
            given = ", ".join(f"{one:g}" for one in self.temperatures)
            raise ThresherError(
                f"--temperatures {given}: wanted 1 and at least one other temperature above 0, each once: every hypothesis "
                "compares with temperature 1 (0, the greedy answer, is always drawn)"
            )
        if self.samples < 2:
            raise ThresherError(f"--samples {self.samples}: wanted 2 or more of each prompt and temperature")


MOST_TEMPERATURES, HOTTEST = 64, 10.0


def temperatures_of(text: str) -> tuple[float, ...]:
    """Temperatures of a command line: `0,0.5,1`, or with `...` for the steps between, as in `0,0.1,...,1.5`. Raises
    ThresherError."""
    wanted = "wanted numbers between commas, such as 0,0.5,1 or 0,0.1,...,1.5"

    def number(part: str) -> float:
        try:
            value = float(part)
        except ValueError as error:
            raise ThresherError(f"--temperatures {text}: {part!r} is no number; {wanted}") from error
        if not 0 <= value <= HOTTEST:
            raise ThresherError(f"--temperatures {text}: {part} is not within 0 to {HOTTEST:g}")
        return value

    found: list[float] = []
    parts = [part.strip() for part in text.split(",")]
    for at, part in enumerate(parts):
        if part != "...":
            found.append(number(part))
            continue
        last = number(parts[-1]) if at + 2 == len(parts) else 0.0
        if len(found) < 2 or not found[-2] < found[-1] < last:
            raise ThresherError(
                f"--temperatures {text}: ... wants two rising numbers before it and the last, higher one after it; {wanted}"
            )
        step = found[-1] - found[-2]
        steps = round((last - found[-1]) / step)
        if abs(found[-1] + steps * step - last) > 1e-6:
            raise ThresherError(f"--temperatures {text}: steps of {step:g} from {found[-1]:g} do not reach {last:g}; {wanted}")
        if steps > MOST_TEMPERATURES:
            raise ThresherError(f"--temperatures {text}: {steps} steps, at most {MOST_TEMPERATURES} are wanted; take larger ones")
        found += [round(found[-1] + step * number, 6) for number in range(1, steps)]
    return tuple(found)


def draw(loaded: Loaded, out: str | Path, design: Design) -> tuple[Store, Store]:
    """Draw and judge what is missing of both runs; returns them. Raises what a run raises."""
    recipe = loaded.recipe
    begun = [
        steps.begin(replace(loaded, recipe=_draws(recipe, design)), f"{out}/draws"),
        steps.begin(
            replace(loaded, recipe=_greedy(recipe, design)), f"{out}/variants", prompts=_changed_prompts(loaded, design.wordings)
        ),
    ]
    with open_executor(recipe) as executor, ExitStack() as stack:
        missing, engines = [one for one in begun if one.missing], None
        progress = stack.enter_context(Progress())
        for one in missing:
            executor.check(one.root)
            executor.apart(check_golds, one.root)
            steps.announce(one, progress)
        if missing:
            engines = stack.enter_context(steps.engines_of(missing[0], progress, executor))
        for one in begun:
            judged(one, engines, progress, executor)
    return Store(begun[0].root), Store(begun[1].root)


def judged(begun: Begun, engines: Engines | None, progress: Progress, executor: Executor) -> None:
    """Sample and judge what is missing of a run, and neither write nor publish a dataset. Without engines that are warm already,
    one is begun where there is something to sample."""

    def sample(shard: int, engines: Engines) -> object:
        return steps.sample_on(engines, begun.root, shard, progress)

    def winnow(shard: int) -> dict[str, object]:
        return executor.apart(steps.winnow_shard, begun.root, shard).model_dump()

    if engines is None or not begun.missing:
        steps.drive(begun, progress, executor, sample=sample, judge=winnow)
    else:
        steps.through(begun, engines, progress, executor, sample=sample, judge=winnow)


def _draws(recipe: Recipe, design: Design) -> Recipe:
    temperatures = tuple(sorted(one for one in design.temperatures if one > 0))
    return _studied(recipe, f"{recipe.run.salt} study", {"samples_per_prompt": design.samples, "temperature": temperatures})


def _greedy(recipe: Recipe, design: Design) -> Recipe:
    salt = f"{recipe.run.salt} variants {'; '.join(design.wordings)}"
    return _studied(recipe, salt, {"samples_per_prompt": 0, "temperature": 1.0})


def _studied(recipe: Recipe, salt: str, sampling: dict[str, object]) -> Recipe:
    """The recipe without budgets and with an anchor for each prompt. Answers are only compared within a prompt."""
    budget = dict.fromkeys(("target_hits", "max_samples_per_prompt", "give_up_below", "target_rows"))
    kept = {"anchor": True, "calibration": CalibrationSpec(standard_error=0.0, expect="declared")}
    dedupe = recipe.dedupe and recipe.dedupe.model_copy(update={"within_run": None, "released": None})
    changed = {
        "sampling": recipe.sampling.model_copy(update={**budget, **kept, **sampling}),
        "run": recipe.run.model_copy(update={"salt": salt, "shard_samples": max(recipe.run.shard_samples, SHARD)}),
        "dedupe": dedupe,
    }
    return Recipe.model_validate(recipe.model_copy(update=changed).model_dump())


def _changed_prompts(loaded: Loaded, wordings: tuple[str, ...]) -> list[Prompt]:
    found: dict[str, Prompt] = {}
    for prompt in plan(loaded.recipe, loaded.base):
        for name, changed in variants(prompt, wordings):
            marked = {**prompt.metadata, VARIANT: {"of": prompt.prompt_id, "name": name}}
            found.setdefault(changed.prompt_id, replace(changed, metadata=marked))
    if not found:
        raise RecipeError(f"{loaded.where(())}: the recipe has no prompts to change")
    return list(found.values())
