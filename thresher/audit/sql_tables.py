"""A run's prompts, samples and verdicts as tables of DuckDB, read from the pool's Parquet."""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from filters.base import Role
from schemas.sample import PROMPTS, SAMPLES, VERDICTS
from thresher.audit.older_runs import opened
from thresher.errors import AuditError
from thresher.pool import judged
from thresher.pool.store import HASHED_BYTES, Store, shard_name

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


log = logging.getLogger(__name__)

MEMORY = "1GB"
"""What DuckDB may hold; beyond, it goes to files."""


@contextmanager
def opened_tables(store: Store, only: Collection[int] | None = None) -> Iterator["DuckDBPyConnection"]:
    """A connection that has `prompts`, `samples` and `verdicts` of a run: of the shards that are sampled, judged and whole, or of
    those alone that are named. Raises StoreError where there is no run, AuditError where its files cannot be read."""
    opened(store)
    with reading(store) as connection:
        shards = whole_shards(store) if only is None else sorted(only)
        facts = [one for shard in shards[:1] for entry in judged.verdict_entries(store, shard) for one in entry.facts["filters"]]
        filters = pa.table(
            {
                "filter": pa.array([one["label"] for one in facts], pa.string()),
                "place": pa.array(range(len(facts)), pa.int32()),
                "role": pa.array([one["role"] for one in facts], pa.string()),
            }
        )
        connection.register("filters", filters)
        samples = [entry.path for shard in shards if (entry := store.entry(f"samples/{shard_name(shard)}"))]
        verdicts = [entry.path for shard in shards for entry in judged.verdict_entries(store, shard)]
        _view(connection, store, "_prompts", ["prompts.parquet"] if whole_prompts(store) else [], PROMPTS)
        _view(connection, store, "_samples", samples, SAMPLES)
        _view(connection, store, "_verdicts", verdicts, VERDICTS)
        connection.execute(_VERDICTS_VIEW)
        connection.execute(
            _SAMPLES_VIEW.format(duplicate=Role.DUPLICATE.value, near=Role.NEAR_MISS.value, verifier=Role.VERIFIER.value)
        )
        connection.execute(_PROMPTS_VIEW)
        connection.execute(_OF_K)
        yield connection


@contextmanager
def reading(store: Store) -> Iterator["DuckDBPyConnection"]:
    """A connection that has nothing yet, and reads and writes where the run is. Raises AuditError for whatever DuckDB cannot
    do."""
    try:
        import duckdb
    except ImportError as error:
        raise AuditError(f"duckdb cannot be imported ({error}); install thresher anew") from error
    connection = duckdb.connect(config={"memory_limit": MEMORY, "preserve_insertion_order": False})
    try:
        if not store.local:
            connection.register_filesystem(store.fs)
        yield connection
    except duckdb.Error as error:
        said = str(error).split("\n\nLINE")[0].split("\n")[0]
        raise AuditError(
            f"{store.root}: a file of the run cannot be read: {said}; `thresher audit` says which are damaged"
        ) from error
    finally:
        connection.close()


def whole_shards(store: Store, *, warn: bool = False) -> list[int]:
    """Shards that are sampled and judged and whose files are what was written: by their sizes, and, up to HASHED_BYTES of them,
    by their hashes. The audit names what is wrong with others; `warn` says that there are some."""
    found, hashed = [], 0
    for shard in judged.sampled(store):
        samples, names = store.entry(f"samples/{shard_name(shard)}"), judged.verdict_names(store, shard)
        if samples is not None and not names:
            continue  # not judged yet
        entries = [samples, *(store.entry(name) for name in names)]
        known = [one for one in entries if one is not None]
        complete = len(known) == len(entries) and all("filters" in one.facts for one in known[1:])
        if complete and all(store.whole(one, hashed=hashed < HASHED_BYTES) for one in known):
            found.append(shard)
            hashed += sum(one.bytes for one in known)
        elif warn:
            log.warning("%s: shard %s is damaged and left out; `thresher audit` tells more", store.root, shard_name(shard))
    return found


def whole_prompts(store: Store) -> bool:
    """Whether the plan is there and what was written."""
    entry = store.entry("prompts")
    return entry is not None and store.whole(entry, hashed=entry.bytes <= HASHED_BYTES)


def quoted(store: Store, name: str) -> str:
    """A file of the run as a string of SQL."""
    return "'" + f"{store.root.rstrip('/')}/{name}".replace("'", "''") + "'"


_VERDICTS_VIEW = """
create view verdicts as
select v.shard, v."row", v.sample_id, v.filter, f.place, f.role, v.outcome, v.reason, v.score, v.detail
from _verdicts v left join filters f using (filter)
"""


