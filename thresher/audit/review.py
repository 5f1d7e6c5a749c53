"""How often the verifiers are wrong, by a person's marks on a sample of what they passed and dropped.

The sample is stratified: of every family the draws that passed, and of every family, filter and reason those that a verifier
dropped; half of it goes to what passed, half to what was dropped, evenly over the strata. Stratum h stands for W_h draws, of
which n_h were marked and x_h marked against the verifier. With Jeffreys' prior the share in a stratum is Beta(x_h + 1/2, n_h -
x_h + 1/2); the rates below are functions of those shares weighed by W_h, their intervals the 2.5 and 97.5 % points of 20,000
draws of them (L. D. Brown, T. T. Cai & A. DasGupta, Statistical Science 16, 2001, for one stratum). A stratum without a mark has
the prior alone, so what nobody looked at widens the interval.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from thresher.audit.sql import connect
from thresher.errors import AuditError
from thresher.store import Store

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
select s.sample_id, p.verdict, p.stratum, p.stands_for, s.messages[-1].content as prompt, s.completion, s.reference, s.detail
from placed p join counted using (verdict) join samples s on s.shard = p.shard and s."row" = p."row"
where p.place <= greatest(1, ceil(? / 2.0 / strata)) order by hash(s.sample_id)
"""


class Reviewed(BaseModel):
    """A line of review.jsonl."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    sample_id: str
    """The sample."""
    verdict: Literal["passed", "dropped"]
    """What the verifiers made of it."""
    stratum: str
    """Family, and for what was dropped the filter and the reason."""
    stands_for: int
    """Draws of the stratum."""
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
class Rate:
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Review:
    """What the marks say of the verifiers."""

    marked: int
    asked: int
    wrong_among_passed: Rate
    right_among_dropped: Rate
    false_positive_rate: Rate
    """Wrong answers that passed / wrong answers."""
    false_negative_rate: Rate
    """Right answers that were dropped / right answers."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def write_review(store: Store, samples: int) -> str:
    """Write about so many samples of a run to RUN/review.jsonl, and the page to mark them on; marks that are there stay. Returns
    the page's place. Raises AuditError where nothing was judged right or wrong."""
    if samples < 2:
        raise AuditError(f"--review: wanted 2 samples or more, found {samples}")
    connection = connect(store)
    try:
        connection.execute(_STRATA)
        connection.execute(_CHOSEN, [samples])
        names = [one[0] for one in connection.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in connection.fetchall()]
    finally:
        connection.close()
    if not rows:
        raise AuditError(f"{store.root}: nothing was judged right or wrong yet, so there is nothing to review")
    marks = {one.sample_id: one for one in read_review(store)}
    chosen = [Reviewed(**row, mark=marks[row["sample_id"]].mark if row["sample_id"] in marks else None) for row in rows]
    chosen += [one for name, one in marks.items() if one.mark and name not in {row["sample_id"] for row in rows}]
    store.write_bytes(FILE, "".join(one.model_dump_json() + "\n" for one in chosen).encode())
    store.write_bytes(PAGE, page(chosen).encode())
    return f"{store.root}/{PAGE}"


def read_review(store: Store) -> list[Reviewed]:
    """The lines of a run's review, none where there is none. Raises AuditError on one that cannot be read."""
    if not store.exists(FILE):
        return []
    found = []
    for number, line in enumerate(store.read_bytes(FILE).decode().splitlines(), start=1):
        try:
            found.append(Reviewed.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            raise AuditError(f"{store.root}/{FILE}:{number}: {where}: {first['msg']}; mark is right, wrong or null") from error
    return found


def reviewed(store: Store, seed: int = 0) -> Review | None:
    """What a run's marks say; None where there are none."""
    lines = read_review(store)
    return estimated(lines, seed) if any(one.mark for one in lines) else None


def estimated(lines: Iterable[Reviewed], seed: int = 0) -> Review:
    """The rates and their intervals."""
    lines = list(lines)
    random = np.random.default_rng(seed)
    counts = {verdict: _counts([one for one in lines if one.verdict == verdict]) for verdict in ("passed", "dropped")}
    weights = {verdict: np.array([w for w, _, _ in cells], float) for verdict, cells in counts.items()}
    against = {
        verdict: random.beta([x + 0.5 for _, _, x in cells], [n - x + 0.5 for _, n, x in cells], (DRAWS, len(cells)))
        @ weights[verdict]
        for verdict, cells in counts.items()
    }
    plain = {v: sum(w * (x / n if n else 0.5) for w, n, x in cells) for v, cells in counts.items()}
    whole = {verdict: float(weight.sum()) for verdict, weight in weights.items()}

    def rate(of: Mapping[str, Any], kind: str) -> Any:
        wrong, right = of["passed"], of["dropped"]  # that passed, that were dropped
        if kind == "wrong among passed":
            return wrong / max(1.0, whole["passed"])
        if kind == "right among dropped":
            return right / max(1.0, whole["dropped"])
        part, rest = (wrong, whole["dropped"] - right) if kind == "false positives" else (right, whole["passed"] - wrong)
        return part / np.maximum(1e-9, part + rest)

    def told(kind: str) -> Rate:
        low, high = np.quantile(rate(against, kind), [0.025, 0.975])
        return Rate(float(rate(plain, kind)), float(low), float(high))

    kinds = ("wrong among passed", "right among dropped", "false positives", "false negatives")
    return Review(sum(one.mark is not None for one in lines), len(lines), *map(told, kinds))


def page(lines: Iterable[Reviewed]) -> str:
    """The page on which a person marks the samples, one after the other, and saves review.jsonl."""
    from thresher.audit.report import rendered

    return rendered("review.html.j2", {}, lines=[one.model_dump(mode="json") for one in lines])


def lines_of(review: Review) -> list[str]:
    """The rates in words."""
    rates = {
        "wrong among what passed": review.wrong_among_passed,
        "right among what was dropped": review.right_among_dropped,
        "false-positive rate": review.false_positive_rate,
        "false-negative rate": review.false_negative_rate,
    }
    shown = [f"{name} {100 * r.value:.1f} % [{100 * r.low:.1f}, {100 * r.high:.1f}]" for name, r in rates.items()]
    return [f"verifiers, by {review.marked} of {review.asked} samples that a person marked: {', '.join(shown)}"]


def _counts(lines: list[Reviewed]) -> list[tuple[int, int, int]]:
    """Of each stratum: what it stands for, marks, and marks against the verifiers."""
    found: dict[str, list[int]] = {}
    for one in lines:
        mine = found.setdefault(one.stratum, [one.stands_for, 0, 0])
        if one.mark is not None:
            mine[1] += 1
            mine[2] += (one.mark == "wrong") == (one.verdict == "passed")
    return [(w, n, x) for w, n, x in found.values()]
