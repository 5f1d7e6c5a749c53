"""Keep a completion that equals the reference after normalisation: the whole answer, never a part of it."""

import json
import re
import unicodedata
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from filters.answers.references import accepted_texts
from filters.base import Filter, Reads, Role, Scope, verdict_table
from filters.reasoning import USUAL_MARKS
from schemas.sample import Outcome

KEEP, DROP, UNDECIDED = Outcome.KEEP.value, Outcome.DROP.value, Outcome.UNDECIDED.value
_CLOSING = frozenset(end for _, end in USUAL_MARKS)
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
    r"|(?<![^\W\d_])[\u200c\u200d]|[\u200c\u200d](?![^\W\d_])"
)
"""Marks without width that are no part of a word: zero-width spaces, byte order marks, soft hyphens, marks of direction,
variation selectors. Joiners (U+200C, U+200D) stay between letters: they tell words apart in Persian and Hindi."""
_VERDICTS = (
    (KEEP, ""),
    (DROP, "wrong_answer"),
    (DROP, "no_answer"),
    (UNDECIDED, "no_reference"),
    (UNDECIDED, "bad_reference"),
)
_OUTCOMES = pa.array([outcome for outcome, _ in _VERDICTS])
_REASONS = pa.array([reason for _, reason in _VERDICTS])


class Config(BaseModel):
    """Parameters of `exact_answer`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    after: str | None = None
    """Judge the text after the last occurrence of this marker; an answer without the marker is dropped as `no_answer`. With the
    mark that closes a model's thinking, such as </think>, the whole completion is searched."""
    case_sensitive: bool = True
    """Distinguish upper and lower case."""
    strip: str = ""
    """Characters removed from both ends besides white space, such as `.!`."""
    collapse_whitespace: bool = True
    """Treat any run of white space as one space."""
    nfkc: bool = True
    """Treat Unicode compatibility forms as equal: full-width digits, ligatures."""


def normalise(text: str, config: Config) -> str:
    """The form in which answers are compared."""
    if not text.isascii():
        text = _INVISIBLE.sub("", text)
        text = unicodedata.normalize("NFKC", text) if config.nfkc else text
    if config.collapse_whitespace:
        text = " ".join(text.split())
    text = text.strip() if not config.strip else text.strip(config.strip + " \t\r\n\f\v")
    return text if config.case_sensitive else text.casefold()


def build(config: Config) -> Filter:
    """Drop `wrong_answer` and `no_answer`; undecided with `no_reference` or `bad_reference`."""

    @lru_cache(maxsize=65536)  # the samples of a prompt share their reference
    def accepted(reference: str) -> frozenset[str] | None:
        texts = accepted_texts(json.loads(reference))
        forms = frozenset(normalise(text, config) for text in texts or ())
        return None if not forms or "" in forms else forms

    def reason(completion: str, reference: str | None) -> str:
        if reference is None or reference == "null":
            return "no_reference"
        forms = accepted(reference)
        if forms is None:
            return "bad_reference"
        if config.after is not None:
            completion = completion if completion.isascii() else _INVISIBLE.sub("", completion)
            _, marker, completion = completion.rpartition(config.after)
            if not marker:
                return "no_answer"
        return "" if normalise(completion, config) in forms else "wrong_answer"

    def judge(table: pa.Table) -> pa.Table:
        reasons = pa.array(
            map(reason, table["completion"].to_pylist(), table["reference"].to_pylist()), pa.string(), size=table.num_rows
        )
        return verdict_table(_OUTCOMES.take(pc.index_in(reasons, value_set=_REASONS)), reasons)

    def gold(reference: Any) -> str | None:
        texts = None if reference is None else accepted_texts(reference)
        return None if texts is None else f"{config.after or ''}{texts[0]}"

    def wrong(reference: Any) -> str | None:
        texts = None if reference is None else accepted_texts(reference)
        if texts is None:
            return None
        right = {normalise(text, config) for text in texts}
        candidates = (f"{texts[0]} {ending}" for ending in ("x", "0", "?"))
        return next((f"{config.after or ''}{text}" for text in candidates if normalise(text, config) not in right), None)

    columns = ("completion", "reference")
    parameters = config.model_dump(mode="json")
    reads: Reads = "completion" if config.after in _CLOSING else "answer"  # the recipe takes the completion apart itself
    return Filter(
        "exact_answer", "4", Scope.SAMPLE, Role.VERIFIER, judge, columns, parameters, gold, wrong, cost_us=2.0, reads=reads
    )
