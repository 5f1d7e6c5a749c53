"""Checks the rows of a release. All rows: their types, and nulls in columns that have none. A sample of the rows: everything that
the committed schemas/views/*.schema.json say, by jsonschema."""

from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jsonschema import Draft202012Validator

from thresher.dataset import view_schemas, views
from thresher.dataset.messages import decoded
from thresher.errors import PublishError

SAMPLED_ROWS = 200
"""Rows of a file that are validated in full, spread evenly over one of its row groups."""


def validate(file: Path, view: str, prompt_format: str) -> None:
    """Check a Parquet file of a view. Raises PublishError with the location of the first fault."""
    try:
        with pq.ParquetFile(file) as opened:
            _types(file, opened, view, prompt_format)
            _nulls(file, opened, view)
            _sample(file, opened, view)
    except pa.ArrowException as error:
        raise PublishError(
            f"{file}: is not a Parquet file: {str(error).splitlines()[0]}; remove the dataset and run again"
        ) from error


def _types(file: Path, opened: pq.ParquetFile, view: str, prompt_format: str) -> None:
    wanted, actual = view_schemas.written_schema(view, prompt_format), opened.schema_arrow
    if actual.names == wanted.names and all(actual.field(name).type.equals(wanted.field(name).type) for name in actual.names):
        return
    lines = [f"- {field.name}: {field.type}" for field in _not_in(actual, wanted)]
    lines += [f"+ {field.name}: {field.type}" for field in _not_in(wanted, actual)]
    lines = lines or ["the same columns in another order"]
    raise PublishError("\n  ".join([f"{file}: its columns are not those of {view} (- wanted, + found):", *lines]))


def _not_in(schema: pa.Schema, fields: pa.Schema) -> list[pa.Field]:
    """Those of `fields` that a schema lacks, or has with another type."""
    return [field for field in fields if field.name not in schema.names or schema.field(field.name).type != field.type]


def _nulls(file: Path, opened: pq.ParquetFile, view: str) -> None:
    """Check all rows, by the null counts in the statistics of the row groups."""
    required = {name for name, _, meaning in views.COLUMNS[view] if not view_schemas.nullable(meaning)}
    for group in range(opened.metadata.num_row_groups):
        row_group = opened.metadata.row_group(group)
        for index in range(row_group.num_columns):
            column = row_group.column(index)
            nulls = column.statistics.null_count if column.statistics and column.statistics.has_null_count else 0
            if column.path_in_schema in required and nulls:
                raise PublishError(
                    f"{file}: column {column.path_in_schema} of {view} has {nulls} nulls in row group {group}, and "
                    "must have none; remove the dataset and run again"
                )


def _sample(file: Path, opened: pq.ParquetFile, view: str) -> None:
    groups = opened.metadata.num_row_groups
    if not groups:
        return
    group = int(file.stem[-8:], 16) % groups
    table = opened.read_row_group(group)
    rows = np.unique(np.linspace(0, table.num_rows - 1, min(SAMPLED_ROWS, table.num_rows)).astype(np.int64))
    for number, row in zip(rows.tolist(), decoded(table.take(pa.array(rows))), strict=True):
        fault = next(_validator(view).iter_errors(row), None)
        if fault is not None:
            location = ".".join(map(str, fault.absolute_path)) or "the row"
            raise PublishError(
                f"{file}: row {number} of row group {group}: {location}: {fault.message[:200]}; wanted a "
                f"row that fits schemas/views/{view}.schema.json; remove the dataset and run again"
            )


@cache
def _validator(view: str) -> Draft202012Validator:
    return Draft202012Validator(view_schemas.json_schema(view))
