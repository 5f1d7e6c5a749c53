"""The whole way, from a recipe to a dataset: what deployments name."""

from typing import Any

from prefect import flow, runtime

from flows.generate import Reported, sample_shard
from flows.release import publish_run, release_run
from flows.winnow import winnow_corpus, winnow_shard
from thresher import recipes, steps
from thresher.executors.local import LocalExecutor
from thresher.progress import Progress


@flow(name="thresher")
def pipeline(recipe: str, out: str | None = None, overrides: list[str] | None = None, salt: str | None = None) -> dict[str, Any]:
    """Sample a recipe, filter while sampling goes on, write the dataset, and publish it where the recipe says.

    Args:
        recipe: Path of the recipe.
        out: Run directory, or an fsspec URL; null takes data/runs/NAME, and for a deployment's run data/runs/NAME-TIME.
        overrides: Changes to the recipe, such as sampling.max_tokens=64.
        salt: Another salt draws other samples; null takes the recipe's, and for a deployment's run its scheduled time.
    """
    loaded = recipes.load(recipe, overrides or ())
    if runtime.deployment.id:
        slot = runtime.flow_run.scheduled_start_time.strftime("%Y%m%dT%H%M%S")
        salt, out = salt or slot, out or f"data/runs/{loaded.recipe.name}-{slot}"
    begun = steps.begin(loaded, out, salt=salt)
    workers = begun.recipe.run.filter_workers
    with Reported() as report, Progress(report=report) as progress, LocalExecutor(workers) as executor:
        steps.drive(
            begun,
            progress,
            executor,
            sample=lambda shard, sampler: sample_shard(begun.root, shard, sampler, progress, executor),
            winnow=lambda shard: winnow_shard(begun.root, shard, executor),
            corpus=lambda: winnow_corpus(begun.root, executor),
        )
    done = release_run(begun.root)
    return done | {"published": publish_run(begun.root) if begun.recipe.publish.repo else None}
