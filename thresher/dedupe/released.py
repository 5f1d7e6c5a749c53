"""What was released, in the index that a recipe names: a run's hits are added when its dataset is written, and what a dataset
holds can be indexed from the dataset alone."""

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
from schemas.manifest import Entry
from schemas.repeats import DedupeSpec
from schemas.sample import Kind
from thresher.dedupe.index import Index
from thresher.errors import SourceError, StoreError
from thresher.inputs.tables import Opened, last_said, opened
from thresher.pool import judged as pool
from thresher.pool.run import Run
from thresher.pool.store import Store


def add_run(run: Run) -> None:
    """Add the hits of a run to the index, in the place of what it added before."""
    store, spec, dataset = run.store, run.recipe.dedupe, run.store.entry("dataset")
    if spec is None or spec.released is None or added(run):
        return
    if dataset is None:
        raise StoreError(f"{run.root}: has no dataset yet; run `{run.command}` again to complete the run")
    open_index(spec, run.base).add(run.key, _hits(store, spec), version=dataset.key)
    store.write_model("released.json", dataset.model_copy(update={"path": spec.released.index, "facts": {}}))


def added(run: Run) -> bool:
    """Whether the index that the recipe names, if it names one, has the run's dataset as it is."""
    store, spec = run.store, run.recipe.dedupe
    if spec is None or spec.released is None:
        return True
    dataset, noted = store.entry("dataset"), _noted(store)
    if dataset is None or noted is None or (noted.key, noted.path) != (dataset.key, spec.released.index):
        return False
    return run.key in open_index(spec, run.base).manifest.releases


def repeated(store: Store, spec: DedupeSpec, index: Index, known: Collection[str]) -> int:
    """How many hits of a run repeat what these releases hold."""
    assert spec.released is not None
    asked = (index.ask(texts, spec.released.threshold, known=known) for texts, _ in _hits(store, spec))
    return sum(name is not None for found in asked for name in found.names)


def _hits(store: Store, spec: DedupeSpec) -> Iterator[tuple[Signed, list[str]]]:
    columns = sorted(set(near_duplicate.COLUMNS) - set(pool.JUDGED) | {"anchor", "reference"})
    for judged in pool.each_judged(store, columns):
        own = judged.filter(pc.and_(pc.equal(judged["kind"], Kind.HIT.value), pc.invert(judged["anchor"])))
        yield signed_in_run(own, spec), own["sample_id"].to_pylist()


def _noted(store: Store) -> Entry | None:
    return store.entry("released")


def index_dataset(data: str, out: Path, spec: DedupeSpec, *, config: str = "sft", split: str = "train") -> Index:
    """Make an index of what a dataset of thresher holds, its view `sft`, as one release named after it. Raises SourceError where
    there is no such dataset, or where `out` holds something else."""
    if (out / "index.json").exists():
        raise SourceError(f"{out}: is an index already; remove it, or name another --out")
    table = opened(data, config, split)
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
    """The texts of a Parquet file of the view `sft`, and their names, a batch at a time."""
    yield from _rows(opened(file, None, None), spec)


def _rows(table: Opened, spec: DedupeSpec) -> Iterator[tuple[Signed, list[str]]]:
    for batch in table.batches(["sample_id", "prompt_id", "completion", "answer_id"]):
        said = batch.set_column(batch.column_names.index("completion"), "completion", last_said(batch["completion"]))
        texts = said.set_column(
            said.column_names.index("completion"), "completion", pc.fill_null(said["completion"], "").cast(pa.large_string())
        )
        yield signed_in_run(texts, spec), texts["sample_id"].to_pylist()


ASKED = "asked.json"
"""Releases that a run's samples were compared with, and the dataset that each had then."""


def released_filter(spec: DedupeSpec, base: Path, known: Collection[str] | None = None) -> Filter:
    """Drop what repeats a sample that was released before, by the index of those: of the releases that are `known`, or of all.
    Raises FilterError on an index that cannot serve."""
    assert spec.released is not None
    index, threshold = open_index(spec, base), spec.released.threshold

    def judge(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
        for table in batches:
            found = index.ask(signed_in_run(table, spec), threshold, known=known)
            fell = table["multiplicity"].to_numpy()
            told = near_duplicate.Comparison(
                np.array([name is None for name in found.names], bool), found.equal, found.similarity, fell, found.names
            )
            yield near_duplicate.verdicts(told, "released")

    made = near_duplicate.duplicate_filter(
        near_duplicate.RELEASED, Scope.CORPUS, judge, spec, {"released", "run_characters", "guard"}
    )
    return replace(made, parameters=made.parameters | {"index": str(spec.released.index)})


def open_index(spec: DedupeSpec, base: Path) -> Index:
    """The index of released samples that a recipe names. Raises FilterError on one that cannot serve."""
    assert spec.released is not None
    return Index(base / spec.released.index, rule(spec))


def rule(spec: DedupeSpec) -> dict[str, Any]:
    """How `signed_in_run` makes guards."""
    return {"guard": spec.guard, "run_characters": spec.run_characters}
