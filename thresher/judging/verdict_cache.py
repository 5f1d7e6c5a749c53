"""Verdicts that are known already, so that no filter is asked twice for the same thing.

A verdict belongs to a filter's key (name, version, parameters) and to what the sample holds. An earlier pass over the same
samples left its verdicts on disk; costly filters are remembered in this process too, by the content of the columns they read.
Undecided verdicts are never reused: the next pass tries again.
"""

import hashlib
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
        return _memory.judged(made, seen), 0
    mine = pc.and_(pc.equal(earlier["filter_key"], made.key), pc.not_equal(earlier["outcome"], Outcome.UNDECIDED.value))
    earlier = earlier.filter(mine)
    at = pc.fill_null(pc.index_in(seen["sample_id"], earlier["sample_id"].combine_chunks()), -1).to_numpy().astype(np.int64)
    if made.scope is not Scope.SAMPLE and ((at < 0).any() or earlier.num_rows != seen.num_rows):
        at[:] = -1
    fresh = np.flatnonzero(at < 0)
    if len(fresh) == seen.num_rows:
        return _memory.judged(made, seen), 0
    given = _memory.judged(made, seen.take(pa.array(fresh)))
    at[fresh] = earlier.num_rows + np.arange(len(fresh))
    earlier = earlier.select(_NAMES)
    return pa.concat_tables([earlier, given.cast(earlier.schema)]).take(pa.array(at)), seen.num_rows - len(fresh)


class _Memory:
    """What costly filters said lately: a wave of an adaptive run is judged when it comes, and again with its shard."""

    def __init__(self) -> None:
        self._said: OrderedDict[bytes, tuple[Any, ...]] = OrderedDict()

    def judged(self, made: Filter, seen: pa.Table) -> pa.Table:
        """Verdicts on samples. A costly filter is asked once for samples that hold the same, and not for those it remembers."""
        if made.cost_us < COSTLY_US or made.scope is not Scope.SAMPLE or not seen.num_rows:
            return judge(made, seen)
        keys = [_content(made, row) for row in seen.select(sorted(made.columns)).to_pylist()]
        first: dict[bytes, int] = {}
        for number, key in enumerate(keys):
            if key not in self._said:
                first.setdefault(key, number)
        asked = judge(made, seen.take(pa.array(list(first.values()), pa.int64())))
        said = dict(zip(first, _rows(asked), strict=True))
        rows = [said.get(key) or self._said[key] for key in keys]
        for key, row in said.items():
            if row[0] != Outcome.UNDECIDED.value:
                self._said[key] = row
        while len(self._said) > REMEMBERED:
            self._said.popitem(last=False)
        return verdict_table(*zip(*rows, strict=True))


def _content(made: Filter, row: dict[str, Any]) -> bytes:
    return hashlib.blake2b(f"{made.key}{row}".encode(errors="surrogatepass"), digest_size=16).digest()


def _rows(given: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(given[name].to_pylist() for name in _NAMES), strict=True)


_memory = _Memory()
