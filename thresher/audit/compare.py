"""The run before a run: which one it is, and what drifted since."""

import json
import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from thresher.audit import drift as drifting
from thresher.audit.cache import cached_drift_sums
from thresher.audit.count_run import is_complete
from thresher.audit.drift import Drift
from thresher.errors import StoreError, ThresherError
from thresher.pool.run import Run, open_run
from thresher.pool.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Since:
    """What differs from an earlier run."""

    run: str
    """Its directory."""
    begun: str
    """When it was begun, UTC."""
    complete: bool
    found: tuple[Drift, ...]

    @property
    def drifted(self) -> tuple[str, ...]:
        """What drifted, in words."""
        return tuple(one.words for one in self.found if one.drifted)

    @property
    def words(self) -> str:
        """What the comparison comes to."""
        return drifting.told(self.found) + ("" if self.complete else " That run is unfinished.")


def since(run: Run, before: Run | None = None) -> Since | None:
    """Compare a run with an earlier one: by default the last complete one of the same name in the same folder. None where there
    is none, or where it cannot be read after all. Raises AuditError where the run, or the one that was named, cannot be read."""
    if before is not None:
        found = drifting.between(cached_drift_sums(run), cached_drift_sums(before))
        return Since(before.root, begun(before.store), is_complete(before), found)
    earlier = run_before(run)
    if earlier is None:
        return None
    now = cached_drift_sums(run)
    try:
        found = drifting.between(now, cached_drift_sums(earlier))
    except ThresherError as error:  # a damaged neighbour is not this run's fault
        log.warning("drift was not tested: %s", error)
        return None
    return Since(earlier.root, begun(earlier.store), complete=True, found=found)


def run_before(run: Run) -> Run | None:
    """The last complete run of the same name in the same folder that was started before this one."""
    store = run.store
    own = os.path.realpath(store.base) if store.local else store.root.rstrip("/")
    folder = own.rpartition("/")[0] or "/"
    roots = run_roots(folder)
    for root in reversed(roots[: roots.index(own)] if own in roots else []):
        with suppress(ThresherError):  # a run that cannot be read is none to compare with
            earlier = open_run(root)
            if earlier.manifest.name == run.manifest.name and is_complete(earlier):
                return earlier
    return None


def run_roots(folder: str) -> list[str]:
    """The runs in a folder, and itself if it is one, the oldest first."""
    base = Store(folder)
    there = [name for name in ("", *base.folders()) if base.exists(f"{name}/run.json".lstrip("/"))]
    roots = [f"{folder.rstrip('/')}/{name}".rstrip("/") or "/" for name in there]
    return sorted(roots, key=lambda root: (begun(Store(root)), root))


def begun(store: Store) -> str:
    """When a run was begun, UTC: as it notes itself, else by the time of its run.json."""
    with suppress(StoreError, ValueError, KeyError, TypeError):
        if store.exists("begun.json"):
            return str(json.loads(store.read_bytes("begun.json"))["begun"])
    with store.explained("run.json", verb="look for"):
        when: datetime = store.fs.modified(store.path("run.json"))
    return when.astimezone(UTC).isoformat(timespec="milliseconds")
