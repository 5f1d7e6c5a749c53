"""How Parquet files are written: those of a run, and those of a dataset."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

_REPEATING = {
    "family", "filter", "filter_key", "outcome", "reason", "finish_reason", "stop_reason", "logprobs_kind", "sampling",
    "engine", "engine_version", "model", "model_revision", "adapter", "policy_model", "policy_revision", "policy_adapter",
    "chat_template_sha256", "prompt_id", "group_id", "kind",
}  # fmt: skip
_SPLIT = {
    "logprobs": "logprobs.list.element",
    "top_logprobs": "top_logprobs.list.element",
    "teacher_topk_logprobs": "teacher_topk_logprobs.list.element.list.element",
}
"""Columns of log-probabilities, and the paths of their values."""


def parquet_options(schema: pa.Schema, *, for_hub: bool) -> dict[str, Any]:
    """Settings of the Parquet writer: zstd level 3, dictionaries only where values repeat, log-probabilities split by byte.

    For the Hub also content-defined chunking and a page index, so that an edited file re-sends only what changed;
    dictionaries on texts or token ids would defeat that.
    """
    options: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": 3,
        "use_dictionary": [name for name in schema.names if name in _REPEATING],
        "write_page_index": True,
    }
    encoding = {_SPLIT[name]: "BYTE_STREAM_SPLIT" for name in schema.names if name in _SPLIT}
    if encoding:
        options["column_encoding"] = encoding
    if for_hub:
        options["use_content_defined_chunking"] = {
            "min_chunk_size": 1 << 18,
            "max_chunk_size": 1 << 20,
            "norm_level": 0,
        }
    return options


def write_row_groups(
    sink: IO[bytes], schema: pa.Schema, groups: Iterable[pa.Table], *, writing: Callable[[], AbstractContextManager[None]]
) -> int:
    """Write a Parquet file of a run with one row group per table; returns the rows. Writes happen inside `writing()`, which
    explains errors of the storage; an error in making a group is not one of those."""
    rows = 0
    writer = pq.ParquetWriter(sink, schema, **parquet_options(schema, for_hub=False))
    try:
        for table in groups:
            with writing():
                writer.write_table(table.cast(schema), row_group_size=max(1, table.num_rows))
            rows += table.num_rows
            del table  # before the next is made
    finally:
        with writing():
            writer.close()
    return rows
