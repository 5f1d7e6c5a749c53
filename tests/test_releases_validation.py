"""Files that do not fit their view are refused."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from helpers.runs import two_prompts_run
from thresher.errors import PublishError
from thresher.releases.validation import validate


def changed(file: Path, change: Callable[[pa.Table], pa.Table]) -> Path:
    copy = file.with_name("00000-00000000000000ff.parquet")
    pq.write_table(change(pq.read_table(file)), copy)
    return copy


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), table.schema.field(name), values)


@pytest.mark.parametrize(
    ("view", "change", "message"),
    [
        ("sft", lambda t: t.drop_columns(["answer_id"]), r"\n  - answer_id: string"),
        ("sft", lambda t: t.select(t.column_names[::-1]), "the same columns in another order"),
        (
            "prompts",
            lambda t: with_column(t, "passed", pc.cast(pc.negate(t["passed"]), pa.int32())),
            "passed: -[1-9] is less than the minimum",
        ),
        (
            "prompts",
            lambda t: with_column(t, "family", pa.nulls(t.num_rows, pa.string())),
            "column family of prompts has 2 nulls",
        ),
        (
            "rollouts",
            lambda t: with_column(t, "outcome", pa.array(["kept"] * t.num_rows)),
            "outcome: 'kept' is not one of",
        ),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    tmp_path: Path, view: str, change: Callable[[pa.Table], pa.Table], message: str
) -> None:
    (file,) = (two_prompts_run(tmp_path, "one") / "dataset" / view / "train").iterdir()
    validate(file, view, "chat")

    with pytest.raises(PublishError, match=message):
        validate(changed(file, change), view, "chat")
