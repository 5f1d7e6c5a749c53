"""How often the verifiers are wrong, estimated from a person's marks on a sample of what they passed and dropped.

The sample is stratified: by family for draws that passed, and by family, filter and reason for draws that a verifier dropped.
Half of it is taken from each group, evenly over the strata. Stratum h has the share w_h of the draws that passed (or were
dropped), W_h of them, of which n_h were marked and x_h marked against the verifier:

    p = sum_h w_h x_h / n_h,    V = sum_h w_h^2 (1 - n_h / W_h) q_h (1 - q_h) / n_h,    q_h = (x_h + 2 p) / (n_h + 2)

so that p carries as much information as m independent marks, m the smaller of p (1 - p) / V and 1 / sum_h w_h^2 (1 - n_h / W_h)
/ n_h (only the latter if p is 0 or 1), and is Beta(p m + 1/2, (1 - p) m + 1/2): Jeffreys' posterior (L. D. Brown, T. T. Cai &
A. DasGupta, Statistical Science 16, 2001; the effective number as in E. L. Korn & B. I. Graubard, Survey Methodology 24, 1998).
The rates are functions of p of the passed and p of the dropped draws; their intervals are the 2.5 and 97.5 % points of 20,000
draws of both. Strata without a mark are left out of p, and widen the interval by as much as they could change it.

Marks belong to answers, not to verdicts: they are counted against the present verdicts, so they outlast a change of filters.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from thresher.auditing.sql_tables import opened_tables
from thresher.errors import AuditError
from thresher.pool.run import Run
from thresher.pool.store import Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FILE = "review.jsonl"
DRAWS = 20_000
_STRATA = """
create temp table strata as
select shard, "row", sample_id, case when kind in ('hit', 'duplicate') then 'passed' else 'dropped' end as verdict,
    family || case when kind in ('hit', 'duplicate') then '' else ' / ' || failed_filter || ' / ' || reason end as stratum
from samples where not anchor and kind is not null
"""
_MARKED = """
select verdict, stratum, count(*), count(mark), count(*) filter ((mark = 'wrong') = (verdict = 'passed'))
from strata left join marks using (sample_id) group by all order by all
"""


class ReviewLine(BaseModel):
    """A line of review.jsonl."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    sample_id: str
    """The sample."""
    verdict: Literal["passed", "dropped"]
    """Whether the verifiers passed or dropped it when it was chosen."""
    stratum: str
    """Family; and of a dropped sample also the filter and the reason."""
    stands_for: int
    """Draws of the stratum."""
    context: str | None = None
    """The messages before the last, each starting on a new line."""
    prompt: str
    """The last message."""
    completion: str
    """The answer."""
    reasoning: str | None = None
    """What the model thought before it."""
    reference: str | None
    """The reference answer, as JSON."""
    detail: str | None
    """The detail of the filter's verdict, as JSON."""
    mark: Literal["right", "wrong"] | None = None
    """A person's judgement of the answer."""


@dataclass(frozen=True)
class Stratum:
    """Draws of one stratum, how many of them are marked, and how many of the marks contradict the verifier."""

    verdict: str
    draws: int
    marked: int
    against: int


@dataclass(frozen=True)
class Rate:
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Review:
    """Error rates of the verifiers; a rate is null if no mark gives information about it."""

    marked: int
    asked: int
    wrong_among_passed: Rate | None
    right_among_dropped: Rate | None
    false_positive_rate: Rate | None
    """Wrong answers that passed / wrong answers."""
    false_negative_rate: Rate | None
    """Right answers that were dropped / right answers."""

    def to_dict(self) -> dict[str, Any]:
        """Return the review as JSON values."""
        return asdict(self)


