"""A study from its first draw to its page: OUT/draws, OUT/variants, OUT/training, OUT/study.json and OUT/study.html."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from schemas.recipe import Recipe
from thresher import ids
from thresher.auditing.pages.page import write_page
from thresher.auditing.show import finite
from thresher.errors import RecipeError
from thresher.inputs.recipe_file import Loaded
from thresher.pool.run import Run
from thresher.pool.store import Store
from thresher.study.design import Design
from thresher.study.draw_runs import draw
from thresher.study.measures import Measures, measure
from thresher.study.results import Study, results
from thresher.study.study_page import page
from thresher.study.study_tables import hypothesis_lines
from thresher.study.training.comparison import Training
from thresher.study.training.train import check_trainable, train


@dataclass(frozen=True)
class StudyResult:
    """A finished study, and the path of its page."""

    study: Study
    training: Training | None
    page: str

    def to_dict(self) -> dict[str, Any]:
        """Return the content of study.json."""
        values: dict[str, Any] = finite({**self.study.to_dict(), "training": self.training and self.training.to_dict()})
        return values | {"page": self.page}

    def lines(self) -> list[str]:
        """Return the lines that a terminal shows after the tables."""
        lines = hypothesis_lines(self.study)
        if self.training:
            lines.append(self.training.says)
        settings = " ".join(f"--set {key}={value}" for key, value in self.study.recommended.items()) or "nothing"
        return [*lines, f"recommended: {settings}", f"  {self.study.reason}", f"report: {self.page}"]


def run_study(loaded: Loaded, out: str, design: Design, *, train_steps: int | None = None) -> StudyResult:
    """Draw what is missing, measure, and write study.json and study.html; with `train_steps` train too, and write them again.

    `out` is a local directory. Raises RecipeError, what a run raises, and, before anything is drawn, what prevents training.
    """
    if "://" in out:
        raise RecipeError(f"--out {out}: a study needs a local directory")
    if loaded.recipe.models:
        raise RecipeError(f"{loaded.where(('models',))}: a study is of one model; give a recipe with `model`, one for each")
    if train_steps is not None:
        check_trainable(loaded)
    draws, variants = draw(loaded, out, design)
    measures = measure(draws, variants)
    seed = int(ids.digest("study", draws.key)[:8], 16)
    study = results(measures, seed, _missing(measures, draws, design))
    study = replace(study, recommended=_fitting(loaded.recipe, study.recommended))
    result = _write(loaded, out, draws, study, None)
    if train_steps is not None:
        training = train(loaded, out, draws, design.samples, steps_each=train_steps)
        result = _write(loaded, out, draws, study, training)
    return result


def _write(loaded: Loaded, out: str, run: Run, study: Study, training: Training | None) -> StudyResult:
    draws = sum(row.draws for row in study.temperatures if row.family == study.widest)
    text = page(study, name=loaded.recipe.name, model=f"{run.manifest.model['name']}", draws=draws, training=training)
    result = StudyResult(study, training, write_page(text, Path(out) / "study.html"))
    Store(out).write_bytes("study.json", (json.dumps(result.to_dict(), indent=1, allow_nan=False) + "\n").encode())
    return result


def _missing(measures: Measures, draws: Run, design: Design) -> Iterator[str]:
    if not draws.recipe.dedupe:
        yield "The recipe does not look for duplicates (dedupe), so every right text is a solution of its own."
    if (most := measures.volumes[-1]) > design.samples:
        yield f"There are {most} draws of each prompt and temperature, some from an earlier call; all of them count."


def _fitting(recipe: Recipe, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with a larger `max_samples_per_prompt` where the recipe's own would refuse them."""
    wanted, most = settings.get("sampling.samples_per_prompt"), recipe.sampling.max_samples_per_prompt
    raised = {"sampling.max_samples_per_prompt": wanted} if wanted and most is not None and most < wanted else {}
    return {**raised, **settings}
