"""Finds the run before a run, and compares the two."""

import json
import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from thresher.auditing.cache import cached_drift_sums
from thresher.auditing.count_run import is_complete
from thresher.auditing.drift import Drift, between, summary_of
from thresher.errors import StoreError, ThresherError
from thresher.pool.run import Run, open_run
from thresher.pool.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Since:
    """What changed since an earlier run."""

    run: str
    """Directory of the earlier run."""
    begun: str
    """When the earlier run was started, UTC."""
    complete: bool
    """Whether the earlier run is complete."""
    shares: tuple[Drift, ...]

    @property
    def drifted(self) -> tuple[str, ...]:
        """The shares that drifted, in words."""
        return tuple(share.words for share in self.shares if share.drifted)

    @property
    def words(self) -> str:
        """The comparison in one or two sentences."""
        return summary_of(self.shares) + ("" if self.complete else " That run is unfinished.")


def since(run: Run, before: Run | None = None) -> Since | None:
    """Compare a run with an earlier one: by default with the last complete run of the same name in the same folder. Returns
    None if there is no such run, or if it turns out to be unreadable. Raises AuditError if the run, or the given earlier one,
    cannot be read."""
    if before is not None:
        shares = between(cached_drift_sums(run), cached_drift_sums(before))
        return Since(before.root, begun(before.store), is_complete(before), shares)
    earlier = run_before(run)
    if earlier is None:
        return None
    now = cached_drift_sums(run)
    try:
        shares = between(now, cached_drift_sums(earlier))
    except ThresherError as error:  # a damaged neighbour is not this run's fault
        log.warning("drift was not tested: %s", error)
        return None
    return Since(earlier.root, begun(earlier.store), complete=True, shares=shares)


def run_before(run: Run) -> Run | None:
    """The last complete run of the same name in the same folder that was started before this one."""
    store = run.store
    own = os.path.realpath(store.base) if store.local else store.root.rstrip("/")
    folder = own.rpartition("/")[0] or "/"
    roots = run_roots(folder)
    for root in reversed(roots[: roots.index(own)] if own in roots else []):
        with suppress(ThresherError):  # skip runs that cannot be read
            earlier = open_run(root)
            if earlier.manifest.name == run.manifest.name and is_complete(earlier):
                return earlier
    return None


def run_roots(folder: str) -> list[str]:
    """The runs in a folder, and the folder itself if it is a run, the oldest first."""
    base = Store(folder)
    names = [name for name in ("", *base.folders()) if base.exists(f"{name}/run.json".lstrip("/"))]
    roots = [f"{folder.rstrip('/')}/{name}".rstrip("/") or "/" for name in names]
    return sorted(roots, key=lambda root: (begun(Store(root)), root))


def begun(store: Store) -> str:
    """When a run was started, UTC: as noted in begun.json, else the time of run.json."""
    with suppress(StoreError, ValueError, KeyError, TypeError):
        if store.exists("begun.json"):
            return str(json.loads(store.read_bytes("begun.json"))["begun"])
    with store.explained("run.json", verb="look for"):
        when: datetime = store.fs.modified(store.path("run.json"))
    return when.astimezone(UTC).isoformat(timespec="milliseconds")
