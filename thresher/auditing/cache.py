"""The audit of a run, its statistics and the sums of its drift test, each computed once per state of the run.

Report, gates, card, drift and the command line read these.
"""

from dataclasses import replace

from thresher.auditing.audit import Audit
from thresher.auditing.count_run import count
from thresher.auditing.drift import ShareSums, share_sums
from thresher.auditing.kept import kept
from thresher.auditing.statistics import Statistics, statistics
from thresher.executors.executor import Map, map_here, map_on_cores
from thresher.pool.run import Run


def cached_audit(run: Run, map_shards: Map | None = None) -> Audit:
    """The audit of the run's present state. `map_shards` spreads the counting over the workers of an executor; by default it uses
    the cores of this process."""
    audit = kept(run, "audit", Audit, lambda: count(run, map_shards or map_on_cores))
    return replace(audit, run=run.root)


def cached_statistics(run: Run, map_shards: Map | None = None) -> Statistics:
    """The statistics of the run's present state. `map_shards` spreads them over the workers of an executor."""
    return kept(run, "statistics", Statistics, lambda: statistics(run, map_shards or map_here))


def cached_drift_sums(run: Run) -> dict[str, ShareSums]:
    """The sums for the drift test of the run's present state."""
    return kept(run, "drift", dict[str, ShareSums], lambda: share_sums(run))
