"""A run as four tables of SQL, read by DuckDB from the pool's Parquet: prompts, samples, verdicts, stats.

    prompts    one row per prompt of the plan, with what became of its draws: samples, decided, passed, hits, near_misses, ...
    samples    one row per sample, anchors included, with what became of it: outcome, kind, reason, failed_filter, nearest, ...
    verdicts   one row per verdict, in the order the filters ran (`place`, from 0)
    stats      every number of the audit and its statistics: section, of (family, filter, ...), name, value

The same rules as thresher.pool.judged.judged: a sample's outcome is that of the first filter that did not keep it. Beside DuckDB's own
functions there is pass_at_k(decided, passed, k), as in thresher.audit.statistics.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from thresher.audit.cache import cached_audit, cached_statistics
from thresher.audit.sql_tables import opened_tables, whole_prompts, whole_shards
from thresher.errors import AuditError
from thresher.pool.run import Run

log = logging.getLogger(__name__)


def query(run: Run, sql: str) -> pa.Table:
    """What a query says of a run; of columns of one name the second has a number. Raises AuditError where it is none that can be
    answered."""
    import duckdb

    store = run.store
    if store.entry("prompts") is not None and not whole_prompts(store):
        log.warning("%s: the plan is damaged and left out; `thresher audit` tells more", store.root)
    with opened_tables(run, whole_shards(run, warn=True)) as connection:
        if re.search(r"\bstats\b", sql, re.IGNORECASE):
            connection.register("stats", stats_table(cached_audit(run).to_dict() | cached_statistics(run).to_dict()))
        try:
            found = connection.sql(sql)
            table: pa.Table = pa.table({}) if found is None else found.to_arrow_table()
        except duckdb.Error as error:
            said = str(error).split("\n\nLINE")[0]
            raise AuditError(
                f"{said}\nthere are prompts, samples, verdicts and stats; docs/formats.md lists their columns"
            ) from error
    return _plain(table.rename_columns(_told_apart(table.column_names)))


def stats_table(numbers: Mapping[str, Any]) -> pa.Table:
    """The numbers of an audit and its statistics: section, of (a family, a filter, ... or empty), name, value."""
    rows = list(_numbers("", "", numbers))
    kinds = [("section", pa.string()), ("of", pa.string()), ("name", pa.string()), ("value", pa.float64())]
    columns = zip(*rows, strict=True) if rows else [[]] * len(kinds)
    return pa.table([pa.array(column, kind) for column, (_, kind) in zip(columns, kinds, strict=True)], [n for n, _ in kinds])


_NAMES = ("family", "name", "source", "temperature", "filter", "reason", "kind", "of", "k")
"""Fields that say what a part of an audit is of."""


def _numbers(section: str, of: str, value: Any, name: str = "") -> Iterable[tuple[str, str, str, float]]:
    if isinstance(value, Mapping):
        own = [str(value[key]) for key in _NAMES if isinstance(value.get(key), str | int | float)] if section else []
        pair = [" and ".join(value["filters"])] if section == "overlaps" else []
        mine = " / ".join(filter(None, [of, *own, *pair]))
        for key, one in value.items():
            if key not in _NAMES or not section:
                yield from _numbers(section or str(key), mine, one, f"{name}.{key}".strip(".") if section else "")
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            plain = isinstance(one, Mapping)
            yield from _numbers(section, of, one, name if plain else f"{name}.{number}".strip("."))
    elif isinstance(value, int | float):
        yield section, of, name, float(value)


def _told_apart(names: list[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        number, one = 2, name
        while one in found:
            number, one = number + 1, f"{name}_{number}"
        found.append(one)
    return found


def _plain(table: pa.Table) -> pa.Table:
    """Sums of integers are of 128 bits, which nothing else reads: as 64 bits where they fit, else as floats."""
    for at, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type):
            try:
                column = table[at].cast(pa.int64() if field.type.scale == 0 else pa.float64())
            except pa.ArrowInvalid:
                column = table[at].cast(pa.float64())
            table = table.set_column(at, pa.field(field.name, column.type), column)
    return table


# -- inside --------------------------------------------------------------------------------------------------------------
