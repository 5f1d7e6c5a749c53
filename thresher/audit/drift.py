"""Whether the filters of a run drop other shares than those of an earlier run, and whether more or less passes.

For each filter the share of judged samples that it dropped, p = D / N, over prompts i with d_i of n_i dropped. Draws of one
prompt resemble each other, so the variance is that of a ratio over prompts (W. G. Cochran, Sampling Techniques, 1977, section
2.11):

    v = m / (m - 1) * sum_i (d_i - p n_i)^2 / N^2            m prompts

and z = (p_after - p_before) / sqrt(v_after + v_before), two-sided. The p-values of all filters together are corrected by Holm's
method (S. Holm, Scandinavian Journal of Statistics 6, 1979). Runs over the same prompts differ less than this supposes, which
makes the test careful. Below MINIMUM prompts on either side nothing is said.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from thresher.audit.show import percent
from thresher.audit.sql import connect
from thresher.store import Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LEVEL, MINIMUM = 0.05, 8
RATE = "pass rate"


@dataclass(frozen=True)
class Drift:
    """A share before and after."""

    of: str
    """`pass rate`, or the filter whose dropped share it is."""
    before: float
    after: float
    z: float | None
    """Null where there are too few prompts, or nothing varies."""
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
        of = self.of if self.of == RATE else f"share dropped by {self.of}"
        told = "" if self.p is None else f" (p {self.p:.2g})"
        return f"{of} {percent(self.before)} to {percent(self.after)}{told}"


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


def drift(store: Store, before: Store) -> tuple[Drift, ...]:
    """Compare a run with an earlier one, by what both have. Raises StoreError where one of them is no run."""
    return between(sums(store), sums(before))


def between(now: Mapping[str, Sums], then: Mapping[str, Sums]) -> tuple[Drift, ...]:
    """Compare the sums of two runs, of what both have."""
    return tuple(holm([compared(name, then[name], now[name]) for name in now if name in then]))


def compared(of: str, before: Sums, after: Sums) -> Drift:
    """The two-proportion test, not corrected yet."""
    enough = min(before.prompts, after.prompts) >= MINIMUM
    spread = math.sqrt(before.variance + after.variance) if enough else 0.0
    z = (after.share - before.share) / spread if spread else None
    p = None if z is None else math.erfc(abs(z) / math.sqrt(2))
    return Drift(of, before.share, after.share, z, p, drifted=False)


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


def sums(store: Store) -> dict[str, Sums]:
    """The sums of the pass rate and of each filter's dropped share."""
    connection = connect(store)
    try:
        return dict(_sums(connection))
    finally:
        connection.close()


def _sums(connection: "DuckDBPyConnection") -> Iterator[tuple[str, Sums]]:
    shares = {
        RATE: f"select '{RATE}' as of, prompt_id, coalesce(kind in ('hit', 'duplicate'), false) as d from samples "
        "where not anchor and outcome <> 'undecided' and unreadable is null",
        "filters": "select filter as of, s.prompt_id, v.outcome = 'drop' as d "
        "from verdicts v join samples s using (shard, \"row\") where not s.anchor and v.outcome <> 'undecided'",
    }
    for rows in shares.values():
        query = f"""
            select of, count(*), sum(n), sum(d), sum(n * n), sum(n * d), sum(d * d) from (
                select of, prompt_id, count(*)::double as n, count(*) filter (d)::double as d from ({rows}) group by all
            ) group by all order by of
        """
        for of, *numbers in connection.execute(query).fetchall():
            yield of, Sums(*numbers)
