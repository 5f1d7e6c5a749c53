"""The view `tokens`: hits as the tokens that were sampled, for trainers that take tokens.

A text does not always become the tokens again that it came from: a tokenizer may join them otherwise, templates drop or add what
was sampled, and marks that are special tokens may be spelt in ordinary ones. Training on this view trains on the draw itself. The
columns are those that TRL's SFTTrainer (1.16) takes as they are: it leaves `labels` alone, and cuts rows above its `max_length`.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from filters.chunks import cuts
from schemas.sample import Kind
from thresher.dataset.messages import combined
from thresher.dataset.views import schema, view_table

TOKEN_COLUMNS = ("prompt_ids", "completion_ids")
"""Columns of the pool that the view reads."""
NO_LABEL = -100
"""The label of a token that has no part in the loss, as PyTorch's cross-entropy ignores it."""
PART_BYTES = 64 << 20
"""Most bytes of a table of the view, unless one sample has more."""
_ROW_BYTES = 9
"""Bytes of a token: two numbers of 32 bits and one of 8."""


def tokens(judged: pa.Table, prompt_format: str) -> pa.Table:
    """The hits whose tokens are known, without anchors."""
    rows = hits_with(judged, prompt_format, "tokens", TOKEN_COLUMNS)
    input_ids, sampled, offsets = prompt_then_completion(rows)
    columns = {
        "input_ids": pa.ListArray.from_arrays(offsets, pa.array(input_ids)),
        "labels": pa.ListArray.from_arrays(offsets, pa.array(np.where(sampled, input_ids, np.int32(NO_LABEL)))),
        "completion_mask": pa.ListArray.from_arrays(offsets, pa.array(sampled.astype(np.int8))),
    }
    return view_table("tokens", rows, columns, prompt_format)


def token_parts(judged: pa.Table, prompt_format: str) -> Iterator[pa.Table]:
    """The same in several tables, so that memory does not grow with the shard."""
    for start, end in cuts(_ROW_BYTES * lengths_of(judged), PART_BYTES):
        yield tokens(judged.slice(start, end - start), prompt_format)


def hits_with(judged: pa.Table, prompt_format: str, view: str, needed: tuple[str, ...]) -> pa.Table:
    """The hits, without anchors, that sampled a token and whose columns `needed` are known; only the columns for a view."""
    is_row = pc.and_(pc.equal(judged["kind"], Kind.HIT.value), pc.invert(judged["anchor"]))
    for name in needed:
        is_row = pc.and_(is_row, pc.is_valid(judged[name]))
    is_row = pc.and_(is_row, pc.greater(pc.list_value_length(judged["completion_ids"]), 0))
    wanted = {*schema(view, prompt_format).names, *needed}
    return judged.select([name for name in judged.column_names if name in wanted]).filter(is_row)


def prompt_then_completion(rows: pa.Table) -> tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.int32]]:
    """The N tokens of all rows, each row's prompt before its completion; which of them were sampled (N,); and where each row
    starts (rows + 1,)."""
    prompts, completions = (combined(rows[name]) for name in TOKEN_COLUMNS)
    sizes = np.stack([lengths(prompts), lengths(completions)], axis=1)
    sampled = np.repeat(np.tile([False, True], len(sizes)), sizes.ravel())
    input_ids = np.empty(len(sampled), np.int32)
    input_ids[~sampled], input_ids[sampled] = prompts.flatten().to_numpy(), completions.flatten().to_numpy()
    return input_ids, sampled, np.concatenate([[0], np.cumsum(sizes.sum(axis=1))]).astype(np.int32)


def lengths_of(judged: pa.Table) -> NDArray[np.int64]:
    """The tokens of each row (n,), 0 where they are not known."""
    prompt, completion = (pc.fill_null(pc.list_value_length(judged[name]), 0).to_numpy() for name in TOKEN_COLUMNS)
    total: NDArray[np.int64] = prompt.astype(np.int64) + completion
    return total


def lengths(lists: pa.Array) -> NDArray[np.int64]:
    """The length of each list (n,)."""
    values: NDArray[np.int64] = pc.list_value_length(lists).to_numpy().astype(np.int64)
    return values
