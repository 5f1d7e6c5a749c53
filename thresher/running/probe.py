"""Draws and judges a few samples of a recipe in a directory of its own, which is removed afterwards. A run of the recipe is not
touched."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from schemas.sample import Prompt
from thresher.durable import make_folders, remove_leftovers, temporary_folder
from thresher.errors import ThresherError
from thresher.executors import open_executor
from thresher.inputs.recipe_file import Loaded
from thresher.pool.run import Run
from thresher.running import steps
from thresher.running.progress import Progress

NO_TARGETS: dict[str, None] = dict.fromkeys(("target_hits", "max_samples_per_prompt", "give_up_below", "target_rows"))
"""Settings of `sampling` without which each prompt gets samples_per_prompt samples."""


@dataclass(frozen=True)
class Probe:
    """A sampled and judged run of few prompts; what it drew, anchors included; how long its engine took to start and to draw."""

    run: Run
    samples: int
    tokens: int
    start_s: float
    sampling_s: float


@contextmanager
def probe(loaded: Loaded, prompts: Sequence[Prompt], **sampling: Any) -> Iterator[Probe]:
    """Sample and judge these prompts of a recipe, with settings of `sampling` changed. The samples of different prompts are not
    compared. The run is gone after the context. Raises what a run raises."""
    recipe = loaded.recipe
    probed = recipe.model_copy(
        update={
            "sampling": recipe.sampling.model_copy(update={**NO_TARGETS, **sampling}),
            "run": recipe.run.model_copy(update={"salt": f"{recipe.run.salt} probe", "shard_samples": 1}),
        }
    )
    with _scratch(everywhere=recipe.executor.kind == "ray") as folder, open_executor(probed) as executor:
        start = time.perf_counter()
        begun = steps.begin(replace(loaded, recipe=probed), folder / "probe", prompts=prompts)
        progress = Progress()
        shards = max(1, begun.shards)
        progress.begin(probed.sampling, prompts=len(prompts), shards=shards, missing=len(begun.missing), hits={})
        with steps.engines_of(begun.run, progress, executor) as engines:
            warm = time.perf_counter()
            judged_only = steps.JudgedOnly(steps.Plain(begun.run, progress, executor))
            steps.sample_through(begun, engines, judged_only, progress, executor)
            end = time.perf_counter()
        yield Probe(begun.run, progress.samples, progress.tokens, warm - start, end - warm)


@contextmanager
def naming(model: str) -> Iterator[None]:
    """Put the name of one of several models before the errors that it raises."""
    try:
        yield
    except ThresherError as error:
        raise type(error)(f"{model}: {error}") from error


@contextmanager
def _scratch(*, everywhere: bool) -> Iterator[Path]:
    """A folder that is gone after the context; `everywhere` on a cluster, where runs are by default."""
    if not everywhere:
        with tempfile.TemporaryDirectory(prefix="thresher-") as folder:
            yield Path(folder)
        return
    runs = Path("data/runs").absolute()
    make_folders(runs)
    remove_leftovers(runs)
    with temporary_folder(runs / "probe") as folder:
        yield folder
