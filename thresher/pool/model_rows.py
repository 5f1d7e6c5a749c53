"""Tells which of a run's models drew each row of its pool."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.manifest import Entry
from schemas.sample import to_json
from thresher.pool.run import Run
from thresher.pool.wanted import complete

COLUMNS = ("model", "model_revision", "adapter", "chat_template_sha256", "sampling")
"""Columns of the pool that tell the models of a run apart."""


def has_samples(entry: Entry, run: Run, one: Run) -> bool:
    """Whether a finished shard of a run has the samples of one of its models."""
    return complete(entry, one.recipe.sampling, one.recipe.model, key=one.model_key, first=run.first_key)


def drawn_by(one: Run, rows: pa.Table) -> NDArray[np.bool_]:
    """Which rows (n,) with the columns COLUMNS a model drew. `one` is the run of that model (Run.models)."""
    model = one.model
    if model is None:
        return np.zeros(rows.num_rows, bool)
    adapter = None if model.adapter is None else model.adapter.label
    values = (model.name, model.revision, adapter, model.chat_template_sha256)
    mask = np.ones(rows.num_rows, bool)
    for name, value in zip(COLUMNS, values, strict=False):
        same = pc.is_null(rows[name]) if value is None else pc.fill_null(pc.equal(rows[name], value), False)
        mask &= same.to_numpy(zero_copy_only=False) if isinstance(same, pa.Array) else same.to_numpy()
    settings = to_json(dict(one.settings))
    texts = [text for text in pc.unique(rows["sampling"]).to_pylist() if text is not None]
    own = [text for text in texts if to_json(json.loads(text).get("engine", {})) == settings]
    mask &= pc.is_in(rows["sampling"], pa.array(own, pa.string())).to_numpy()
    return mask


def model_numbers(run: Run, rows: pa.Table) -> NDArray[np.int64]:
    """The number of the model that drew each row (n,), from 0 in the order of the recipe; -1 where none of them did."""
    numbers = np.full(rows.num_rows, -1, np.int64)
    for number, one in enumerate(run.models):
        numbers[drawn_by(one, rows)] = number
    return numbers


def sources_of(run: Run, rows: pa.Table) -> list[str | None]:
    """The sources of rows, named after their model where the run has several."""
    sources: list[str | None] = rows["source"].to_pylist()
    if not run.several:
        return sources
    labels = [one.label for one in run.models]
    numbers = model_numbers(run, rows).tolist()
    return [source if number < 0 else f"{labels[number]}: {source}" for source, number in zip(sources, numbers, strict=True)]


def counts_by_model(run: Run, rows: pa.Table) -> dict[str, dict[str, int]]:
    """The rows and completion tokens of each model in a shard, by its key, as the shard's entry notes them."""
    lengths = pc.fill_null(pc.list_value_length(rows["completion_ids"]), 0).to_numpy()
    counts, numbers = {}, model_numbers(run, rows)
    for number, one in enumerate(run.models):
        own = np.equal(numbers, number)
        counts[one.model_key] = {"rows": int(own.sum()), "completion_tokens": int(lengths[own].sum())}
    return counts
