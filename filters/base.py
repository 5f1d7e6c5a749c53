"""The filter contract: a table of samples in, one verdict per sample out, in the same order.

A filter module has a `Config` (a frozen pydantic model) and `build(config) -> Filter`, or `build(config, tools) -> Filter` if the
filter needs worker processes, the sandbox or a model (filters.tools). A recipe names a filter by its registered name, a
third-party one as `module:build`; both are treated alike. A filter is pure: it uses no store, network or clock, and keeps no
state from one call to the next.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import AfterValidator, ValidationInfo

from filters import trust
from schemas.sample import Verdict, to_json


def local_path(path: str, info: ValidationInfo) -> str:
    """A path of a recipe, relative to the recipe's folder. Raises ValueError where it leaves the folders that the recipe may use
    (filters.trust)."""
    context = info.context or {}
    if (base := context.get("base")) is None:
        return path
    if refused := trust.refused_path(Path(base) / path, Path(context.get("home") or base)):
        raise ValueError(refused)
    return str(Path(base) / path)


LocalPath = Annotated[str, AfterValidator(local_path)]
"""A path among a filter's parameters, relative to the recipe. Without a recipe it is relative to the working directory."""


class Scope(StrEnum):
    """How many samples a filter must see together.

    `sample`: any batch of samples. `prompt`: all samples of each prompt. `corpus`: all samples of the run that the filters before
    it kept, in batches, in the order of the shards.
    """

    SAMPLE = "sample"
    PROMPT = "prompt"
    CORPUS = "corpus"


class Role(StrEnum):
    """What a drop means: the answer is wrong (`verifier`), unsuitable (`quality`), repeats another answer (`duplicate`), or is
    wrong but close to a correct one (`near_miss`)."""

    VERIFIER = "verifier"
    QUALITY = "quality"
    DUPLICATE = "duplicate"
    NEAR_MISS = "near_miss"


Reads = Literal["answer", "reasoning", "completion"]

SO_FAR = ("kind", "accepted", "score", "multiplicity")
"""Further columns for filters of the roles `duplicate` and `near_miss`, from the verdicts of earlier filters: the kind, the
reference that a verifier accepted (JSON text), the last score, and how often the sample was drawn."""


class FilterError(Exception):
    """A filter cannot be built or breaks the contract. The message names the filter and what to do."""


Judge = Callable[[pa.Table], "Sequence[Verdict] | pa.Table"]
CorpusJudge = Callable[[Iterable[pa.Table]], "Iterable[Sequence[Verdict] | pa.Table]"]


@dataclass(frozen=True)
class Filter:
    """One built filter.

    `judge` takes a table of samples with `columns` (names from schemas.sample.SAMPLES). It returns one Verdict per row, in order:
    a sequence of Verdict objects, or a table with the columns outcome, reason, score, detail (`verdict_table` below), which is
    faster for millions of rows. The column `completion` has what `reads` says; rows without it (a completion that ended inside
    its reasoning has no answer) are not shown to the filter and undecided. In scope `corpus` it takes an iterable of such tables
    and yields one answer for each.

    `gold` turns a prompt's reference into a completion that must be kept, `wrong` into one that must be dropped; None if the
    filter cannot be checked this way. `thresher check` tries both. `parameters` are those of the recipe, with defaults.
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
    gold_in: Literal["completion", "tool_calls"] = "completion"
    """The column that `gold` and `wrong` write: the text of a completion, or the JSON text of tool calls."""
    certain: bool = True
    """Whether its verdict on a known answer is reliable. If not (a judge), `thresher check` does not try it on references."""
    cost_us: float = 10.0
    """Approximate microseconds of one core per sample. Adjacent filters of scope `sample` run cheapest first."""
    reads: Reads = "answer"
    """What the filter finds in the column `completion`: the answer without the model's reasoning, the reasoning, or the whole
    completion. The recipe's `reads` overrides it."""
    self_test: Callable[[], str] | None = None
    """Tests that the machine has what the filter needs. Returns a text on what was tried, or raises FilterError."""

    @property
    def read_columns(self) -> tuple[str, ...]:
        """The columns of the pool that it is given: `columns`, with what it reads in the place of `completion`."""
        return tuple(self.reads if column == "completion" else column for column in self.columns)

    @property
    def key(self) -> str:
        """Hash of name, version, parameters and what is read. Verdicts with the same key come from the same rule."""
        text = to_json([self.name, self.version, self.parameters, self.reads])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def verdict_table(
    outcome: pa.Array | Sequence[str],
    reason: pa.Array | Sequence[str],
    score: pa.Array | Sequence[float | None] | None = None,
    detail: pa.Array | Sequence[str | None] | None = None,
) -> pa.Table:
    """Build verdicts as columns. `detail` holds JSON text; columns of nulls may be omitted."""
    rows = len(outcome)
    return pa.table(
        {
            "outcome": pa.array(outcome, pa.string()),
            "reason": pa.array(reason, pa.string()),
            "score": pa.nulls(rows, pa.float64()) if score is None else pa.array(score, pa.float64()),
            "detail": pa.nulls(rows, pa.string()) if detail is None else pa.array(detail, pa.string()),
        }
    )
