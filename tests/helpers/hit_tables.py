"""Tables of hits and misses, as the filters for duplicates and near misses get them."""

import json
from typing import Any

import pyarrow as pa

TYPES = {
    "sample_id": pa.string(), "prompt_id": pa.string(), "index": pa.int32(), "completion": pa.string(),
    "cumulative_logprob": pa.float64(), "accepted": pa.string(), "score": pa.float64(), "multiplicity": pa.int64(),
    "kind": pa.string(), "tool_calls": pa.string(),
}  # fmt: skip


def hit_table(*completions: str, **columns: list[Any]) -> pa.Table:
    """Hits of one prompt with these completions; other columns may be given."""
    rows = len(completions)
    filled = {
        "sample_id": [f"s{number}" for number in range(rows)],
        "prompt_id": ["p"] * rows,
        "index": list(range(rows)),
        "completion": list(completions),
        "cumulative_logprob": [None] * rows,
        "accepted": [None] * rows,
        "score": [None] * rows,
        "multiplicity": [1] * rows,
        "kind": ["hit"] * rows,
        "tool_calls": [None] * rows,
    } | columns
    return pa.table({name: pa.array(filled[name], kind) for name, kind in TYPES.items()})


def verdict_rows(verdicts: pa.Table) -> list[dict[str, Any]]:
    """Verdicts as dictionaries with parsed details."""
    return [row | {"detail": row["detail"] and json.loads(row["detail"])} for row in verdicts.to_pylist()]
