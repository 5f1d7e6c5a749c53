"""Whether the filters of a run say other things than those of an earlier run, and whether more or less passes.

Compared are the share of judged samples that passed, for each filter the share of those it judged that it dropped, and the share
of what it saw that it could not judge. For each, p = D / N, over prompts i with d_i of n_i. Draws of one prompt resemble each
other, so the variance is that of a ratio over prompts (W. G. Cochran, Sampling Techniques, 1977, section 2.11):

    v = m / (m - 1) * sum_i (d_i - p n_i)^2 / N^2            m prompts

and z = (p_after - p_before) / sqrt(v_after + v_before), two-sided. Where all prompts of both runs agree with their neighbours,
there is no such variance, and each prompt counts as one trial: v = q (1 - q) (1 / m_after + 1 / m_before), with q the share of
both. The p-values of all shares together are corrected by Holm's method (S. Holm, Scandinavian Journal of Statistics 6, 1979).
Runs over the same prompts differ less than this supposes, which makes the test careful. Below MINIMUM prompts on either side
nothing is said. Of an adaptive run only each prompt's first `samples_per_prompt` draws count, whose number does not depend on
what was found."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from thresher.audit.show import percent
from thresher.audit.sql_tables import opened_tables
from thresher.audit.statistics import first_draws
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
    """Null where only the later run has it."""
    after: float | None
    """Null where only the earlier run has it."""
    z: float | None
    """Null where there are too few prompts, or one of the runs lacks it."""
    p: float | None
    """Two-sided, corrected for all that is compared."""
    drifted: bool
    """Whether p is below 5 %."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @property
    def words(self) -> str:
        """What changed from what to what, and how likely that is by chance."""
        of = (
            self.of if self.of == RATE else f"share {self.of}" if self.of.startswith(UNDECIDED) else f"share dropped by {self.of}"
        )
        before, after = ("none" if one is None else percent(one) for one in (self.before, self.after))
        return f"{of} {before} to {after}" + ("" if self.p is None else f" (p {self.p:.2g})")


@dataclass(frozen=True)
class Sums:
    """Of a share over prompts: how many prompts, and the sums of n, d, n^2, n d, d^2."""

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
    """Compare a run with an earlier one. Raises StoreError where one of them is no run, AuditError where it cannot be read."""
    return between(sums(run), sums(before))


def between(now: Mapping[str, Sums], then: Mapping[str, Sums]) -> tuple[Drift, ...]:
    """Compare the sums of two runs. What only one of them has is listed, and not tested."""
    both = list(holm([compared(name, then[name], now[name]) for name in now if name in then]))
    new = [Drift(name, None, now[name].share, None, None, drifted=False) for name in now if name not in then]
    gone = [Drift(name, then[name].share, None, None, None, drifted=False) for name in then if name not in now]
    # That nothing is undecided in either run needs no line.
    quiet = [one for one in (*both, *new, *gone) if not (one.of.startswith(UNDECIDED) and not (one.before or one.after))]
    return tuple(quiet)


def told(found: Sequence[Drift]) -> str:
    """What a comparison comes to, in a sentence."""
    drifted = [one.words for one in found if one.drifted]
    if drifted:
        return f"Drifted: {'; '.join(drifted)}."
    if not any(one.p is not None for one in found):
        return f"Nothing could be compared: both runs must have {MINIMUM} prompts or more with judged samples."
    return "Nothing drifted."


def compared(of: str, before: Sums, after: Sums) -> Drift:
    """The test of one share, not corrected yet."""
    if min(before.prompts, after.prompts) < MINIMUM:
        return Drift(of, before.share, after.share, None, None, drifted=False)
    spread = math.sqrt(before.variance + after.variance)
    change = after.share - before.share
    if not spread and change:
        q = (before.prompts * before.share + after.prompts * after.share) / (before.prompts + after.prompts)
        spread = math.sqrt(q * (1 - q) * (1 / before.prompts + 1 / after.prompts))
    z = change / spread if spread else 0.0
    return Drift(of, before.share, after.share, z, math.erfc(abs(z) / math.sqrt(2)), drifted=False)


def holm(found: Sequence[Drift]) -> Iterator[Drift]:
    """Correct the p-values, and say which drifted; in the same order."""
    order = sorted((one.p, at) for at, one in enumerate(found) if one.p is not None)
    corrected: dict[int, float] = {}
    largest = 0.0
    for rank, (p, at) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        corrected[at] = largest
    for at, one in enumerate(found):
        yield replace(one, p=corrected[at], drifted=corrected[at] < LEVEL) if at in corrected else one


def sums(run: Run) -> dict[str, Sums]:
    """The sums of the pass rate, of each filter's dropped share, and of what each left undecided."""
    first = first_draws(run)
    with opened_tables(run) as connection:
        return dict(_sums(connection, "" if first is None else f'and s."index" < {first}'))


def _sums(connection: "DuckDBPyConnection", some: str) -> Iterator[tuple[str, Sums]]:
    verdicts = f'from verdicts v join samples s using (shard, "row") where not s.anchor {some}'
    shares = {
        RATE: f"select '{RATE}' as of, s.prompt_id, coalesce(s.kind in ('hit', 'duplicate'), false) as d from samples s "
        f"where not s.anchor and s.outcome <> 'undecided' and s.unreadable is null {some}",
        "dropped": f"select filter as of, s.prompt_id, v.outcome = 'drop' as d {verdicts} and v.outcome <> 'undecided'",
        "undecided": f"select '{UNDECIDED}' || filter as of, s.prompt_id, v.outcome = 'undecided' as d {verdicts}",
    }
    for rows in shares.values():
        query = f"""
            select of, count(*), sum(n), sum(d), sum(n * n), sum(n * d), sum(d * d) from (
                select of, prompt_id, count(*)::double as n, count(*) filter (d)::double as d from ({rows}) group by all
            ) group by all order by of
        """
        for of, *numbers in connection.execute(query).fetchall():
            yield of, Sums(*numbers)
