"""Tests whether a run differs from an earlier run: in its pass rate, or in the verdicts of its filters.

Three kinds of shares are compared: judged samples that passed; for each filter, judged samples that it dropped; and for each
filter, samples it saw but could not judge. For each share, p = D / N, over prompts i with d_i of n_i. Draws of one prompt
resemble each other, so the variance is that of a ratio over prompts (W. G. Cochran, Sampling Techniques, 1977, section 2.11):

    v = m / (m - 1) * sum_i (d_i - p n_i)^2 / N^2            m prompts

and z = (p_after - p_before) / sqrt(v_after + v_before), two-sided. If all prompts of both runs agree with each other, this
variance is zero, and each prompt counts as one trial: v = q (1 - q) (1 / m_after + 1 / m_before), with q the share of both runs
together. The p-values of all shares are corrected by Holm's method (S. Holm, Scandinavian Journal of Statistics 6, 1979). Runs
over the same prompts differ less than this model assumes, so the test is conservative. With fewer than MINIMUM prompts in
either run a share is not tested. In an adaptive run only the first `samples_per_prompt` draws of each prompt count, because the
number of later draws depends on the results."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from thresher.auditing.draw_sums import first_draws
from thresher.auditing.show import percent
from thresher.auditing.sql_tables import opened_tables
from thresher.pool.run import Run

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LEVEL, MINIMUM = 0.05, 8
RATE = "pass rate"
UNDECIDED = "undecided by "


@dataclass(frozen=True)
class Drift:
    """A share before and after."""

    of: str
    """`pass rate`; the filter whose dropped share it is; or `undecided by` a filter."""
    before: float | None
    """Null if only the later run has it."""
    after: float | None
    """Null if only the earlier run has it."""
    z: float | None
    """Null if there are too few prompts, or only one run has the share."""
    p: float | None
    """Two-sided, corrected for the number of shares."""
    drifted: bool
    """Whether p is below LEVEL."""

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return asdict(self)

    @property
    def words(self) -> str:
        """The share, both values, and the p-value."""
        of = (
            self.of if self.of == RATE else f"share {self.of}" if self.of.startswith(UNDECIDED) else f"share dropped by {self.of}"
        )
        before, after = ("none" if value is None else percent(value) for value in (self.before, self.after))
        return f"{of} {before} to {after}" + ("" if self.p is None else f" (p {self.p:.2g})")


@dataclass(frozen=True)
class ShareSums:
    """Sums of one share over prompts: the number of prompts, and the sums of n, d, n^2, n d, d^2."""

    prompts: int
    n: float
    d: float
    nn: float
    nd: float
    dd: float

    @property
    def share(self) -> float:
        return self.d / self.n

    @property
    def variance(self) -> float:
        p, m = self.share, self.prompts
        return max(0.0, m / (m - 1) * (self.dd - 2 * p * self.nd + p * p * self.nn) / self.n**2)


def drift(run: Run, before: Run) -> tuple[Drift, ...]:
    """Compare a run with an earlier one. Raises AuditError if one of them cannot be read."""
    return between(share_sums(run), share_sums(before))


def between(now: Mapping[str, ShareSums], then: Mapping[str, ShareSums]) -> tuple[Drift, ...]:
    """Compare the sums of two runs. A share that only one run has is listed but not tested."""
    both = list(holm([compared(name, then[name], now[name]) for name in now if name in then]))
    new = [Drift(name, None, now[name].share, None, None, drifted=False) for name in now if name not in then]
    removed = [Drift(name, then[name].share, None, None, None, drifted=False) for name in then if name not in now]
    # A filter that left nothing undecided in either run needs no line.
    return tuple(share for share in (*both, *new, *removed) if not share.of.startswith(UNDECIDED) or share.before or share.after)


def summary_of(shares: Sequence[Drift]) -> str:
    """Summarize a comparison in one sentence."""
    drifted = [share.words for share in shares if share.drifted]
    if drifted:
        return f"Drifted: {'; '.join(drifted)}."
    if not any(share.p is not None for share in shares):
        return f"Nothing could be compared: both runs must have {MINIMUM} prompts or more with judged samples."
    return "Nothing drifted."


def compared(of: str, before: ShareSums, after: ShareSums) -> Drift:
    """Test one share; the p-value is not corrected yet."""
    if min(before.prompts, after.prompts) < MINIMUM:
        return Drift(of, before.share, after.share, None, None, drifted=False)
    spread = math.sqrt(before.variance + after.variance)
    change = after.share - before.share
    if not spread and change:
        q = (before.prompts * before.share + after.prompts * after.share) / (before.prompts + after.prompts)
        spread = math.sqrt(q * (1 - q) * (1 / before.prompts + 1 / after.prompts))
    z = change / spread if spread else 0.0
    return Drift(of, before.share, after.share, z, math.erfc(abs(z) / math.sqrt(2)), drifted=False)


def holm(shares: Sequence[Drift]) -> Iterator[Drift]:
    """Correct the p-values and decide which shares drifted; the order is kept."""
    order = sorted((share.p, index) for index, share in enumerate(shares) if share.p is not None)
    corrected: dict[int, float] = {}
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        corrected[index] = largest
    for index, share in enumerate(shares):
        yield replace(share, p=corrected[index], drifted=corrected[index] < LEVEL) if index in corrected else share


def share_sums(run: Run) -> dict[str, ShareSums]:
    """The sums of the pass rate, and of the dropped and the undecided share of each filter."""
    first = first_draws(run)
    with opened_tables(run) as connection:
        return dict(_share_sums(connection, "" if first is None else f'and s."index" < {first}'))


# -- inside --------------------------------------------------------------------------------------------------------------


def _share_sums(connection: "DuckDBPyConnection", only_first: str) -> Iterator[tuple[str, ShareSums]]:
    verdicts = f'from verdicts v join samples s using (shard, "row") where not s.anchor {only_first}'
    passed = (
        f"select '{RATE}' as of, s.prompt_id, coalesce(s.kind in ('hit', 'duplicate'), false) as d from samples s "
        f"where not s.anchor and s.outcome <> 'undecided' and s.unreadable is null {only_first}"
    )
    dropped = f"select filter as of, s.prompt_id, v.outcome = 'drop' as d {verdicts} and v.outcome <> 'undecided'"
    undecided = f"select '{UNDECIDED}' || filter as of, s.prompt_id, v.outcome = 'undecided' as d {verdicts}"
    for rows in (passed, dropped, undecided):
        query = f"""
            select of, count(*), sum(n), sum(d), sum(n * n), sum(n * d), sum(d * d) from (
                select of, prompt_id, count(*)::double as n, count(*) filter (d)::double as d from ({rows}) group by all
            ) group by all order by of
        """
        for of, *numbers in connection.execute(query).fetchall():
            yield of, ShareSums(*numbers)
