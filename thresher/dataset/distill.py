"""The view `distill`: hits with the likeliest tokens of each position, for a student that learns the model's distribution.

The columns are those of a sample of TRL's AsyncDistillationTrainer (trl.experimental.async_distillation, RolloutSample):
`input_ids` has L tokens, prompt and completion; the lists of position i are the candidates for token i, k + 1 of them: the k
likeliest, and the drawn token where it is none of them. What is absent, and all of a prompt's, is -1 with minus infinity.

Shapes below: N tokens of all rows, T of them in completions, w = k + 1.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from filters.chunks import cuts
from thresher.dataset.messages import combined
from thresher.dataset.tokens import hits_with, lengths_of, prompt_then_completion
from thresher.dataset.views import view_table

TOKEN_COLUMNS = ("prompt_ids", "completion_ids", "logprobs", "top_ids", "top_logprobs")
"""Columns of the pool that the view reads."""
PART_BYTES = 64 << 20
"""Most bytes of a table of the view, unless one sample has more."""


def distill(judged: pa.Table, prompt_format: str) -> pa.Table:
    """The hits whose tokens and likeliest tokens are known, without anchors."""
    rows = hits_with(judged, prompt_format, "distill", TOKEN_COLUMNS)
    return view_table("distill", rows, _columns(rows), prompt_format)


def distill_parts(judged: pa.Table, prompt_format: str) -> Iterator[pa.Table]:
    """The same in several tables: each token has a list of k + 1, so the rows of a shard may be many times as large as its
    samples."""
    listed, drawn = (pc.sum(pc.list_value_length(judged[name])).as_py() or 0 for name in ("top_ids", "completion_ids"))
    width = 2 + listed // max(1, drawn)
    for start, end in cuts(8 * width * lengths_of(judged), PART_BYTES):
        yield distill(judged.slice(start, end - start), prompt_format)


# -- inside --------------------------------------------------------------------------------------------------------------


def _columns(rows: pa.Table) -> dict[str, pa.Array]:
    values = {name: combined(rows[name]).flatten().to_numpy() for name in TOKEN_COLUMNS[1:]}
    input_ids, sampled, offsets = prompt_then_completion(rows)
    width = (len(values["top_ids"]) // len(values["completion_ids"]) if rows.num_rows else 0) + 1
    drawn = values["completion_ids"], values["logprobs"]
    top_ids, top_logprobs = _with_drawn(values["top_ids"], values["top_logprobs"], *drawn, width)

    def at_positions(of_completions: NDArray[Any], absent: float) -> pa.Array:
        everywhere = np.full((len(sampled), width), absent, of_completions.dtype)
        everywhere[sampled] = of_completions
        inner = np.arange(0, width * (len(sampled) + 1), width, dtype=np.int32)
        return pa.ListArray.from_arrays(offsets, pa.ListArray.from_arrays(inner, pa.array(everywhere.ravel())))

    return {
        "input_ids": pa.ListArray.from_arrays(offsets, pa.array(input_ids)),
        "completion_mask": pa.ListArray.from_arrays(offsets, pa.array(sampled.astype(np.int8))),
        "teacher_topk_ids": at_positions(top_ids, -1),
        "teacher_topk_logprobs": at_positions(top_logprobs, -np.inf),
    }


def _with_drawn(
    top_ids: NDArray[np.int32],
    top_logprobs: NDArray[np.float32],
    drawn: NDArray[np.int32],
    logprobs: NDArray[np.float32],
    width: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The likeliest tokens of each drawn token, and the drawn token where it is none of them (T, w)."""
    ids, values = top_ids.reshape(len(drawn), width - 1), top_logprobs.reshape(len(drawn), width - 1)
    listed = (ids == drawn[:, None]).any(axis=1)
    last_ids = np.where(listed, np.int32(-1), drawn)[:, None]
    last_values = np.where(listed, np.float32(-np.inf), logprobs)[:, None]
    return np.concatenate([ids, last_ids], axis=1), np.concatenate([values, last_values], axis=1)
