"""The engine of a run, warm: started once, with a seed of its own, and used for many shards."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from schemas.engines import Engine, HttpEngine, VllmEngine
from schemas.recipe import Recipe
from thresher import ids
from thresher.errors import ModelError, StoreError
from thresher.inputs import models
from thresher.pool.run import Run
from thresher.running.progress import Progress
from thresher.running.server_notes import note_server
from thresher.samplers.open_sampler import open_sampler
from thresher.samplers.sampler import Sampler


@dataclass(frozen=True)
class Warm:
    """An engine that is ready, and the progress that counts what it draws."""

    sampler: Sampler
    progress: Progress
    number: int = 0
    """The model of the run that it draws from, from 0."""

    def close(self) -> None:
        """Close the engine."""
        self.sampler.close()


@contextmanager
def warm(run: Run, progress: Progress, number: int = 0) -> Iterator[Warm]:
    """Open the engine of one model of a run on this machine. Raises StoreError where the run directory cannot be seen, ModelError
    where this machine has another version of the model, and what open_sampler raises."""
    run = run.models[number]
    store, recipe = run.store, run.recipe
    if not store.exists("run.json"):
        raise StoreError(
            f"{store.path('run.json')}: not visible from {socket.gethostname()}; put the run directory on storage that all "
            "machines reach under one name"
        )
    model = model_for(recipe, run.base)
    if model.revision != run.manifest.model["revision"]:
        raise ModelError(
            f"model {model.name!r}: {socket.gethostname()} has {model.revision}, the run was started with "
            f"{run.manifest.model['revision']}; install the same version on all machines"
        )
    noted = run.manifest.model.get("adapter") or {}
    if model.adapter is not None and model.adapter.revision != noted.get("revision"):
        raise ModelError(
            f"model.adapter {model.adapter.name!r}: {socket.gethostname()} has {model.adapter.revision}, the run was started "
            f"with {noted.get('revision')}; install the same version on all machines"
        )
    with open_sampler(
        _as_identified(run),
        model,
        prompt_format=recipe.model.prompt_format,
        marking=run.marking,
        tool_parser=recipe.model.tool_parser,
        sampling=recipe.sampling,
        base=run.base,
        start=partial(note_start, run),
        note=partial(note_server, run),
    ) as sampler:
        progress.lap()
        yield Warm(sampler, progress, number)


def _as_identified(run: Run) -> Engine:
    """The run's engine, with the precision that identifies its samples: another machine might resolve `auto` otherwise."""
    engine = run.recipe.engine
    if not isinstance(engine, VllmEngine):
        return engine
    return engine.model_copy(update={"dtype": run.settings.get("dtype", engine.dtype)})


def note_start(run: Run) -> tuple[int, int]:
    """Note the start of an engine in RUN/starts; returns its number in this run, from 1, and its seed. No two starts of a run
    share a seed, so none repeats another's samples."""
    number = run.store.put_next("starts", "", ".json", b"{}\n")
    seed = ids.engine_seed(run.recipe.run.salt, number)
    run.store.write_bytes(f"starts/{number:04d}.json", f'{{"start": {number}, "engine_seed": {seed}}}\n'.encode())
    return number, seed


def model_for(recipe: Recipe, base: Path) -> models.Model:
    """The model of a recipe: resolved on this machine, or only its name where a server has it. Raises ModelError."""
    return models.of_spec(recipe.model, served=isinstance(recipe.engine, HttpEngine), base=base)
