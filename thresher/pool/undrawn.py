"""Samples that could not be drawn, and when they are tried again: on every rerun, or, where the engine refused the prompt itself,
once what decides that has changed.

The entry of a shard notes under `undrawn`, for the key of each model, its prompts without samples: with the hash of what decided
the refusal, or with "" where another try may succeed.
"""

from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.engines import HttpEngine, VllmEngine
from schemas.manifest import Entry
from thresher import __version__, ids
from thresher.pool.model_rows import drawn_by
from thresher.pool.run import Run
from thresher.samplers.sampler import EngineFacts

Undrawn = Mapping[str, str]
"""What decided that a prompt was refused, by its id; "" where another try may succeed."""


def decided_by(one: Run, facts: EngineFacts) -> str:
    """What decides whether the engine of a model refuses a prompt: the hash of its settings and of thresher's version, its own
    version, and of a server its context."""
    context = f"/{facts.context}" if isinstance(one.recipe.engine, HttpEngine) else ""
    return f"{_settings_key(one)}/{facts.version}{context}"


def may_be_tried_again(entry: Entry, one: Run, facts: EngineFacts | None = None) -> bool:
    """Whether a finished shard has samples of a model that could not be drawn and are to be tried again. Without the `facts` of
    its engine, which may be on another machine, the answer may turn out to be no: only a server can tell what it is."""
    if not entry.facts.get("failed"):
        return False
    prompts = noted_of(entry, one)
    if prompts is None or not all(prompts.values()):
        return True
    if facts is not None:
        return any(decided != decided_by(one, facts) for decided in prompts.values())
    if isinstance(one.recipe.engine, HttpEngine):
        return True
    here = version("vllm") if isinstance(one.recipe.engine, VllmEngine) and find_spec("vllm") else None
    parts = [decided.split("/", 1) for decided in prompts.values()]
    return any(settings != _settings_key(one) or here not in (None, engine) for settings, engine in parts)


def without_tried_again(rows: pa.Table, entry: Entry | None, one: Run, facts: EngineFacts) -> pa.Table:
    """The rows of a shard (schema JOURNAL) without those of a model that are drawn again: what failed, except prompts that the
    engine would refuse again."""
    failed = pc.is_valid(rows["error"]).to_numpy()
    if not failed.any():
        return rows
    prompts, decides = (noted_of(entry, one) if entry is not None else None) or {}, decided_by(one, facts)
    refused = pa.array([prompt for prompt, decided in prompts.items() if decided == decides], pa.string())
    again = failed & ~pc.is_in(rows["prompt_id"], refused).to_numpy() & own(one, rows)
    return rows.filter(pa.array(~again))


def latest(rows: pa.Table) -> pa.Table:
    """The rows of a shard in an order in which the first of equal sample ids counts: samples, then the latest failures."""
    failed = pc.is_valid(rows["error"]).to_numpy()
    if not failed.any():
        return rows
    return rows.take(pa.array(np.concatenate([np.flatnonzero(~failed), np.flatnonzero(failed)[::-1]])))


def noted(rows: pa.Table, entry: Entry | None, one: Run, known: Undrawn) -> dict[str, dict[str, str]]:
    """What the entry of a shard (rows of schema SAMPLES) is to note under `undrawn`. `known` are the prompts that failed now;
    what `entry` notes of others still holds."""
    before: dict[str, dict[str, str]] = dict(entry.facts.get("undrawn") or {}) if entry is not None else {}
    failed = rows.filter(pc.is_valid(rows["error"]))
    earlier = before.get(one.model_key, {})
    prompts = pc.unique(failed.filter(pa.array(own(one, failed)))["prompt_id"]).to_pylist()
    before[one.model_key] = {prompt: known.get(prompt, earlier.get(prompt, "")) for prompt in prompts}
    return {key: of_model for key, of_model in before.items() if of_model}


def noted_of(entry: Entry, one: Run) -> Undrawn | None:
    """What an entry notes of the prompts of a model; None in an entry of an earlier version, which does not tell."""
    everything: Mapping[str, Any] | None = entry.facts.get("undrawn")
    return None if everything is None else dict(everything.get(one.model_key, {}))


def own(one: Run, rows: pa.Table) -> NDArray[np.bool_]:
    """Which rows (n,) a model of a run drew."""
    return drawn_by(one, rows) if one.model_key else np.ones(rows.num_rows, bool)


def _settings_key(one: Run) -> str:
    return ids.digest("refused", one.recipe.engine.model_dump(mode="json"), __version__)
