"""How often the verifiers are wrong, by a person's marks on a sample of what they passed and dropped.

The sample is stratified: of every family the draws that passed, and of every family, filter and reason those that a verifier
dropped; half of it goes to what passed, half to what was dropped, evenly over the strata. Stratum h has the share w_h of the
draws that passed (or were dropped), W_h of them, of which n_h were marked and x_h marked against the verifier:

    p = sum_h w_h x_h / n_h,    V = sum_h w_h^2 (1 - n_h / W_h) q_h (1 - q_h) / n_h,    q_h = (x_h + 2 p) / (n_h + 2)

so that p is worth as much as m independent marks, m the smaller of p (1 - p) / V and 1 / sum_h w_h^2 (1 - n_h / W_h) / n_h (the
latter alone where p is 0 or 1), and is Beta(p m + 1/2, (1 - p) m + 1/2): Jeffreys' posterior (L. D. Brown, T. T. Cai & A.
DasGupta, Statistical Science 16, 2001; the effective number as in E. L. Korn & B. I. Graubard, Survey Methodology 24, 1998). The
rates are functions of p of what passed and p of what was dropped, their intervals the 2.5 and 97.5 % points of 20,000 draws of
both. Of strata without a mark nothing is known: they are left out of p, and widen the interval by as much as they could change
it.

Marks are of answers, not of verdicts: they are counted by what the verifiers say now, so they outlast a change of filters.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from thresher.audit.page import rendered
from thresher.audit.sql_tables import opened_tables
from thresher.errors import AuditError
from thresher.pool.run import Run
from thresher.pool.store import Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FILE, PAGE = "review.jsonl", "review.html"
DRAWS = 20_000
_STRATA = """
create temp table strata as
select shard, "row", sample_id, case when kind in ('hit', 'duplicate') then 'passed' else 'dropped' end as verdict,
    family || case when kind in ('hit', 'duplicate') then '' else ' / ' || failed_filter || ' / ' || reason end as stratum
from samples where not anchor and kind is not null
"""
_CHOSEN = """
with placed as (
    select *, row_number() over (partition by verdict, stratum order by hash(sample_id)) as place,
        count(*) over (partition by verdict, stratum) as stands_for
    from strata
), counted as (select verdict, count(distinct stratum) as strata from strata group by all)
select s.sample_id, p.verdict, p.stratum, p.stands_for, s.messages, s.completion, s.reference, s.detail
from placed p join counted using (verdict) join samples s on s.shard = p.shard and s."row" = p."row"
where p.place <= greatest(1, ceil(? / 2.0 / strata)) order by hash(s.sample_id)
"""
_MARKED = """
select verdict, stratum, count(*), count(mark), count(*) filter ((mark = 'wrong') = (verdict = 'passed'))
from strata left join marks using (sample_id) group by all order by all
"""


class Reviewed(BaseModel):
    """A line of review.jsonl."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    sample_id: str
    """The sample."""
    verdict: Literal["passed", "dropped"]
    """What the verifiers made of it when it was chosen."""
    stratum: str
    """Family, and for what was dropped the filter and the reason."""
    stands_for: int
    """Draws of the stratum."""
    context: str | None = None
    """The messages before the last, a line each at least."""
    prompt: str
    """What was asked last."""
    completion: str
    """The answer."""
    reference: str | None
    """The reference answer, as JSON."""
    detail: str | None
    """What the filter found, as JSON."""
    mark: Literal["right", "wrong"] | None = None
    """A person's: whether the answer is right."""


@dataclass(frozen=True)
class Stratum:
    """Draws of one family and verdict, how many of them are marked, and how many of those against the verifier."""

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
    """What the marks say of the verifiers; a rate is null where nothing that it needs was marked."""

    marked: int
    asked: int
    wrong_among_passed: Rate | None
    right_among_dropped: Rate | None
    false_positive_rate: Rate | None
    """Wrong answers that passed / wrong answers."""
    false_negative_rate: Rate | None
    """Right answers that were dropped / right answers."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def write_review(run: Run, samples: int) -> str:
    """Write about so many samples of a run to RUN/review.jsonl, and the page to mark them on; marks that are there stay. Returns
    the page's place. Raises AuditError where nothing was judged right or wrong."""
    if samples < 2:
        raise AuditError(f"--review: wanted 2 samples or more, found {samples}")
    store = run.store
    with opened_tables(run) as connection:
        connection.execute(_STRATA)
        connection.execute(_CHOSEN, [samples])
        names = [one[0] for one in connection.description or ()]
        rows = [_asked(dict(zip(names, row, strict=True))) for row in connection.fetchall()]
    if not rows:
        raise AuditError(f"{store.root}: nothing was judged right or wrong yet, so there is nothing to review")
    marks = {one.sample_id: one for one in read_review(store)}
    chosen = [Reviewed(**row, mark=marks[row["sample_id"]].mark if row["sample_id"] in marks else None) for row in rows]
    chosen += [one for name, one in marks.items() if one.mark and name not in {row["sample_id"] for row in rows}]
    store.write_bytes(FILE, "".join(one.model_dump_json() + "\n" for one in chosen).encode())
    store.write_bytes(PAGE, page(store.root, chosen).encode())
    return f"{store.root}/{PAGE}"


