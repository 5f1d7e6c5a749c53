"""A pattern that the completion must match, or must not; in linear time, by RE2.

RE2 (github.com/google/re2) has no backtracking, so no pattern and no text hangs it; look-around and back-references do not exist.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from filters.base import Filter, FilterError, Role, Scope, verdict_table
from filters.judging import stored_json
from schemas.sample import Outcome

KEEP, DROP, UNDECIDED = Outcome.KEEP.value, Outcome.DROP.value, Outcome.UNDECIDED.value
_VERDICTS = {
    "": (KEEP, ""),
    "no_match": (DROP, "no_match"),
    "forbidden_match": (DROP, "forbidden_match"),
    "wrong_answer": (DROP, "wrong_answer"),
    "no_reference": (UNDECIDED, "no_reference"),
    "bad_reference": (UNDECIDED, "bad_reference"),
}
SPAN_CHARS = 200


class Config(BaseModel):
    """Parameters of `regex`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    pattern: str = Field(min_length=1)
    """RE2 pattern. A group named `answer` is compared with the reference, as text without the white space around it."""
    where: Literal["anywhere", "whole", "last_line"] = "anywhere"
    """What must match: some part of the completion, all of it, or all of its last line that is not empty."""
    forbid: bool = False
    """Drop what matches instead of what does not."""


def build(config: Config) -> Filter:
    """Drop `no_match`, `forbidden_match`, `wrong_answer`; undecided with `no_reference`, `bad_reference`."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        pattern = re2.compile(config.pattern, options)
    except re2.error as error:
        said = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise FilterError(
            f"regex: parameters.pattern: {said}: {config.pattern[:80]!r}; see github.com/google/re2/wiki/Syntax"
        ) from error
    compared = "answer" in pattern.groupindex
    if compared and config.forbid:
        raise FilterError("regex: parameters.forbid: a group named answer is compared with the reference; take one of them out")
    search = pattern.search if config.where == "anywhere" else pattern.fullmatch

    @lru_cache(maxsize=65_536)  # the samples of a prompt share their reference
    def wanted(reference: str) -> tuple[str, ...] | None:
        value = json.loads(reference)
        every = value if isinstance(value, list) else [value]
        if not every or any(isinstance(one, bool) or not isinstance(one, str | int | float) for one in every):
            return None
        return tuple(one.strip() if isinstance(one, str) else json.dumps(one) for one in every)

    def verdict(completion: str, reference: str | None) -> tuple[str, dict[str, Any] | None]:
        if compared and (reference is None or reference == "null"):
            return "no_reference", None
        text = completion.strip().rpartition("\n")[2] if config.where == "last_line" else completion
        found = search(text)
        if found is None:
            return ("" if config.forbid else "no_match"), None
        if config.forbid:
            start, end = found.span()
            return "forbidden_match", {"start": start, "end": end, "span": text[start : min(end, start + SPAN_CHARS)]}
        if not compared:
            return "", None
        accepted = wanted(reference or "")
        if accepted is None:
            return "bad_reference", None
        answer = (found.group("answer") or "").strip()
        return ("", None) if answer in accepted else ("wrong_answer", {"found": answer[:SPAN_CHARS]})

    def judge(table: pa.Table) -> pa.Table:
        references: Sequence[str | None] = table["reference"].to_pylist() if compared else [None] * table.num_rows
        said = [verdict(c, r) for c, r in zip(table["completion"].to_pylist(), references, strict=True)]
        return verdict_table(
            [_VERDICTS[reason][0] for reason, _ in said],
            [reason for reason, _ in said],
            detail=[None if detail is None else stored_json(detail) for _, detail in said],
        )

    # Nothing says which text matches a pattern, so references say nothing of this filter.
    columns = ("completion", "reference") if compared else ("completion",)
    parameters = config.model_dump(mode="json")
    nothing = lambda _: None  # noqa: E731
    return Filter("regex", "1", Scope.SAMPLE, Role.VERIFIER, judge, columns, parameters, nothing, nothing, cost_us=3.0)
