"""Keep or drop completions that match a pattern, in linear time, with RE2.

RE2 (github.com/google/re2) does not backtrack, so no pattern and no text makes it hang. It has no look-around and no
back-references.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from filters.answers.references import accepted_texts
from filters.base import Filter, FilterError, Role, Scope, verdict_table
from filters.judging import stored_json
from schemas.sample import Outcome

KEEP, DROP, UNDECIDED = Outcome.KEEP.value, Outcome.DROP.value, Outcome.UNDECIDED.value
_OUTCOMES = {
    "": KEEP,
    "no_match": DROP,
    "forbidden_match": DROP,
    "wrong_answer": DROP,
    "no_reference": UNDECIDED,
    "bad_reference": UNDECIDED,
}
SPAN_CHARS = 200


class Config(BaseModel):
    """Parameters of `regex`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    pattern: str = Field(min_length=1)
    """RE2 pattern. A group named `answer` is compared with the reference as text, without surrounding white space."""
    where: Literal["anywhere", "whole", "last_line"] = "anywhere"
    """What must match: some part of the completion, all of it, or all of its last line that is not empty."""
    forbid: bool = False
    """Drop completions that match instead of those that do not."""


def build(config: Config) -> Filter:
    """Drop `no_match`, `forbidden_match`, `wrong_answer`; undecided with `no_reference`, `bad_reference`."""
    pattern = _compiled(config)
    compared = "answer" in pattern.groupindex
    search = pattern.search if config.where == "anywhere" else pattern.fullmatch

    @lru_cache(maxsize=65_536)  # the samples of a prompt share their reference
    def accepted(reference: str) -> frozenset[str] | None:
        texts = accepted_texts(json.loads(reference))
        return None if texts is None else frozenset(text.strip() for text in texts)

    def verdict(completion: str, reference: str | None) -> tuple[str, dict[str, Any] | None]:
        if compared and (reference is None or reference == "null"):
            return "no_reference", None
        text = completion.strip().rpartition("\n")[2] if config.where == "last_line" else completion
        match = search(text)
        if match is None:
            return ("" if config.forbid else "no_match"), None
        if config.forbid:
            start, end = match.span()
            return "forbidden_match", {"start": start, "end": end, "span": text[start : min(end, start + SPAN_CHARS)]}
        if not compared:
            return "", None
        answers = accepted(reference or "")
        if answers is None:
            return "bad_reference", None
        answer = (match.group("answer") or "").strip()
        return ("", None) if answer in answers else ("wrong_answer", {"found": answer[:SPAN_CHARS]})

    def judge(table: pa.Table) -> pa.Table:
        references: Sequence[str | None] = table["reference"].to_pylist() if compared else [None] * table.num_rows
        verdicts = [verdict(*pair) for pair in zip(table["completion"].to_pylist(), references, strict=True)]
        return verdict_table(
            [_OUTCOMES[reason] for reason, _ in verdicts],
            [reason for reason, _ in verdicts],
            detail=[None if detail is None else stored_json(detail) for _, detail in verdicts],
        )

    columns = ("completion", "reference") if compared else ("completion",)
    parameters = config.model_dump(mode="json")
    # No text can be derived from a pattern that is sure to match it, so references cannot check this filter.
    return Filter("regex", "1", Scope.SAMPLE, Role.VERIFIER, judge, columns, parameters, _no_text, _no_text, cost_us=3.0)


def _no_text(_reference: Any) -> None:
    return None


def _compiled(config: Config) -> Any:
    """The pattern, or a FilterError that names its fault."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        pattern = re2.compile(config.pattern, options)
    except re2.error as error:
        fault = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise FilterError(
            f"regex: parameters.pattern: {fault}: {config.pattern[:80]!r}; see github.com/google/re2/wiki/Syntax"
        ) from error
    if "answer" in pattern.groupindex and config.forbid:
        raise FilterError(
            "regex: parameters.forbid: a group named answer is compared with the reference, so its matches cannot be forbidden; "
            "remove the group or forbid"
        )
    return pattern
