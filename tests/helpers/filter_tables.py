"""Pool rows for filters, and what a filter returns for them."""

import json
from typing import Any

import pyarrow as pa

import filters
from filters.judging import judge
from schemas.sample import SAMPLES, to_json

NEUTRAL = {"family": "f", "anchor": False, "messages": [], "metadata": "{}", "finish_reason": "stop", "prompt_id": "p"}


def pool_table(*rows: dict[str, Any]) -> pa.Table:
    """Rows of the pool with the given columns and neutral values elsewhere. A reference is any value, written as JSON."""
    filled = [
        {
            **NEUTRAL,
            "sample_id": f"s{number}",
            "index": number,
            "answer": row.get("completion"),
            **row,
            "reference": _json(row.get("reference")),
        }
        for number, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(filled, schema=SAMPLES)


def _json(value: Any) -> str | None:
    return None if value is None else to_json(value)


def verdicts_of(name: str, parameters: dict[str, Any], table: pa.Table) -> list[dict[str, Any]]:
    """Verdicts of a registered filter as dictionaries: `detail` is parsed, `result` is the reason, or `keep` if kept."""
    rows = judge(filters.build(name, parameters), table).to_pylist()
    return [row | {"detail": json.loads(row["detail"] or "{}"), "result": row["reason"] or row["outcome"]} for row in rows]


def verdicts(name: str, parameters: dict[str, Any], *rows: dict[str, Any]) -> list[dict[str, Any]]:
    """`verdicts_of` for rows of the pool."""
    return verdicts_of(name, parameters, pool_table(*rows))


def results(name: str, parameters: dict[str, Any], *rows: dict[str, Any]) -> list[str]:
    """The reason per row, `keep` where kept."""
    return [verdict["result"] for verdict in verdicts(name, parameters, *rows)]
