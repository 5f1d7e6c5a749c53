"""A study from its first draw to its page: OUT/draws, OUT/variants, OUT/training, OUT/study.json, OUT/study.html."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thresher import ids
from thresher.audit.report import write_page
from thresher.errors import RecipeError
from thresher.recipes import Loaded
from thresher.store import Store
from thresher.study.drawing import Design, draw
from thresher.study.findings import Study, findings
from thresher.study.measures import measure
from thresher.study.report import page
from thresher.study.training import Training, train


@dataclass(frozen=True)
class Done:
    """A finished study, and where its page is."""

    study: Study
    training: Training | None
    page: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**self.study.to_dict(), "training": self.training and self.training.to_dict(), "page": self.page}


def run_study(loaded: Loaded, out: str, design: Design, *, train_steps: int | None = None) -> Done:
    """Draw what is missing, measure, train if asked to, and write study.json and study.html. `out` is a local directory. Raises
    RecipeError, and what a run raises."""
    if "://" in out:
        raise RecipeError(f"--out {out}: a study wants a directory of this machine")
    draws, variants = draw(loaded, out, design)
    measured = measure(draws, variants)
    manifest = draws.manifest()
    assert manifest is not None
    study = findings(measured, int(ids.digest("study", manifest.sampling_key)[:8], 16))
    training = None
    if train_steps is not None:
        training = train(loaded, out, draws, design.samples, steps_each=train_steps)
    name, total = loaded.recipe.name, sum(one.draws for one in study.temperatures if one.family == study.temperatures[-1].family)
    text = page(study, name=name, model=f"{manifest.model['name']}", draws=total, training=training)
    done = Done(study, training, write_page(text, Path(out) / "study.html"))
    Store(out).write_bytes("study.json", (json.dumps(done.to_dict(), indent=1) + "\n").encode())
    return done
