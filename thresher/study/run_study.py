"""A study from its first draw to its page: OUT/draws, OUT/variants, OUT/training, OUT/study.json, OUT/study.html."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from schemas.manifest import RunManifest
from schemas.recipe import Recipe
from thresher import ids
from thresher.audit.page import write_page
from thresher.audit.show import finite
from thresher.errors import RecipeError
from thresher.inputs.recipe_file import Loaded
from thresher.pool.store import Store
from thresher.study.draw_runs import Design, draw
from thresher.study.measures import Measures, measure
from thresher.study.results import Study, findings
from thresher.study.study_page import lines_of, page
from thresher.study.training import Training, ready, train


@dataclass(frozen=True)
class Done:
    """A finished study, and where its page is."""

    study: Study
    training: Training | None
    page: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        found: dict[str, Any] = finite({**self.study.to_dict(), "training": self.training and self.training.to_dict()})
        return found | {"page": self.page}

    def lines(self) -> list[str]:
        """Return the conclusions, the recommended settings and the place of the page as lines of text."""
        settings = " ".join(f"--set {key}={value}" for key, value in self.study.recommended.items()) or "nothing"
        return [
            *lines_of(self.study),
            *([self.training.says] if self.training else []),
            f"recommended: {settings}",
            f"  {self.study.reason}",
            f"report: {self.page}",
        ]


def run_study(loaded: Loaded, out: str, design: Design, *, train_steps: int | None = None) -> Done:
    """Draw what is missing, measure, write study.json and study.html, train if asked to, and write them again. `out` is a local
    directory. Raises RecipeError, and what a run raises; what keeps a training from being done before anything is drawn."""
    if "://" in out:
        raise RecipeError(f"--out {out}: a study wants a directory of this machine")
    if train_steps is not None:
        ready(loaded)
    draws, variants = draw(loaded, out, design)
    measured = measure(draws, variants)
    manifest = draws.manifest()
    assert manifest is not None
    seed = int(ids.digest("study", manifest.sampling_key)[:8], 16)
    study = findings(measured, seed, _missing(measured, manifest, design))
    study = replace(study, recommended=_fitting(loaded.recipe, study.recommended))
    done = _written(loaded, out, manifest, study, None)
    if train_steps is not None:
        training = train(loaded, out, draws, design.samples, steps_each=train_steps)
        done = _written(loaded, out, manifest, study, training)
    return done


# -- inside --------------------------------------------------------------------------------------------------------------


def _written(loaded: Loaded, out: str, manifest: RunManifest, study: Study, training: Training | None) -> Done:
    total = sum(one.draws for one in study.temperatures if one.family == study.temperatures[-1].family)
    text = page(study, name=loaded.recipe.name, model=f"{manifest.model['name']}", draws=total, training=training)
    done = Done(study, training, write_page(text, Path(out) / "study.html"))
    Store(out).write_bytes("study.json", (json.dumps(done.to_dict(), indent=1, allow_nan=False) + "\n").encode())
    return done


def _missing(measured: Measures, manifest: RunManifest, design: Design) -> Iterator[str]:
    if not manifest.recipe["dedupe"]:
        yield "The recipe looks for no duplicates (dedupe): every right text is a solution of its own."
    if (most := measured.volumes[-1]) > design.samples:
        yield f"{most} draws of each prompt and temperature are there from an earlier call, and all of them count."


def _fitting(recipe: Recipe, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that the recipe takes: with an adaptive budget the most draws of a prompt may have to be more."""
    wanted, most = settings.get("sampling.samples_per_prompt"), recipe.sampling.max_samples_per_prompt
    more = {"sampling.max_samples_per_prompt": wanted} if wanted and most is not None and most < wanted else {}
    return {**more, **settings}
