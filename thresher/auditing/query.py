"""SQL over a run: four tables that DuckDB reads from the pool's Parquet files.

    prompts    one row per planned prompt, with the results of its draws: samples, decided, passed, hits, near_misses, ...
    samples    one row per sample, anchors included, with its result: outcome, kind, reason, failed_filter, nearest, ...
    verdicts   one row per verdict, in the order the filters ran (`place`, from 0)
    stats      every number of the audit and of the statistics: section, of (family, filter, ...), name, value

The rules are those of thresher.pool.judged.judged: a sample's outcome is that of the first filter that did not keep it. Besides
DuckDB's own functions there is pass_at_k(decided, passed, k), as in thresher.auditing.statistics.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from thresher.auditing.cache import cached_audit, cached_statistics
from thresher.auditing.sql_tables import opened_tables, whole_prompts, whole_shards
from thresher.errors import AuditError
from thresher.pool.run import Run

log = logging.getLogger(__name__)


def query(run: Run, sql: str, *, unsafe: bool = False) -> pa.Table:
    """Return the result of a query. Columns with the same name are numbered from the second on. It must be one that only reads,
    and reads nothing but the run, unless it is `unsafe`. Raises AuditError if the query fails."""
    import duckdb

    if not unsafe:
        _stop_if_not_reading(sql)

    store = run.store
    if store.entry("prompts") is not None and not whole_prompts(store):
        log.warning("%s: the plan is damaged and left out; `thresher audit` shows details", store.root)
    with opened_tables(run, whole_shards(run, warn=True), confined=not unsafe) as connection:
        if re.search(r"\bstats\b", sql, re.IGNORECASE):
            connection.register("stats", stats_table(cached_audit(run).to_dict() | cached_statistics(run).to_dict()))
        try:
            result = connection.sql(sql)
            table: pa.Table = pa.table({}) if result is None else result.to_arrow_table()
        except duckdb.Error as error:
            message = str(error).split("\n\nLINE")[0]
            if isinstance(error, duckdb.PermissionException):
                message += "; a query reads nothing but the run, unless it is given with --unsafe"
            raise AuditError(
                f"{message}\nthe tables are prompts, samples, verdicts and stats; docs/formats.md lists their columns"
            ) from error
    return _without_wide_integers(table.rename_columns(_unique(table.column_names)))


def stats_table(numbers: Mapping[str, Any]) -> pa.Table:
    """The numbers of an audit and its statistics as rows: section, of (a family, a filter, ... or empty), name, value."""
    rows = list(_numbers("", "", numbers))
    kinds = [("section", pa.string()), ("of", pa.string()), ("name", pa.string()), ("value", pa.float64())]
    columns = zip(*rows, strict=True) if rows else [[]] * len(kinds)
    return pa.table([pa.array(column, kind) for column, (_, kind) in zip(columns, kinds, strict=True)], [n for n, _ in kinds])


# -- inside --------------------------------------------------------------------------------------------------------------


_EXPLAIN = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*explain(?:\s+analyze)?\s", re.IGNORECASE | re.DOTALL)


def _stop_if_not_reading(sql: str) -> None:
    """Raise AuditError unless this is one SELECT, or an explanation of one: other statements can write files. What cannot be told
    is refused."""
    import duckdb

    try:
        kinds = [statement.type.name for statement in duckdb.extract_statements(sql)]
    except duckdb.Error:
        return  # the query itself fails with the same message
    if kinds == ["EXPLAIN"]:
        try:
            inner = [statement.type.name for statement in duckdb.extract_statements(_EXPLAIN.sub("", sql, count=1))]
        except duckdb.Error:
            inner = []
        kinds = inner if inner == ["SELECT"] else kinds
    if kinds != ["SELECT"]:
        raise AuditError(
            f"wanted one query that only reads (select, from, with, describe, explain), found {', '.join(kinds) or 'nothing'}; "
            "--unsafe runs other statements, which can read and write any file that you can"
        )


_NAMES = ("family", "model", "name", "source", "temperature", "filter", "reason", "kind", "of", "k")
"""Fields that name what the numbers beside them belong to."""


def _numbers(section: str, of: str, value: Any, name: str = "") -> Iterable[tuple[str, str, str, float]]:
    if isinstance(value, Mapping):
        own = [str(value[key]) for key in _NAMES if isinstance(value.get(key), str | int | float)] if section else []
        pair = [" and ".join(value["filters"])] if section == "overlaps" else []
        path = " / ".join(filter(None, [of, *own, *pair]))
        for key, inner in value.items():
            if key not in _NAMES or not section:
                yield from _numbers(section or str(key), path, inner, f"{name}.{key}".strip(".") if section else "")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _numbers(section, of, item, name if isinstance(item, Mapping) else f"{name}.{index}".strip("."))
    elif isinstance(value, int | float):
        yield section, of, name, float(value)


def _unique(names: list[str]) -> list[str]:
    """The names, with a number after each that was used before."""
    unique: list[str] = []
    for name in names:
        number, candidate = 2, name
        while candidate in unique:
            number, candidate = number + 1, f"{name}_{number}"
        unique.append(candidate)
    return unique


def _without_wide_integers(table: pa.Table) -> pa.Table:
    """DuckDB's sums of integers have 128 bits, which few readers accept: convert them to 64 bits if they fit, else to floats."""
    for index, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type):
            try:
                column = table[index].cast(pa.int64() if field.type.scale == 0 else pa.float64())
            except pa.ArrowInvalid:
                column = table[index].cast(pa.float64())
            table = table.set_column(index, pa.field(field.name, column.type), column)
    return table
