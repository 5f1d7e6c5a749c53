"""Keep completions that reached their end: a truncated answer is not an answer, whatever it contains so far, and a completion
that ended while the model was thinking, or that a provider withholds, has none."""

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from filters.base import Filter, Role, Scope, verdict_table
from filters.judging import CUT_WHILE_THINKING, stored_json
from schemas.finish_reasons import ABORT, CONTENT_FILTER, pool_reason
from schemas.sample import Outcome

UNKNOWN = "unknown_finish_reason"


class Config(BaseModel):
    """Parameters of `finished`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    allow_truncated: bool = False
    """Keep answers that were cut at max_tokens."""


def build(config: Config) -> Filter:
    """Drop `truncated` and `empty` answers, completions `cut_while_thinking`, and those that a provider's `content_filter`
    withholds; `aborted` ones are undecided, and so are those with an `unknown_finish_reason`, whose word is in the detail. The
    words of all engines and servers are read (schemas.finish_reasons). A null finish_reason counts as finished. An answer that
    only calls tools is not empty."""

    def judge(table: pa.Table) -> pa.Table:
        words = pc.unique(table["finish_reason"]).to_pylist()
        named = [None if word is None else pool_reason(word) or UNKNOWN for word in words]
        said = zip(words, named, strict=True)
        places = pc.index_in(table["finish_reason"], pa.array(words, pa.string()))
        finish = pc.fill_null(pa.array(named, pa.string()).take(places), "stop")
        thinking = pc.is_null(table["answer"])
        blank = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(pc.fill_null(table["answer"], ""))), 0)
        empty = pc.and_(blank, pc.equal(pc.fill_null(table["tool_calls"], "[]"), "[]"))
        aborted, withheld, unknown = (pc.equal(finish, reason) for reason in (ABORT, CONTENT_FILTER, UNKNOWN))
        truncated = pc.and_(pc.equal(finish, "length"), pa.scalar(not config.allow_truncated))
        reason = pc.if_else(truncated, "truncated", pc.if_else(empty, "empty", ""))
        reason = pc.if_else(thinking, CUT_WHILE_THINKING, reason)
        reason = pc.if_else(aborted, "aborted", pc.if_else(withheld, CONTENT_FILTER, pc.if_else(unknown, UNKNOWN, reason)))
        outcome = pc.if_else(pc.or_(pc.or_(truncated, empty), withheld), Outcome.DROP.value, Outcome.KEEP.value)
        outcome = pc.if_else(pc.or_(aborted, unknown), Outcome.UNDECIDED.value, outcome)
        detail = pa.array([stored_json({"finish_reason": word}) if name == UNKNOWN else None for word, name in said], pa.string())
        return verdict_table(_whole(outcome), _whole(reason), detail=_whole(detail.take(places)))

    columns = ("answer", "tool_calls", "finish_reason")
    parameters = config.model_dump(mode="json")
    return Filter("finished", "3", Scope.SAMPLE, Role.QUALITY, judge, columns, parameters, cost_us=0.2)


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
