"""Somebody's filter in processes of its own: what it does to itself, it does not do to the run.

`{name: python, parameters: {build: "my_module:build", parameters: {...}}}` is the filter `my_module:build`, judged sample by
sample in supervised workers: a sample on which it hangs, dies or runs out of memory is undecided, and nothing else is touched.
This guards against accidents, not against malice: the function is yours and runs as you. `name: "my_module:build"` runs it in the
filter process, which costs less, and is the way for filters over prompts or the corpus.
"""

import base64
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

import filters
from filters.base import Filter, FilterError, Scope
from filters.judging import judge as judge_batch
from filters.supervise import Pool, verdict_of
from schemas.sample import SAMPLES, Outcome, Verdict

ROWS = 16
"""Samples in one item: an item that fails is tried again sample by sample."""


class Config(BaseModel):
    """Parameters of `python`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    build: str = Field(pattern=r"^[\w.]+:\w+$")
    """The filter, as `module:function`."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Its parameters."""
    seconds: float = Field(default=10.0, gt=0, le=3600)
    """Wall time per sample; later is undecided as `timeout`."""
    memory_mib: int = Field(default=2048, ge=128)
    """Address space of a worker."""


def build(config: Config) -> Filter:
    """The reasons are those of the filter inside; undecided with `timeout`, `crash`, `filter_error` besides."""
    inside = filters.build(config.build, config.parameters)
    if inside.scope is not Scope.SAMPLE:
        raise FilterError(
            f"python: {config.build} has scope {inside.scope}, and only filters of scope sample are judged apart; name it "
            f'without: {{name: "{config.build}"}}'
        )
    setup = [config.build, config.parameters]
    pool = Pool("filters.python:worker", setup, seconds=config.seconds, memory_mib=config.memory_mib, chunk=4)
    columns = inside.columns

    def judge(table: pa.Table) -> list[Verdict]:
        table = table.select(list(columns)).cast(pa.schema([SAMPLES.field(name) for name in columns]))
        starts = range(0, table.num_rows, ROWS)
        verdicts: list[Verdict | None] = [None] * table.num_rows
        alone: list[int] = []
        for start, answer in zip(starts, pool.map([_packed(table.slice(start, ROWS)) for start in starts]), strict=True):
            rows = range(start, min(start + ROWS, table.num_rows))
            if answer.kind == "done":
                for row, one in zip(rows, answer.value, strict=True):
                    verdicts[row] = Verdict(Outcome(one["outcome"]), one["reason"], one["score"], one["detail"])
            else:
                alone += rows
        for row, answer in zip(alone, pool.map([_packed(table.slice(row, 1)) for row in alone]), strict=True):
            if answer.kind == "done":
                (one,) = answer.value
                verdicts[row] = Verdict(Outcome(one["outcome"]), one["reason"], one["score"], one["detail"])
            else:
                verdicts[row] = verdict_of(answer)
        return [one for one in verdicts if one is not None]

    parameters = {**config.model_dump(mode="json"), "inside": inside.key}
    cost_us = max(500.0, inside.cost_us)
    version = f"1+{inside.version}"
    return Filter(
        "python", version, Scope.SAMPLE, inside.role, judge, columns, parameters, inside.gold, inside.wrong, cost_us=cost_us
    )


def worker(setup: Any) -> Callable[[str], list[dict[str, Any]]]:
    """Builds the filter in a worker; an item is a table of samples (Arrow IPC, base64), its value their verdicts."""
    name, parameters = setup
    made = filters.build(name, parameters)

    def judged(item: str) -> list[dict[str, Any]]:
        with pa.ipc.open_stream(base64.b64decode(item)) as reader:
            given = judge_batch(made, reader.read_all()).to_pylist()
        return [{**one, "detail": None if one["detail"] is None else json.loads(one["detail"])} for one in given]

    return judged


def _packed(table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return base64.b64encode(sink.getvalue()).decode()
