"""What a release checks of its rows: the types of all of them, and that columns are null only where they may be; and a sample of
them in full, with jsonschema, against the committed schemas/views/*.schema.json."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jsonschema import Draft202012Validator

from thresher.dataset import view_schemas, views
from thresher.errors import PublishError

SAMPLED_ROWS = 200
"""Rows of a file that are validated, spread evenly over one of its row groups."""


def validate(file: Path, view: str, prompt_format: str) -> None:
    """Raises PublishError with the place of the first fault."""
    try:
        with pq.ParquetFile(file) as opened:
            _types(file, opened, view, prompt_format)
            _nulls(file, opened, view)
            _sample(file, opened, view)
    except pa.ArrowException as error:
        raise PublishError(
            f"{file}: is no Parquet file: {str(error).splitlines()[0]}; remove the dataset and run again"
        ) from error


def _types(file: Path, opened: pq.ParquetFile, view: str, prompt_format: str) -> None:
    wanted, found = view_schemas.written_schema(view, prompt_format), opened.schema_arrow
    if found.names == wanted.names and all(found.field(name).type.equals(wanted.field(name).type) for name in found.names):
        return
    lines = [
        f"- {one.name}: {one.type}" for one in wanted if one.name not in found.names or found.field(one.name).type != one.type
    ]
    lines += [
        f"+ {one.name}: {one.type}" for one in found if one.name not in wanted.names or wanted.field(one.name).type != one.type
    ]
    lines = lines or ["the same columns in another order"]
    raise PublishError("\n  ".join([f"{file}: has not the columns of {view} (- wanted, + found):", *lines]))


def _nulls(file: Path, opened: pq.ParquetFile, view: str) -> None:
    """Counted from the statistics of every row group, so for all rows."""
    never = {name for name, _, meaning in views.COLUMNS[view] if not view_schemas.nullable(meaning)}
    for group in range(opened.metadata.num_row_groups):
        row_group = opened.metadata.row_group(group)
        for at in range(row_group.num_columns):
            column = row_group.column(at)
            nulls = column.statistics.null_count if column.statistics and column.statistics.has_null_count else 0
            if column.path_in_schema in never and nulls:
                raise PublishError(
                    f"{file}: column {column.path_in_schema} of {view} has {nulls} nulls in row group {group}, and may have "
                    "none; remove the dataset and run again"
                )


def _sample(file: Path, opened: pq.ParquetFile, view: str) -> None:
    groups = opened.metadata.num_row_groups
    if not groups:
        return
    group = int(file.stem[-8:], 16) % groups
    table = opened.read_row_group(group)
    at = np.unique(np.linspace(0, table.num_rows - 1, min(SAMPLED_ROWS, table.num_rows)).astype(np.int64))
    for number, row in zip(at.tolist(), decoded(table.take(pa.array(at))), strict=True):
        fault = next(_validator(view).iter_errors(row), None)
        if fault is not None:
            where = ".".join(map(str, fault.absolute_path)) or "the row"
            raise PublishError(
                f"{file}: row {number} of row group {group}: {where}: {fault.message[:200]}; wanted what "
                f"schemas/views/{view}.schema.json says; remove the dataset and run again"
            )


def decoded(table: pa.Table) -> list[dict[str, Any]]:
    """The rows, with columns of JSON as values."""
    rows: list[dict[str, Any]] = table.to_pylist()
    names = [field.name for field in table.schema if field.type == views.JSON]
    for row in rows:
        for name in names:
            row[name] = None if row[name] is None else json.loads(row[name])
        for verdict in row.get("verdicts") or ():
            verdict["detail"] = None if verdict["detail"] is None else json.loads(verdict["detail"])
    return rows


@cache
def _validator(view: str) -> Draft202012Validator:
    return Draft202012Validator(view_schemas.json_schema(view))
