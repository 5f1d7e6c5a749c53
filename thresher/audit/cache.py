"""Keeps in RUN/audited/ what takes a pass over the pool to compute, once per state of the run.

    RUN/audited/audit.json        the audit                     (thresher.audit.count_run)
    RUN/audited/statistics.json   the statistics                (thresher.audit.statistics)
    RUN/audited/drift.json        the sums for the drift test   (thresher.audit.drift)

Each file holds the key of the state it was computed from: thresher's version, and the names, sizes and times of all files that
are read. Report, gates, card, drift and command line read these files. With `recount` the figures are computed again in any
case, which also finds damage that did not change the size and time of a file.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from thresher import __version__, ids
from thresher.audit.audit import Audit
from thresher.audit.count_run import count
from thresher.audit.drift import ShareSums, share_sums
from thresher.audit.statistics import Statistics, statistics
from thresher.errors import StoreError
from thresher.executors.executor import Map, map_here, map_on_cores
from thresher.pool.run import Run

T = TypeVar("T")

FOLDER = "audited"
_FOLDERS = ("samples", "verdicts", "corpus", "starts")
_FILES = ("run.json", "begun.json", "prompts.json", "prompts.parquet")


def cached_audit(run: Run, map_shards: Map = map_on_cores, *, recount: bool = False) -> Audit:
    """Return the audit of the run's present state; count only if this state was not counted before."""
    audit = _cached(run, "audit", Audit, lambda: count(run, map_shards), asdict, recount=recount)
    return replace(audit, run=run.root)


def cached_statistics(run: Run, map_shards: Map = map_here, *, recount: bool = False) -> Statistics:
    """Return the statistics of the run's present state."""
    return _cached(run, "statistics", Statistics, lambda: statistics(run, map_shards), asdict, recount=recount)


def cached_drift_sums(run: Run, *, recount: bool = False) -> dict[str, ShareSums]:
    """Return the sums for the drift test of the run's present state."""
    return _cached(
        run,
        "drift",
        dict[str, ShareSums],
        lambda: share_sums(run),
        lambda sums: {share: asdict(values) for share, values in sums.items()},
        recount=recount,
    )


def state_of(run: Run) -> str:
    """Hash of the names, sizes and times of the files of a run's pool and verdicts; takes a few listings."""
    store, listed = run.store, []
    for folder in ("", *_FOLDERS):
        if not store.exists(folder):
            continue
        with store.explained(folder, verb="list"):
            infos = store.fs.ls(store.path(folder), detail=True)
        for info in infos:
            name = str(info["name"]).rsplit("/", 1)[-1]
            if folder or name in _FILES:
                time = next((info[key] for key in ("mtime", "LastModified", "created") if key in info), None)
                listed.append([folder, name, info["size"], str(time)])
    return ids.digest("state", __version__, run.root, sorted(listed))


# -- inside --------------------------------------------------------------------------------------------------------------


def _cached(
    run: Run, name: str, kind: Any, compute: Callable[[], T], to_json: Callable[[T], dict[str, Any]], *, recount: bool
) -> T:
    store, file, key = run.store, f"{FOLDER}/{name}.json", state_of(run)
    if not recount and store.exists(file):
        with suppress(StoreError, ValueError, KeyError, TypeError, ValidationError):  # compute again what cannot be read
            kept = json.loads(store.read_bytes(file))
            if kept["key"] == key:
                value: T = TypeAdapter(kind).validate_python(kept[name])
                return value
    result = compute()
    with suppress(StoreError):  # a run in a read-only place is counted each time
        store.write_bytes(file, json.dumps({"key": key, name: to_json(result)}, default=float).encode(), durable=False)
    return result
