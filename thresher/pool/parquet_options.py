"""How Parquet files are written: those of a run, and those of a dataset."""

from typing import Any

import pyarrow as pa

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
