"""The Python interface: what the commands do, as functions. `import thresher` offers these names; docs/python.md shows them.

loaded = thresher.load_recipe("recipe.yaml")
run = thresher.run(loaded, "data/runs/demo")
for table in run.samples(["sample_id", "completion"]): ...
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thresher.auditing.audit import Audit
from thresher.auditing.cache import cached_audit
from thresher.auditing.kept import forget
from thresher.inputs.recipe_file import Loaded, load
from thresher.pool.run import Run, open_run
from thresher.releases.publish import Published, publish_spec
from thresher.releases.publish import publish as publish_run
from thresher.running.progress import Progress
from thresher.running.steps import begin, begin_brought, finished, run_steps


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read and validate a recipe, `KEY=VALUE` overrides applied; `.recipe` is the Recipe. Raises RecipeError, which names the
    line and the key."""
    return load(path, overrides)


def run(recipe: Loaded | str | Path, out: str | Path | None = None, *, salt: str | None = None) -> Run:
    """Sample a recipe, filter, write the dataset, and publish it where the recipe says so, without Prefect. A run that was
    interrupted is resumed. `out` is the run directory or an fsspec URL (default: data/runs/NAME); another `salt` draws other
    samples. Raises ThresherError."""
    begun = begin(_loaded(recipe), out, salt=salt)
    if finished(begun) is None:
        with Progress() as progress:
            run_steps(begun, progress)
    return begun.run


def filter_samples(recipe: Loaded | str | Path, samples: str | Path, out: str | Path) -> Run:
    """Judge your own samples (a JSONL, Parquet or Arrow file, a folder of them, or a pattern) by a recipe's filters, and write
    the dataset; no engine is used. Raises ThresherError."""
    begun = begin_brought(_loaded(recipe), Path(samples), out)
    with Progress() as progress:
        run_steps(begun, progress)
    return begun.run


def audit(run: Run | str | Path, *, recount: bool = False) -> Audit:
    """The audit of a run: counts, pass rates, calibration, problems. It is counted once per state of the run; `recount` counts
    again. Raises StoreError where there is no run."""
    opened = _opened(run)
    if recount:
        forget(opened)
    return cached_audit(opened)


def publish(
    run: Run | str | Path,
    repo: str | None = None,
    *,
    changes: Mapping[str, Any] | None = None,
    gates: Sequence[str] = (),
    force: str | None = None,
) -> Published:
    """Append a run's dataset to a dataset repository, in one commit, and tag it. `repo` is ORG/NAME of the Hub, a directory or an
    fsspec URL (default: publish.repo of the recipe); `changes` are other keys of the recipe's `publish`, `gates` are NAME=VALUE;
    `force` is the reason for publishing what a gate refuses. Raises PublishError, and then nothing has changed."""
    opened = _opened(run)
    spec = publish_spec(opened, {**(changes or {}), **({} if repo is None else {"repo": repo})}, gates)
    return publish_run(opened, spec, force=force)


def _loaded(recipe: Loaded | str | Path) -> Loaded:
    return recipe if isinstance(recipe, Loaded) else load(recipe)


def _opened(run: Run | str | Path) -> Run:
    return run if isinstance(run, Run) else open_run(run)
