"""Keeps completions that came to their end: a truncated answer is no answer, whatever it says so far."""

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from filters.base import Filter, Role, Scope, verdict_table
from schemas.sample import Outcome


class Config(BaseModel):
    """Parameters of `finished`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    allow_truncated: bool = False
    """Keep completions cut at max_tokens."""


def build(config: Config) -> Filter:
    """Drop `truncated` and `empty` completions; `aborted` ones are undecided. A null finish_reason counts as finished."""

    def judge(table: pa.Table) -> pa.Table:
        ended = pc.fill_null(table["finish_reason"], "stop")
        empty = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(table["completion"])), 0)
        aborted = pc.equal(ended, "abort")
        truncated = pc.and_(pc.equal(ended, "length"), pa.scalar(not config.allow_truncated))
        reason = pc.if_else(aborted, "aborted", pc.if_else(truncated, "truncated", pc.if_else(empty, "empty", "")))
        dropped = pc.if_else(pc.or_(truncated, empty), Outcome.DROP.value, Outcome.KEEP.value)
        return verdict_table(pc.if_else(aborted, Outcome.UNDECIDED.value, dropped).combine_chunks(), reason.combine_chunks())

    return Filter(
        "finished",
        "1",
        Scope.SAMPLE,
        Role.QUALITY,
        judge,
        ("completion", "finish_reason"),
        config.model_dump(mode="json"),
        cost_us=0.2,
    )
