"""Runs a third-party filter in processes of its own, so that its failures do not affect the run.

`{name: python, parameters: {build: "my_module:build", parameters: {...}}}` is the filter `my_module:build`, run in supervised
workers. A sample on which it hangs, dies or runs out of memory is undecided; the other samples are judged. This protects against
accidents, not against malicious code: the filter runs as the current user. `name: "my_module:build"` runs it in the filter
process, which costs less, and is the way to run filters over prompts or the corpus.
"""

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

import filters
from filters.base import Filter, FilterError, Scope
from filters.judging import judge as judge_batch
from filters.supervise import verdict_of
from filters.tools import Tools
from schemas.sample import SAMPLES, Outcome, Verdict

ROWS = 16
"""Samples per item. An item that fails is tried again sample by sample."""


class Config(BaseModel):
    """Parameters of `python`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    build: str = Field(pattern=r"^[\w.]+:\w+$")
    """The filter, as `module:function`."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Its parameters."""
    seconds: float = Field(default=10.0, gt=0, le=3600)
    """Wall time per sample; a sample that takes longer is undecided as `timeout`."""
    memory_mib: int = Field(default=2048, ge=128)
    """Address space of a worker."""


def build(config: Config, tools: Tools) -> Filter:
    """Use the reasons of the wrapped filter; also undecided with `timeout`, `crash`, `filter_error`."""
    inside = filters.build(config.build, config.parameters, tools)
    if inside.scope is not Scope.SAMPLE:
        raise FilterError(
            f"python: {config.build} has scope {inside.scope}; only filters of scope sample run in processes of their own; "
            f'name it directly: {{name: "{config.build}"}}'
        )
    setup = [config.build, config.parameters, *(folder and str(folder.absolute()) for folder in (tools.base, tools.home))]
    pool = tools.workers.pool("filters.python:worker", setup, seconds=config.seconds, memory_mib=config.memory_mib, chunk=4)
    columns = inside.columns

    def judge(table: pa.Table) -> list[Verdict]:
        table = table.select(list(columns)).cast(pa.schema([SAMPLES.field(name) for name in columns]))
        starts = range(0, table.num_rows, ROWS)
        verdicts: list[Verdict | None] = [None] * table.num_rows
        retried: list[int] = []
        for start, answer in zip(starts, pool.map([_packed(table.slice(start, ROWS)) for start in starts]), strict=True):
            rows = range(start, min(start + ROWS, table.num_rows))
            if answer.kind == "done":
                for row, fields in zip(rows, answer.value, strict=True):
                    verdicts[row] = _verdict(fields)
            else:
                retried += rows
        for row, answer in zip(retried, pool.map([_packed(table.slice(row, 1)) for row in retried]), strict=True):
            verdicts[row] = _verdict(*answer.value) if answer.kind == "done" else verdict_of(answer)
        return [verdict for verdict in verdicts if verdict is not None]

    parameters = {**config.model_dump(mode="json"), "inside": inside.key}
    cost_us = max(500.0, inside.cost_us)
    version = f"1+{inside.version}"
    return Filter(
        "python", version, Scope.SAMPLE, inside.role, judge, columns, parameters, inside.gold, inside.wrong, cost_us=cost_us
    )


def worker(setup: Any) -> Callable[[str], list[dict[str, Any]]]:
    """Build the filter in a worker. An item is a table of samples (Arrow IPC, base64), its value their verdicts."""
    name, parameters, base, home = setup
    built = filters.build(name, parameters, Tools(base and Path(base), home and Path(home)))

    def judged(item: str) -> list[dict[str, Any]]:
        with pa.ipc.open_stream(base64.b64decode(item)) as reader:
            rows = judge_batch(built, reader.read_all()).to_pylist()
        return [{**row, "detail": None if row["detail"] is None else json.loads(row["detail"])} for row in rows]

    return judged


def _verdict(fields: Mapping[str, Any]) -> Verdict:
    return Verdict(Outcome(fields["outcome"]), fields["reason"], fields["score"], fields["detail"])


def _packed(table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return base64.b64encode(sink.getvalue()).decode()
