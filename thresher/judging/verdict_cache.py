"""Verdicts that are known already, so that no filter is asked twice for the same thing.

A verdict belongs to a filter's key (name, version, parameters) and to what the sample holds. An earlier pass over the same
samples left its verdicts on disk; costly filters are remembered in this process too, by the content of the columns they read.
Undecided verdicts are never reused: the next pass tries again.
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
from filters.judging import judge
from schemas.manifest import Entry
from schemas.sample import VERDICTS, Outcome
from thresher.errors import StoreError
from thresher.pool.store import Store

COSTLY_US = 200
"""Microseconds per sample from which on a verdict is worth remembering in this process."""
REMEMBERED = 100_000
"""Verdicts remembered, the latest."""

_NAMES = ["outcome", "reason", "score", "detail"]


def earlier_verdicts(store: Store, name: str, samples: Entry) -> pa.Table:
    """The verdicts of an earlier pass over these very samples (schema VERDICTS), or over those that they extend; else none."""
    entry = store.entry(name)
    if entry is not None and entry.facts.get("samples") in (samples.sha256, *samples.facts.get("extends", ())):
        with suppress(StoreError):  # a damaged file is no help, and is written anew
            return store.read_table(name)
    return VERDICTS.empty_table()


def judged_once(made: Filter, seen: pa.Table, earlier: pa.Table | None = None) -> tuple[pa.Table, int]:
    """Verdicts on samples, and how many of them `earlier` had (schema VERDICTS). A filter over prompts is asked again unless it
    had seen just these samples."""
    if earlier is None or not earlier.num_rows:
        return _cache.judged(made, seen), 0
    mine = pc.and_(pc.equal(earlier["filter_key"], made.key), pc.not_equal(earlier["outcome"], Outcome.UNDECIDED.value))
    earlier = earlier.filter(mine)
    at = pc.fill_null(pc.index_in(seen["sample_id"], earlier["sample_id"].combine_chunks()), -1).to_numpy().astype(np.int64)
    if made.scope is not Scope.SAMPLE and ((at < 0).any() or earlier.num_rows != seen.num_rows):
        at[:] = -1
    fresh = np.flatnonzero(at < 0)
    if len(fresh) == seen.num_rows:
        return _cache.judged(made, seen), 0
    given = _cache.judged(made, seen.take(pa.array(fresh)))
    at[fresh] = earlier.num_rows + np.arange(len(fresh))
    earlier = earlier.select(_NAMES)
    return pa.concat_tables([earlier, given.cast(earlier.schema)]).take(pa.array(at)), seen.num_rows - len(fresh)


class VerdictCache:
    """The latest verdicts of costly filters: a wave of an adaptive run is judged when it arrives, and again with its shard.

    Thread-safe. A filter judges without the lock, so two threads may judge the same sample; both verdicts are equal.
    """

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most, self._lock = most, threading.Lock()
        self._verdicts: OrderedDict[bytes, tuple[Any, ...]] = OrderedDict()

    def judged(self, filter_: Filter, samples: pa.Table) -> pa.Table:
        """Judge samples. A costly filter judges equal samples once, and none whose verdict is cached."""
        if filter_.cost_us < COSTLY_US or filter_.scope is not Scope.SAMPLE or not samples.num_rows:
            return judge(filter_, samples)
        keys = [_content(filter_, row) for row in samples.select(sorted(filter_.columns)).to_pylist()]
        with self._lock:
            verdicts = {key: self._verdicts[key] for key in set(keys) if key in self._verdicts}
        first: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            if key not in verdicts:
                first.setdefault(key, row)
        judged = judge(filter_, samples.take(pa.array(list(first.values()), pa.int64())))
        fresh = dict(zip(first, _rows(judged), strict=True))
        with self._lock:
            self._verdicts.update({key: row for key, row in fresh.items() if row[0] != Outcome.UNDECIDED.value})
            while len(self._verdicts) > self._most:
                self._verdicts.popitem(last=False)
        verdicts |= fresh
        return verdict_table(*zip(*(verdicts[key] for key in keys), strict=True))


def _content(made: Filter, row: dict[str, Any]) -> bytes:
    return hashlib.blake2b(f"{made.key}{row}".encode(errors="surrogatepass"), digest_size=16).digest()


def _rows(given: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(given[name].to_pylist() for name in _NAMES), strict=True)


_cache = VerdictCache()
