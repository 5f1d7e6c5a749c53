"""The duplicates of a run that has more samples than memory holds: shard by shard through thresher.dedupe.out_of_core.

The files lie in a scratch folder, RUN/scratch where there is no other, until the verdicts are written; a run that is stopped goes
on from them. A run on an object store that names no folder has them in this machine's temporary one, and begins again. The
verdicts are those of filters.similarity.near_duplicate.within_run."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from filters.base import Filter
from filters.similarity import near_duplicate
from filters.similarity.guards import signed_in_run
from filters.similarity.near_duplicate import Comparison
from schemas.recipe import FilterSpec, Recipe
from schemas.repeats import DedupeSpec
from schemas.sample import Outcome
from thresher import ids
from thresher.dedupe import out_of_core
from thresher.dedupe.out_of_core import Plan
from thresher.errors import StoreError
from thresher.executors.executor import Map
from thresher.pool import judged as pool
from thresher.pool import rows as shards
from thresher.pool.store import Store, shard_name

UNPACKED = 3
"""Bytes of shingles for each byte of a shard's file, at most."""


class Pass(NamedTuple):
    """One pass over a run. It is pickled for workers."""

    store: Store
    number: int
    """Of the filter, among those over the corpus."""
    key: str
    spec: DedupeSpec

    @property
    def filter(self) -> Filter:
        """The filter over all samples in memory, of which this pass gives the verdicts."""
        return near_duplicate.within_run(self.spec)


def needed(store: Store, recipe: Recipe) -> bool:
    """Whether the signatures of the run's hits may take more memory than they may."""
    size = 0.0
    for shard in pool.sampled(store):
        samples, last = store.entry(f"samples/{shard_name(shard)}"), pool.verdict_entries(store, shard)[-1]
        assert samples is not None
        hits = int(last.facts["hits"])
        size += hits * out_of_core.TEXT_BYTES + UNPACKED * samples.bytes * hits / max(1, samples.rows)
    return size > recipe.run.dedupe_gib * 2**30


def through_files(part: Pass, memory: int, map_parts: Map, scratch: Path | None = None) -> None:
    """Write the verdicts of `near_duplicate_run` on all shards, with some bytes of memory in each worker, through a folder that
    all of them reach. Raises StoreError where it cannot be made."""
    store, threshold = part.store, part.spec.within_run
    assert threshold is not None
    own = scratch is None
    if scratch is None:
        scratch = Path(store.path("scratch") if store.local else tempfile.mkdtemp(prefix="thresher-"))
    try:
        scratch.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"run.scratch {scratch}: cannot be made ({error.strerror or error}); name another folder") from error
    folder = str(scratch / f"dedupe-{ids.digest(store.path(''), part.key)[:16]}")  # of this run: others may be at work there
    plan = Plan(folder, threshold, memory)
    sampled = pool.sampled(store)
    map_parts(sign_shard, [(part, plan, shard) for shard in sampled])
    out_of_core.find(plan, map_parts)
    map_parts(write_verdicts, [(part, plan, shard) for shard in sampled])
    shutil.rmtree(folder)
    if own and not any(scratch.iterdir()):
        scratch.rmdir()


def sign_shard(part: Pass, plan: Plan, shard: int) -> None:
    """Sign the hits of a shard."""
    if out_of_core.signed_already(plan.folder, shard):
        return
    spec = part.spec
    _, table = _hits(part.store, shard, near_duplicate.COLUMNS)
    names = np.array([name.encode() for name in table["sample_id"].to_pylist()], "S64")
    further = {"names": names, "draws": table["multiplicity"].to_numpy().astype(np.int64)}
    out_of_core.sign(plan.folder, shard, signed_in_run(table, spec), near_duplicate.order(table, spec), further)


def write_verdicts(part: Pass, plan: Plan, shard: int) -> None:
    """Write what was found of a shard's hits."""
    store, name = part.store, pool.corpus_name(part.number, shard)
    if store.finished(name, part.key):
        return
    began = time.perf_counter()
    made = part.filter
    rows, table = _hits(store, shard, ("sample_id",))
    found, first = out_of_core.found(plan), out_of_core.first(plan, shard)
    own = np.arange(first, first + len(rows))
    originals = found.originals[own].astype(np.int64)
    stays = originals == own
    repeated: list[str | None] = [None] * len(own)
    dropped = np.flatnonzero(~stays)
    for at, text in zip(dropped.tolist(), out_of_core.column(plan, "names", originals[dropped]).tolist(), strict=True):
        repeated[at] = text.decode()
    told = Comparison(stays, out_of_core.equals(plan, own, originals), found.similarity[own], found.draws[own], repeated)
    given = near_duplicate.verdicts(told, "run")
    facts = shards.filter_facts(
        made.name, FilterSpec(name=made.name), made, seconds=time.perf_counter() - began, known=0, exhaustive=False
    )
    hits = int(pc.sum(pc.equal(given["outcome"], Outcome.KEEP.value)).as_py() or 0)
    verdicts = shards.verdict_rows(made.name, made, rows, table["sample_id"], given)
    store.write_table(name, verdicts, key=part.key, facts={"filters": [facts], "hits": hits})


def _hits(store: Store, shard: int, columns: tuple[str, ...]) -> tuple[NDArray[np.int64], pa.Table]:
    """The samples of a shard that every filter kept so far, and their rows."""
    asked = sorted(({"sample_id", "anchor", "reference"} | set(columns)) - set(pool.JUDGED))
    judged = pool.read_judged(store, shard, asked)
    kept = pc.and_(pc.equal(judged["outcome"], Outcome.KEEP.value), pc.invert(judged["anchor"]))
    rows = np.flatnonzero(kept.to_numpy(zero_copy_only=False))
    return rows, judged.take(pa.array(rows))
