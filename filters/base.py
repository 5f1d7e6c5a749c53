"""The filter contract: samples in, as many verdicts out, in their order.

A filter module holds `Config` (a frozen pydantic model) and `build(config) -> Filter`. A filter is named in a recipe by its
registered name, or as `module:build` where it is somebody else's; both get the same treatment. A filter is pure: no store, no
network, no clock, no state from one call to the next. Only those that ask a model have somebody to ask (filters.asking).
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from pydantic import AfterValidator, ValidationInfo

from schemas.sample import Verdict, to_json


def _placed(path: str, info: ValidationInfo) -> str:
    base = (info.context or {}).get("base")
    return path if base is None else str(Path(base) / path)


LocalPath = Annotated[str, AfterValidator(_placed)]
"""A path among a filter's parameters: relative to the recipe, and to the working directory where there is no recipe."""


class Scope(StrEnum):
    """How much a filter must see at once.

    `sample`: any batch of samples. `prompt`: whole prompts, so all samples of each. `corpus`: every sample of the run that
    all filters before it kept, in batches and in the order of the shards.
    """

    SAMPLE = "sample"
    PROMPT = "prompt"
    CORPUS = "corpus"


class Role(StrEnum):
    """What a drop means: the answer is wrong (`verifier`), unfit (`quality`), repeats another (`duplicate`), or, being wrong,
    lies close to a right one (`near_miss`)."""

    VERIFIER = "verifier"
    QUALITY = "quality"
    DUPLICATE = "duplicate"
    NEAR_MISS = "near_miss"


SO_FAR = ("kind", "answer", "score", "multiplicity")
"""Columns that filters of the last two roles may ask for beside those of the pool, from the verdicts so far: the kind, the
reference that a verifier accepted (JSON text), the last score that a filter gave, the draws that fell on a sample."""


class FilterError(Exception):
    """A filter that cannot be built or that breaks the contract; the message names the filter and what to do."""


Judge = Callable[[pa.Table], "Sequence[Verdict] | pa.Table"]
CorpusJudge = Callable[[Iterable[pa.Table]], "Iterable[Sequence[Verdict] | pa.Table]"]


@dataclass(frozen=True)
class Filter:
    """One built filter.

    `judge` takes a table of samples holding `columns` (names from schemas.sample.SAMPLES) and returns one Verdict per row, in
    order, either as Verdict objects or as a table with the columns outcome, reason, score, detail (`verdict_table` below),
    which is cheaper by the million. In scope `corpus` it takes an iterable of such tables and yields one answer for each.

    `gold` turns a prompt's reference into a completion that must be kept, `wrong` into one that must be dropped (None: the
    filter cannot be checked that way); `thresher check` tries both. `parameters` are the recipe's, already with defaults.
    """

    name: str
    version: str
    scope: Scope
    role: Role
    judge: Judge | CorpusJudge
    columns: tuple[str, ...]
    parameters: dict[str, Any] = field(default_factory=dict)
    gold: Callable[[Any], str | None] | None = None
    wrong: Callable[[Any], str | None] | None = None
    certain: bool = True
    """Whether its verdict on a known answer is: a judge's is not, so that `thresher check` does not try it on references."""
    cost_us: float = 10.0
    """Microseconds of one core per sample, roughly: neighbours that judge samples by themselves run cheapest first."""
    self_test: Callable[[], str] | None = None
    """Proves by trying that what the filter needs of this machine is there; says what was tried, or raises FilterError."""

    @property
    def key(self) -> str:
        """Hash of name, version and parameters: two verdicts with one key were made by the same rule."""
        text = to_json([self.name, self.version, self.parameters])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def verdict_table(
    outcome: pa.Array | Sequence[str],
    reason: pa.Array | Sequence[str],
    score: pa.Array | Sequence[float | None] | None = None,
    detail: pa.Array | Sequence[str | None] | None = None,
) -> pa.Table:
    """Verdicts as columns. `detail` holds JSON text; null scores and details may be left out."""
    rows = len(outcome)
    return pa.table(
        {
            "outcome": pa.array(outcome, pa.string()),
            "reason": pa.array(reason, pa.string()),
            "score": pa.nulls(rows, pa.float64()) if score is None else pa.array(score, pa.float64()),
            "detail": pa.nulls(rows, pa.string()) if detail is None else pa.array(detail, pa.string()),
        }
    )