def read_review(store: Store) -> list[ReviewLine]:
    """Return the lines of a run's review; empty if there is no review. Raises AuditError on an invalid line."""
    if not store.exists(FILE):
        return []
    try:
        text = store.read_bytes(FILE).decode()
    except UnicodeDecodeError as error:
        raise AuditError(f"{store.root}/{FILE}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    lines = []
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: texts may contain other line separators
        if not line.strip():
            continue
        try:
            lines.append(ReviewLine.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            raise AuditError(f"{store.root}/{FILE}:{number}: {where}: {first['msg']}; mark is right, wrong or null") from error
    return lines


def reviewed(run: Run, seed: int = 0) -> Review | None:
    """Compare a run's marks with its present verdicts; None if there are no marks."""
    lines = read_review(run.store)
    if not any(line.mark for line in lines):
        return None
    with opened_tables(run) as connection:
        return estimated(_strata(connection, lines), asked=len(lines), seed=seed)


def estimated(strata: Sequence[Stratum], *, asked: int, seed: int = 0) -> Review:
    """Estimate the rates and their intervals."""
    random = np.random.default_rng(seed)
    passed, dropped = (
        _Share([stratum for stratum in strata if stratum.verdict == verdict], random) for verdict in ("passed", "dropped")
    )

    def false_positives(wrong: Any, right: Any) -> Any:
        return _part(passed.draws * wrong, dropped.draws * (1 - right))

    def false_negatives(wrong: Any, right: Any) -> Any:
        return _part(dropped.draws * right, passed.draws * (1 - wrong))

    both = bool(passed.marked and dropped.marked)
    return Review(
        passed.marked + dropped.marked,
        asked,
        _rate(lambda wrong, _: wrong, passed, passed) if passed.marked else None,
        _rate(lambda right, _: right, dropped, dropped) if dropped.marked else None,
        _rate(false_positives, passed, dropped) if both else None,
        _rate(false_negatives, passed, dropped) if both else None,
    )


def lines_of(review: Review) -> list[str]:
    """The rates in words."""
    rates = {
        "wrong among what passed": review.wrong_among_passed,
        "right among what was dropped": review.right_among_dropped,
        "false-positive rate": review.false_positive_rate,
        "false-negative rate": review.false_negative_rate,
    }
    shown = [f"{name} {100 * r.value:.1f} % [{100 * r.low:.1f}, {100 * r.high:.1f}]" for name, r in rates.items() if r]
    return [f"verifiers, by {review.marked} of {review.asked} samples that a person marked: {', '.join(shown)}"]


def create_strata(connection: "DuckDBPyConnection") -> None:
    """Create the table `strata`: shard, row, sample_id, verdict (passed or dropped) and stratum of each judged draw."""
    connection.execute(_STRATA)


# -- inside --------------------------------------------------------------------------------------------------------------


class _Share:
    """The share of marks against the verifier among the draws that passed, or were dropped: its value, and draws of its
    posterior."""

    def __init__(self, strata: Sequence[Stratum], random: np.random.Generator) -> None:
        sizes, n, x = (np.array([getattr(stratum, name) for stratum in strata], float) for name in ("draws", "marked", "against"))
        self.marked, self.draws = int(n.sum()), float(sizes.sum())
        self.value, self.drawn, self.unknown = 0.0, np.zeros(DRAWS), 1.0
        """`unknown`: the share of the draws in strata without a mark."""
        if not self.marked:
            return
        known = n > 0
        self.unknown = 1 - float(sizes[known].sum() / self.draws)
        sizes, n, x = sizes[known], n[known], x[known]
        w, left = sizes / sizes.sum(), 1 - np.minimum(1, n / sizes)
        p = float(w @ (x / n))
        q = (x + 2 * p) / (n + 2)
        weight = float((w * w * left / n).sum())
        variance = float((w * w * left * q * (1 - q) / n).sum())
        self.value, self.drawn = p, np.full(DRAWS, p)
        if weight:  # else every draw is marked
            marks = min(1 / weight, p * (1 - p) / variance) if 0 < p < 1 and variance else 1 / weight
            self.drawn = random.beta(p * marks + 0.5, (1 - p) * marks + 0.5, DRAWS)

    def least(self) -> NDArray[np.float64]:
        """Draws of the share if all draws of unmarked strata agree with the verifier."""
        return self.drawn * (1 - self.unknown)

    def most(self) -> NDArray[np.float64]:
        """Draws of the share if none of them does."""
        return self.drawn * (1 - self.unknown) + self.unknown


def _rate(rate_of: Callable[[Any, Any], Any], first: _Share, second: _Share) -> Rate:
    """The rate and its interval. `rate_of` increases with both shares."""
    value = float(rate_of(first.value, second.value))
    low = float(np.quantile(rate_of(first.least(), second.least()), 0.025))
    high = float(np.quantile(rate_of(first.most(), second.most()), 0.975))
    return Rate(value, min(low, value), max(high, value))


def _part(part: Any, rest: Any) -> Any:
    return part / np.maximum(1e-9, part + rest)


def _strata(connection: "DuckDBPyConnection", lines: Sequence[ReviewLine]) -> list[Stratum]:
    """Every present stratum with the marks on its draws."""
    marks = {line.sample_id: line.mark for line in lines if line.mark}
    create_strata(connection)
    connection.register("marks", pa.table({"sample_id": list(marks), "mark": list(marks.values())}))
    return [Stratum(verdict, *counts) for verdict, _, *counts in connection.execute(_MARKED).fetchall()]
