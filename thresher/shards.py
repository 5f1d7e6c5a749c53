"""Builds the Arrow tables of a shard: completions become pool rows, verdicts become verdict rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from filters.base import Filter
from schemas.sample import LOGPROBS, SAMPLES, TOKENS, VERDICTS, to_json
from thresher import ids
from thresher.models import Model
from thresher.samplers.base import Completion, Drawn, EngineFacts

ANCHOR_INDEX = -1


def sample_table(
    prompts: pa.Table,
    drawn: Mapping[int, Drawn],
    *,
    model: Model,
    facts: EngineFacts,
    salt: str,
    parameters: Mapping[bool, dict[str, Any]],
) -> pa.Table:
    """Pool rows of one shard (schema SAMPLES): per prompt the anchor first, then its samples by index.

    `prompts` has schema PROMPTS. `drawn` is keyed by prompt row, doubled, plus one for the anchor's group. `parameters` are those
    of the samples (False) and of the anchors (True).
    """
    order = [(row, anchor) for row in range(prompts.num_rows) for anchor in (True, False) if 2 * row + anchor in drawn]
    groups = [drawn[2 * row + anchor] for row, anchor in order]
    sizes = np.array([len(group.completions) for group in groups], np.int64)
    rows = np.repeat(np.array([row for row, _ in order], np.int64), sizes)
    anchors = np.repeat(np.array([anchor for _, anchor in order], bool), sizes)
    index = np.concatenate([np.arange(size) for size in sizes]) if len(sizes) else np.zeros(0, np.int64)
    index[anchors] = ANCHOR_INDEX
    completions = [completion for group in groups for completion in group.completions]

    repeated = prompts.take(pa.array(rows))
    columns: dict[str, Any] = {name: repeated[name] for name in prompts.schema.names}
    sources = {a: ids.source_key(model.name, model.revision, p, salt) for a, p in parameters.items()}
    texts = {a: to_json(p) for a, p in parameters.items()}
    prompt_ids = repeated["prompt_id"].to_pylist()
    columns["sample_id"] = [
        ids.sample_id(prompt, sources[bool(anchor)], int(i)) for prompt, anchor, i in zip(prompt_ids, anchors, index, strict=True)
    ]
    columns["index"], columns["anchor"] = index.astype(np.int32), anchors
    columns["sampling"] = [texts[bool(anchor)] for anchor in anchors]
    columns |= _completion_columns(completions)
    columns["prompt_ids"] = _lists([group.prompt_ids for group in groups], TOKENS).take(
        pa.array(np.repeat(np.arange(len(groups)), sizes))
    )
    columns["engine_seed"] = np.repeat(np.array([group.seed for group in groups], object), sizes)
    same = {
        "logprobs_kind": facts.logprobs_kind,
        "engine": facts.engine,
        "engine_version": facts.version,
        "model": model.name,
        "model_revision": model.revision,
        "chat_template_sha256": model.chat_template_sha256,
        "source_row": None,
        "unreadable": None,
    }
    columns |= {name: pa.repeat(pa.scalar(value, SAMPLES.field(name).type), len(rows)) for name, value in same.items()}
    return pa.table({name: columns[name] for name in SAMPLES.names}).cast(SAMPLES)


def _completion_columns(completions: Sequence[Completion]) -> dict[str, Any]:
    return {
        "completion": pa.array([c.text for c in completions], pa.string()),
        "finish_reason": pa.array([c.finish_reason for c in completions], pa.string()),
        "stop_reason": pa.array([c.stop_reason for c in completions], pa.string()),
        "completion_ids": _lists([c.token_ids for c in completions], TOKENS),
        "logprobs": _lists([c.logprobs for c in completions], LOGPROBS),
        "cumulative_logprob": pa.array([c.cumulative_logprob for c in completions], pa.float64()),
    }


def _lists(arrays: Sequence[NDArray[Any] | None], kind: pa.DataType) -> pa.Array:
    """Lists of numbers from one array a row, without a Python object per number; None is a null."""
    lengths = np.array([0 if array is None else len(array) for array in arrays], np.int64)
    offsets = np.zeros(len(arrays) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    given = [array for array in arrays if array is not None]
    values = np.concatenate(given) if given else np.zeros(0)
    missing = np.array([array is None for array in arrays], bool)
    return pa.ListArray.from_arrays(
        offsets, pa.array(values, kind.value_type), type=kind, mask=pa.array(missing) if missing.any() else None
    )


def verdict_rows(label: str, filter_: Filter, rows: NDArray[np.int64], sample_ids: pa.Array, given: pa.Table) -> pa.Table:
    """Verdict rows (schema VERDICTS) of one filter on the samples at `rows` of their shard."""
    count = len(rows)
    columns = {
        "row": pa.array(rows.astype(np.int32)),
        "sample_id": sample_ids,
        "filter": pa.repeat(pa.scalar(label, pa.string()), count),
        "filter_key": pa.repeat(pa.scalar(filter_.key, pa.string()), count),
        **{name: given[name] for name in ("outcome", "reason", "score", "detail")},
    }
    return pa.table({name: columns[name] for name in VERDICTS.names}).cast(VERDICTS)
