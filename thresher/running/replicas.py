"""How many engines a run on a cluster has: asked for while it is under way."""

import json

from thresher.dataset.write import dataset_finished
from thresher.errors import StoreError
from thresher.pool import judged
from thresher.pool.run import Run
from thresher.pool.store import Store

REPLICAS = "replicas.json"


def scale(run: Run, replicas: int) -> None:
    """Ask a run that is under way on a cluster for another number of replicas. Raises StoreError where it has none."""
    if not run.sampled or run.recipe.executor.kind == "local":
        reason = "executor.kind is local: one engine, in its process" if run.sampled else "its samples are your own"
        raise StoreError(f"{run.root}: {reason}; only a run on a cluster (executor.kind: ray) takes another number of engines")
    if run.several:
        raise StoreError(
            f"{run.root}: it draws from several models, one after the other, and the number of engines is asked for of one; set "
            "executor.replicas and run it again"
        )
    if dataset_finished(run) and (run.enough or len(judged.sampled(run.store)) == judged.shards(run.store)):
        raise StoreError(f"{run.root}: it is fully sampled and has no engine; raise sampling and run it again")
    run.store.write_bytes(REPLICAS, f'{{"replicas": {replicas}}}\n'.encode())


def replicas_wanted(store: Store) -> int | None:
    """The number of replicas that `scale` asked for last; None where it was not called."""
    if not store.exists(REPLICAS):
        return None
    return int(json.loads(store.read_bytes(REPLICAS))["replicas"])
