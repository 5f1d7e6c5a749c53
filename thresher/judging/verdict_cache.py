"""Reuses verdicts, so that no filter judges the same sample twice.

A verdict belongs to a filter's key (name, version, parameters) and to the content of the sample. The verdicts of an earlier pass
over the same samples are on disk. Verdicts of costly filters are also cached in this process, by the content of the columns they
read. A verdict that is undecided because something was broken is never reused. Other undecided ones are reused only while every
filter of the recipe is the same: a pass for another reason tries them again.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.base import Filter, Scope, verdict_table
from filters.chunks import pieces, take
from filters.judging import BATCH_BYTES, judge, projected
from schemas.manifest import Entry
from schemas.sample import VERDICTS, Outcome
from thresher.errors import StoreError
from thresher.pool.judged import is_broken
from thresher.pool.store import Store

COSTLY_US = 200
"""Lowest cost in microseconds per sample at which verdicts are cached in this process."""
CACHED = 100_000
"""Largest number of cached verdicts."""

_NAMES = ["outcome", "reason", "score", "detail"]


def earlier_verdicts(store: Store, name: str, samples: Entry, key: str) -> pa.Table:
    """Return the verdicts of an earlier pass over these samples, or over those they extend, that need not be given again (schema
    VERDICTS); empty if none. `key` is that of the verdicts that are to be written."""
    entry = store.entry(name)
    if entry is not None and entry.facts.get("samples") in (samples.sha256, *samples.facts.get("extends", ())):
        with suppress(StoreError):  # a damaged file is written again
            verdicts = store.read_table(name)
            if entry.key == key:
                return verdicts.filter(pc.invert(is_broken(verdicts)))
            return verdicts.filter(pc.not_equal(verdicts["outcome"], Outcome.UNDECIDED.value))
    return VERDICTS.empty_table()


def judged_once(filter_: Filter, samples: pa.Table, earlier: pa.Table | None = None) -> tuple[pa.Table, int]:
    """Judge samples. Returns their verdicts, and how many of them come from `earlier` (schema VERDICTS).

    A filter over prompts judges all samples again unless `earlier` has exactly these.
    """
    if earlier is None or not earlier.num_rows:
        return _cache.judged(filter_, samples), 0
    earlier = earlier.filter(pc.equal(earlier["filter_key"], filter_.key))
    positions = pc.index_in(samples["sample_id"], earlier["sample_id"].combine_chunks())
    rows = pc.fill_null(positions, -1).to_numpy().astype(np.int64)
    if filter_.scope is not Scope.SAMPLE and ((rows < 0).any() or earlier.num_rows != samples.num_rows):
        rows[:] = -1
    fresh = np.flatnonzero(rows < 0)
    if len(fresh) == samples.num_rows:
        return _cache.judged(filter_, samples), 0
    verdicts = _cache.judged(filter_, take(samples, fresh))
    rows[fresh] = earlier.num_rows + np.arange(len(fresh))
    earlier = earlier.select(_NAMES)
    return pa.concat_tables([earlier, verdicts.cast(earlier.schema)]).take(pa.array(rows)), samples.num_rows - len(fresh)


class VerdictCache:
    """The latest verdicts of costly filters: a wave of an adaptive run is judged when it arrives, and again with its shard.

    Thread-safe. A filter judges without the lock, so two threads may judge the same sample; both verdicts are equal.
    """

    def __init__(self, most: int = CACHED) -> None:
        self._most, self._lock = most, threading.Lock()
        self._verdicts: OrderedDict[bytes, tuple[Any, ...]] = OrderedDict()

    def judged(self, filter_: Filter, samples: pa.Table) -> pa.Table:
        """Judge samples. A costly filter judges equal samples once, and none whose verdict is cached."""
        if filter_.cost_us < COSTLY_US or filter_.scope is not Scope.SAMPLE or not samples.num_rows:
            return judge(filter_, samples)
        seen = pieces(projected(filter_, samples), BATCH_BYTES)
        keys = [_content(filter_, row) for part in seen for row in part.to_pylist()]
        with self._lock:
            verdicts = {key: self._verdicts[key] for key in set(keys) if key in self._verdicts}
        first: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            if key not in verdicts:
                first.setdefault(key, row)
        judged = judge(filter_, take(samples, np.array(list(first.values()), np.int64)))
        fresh = dict(zip(first, _rows(judged), strict=True))
        with self._lock:
            self._verdicts.update({key: row for key, row in fresh.items() if row[0] != Outcome.UNDECIDED.value})
            while len(self._verdicts) > self._most:
                self._verdicts.popitem(last=False)
        verdicts |= fresh
        return verdict_table(*zip(*(verdicts[key] for key in keys), strict=True))


def _content(filter_: Filter, row: dict[str, Any]) -> bytes:
    return hashlib.blake2b(f"{filter_.key}{row}".encode(errors="surrogatepass"), digest_size=16).digest()


def _rows(verdicts: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(verdicts[name].to_pylist() for name in _NAMES), strict=True)


_cache = VerdictCache()
