"""Released samples, in the index that a recipe names. A run's hits are added when its dataset is written; a dataset can also be
indexed without its runs."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.base import Filter, FilterError, Scope
from filters.similarity import near_duplicate
from filters.similarity.guards import signed_in_run
from filters.similarity.signatures import Signed
from schemas.repeats import DedupeSpec
from schemas.sample import Kind
from thresher.dedupe.index import Index
from thresher.errors import SourceError, StoreError
from thresher.inputs.tables import TableSource, last_contents, open_table
from thresher.pool import judged as pool
from thresher.pool.run import Run
from thresher.pool.store import Store

ASKED = "asked.json"
"""In the run: the releases that its samples were compared with, and the dataset that each had then."""


def add_run(run: Run) -> None:
    """Add the hits of a run to the index; they replace what the run added before."""
    store, spec, dataset = run.store, run.recipe.dedupe, run.store.entry("dataset")
    if spec is None or spec.released is None:
        return
    if added(run):
        open_index(spec, run.base).remove_leftovers()
        return
    if dataset is None:
        raise StoreError(f"{run.root}: has no dataset yet; run `{run.command}` again to complete the run")
    open_index(spec, run.base).add(run.key, _hits(store, spec), version=dataset.key)
    store.write_model("released.json", dataset.model_copy(update={"path": spec.released.index, "facts": {}}))


def added(run: Run) -> bool:
    """Whether the index that the recipe names holds the run's current dataset. True if the recipe names none."""
    store, spec = run.store, run.recipe.dedupe
    if spec is None or spec.released is None:
        return True
    dataset, noted = store.entry("dataset"), store.entry("released")
    if dataset is None or noted is None or (noted.key, noted.path) != (dataset.key, spec.released.index):
        return False
    return open_index(spec, run.base).manifest.versions.get(run.key) == dataset.key


def repeated(store: Store, spec: DedupeSpec, index: Index, known: Collection[str]) -> int:
    """Count the hits of a run that repeat a sample of these releases."""
    assert spec.released is not None
    matches = (index.ask(texts, spec.released.threshold, known=known) for texts, _ in _hits(store, spec))
    return sum(name is not None for similar in matches for name in similar.names)


def _hits(store: Store, spec: DedupeSpec) -> Iterator[tuple[Signed, list[str]]]:
    columns = sorted(set(near_duplicate.COLUMNS) - {*pool.JUDGED, "completion"} | {"anchor", "reference", "answer"})
    for judged in pool.each_judged(store, columns):
        hits = judged.filter(pc.and_(pc.equal(judged["kind"], Kind.HIT.value), pc.invert(judged["anchor"])))
        yield signed_in_run(near_duplicate.as_compared(hits), spec), hits["sample_id"].to_pylist()


def index_dataset(data: str, out: Path, spec: DedupeSpec, *, config: str = "sft", split: str = "train") -> Index:
    """Index the view `sft` of a dataset that thresher wrote, as one release named after it. Raises SourceError if there is no
    such dataset, or if `out` holds other files."""
    if (out / "index.json").exists():
        raise SourceError(f"{out}: is an index already; remove it, or name another --out")
    table = open_table(data, config, split)
    lacking = [name for name in ("sample_id", "prompt_id", "completion", "answer_id") if name not in table.schema.names]
    if lacking:
        raise SourceError(f"{data}: config {config} has no column {lacking[0]!r}; wanted a dataset that thresher wrote")
    try:
        index = Index(out, rule(spec))
    except FilterError as error:
        raise SourceError(str(error)) from error
    index.add(data, _rows(table, spec))
    return index


def signed_rows(file: str, spec: DedupeSpec) -> Iterator[tuple[Signed, list[str]]]:
    """The texts of a Parquet file of the view `sft` and their names, batch by batch."""
    yield from _rows(open_table(file, None, None), spec)


def _rows(table: TableSource, spec: DedupeSpec) -> Iterator[tuple[Signed, list[str]]]:
    for batch in table.batches(["sample_id", "prompt_id", "completion", "answer_id"]):
        completions = pc.fill_null(last_contents(batch["completion"]), "").cast(pa.large_string())
        texts = batch.set_column(batch.column_names.index("completion"), "completion", completions)
        yield signed_in_run(texts, spec), texts["sample_id"].to_pylist()


def released_filter(spec: DedupeSpec, base: Path, known: Collection[str] | None = None) -> Filter:
    """Drop samples that repeat a released sample of the recipe's index: of the `known` releases, or of all. Raises FilterError on
    an index that cannot be used."""
    assert spec.released is not None
    index, threshold = open_index(spec, base), spec.released.threshold

    def judge(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
        for table in batches:
            similar = index.ask(signed_in_run(table, spec), threshold, known=known)
            kept = np.array([name is None for name in similar.names], bool)
            draws = table["multiplicity"].to_numpy()
            comparison = near_duplicate.Comparison(kept, similar.equal, similar.similarity, draws, similar.names)
            yield near_duplicate.verdicts(comparison, "released")

    unindexed = near_duplicate.duplicate_filter(
        near_duplicate.RELEASED, Scope.CORPUS, judge, spec, {"released", "run_characters", "guard"}
    )
    return replace(unindexed, parameters=unindexed.parameters | {"index": str(spec.released.index)})


def open_index(spec: DedupeSpec, base: Path) -> Index:
    """The index of released samples that a recipe names. Raises FilterError on one that cannot be used."""
    assert spec.released is not None
    return Index(base / spec.released.index, rule(spec))


def rule(spec: DedupeSpec) -> dict[str, Any]:
    """The settings that decide which guards `signed_in_run` computes."""
    return {"guard": spec.guard, "run_characters": spec.run_characters}
