"""An open run."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from schemas.recipe import Recipe
from thresher import ids
from thresher.inputs import models
from thresher.pool import judged
from thresher.pool.store import Store
from thresher.run.progress import Progress
from thresher.samplers import open_sampler
from thresher.samplers.sampler import Sampler


@dataclass(frozen=True)
class Begun:
    """A run that may be sampled: its root, its number of shards, and the shards that still lack samples."""

    root: str
    shards: int
    missing: list[int]
    recipe: Recipe
    model: models.Model | None
    base: Path

    def start(self) -> tuple[int, int]:
        """Note the start of an engine in RUN/starts; returns its number in this run, from 1, and the seed it is to have. No two
        starts of a run have one seed, so none repeats the noise of another."""
        store = Store(self.root)
        number = store.put_next("starts", "", ".json", b"{}\n")
        seed = ids.engine_seed(self.recipe.run.salt, number)
        store.write_bytes(f"starts/{number:04d}.json", f'{{"start": {number}, "engine_seed": {seed}}}\n'.encode())
        return number, seed

    def sampler(self) -> AbstractContextManager[Sampler]:
        """The recipe's engine; see open_sampler."""
        assert self.model is not None, "samples that were brought need no engine"
        recipe = self.recipe
        return open_sampler(
            recipe.engine,
            self.model,
            prompt_format=recipe.model.prompt_format,
            sampling=recipe.sampling,
            base=self.base,
            start=self.start,
        )

    @property
    def enough(self) -> bool:
        """Whether the run has the rows it was to have (target_rows), whatever is left to sample."""
        store = Store(self.root)
        manifest = store.manifest()
        return manifest is not None and judged.enough(store, manifest)


@dataclass(frozen=True)
class Warm:
    """An engine that is warm, and who counts what it draws."""

    sampler: Sampler
    progress: Progress

    def close(self) -> None:
        """End the engine."""
        self.sampler.close()
