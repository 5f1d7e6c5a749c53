"""Answers to questions about capitals, for filters that ask a model."""

from typing import Any

import pyarrow as pa

from helpers.filter_tables import pool_table

CAPITALS = [
    ("Peru", "Lima"),
    ("Cuba", "Havana"),
    ("France", "Paris"),
    ("Japan", "Tokyo"),
    ("Italy", "Rome"),
    ("Chad", "N'Djamena"),
]
SMALL = {"kind": "vllm", "max_model_len": 1024, "kv_cache_gib": 1, "enforce_eager": True, "options": {"block_size": 32}}
"""Settings of a small vLLM on processors."""


def asked_table(*rows: dict[str, Any]) -> pa.Table:
    """Rows of the pool; `prompt` is the text of the user's turn."""
    return pool_table(
        *(
            {
                "prompt_id": row["prompt"],
                "messages": [{"role": "user", "content": row["prompt"]}],
                "completion": row["completion"],
                "reference": row.get("reference"),
            }
            for row in rows
        )
    )


def capitals(*, references: bool = True) -> pa.Table:
    """Two answers per country: its capital, then that of the next country."""
    rows = []
    for number, (country, capital) in enumerate(CAPITALS):
        wrong = CAPITALS[(number + 1) % len(CAPITALS)][1]
        for answer in (capital, wrong):
            prompt = f"What is the capital of {country}?"
            rows.append({"prompt": prompt, "completion": answer, "reference": capital if references else None})
    return asked_table(*rows)
