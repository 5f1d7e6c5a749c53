"""Keep completions that reached their end: a truncated answer is not an answer, whatever it contains so far, and a completion
that ended while the model was thinking, or that a provider withholds, has none."""

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from filters.base import Filter, Role, Scope, verdict_table
from filters.judging import CUT_WHILE_THINKING
from schemas.sample import Outcome


class Config(BaseModel):
    """Parameters of `finished`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    allow_truncated: bool = False
    """Keep answers that were cut at max_tokens."""


def build(config: Config) -> Filter:
    """Drop `truncated` and `empty` answers and completions `cut_while_thinking`; `aborted` ones, and those that a provider's
    `content_filter` withholds, are undecided. A null finish_reason counts as finished. An answer that only calls tools is not
    empty."""

    def judge(table: pa.Table) -> pa.Table:
        finish = pc.fill_null(table["finish_reason"], "stop")
        thinking = pc.is_null(table["answer"])
        blank = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(pc.fill_null(table["answer"], ""))), 0)
        empty = pc.and_(blank, pc.equal(pc.fill_null(table["tool_calls"], "[]"), "[]"))
        aborted, withheld = pc.equal(finish, "abort"), pc.equal(finish, "content_filter")
        truncated = pc.and_(pc.equal(finish, "length"), pa.scalar(not config.allow_truncated))
        reason = pc.if_else(truncated, "truncated", pc.if_else(empty, "empty", ""))
        reason = pc.if_else(thinking, CUT_WHILE_THINKING, reason)
        reason = pc.if_else(aborted, "aborted", pc.if_else(withheld, "content_filter", reason))
        outcome = pc.if_else(pc.or_(truncated, empty), Outcome.DROP.value, Outcome.KEEP.value)
        outcome = pc.if_else(pc.or_(aborted, withheld), Outcome.UNDECIDED.value, outcome)
        return verdict_table(outcome.combine_chunks(), reason.combine_chunks())

    columns = ("answer", "tool_calls", "finish_reason")
    parameters = config.model_dump(mode="json")
    return Filter("finished", "2", Scope.SAMPLE, Role.QUALITY, judge, columns, parameters, cost_us=0.2)
