"""Options of Parquet files: what is written reads back, however nested a column is."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.sample import SAMPLES
from thresher.pool.parquet_options import parquet_options


@pytest.mark.parametrize("for_hub", [False, True])
def test_the_pools_columns_can_be_written_with_them(for_hub: bool) -> None:
    """Options for a column that has no such leaf would be an error of the writer."""
    file = io.BytesIO()
    pq.write_table(SAMPLES.empty_table(), file, **parquet_options(SAMPLES, for_hub=for_hub))

    assert pq.read_schema(io.BytesIO(file.getvalue())).names == SAMPLES.names


def test_the_same_rows_give_the_same_bytes() -> None:
    table = pa.table({"sample_id": ["a", "b"], "tokens": [[1, 2], [3]], "score": [0.5, None]})
    files = [io.BytesIO(), io.BytesIO()]
    for file in files:
        pq.write_table(table, file, **parquet_options(table.schema, for_hub=True))

    assert files[0].getvalue() == files[1].getvalue()
    assert pq.read_table(io.BytesIO(files[0].getvalue())).to_pylist() == table.to_pylist()