def read_review(store: Store) -> list[Reviewed]:
    """The lines of a run's review, none where there is none. Raises AuditError on one that cannot be read."""
    if not store.exists(FILE):
        return []
    try:
        text = store.read_bytes(FILE).decode()
    except UnicodeDecodeError as error:
        raise AuditError(f"{store.root}/{FILE}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    found = []
    for number, line in enumerate(text.split("\n"), start=1):  # other ends of lines may stand within texts
        if not line.strip():
            continue
        try:
            found.append(Reviewed.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            raise AuditError(f"{store.root}/{FILE}:{number}: {where}: {first['msg']}; mark is right, wrong or null") from error
    return found


def reviewed(run: Run, seed: int = 0) -> Review | None:
    """What a run's marks say of the verdicts as they are now; None where there are none."""
    lines = read_review(run.store)
    if not any(one.mark for one in lines):
        return None
    with opened_tables(run) as connection:
        return estimated(_strata(connection, lines), asked=len(lines), seed=seed)


def estimated(strata: Sequence[Stratum], *, asked: int, seed: int = 0) -> Review:
    """The rates and their intervals."""
    random = np.random.default_rng(seed)
    passed, dropped = (_Share([one for one in strata if one.verdict == verdict], random) for verdict in ("passed", "dropped"))

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


def page(root: str, lines: Iterable[Reviewed]) -> str:
    """The page on which a person marks the samples, one after the other, and saves review.jsonl. The browser keeps the marks of
    this run until then."""
    return rendered("review.html.j2", {}, run=root, lines=[one.model_dump(mode="json") for one in lines])


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


# -- inside --------------------------------------------------------------------------------------------------------------


class _Share:
    """The share that the marks are against, of what passed or of what was dropped: its value, and draws of what it may be."""

    def __init__(self, strata: Sequence[Stratum], random: np.random.Generator) -> None:
        sizes, n, x = (np.array([getattr(one, name) for one in strata], float) for name in ("draws", "marked", "against"))
        self.marked, self.draws = int(n.sum()), float(sizes.sum())
        self.value, self.drawn, self.unknown = 0.0, np.zeros(DRAWS), 1.0
        """`unknown`: the part of the draws of which no stratum has a mark."""
        if not self.marked:
            return
        there = n > 0
        self.unknown = 1 - float(sizes[there].sum() / self.draws)
        sizes, n, x = sizes[there], n[there], x[there]
        w, left = sizes / sizes.sum(), 1 - np.minimum(1, n / sizes)
        p = float(w @ (x / n))
        q = (x + 2 * p) / (n + 2)
        apart = float((w * w * left / n).sum())
        spread = float((w * w * left * q * (1 - q) / n).sum())
        self.value, self.drawn = p, np.full(DRAWS, p)
        if apart:  # else every draw is marked
            marks = min(1 / apart, p * (1 - p) / spread) if 0 < p < 1 and spread else 1 / apart
            self.drawn = random.beta(p * marks + 0.5, (1 - p) * marks + 0.5, DRAWS)

    def least(self) -> NDArray[np.float64]:
        return self.drawn * (1 - self.unknown)

    def most(self) -> NDArray[np.float64]:
        return self.drawn * (1 - self.unknown) + self.unknown


def _rate(of: Any, one: _Share, other: _Share) -> Rate:
    """A rate that rises with both shares."""
    value = float(of(one.value, other.value))
    low = float(np.quantile(of(one.least(), other.least()), 0.025))
    high = float(np.quantile(of(one.most(), other.most()), 0.975))
    return Rate(value, min(low, value), max(high, value))


def _part(part: Any, rest: Any) -> Any:
    return part / np.maximum(1e-9, part + rest)


def _strata(connection: "DuckDBPyConnection", lines: Sequence[Reviewed]) -> list[Stratum]:
    """Every stratum as it is now, with the marks on its draws."""
    marks = {one.sample_id: one.mark for one in lines if one.mark}
    connection.execute(_STRATA)
    connection.register("marks", pa.table({"sample_id": list(marks), "mark": list(marks.values())}))
    return [Stratum(verdict, *counts) for verdict, _, *counts in connection.execute(_MARKED).fetchall()]


def _asked(row: Mapping[str, Any]) -> dict[str, Any]:
    *before, last = row["messages"]
    told = {name: value for name, value in row.items() if name != "messages"}
    context = "\n".join(f"{one['role']}: {one['content']}" for one in before)
    return told | {"prompt": last["content"], "context": context or None}
