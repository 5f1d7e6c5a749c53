"""Duplicates within a run that has more samples than memory holds, shard by shard, by thresher.dedupe.out_of_core.

The files are in a scratch folder, RUN/scratch unless the recipe names one, until the verdicts are written; a stopped run resumes
from them. A run on an object store that names no scratch folder has them in this machine's temporary folder, and starts over. The
verdicts equal those of filters.similarity.near_duplicate.within_run."""

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
from filters.chunks import take
from filters.similarity import near_duplicate
from filters.similarity.guards import signed_in_run
from filters.similarity.near_duplicate import Comparison
from schemas.recipe import FilterSpec, Recipe
from schemas.repeats import DedupeSpec
from schemas.sample import Outcome
from thresher import ids
from thresher.dedupe import out_of_core
from thresher.dedupe.components import read_repeats
from thresher.dedupe.signed_texts import TEXT_BYTES, is_signed, sign
from thresher.dedupe.step_files import Plan
from thresher.errors import StoreError
from thresher.executors.executor import Map
from thresher.pool import judged as pool
from thresher.pool import rows as shards
from thresher.pool.store import Store, shard_name

UNPACKED = 3
"""Most bytes of shingles for each byte of a shard's file, as long as its texts are not much more regular than language."""
SHINGLE_BYTES = 4
"""Most bytes of shingles for each byte of text, which a single long word has."""


class Pass(NamedTuple):
    """One pass of the filter over a run. It is pickled for workers."""

    store: Store
    number: int
    """Position of the filter among those over the corpus."""
    key: str
    spec: DedupeSpec

    @property
    def filter(self) -> Filter:
        """The filter that gives the same verdicts with all samples in memory."""
        return near_duplicate.within_run(self.spec)


def needed(store: Store, recipe: Recipe) -> bool:
    """Whether the signatures of the run's hits may take more memory than `run.dedupe_gib`."""
    size = 0.0
    for shard in pool.sampled(store):
        samples, verdicts = store.entry(f"samples/{shard_name(shard)}"), pool.verdict_entries(store, shard)
        assert samples is not None
        hits = int(verdicts[-1].facts["hits"])
        judged_hits, text = max(1, int(verdicts[0].facts["hits"])), verdicts[0].facts.get("hit_bytes")
        shingles = UNPACKED * samples.bytes / max(1, samples.rows) if text is None else SHINGLE_BYTES * text / judged_hits
        size += hits * (TEXT_BYTES + shingles)
    return size > recipe.run.dedupe_gib * 2**30


def through_files(part: Pass, memory: int, map_parts: Map, scratch: Path | None = None) -> None:
    """Write the verdicts of `near_duplicate_run` on all shards. `memory` is in bytes for each worker; `scratch` is a folder that
    all workers reach. Raises StoreError if the folder cannot be created."""
    store, threshold = part.store, part.spec.within_run
    assert threshold is not None
    temporary = scratch is None
    if scratch is None:
        scratch = Path(store.path("scratch") if store.local else tempfile.mkdtemp(prefix="thresher-"))
    try:
        scratch.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"run.scratch {scratch}: cannot be created ({error.strerror or error}); name another folder") from error
    folder = str(scratch / f"dedupe-{ids.digest(store.path(''), part.key)[:16]}")  # other runs may use the same scratch folder
    plan = Plan(folder, threshold, memory)
    sampled = pool.sampled(store)
    map_parts(sign_shard, [(part, plan, shard) for shard in sampled])
    out_of_core.find_repeats(plan, map_parts)
    map_parts(write_verdicts, [(part, plan, shard) for shard in sampled])
    shutil.rmtree(folder)
    if temporary:
        shutil.rmtree(scratch, ignore_errors=True)  # with what a run left there that was killed and then changed


def sign_shard(part: Pass, plan: Plan, shard: int) -> None:
    """Sign the hits of a shard."""
    if is_signed(plan.folder, shard):
        return
    spec = part.spec
    _, table = _hits(part.store, shard, (*near_duplicate.COLUMNS, "answer"))
    table = near_duplicate.as_compared(table)
    names = np.array([name.encode() for name in table["sample_id"].to_pylist()], "S64")
    further = {"names": names, "draws": table["multiplicity"].to_numpy().astype(np.int64)}
    sign(plan.folder, shard, signed_in_run(table, spec), near_duplicate.order(table, spec), further)


def write_verdicts(part: Pass, plan: Plan, shard: int) -> None:
    """Write the verdicts on a shard's hits."""
    store, name = part.store, pool.corpus_name(part.number, shard)
    if store.finished(name, part.key):
        return
    start = time.perf_counter()
    duplicates = part.filter
    hit_rows, table = _hits(store, shard, ("sample_id",))
    repeats, first = read_repeats(plan), out_of_core.first_row(plan, shard)
    rows = np.arange(first, first + len(hit_rows))
    originals = repeats.originals[rows].astype(np.int64)
    kept = originals == rows
    names: list[str | None] = [None] * len(rows)
    dropped = np.flatnonzero(~kept)
    for index, name_bytes in zip(dropped.tolist(), out_of_core.column(plan, "names", originals[dropped]).tolist(), strict=True):
        names[index] = name_bytes.decode()
    equal = out_of_core.are_equal(plan, rows, originals)
    comparison = Comparison(kept, equal, repeats.similarity[rows], repeats.draws[rows], names)
    judged = near_duplicate.verdicts(comparison, "run")
    spec = FilterSpec(name=duplicates.name)
    seconds = time.perf_counter() - start
    facts = shards.filter_facts(duplicates.name, spec, duplicates, seconds=seconds, known=0, exhaustive=False)
    hits = int(pc.sum(pc.equal(judged["outcome"], Outcome.KEEP.value)).as_py() or 0)
    verdicts = shards.verdict_rows(duplicates.name, duplicates, hit_rows, table["sample_id"], judged)
    store.write_table(name, verdicts, key=part.key, facts={"filters": [facts], "hits": hits})


def _hits(store: Store, shard: int, columns: tuple[str, ...]) -> tuple[NDArray[np.int64], pa.Table]:
    """The samples of a shard that all filters kept so far, and their rows."""
    stored = sorted(({"sample_id", "anchor", "reference"} | set(columns)) - {*pool.JUDGED, "completion"})
    judged = pool.read_judged(store, shard, stored)
    kept = pc.and_(pc.equal(judged["outcome"], Outcome.KEEP.value), pc.invert(judged["anchor"]))
    rows = np.flatnonzero(kept.to_numpy(zero_copy_only=False))
    return rows, take(judged, rows)
