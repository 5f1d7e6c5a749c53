"""The answer equals the reference after normalisation: the whole answer, never a part of it."""

import json
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from filters.base import Filter, Role, Scope, verdict_table
from schemas.sample import Outcome

KEEP, DROP, UNDECIDED = Outcome.KEEP.value, Outcome.DROP.value, Outcome.UNDECIDED.value


class Config(BaseModel):
    """Parameters of `exact_answer`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    after: str | None = None
    """Judge the text after the last occurrence of this marker; an answer without it is dropped as `no_answer`."""
    case_sensitive: bool = True
    """Tell upper from lower case."""
    strip: str = ""
    """Characters taken off both ends besides white space, such as `.!`."""
    collapse_whitespace: bool = True
    """Any run of white space counts as one space."""
    nfkc: bool = True
    """Unicode compatibility forms are equal: full-width digits, ligatures."""


def normalise(text: str, config: Config) -> str:
    """The form in which answers are compared."""
    if config.nfkc and not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    if config.collapse_whitespace:
        text = " ".join(text.split())
    text = text.strip() if not config.strip else text.strip(config.strip + " \t\r\n\f\v")
    return text if config.case_sensitive else text.casefold()


def _texts(reference: Any) -> Iterable[str] | None:
    """The acceptable answers as text; None where the reference is neither text, number nor a list of them."""
    accepted = reference if isinstance(reference, list) else [reference]
    if not accepted or any(isinstance(one, bool) or not isinstance(one, str | int | float) for one in accepted):
        return None
    return [one if isinstance(one, str) else json.dumps(one) for one in accepted]


def build(config: Config) -> Filter:
    """Drop `wrong_answer` and `no_answer`; undecided with `no_reference` or `bad_reference`."""

    @lru_cache(maxsize=65536)  # the samples of a prompt share their reference
    def accepted(reference: str) -> frozenset[str] | None:
        texts = _texts(json.loads(reference))
        return None if texts is None else frozenset(normalise(text, config) for text in texts)

    def verdict(completion: str, reference: str | None) -> tuple[str, str]:
        if reference is None:
            return UNDECIDED, "no_reference"
        right = accepted(reference)
        if right is None:
            return UNDECIDED, "bad_reference"
        if config.after is not None:
            _, marker, completion = completion.rpartition(config.after)
            if not marker:
                return DROP, "no_answer"
        return (KEEP, "") if normalise(completion, config) in right else (DROP, "wrong_answer")

    def judge(table: pa.Table) -> pa.Table:
        pairs = zip(table["completion"].to_pylist(), table["reference"].to_pylist(), strict=True)
        verdicts = [verdict(completion, reference) for completion, reference in pairs]
        return verdict_table([outcome for outcome, _ in verdicts], [reason for _, reason in verdicts])

    def gold(reference: Any) -> str | None:
        texts = None if reference is None else _texts(reference)
        return None if texts is None else f"{config.after or ''}{next(iter(texts))}"

    def wrong(reference: Any) -> str | None:
        right = gold(reference)
        return None if right is None else f"{right} x"

    columns = ("completion", "reference")
    return Filter("exact_answer", "1", Scope.SAMPLE, Role.VERIFIER, judge, columns, config.model_dump(mode="json"), gold, wrong)