_SAMPLES_VIEW = """
create view samples as
with ended as (
    select shard, "row",
        arg_min({{'filter': filter, 'role': role, 'outcome': outcome, 'reason': reason, 'detail': detail}}, place) as first
    from verdicts where outcome <> 'keep' and role <> '{near}' group by all
), near as (
    select shard, "row", any_value(detail) as detail from verdicts where role = '{near}' and outcome <> 'keep' group by all
)
select s.*,
    case when s.error is not null then 'undecided' else coalesce(e.first.outcome, 'keep') end as outcome,
    case
        when s.error is not null or e.first.outcome = 'undecided' then null
        when e.first is null then 'hit'
        when e.first.role = '{duplicate}' then 'duplicate'
        when e.first.role = '{verifier}' then case when n.detail is not null then 'near_miss' else 'miss' end
    end as kind,
    case when s.error is not null then 'not_sampled' else coalesce(e.first.reason, '') end as reason,
    case when s.error is null then e.first.filter end as failed_filter,
    coalesce(
        case when e.first.role = '{duplicate}' then json_extract_string(e.first.detail, '$.duplicate_of') end,
        case when e.first.role = '{verifier}' then json_extract_string(n.detail, '$.nearest') end
    ) as nearest,
    coalesce(
        case when e.first.role = '{duplicate}' then try_cast(json_extract_string(e.first.detail, '$.similarity') as double) end,
        case when e.first.role = '{verifier}' then try_cast(json_extract_string(n.detail, '$.similarity') as double) end
    ) as similarity,
    e.first.detail as detail
from _samples s
left join ended e on s.shard = e.shard and s."row" = e."row"
left join near n on s.shard = n.shard and s."row" = n."row"
"""


_PROMPTS_VIEW = """
create view prompts as
with became as (
    select prompt_id, count(*) filter (not anchor) as samples,
        count(*) filter (not anchor and outcome <> 'undecided') as decided,
        count(*) filter (not anchor and kind in ('hit', 'duplicate')) as passed,
        count(*) filter (not anchor and kind = 'hit') as hits,
        count(*) filter (not anchor and kind = 'near_miss') as near_misses,
        count(*) filter (not anchor and outcome = 'undecided') as undecided,
        bool_or(coalesce(kind in ('hit', 'duplicate'), false)) filter (anchor and outcome <> 'undecided') as anchor_passed
    from samples where unreadable is null group by prompt_id
)
select p.*, coalesce(b.samples, 0) as samples, coalesce(b.decided, 0) as decided, coalesce(b.passed, 0) as passed,
    coalesce(b.hits, 0) as hits, coalesce(b.near_misses, 0) as near_misses, coalesce(b.undecided, 0) as undecided,
    b.anchor_passed
from _prompts p left join became b using (prompt_id)
"""


_OF_K = """
create macro pass_at_k(n, c, k) as
    case when k < 1 or n < k then null when n - c < k then 1.0
    else 1 - exp(lgamma(n - c + 1) - lgamma(n - c - k + 1) - lgamma(n + 1) + lgamma(n - k + 1)) end
"""


def _view(connection: "DuckDBPyConnection", store: Store, name: str, files: list[str], schema: pa.Schema) -> None:
    """A view of these files in the columns of the schema, with the shard and the row that each row has in the pool; of no files
    one without rows. A column that the files lack, being of an older format, is null, or blank where it may not be null."""
    if not files:
        more = [pa.field(one, pa.int32()) for one in ("shard", "row") if one not in schema.names]
        connection.register(name, pa.schema([*schema, *more]).empty_table())
        return
    listed = ", ".join(quoted(store, one) for one in files)
    source = f"read_parquet([{listed}], filename = true, file_row_number = true, union_by_name = true)"
    added = {
        "shard": r"try_cast(regexp_extract(filename, '(\d+)(-v\d+)?\.parquet$', 1) as integer)",
        "row": "file_row_number::integer",
    }
    columns = [f'{value} as "{column}"' for column, value in added.items() if column not in schema.names and name != "_prompts"]
    there = {row[0] for row in connection.execute(f"describe select * from {source}").fetchall()}
    connection.register(f"{name}_columns", schema.empty_table())
    for column, kind, *_ in connection.execute(f"describe {name}_columns").fetchall():
        blank = (
            None
            if schema.field(column).nullable
            else {"VARCHAR": "''", "BOOLEAN": "false"}.get(kind, "[]" if "[" in kind else "0")
        )
        columns.append(f'"{column}"' if column in there else f'{blank or "null"}::{kind} as "{column}"')
    connection.execute(f"create view {name} as select {', '.join(columns)} from {source}")
