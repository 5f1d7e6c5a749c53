"""The prompts, samples and verdicts of a run as tables of DuckDB, read from the pool's Parquet files."""

import logging
import re
import signal
import socket
import tempfile
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from schemas.sample import PROMPTS, SAMPLES, VERDICTS
from thresher.auditing.kept import kept
from thresher.errors import AuditError
from thresher.pool import judged
from thresher.pool.run import Run
from thresher.pool.store import HASHED_BYTES, Store, shard_name

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

log = logging.getLogger(__name__)

MEMORY = "1GB"
"""Memory limit of DuckDB; beyond it, DuckDB spills to temporary files."""


@contextmanager
def opened_tables(run: Run, only: Collection[int] | None = None, *, confined: bool = False) -> Iterator["DuckDBPyConnection"]:
    """Open a connection with the tables `prompts`, `samples` and `verdicts` of a run: of all shards that are sampled, judged and
    undamaged, or of the shards in `only`. A `confined` one reaches no files but the run's, no network and no variables of this
    process, and loads no extensions. Raises AuditError if a file cannot be read."""
    store = run.store
    with reading(store) as connection, tempfile.TemporaryDirectory(prefix="thresher-") as scratch:
        shards = whole_shards(run) if only is None else sorted(only)
        connection.register("filters", _filters(store, shards[:1]))
        entries = [entry for shard in shards if (entry := store.entry(f"samples/{shard_name(shard)}"))]
        samples = [as_pattern(store, entry.path) for entry in entries]
        verdicts = [as_pattern(store, entry.path) for shard in shards for entry in judged.verdict_entries(store, shard)]
        plan = [as_pattern(store, "prompts.parquet")] if whole_prompts(store) else []
        _view(connection, "_prompts", plan, PROMPTS)
        _view(connection, "_samples", samples, SAMPLES)
        _view(connection, "_verdicts", verdicts, VERDICTS)
        _view(connection, "_judged", _judged_files(store, shards, Store(scratch)), judged.JUDGED_SCHEMA)
        connection.execute(_VERDICTS_VIEW)
        connection.execute(_SAMPLES_VIEW)
        connection.execute(_PROMPTS_VIEW)
        connection.execute(_MACROS)
        if confined:
            # Clients of object stores may write the run's address in another way.
            also = "'" + store.fs.unstrip_protocol(store.base).replace("'", "''") + "/'"
            own = [write(place, "") for place in (store, Store(scratch)) for write in (quoted, as_pattern)]
            folders = ", ".join([*own, *([] if store.local else [also])])
            for setting in (
                "python_enable_replacements = false", f"allowed_directories = [{folders}]", "enable_external_access = false",
                "lock_configuration = true",
            ):  # fmt: skip
                connection.execute(f"set {setting}")
        yield connection


@contextmanager
def reading(store: Store) -> Iterator["DuckDBPyConnection"]:
    """Open an empty connection that can read and write where the run is. Raises AuditError in place of errors of DuckDB."""
    try:
        import duckdb
    except ImportError as error:
        raise AuditError(f"duckdb cannot be imported ({error}); reinstall thresher") from error
    connection = duckdb.connect(config={"memory_limit": MEMORY, "preserve_insertion_order": False})
    try:
        if not store.local:
            connection.register_filesystem(store.fs)
        with _interruptible(connection):
            yield connection
    except duckdb.Error as error:
        message = str(error).split("\n\nLINE")[0].split("\n")[0]
        raise AuditError(
            f"{store.root}: a file of the run cannot be read: {message}; `thresher audit` lists damaged files"
        ) from error
    finally:
        connection.close()


def whole_shards(run: Run, *, warn: bool = False) -> list[int]:
    """The shards that are sampled and judged and whose files are undamaged: their sizes are checked, and for the first
    HASHED_BYTES also their hashes. `warn` logs a warning for each damaged shard; the audit shows details."""
    checked = kept(run, "shards", dict[str, list[int]], lambda: _checked_shards(run.store))
    for shard in checked["damaged"] if warn else ():
        log.warning("%s: shard %s is damaged and left out; `thresher audit` shows details", run.root, shard_name(shard))
    return checked["whole"]


def _checked_shards(store: Store) -> dict[str, list[int]]:
    """The judged shards, `whole` and `damaged`."""
    shards: dict[str, list[int]] = {"whole": [], "damaged": []}
    hashed = 0
    for shard in judged.sampled(store):
        samples, names = store.entry(f"samples/{shard_name(shard)}"), judged.verdict_names(store, shard)
        if samples is not None and not names:
            continue  # not judged yet
        entries = [samples, *(store.entry(name) for name in names)]
        known = [entry for entry in entries if entry is not None]
        complete = len(known) == len(entries) and all("filters" in entry.facts for entry in known[1:])
        if complete and all(store.whole(entry, hashed=hashed < HASHED_BYTES) for entry in known):
            shards["whole"].append(shard)
            hashed += sum(entry.bytes for entry in known)
        else:
            shards["damaged"].append(shard)
    return shards


def whole_prompts(store: Store) -> bool:
    """Whether the plan exists and is undamaged."""
    entry = store.entry("prompts")
    return entry is not None and store.whole(entry, hashed=entry.bytes <= HASHED_BYTES)


def quoted(store: Store, name: str) -> str:
    """The path of a file of the run as an SQL string. Raises StoreError where it is outside the run directory."""
    store.path(name)
    return "'" + f"{store.root.rstrip('/')}/{name}".replace("'", "''") + "'"


def as_pattern(store: Store, name: str) -> str:
    """The path of a file as DuckDB reads it, which takes * ? and [ for a pattern: the pattern of this file alone."""
    return re.sub(r"[*?\[]", r"[\g<0>]", quoted(store, name))


# -- inside --------------------------------------------------------------------------------------------------------------


@contextmanager
def _interruptible(connection: "DuckDBPyConnection") -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end what DuckDB computes: Python's own handlers wait until it has ended. The bytes of
    `signal.set_wakeup_fd` are written at once, and read by a thread. Raises KeyboardInterrupt then, also where DuckDB called the
    handler itself and put an error of its own in the place of what that raised."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    interrupted = threading.Event()

    def interrupt() -> None:
        while number := reader.recv(1):  # 0 bytes at the end; any other signal with a handler writes its number too
            if number[0] in (signal.SIGINT, signal.SIGTERM):
                interrupted.set()
                connection.interrupt()

    thread = threading.Thread(target=interrupt, daemon=True)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    thread.start()
    try:
        yield
    except Exception as error:
        if interrupted.is_set():
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.set_wakeup_fd(before)
        writer.close()
        thread.join()
        reader.close()


_VERDICTS_VIEW = """
create view verdicts as
select v.shard, v."row", v.sample_id, v.filter, f.place, f.role, v.outcome, v.reason, v.score, v.detail
from _verdicts v left join filters f using (filter)
"""
_SAMPLES_VIEW = """
create view samples as
select s.*, j.outcome, j.kind, j.reason, j.failed_filter, j.nearest, j.similarity, j.detail, j.multiplicity, j.score, j.accepted
from _samples s join _judged j on s.shard = j.shard and s."row" = j."row"
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
        bool_and(coalesce(kind in ('hit', 'duplicate'), false)) filter (anchor and outcome <> 'undecided') as anchor_passed
    from samples where unreadable is null group by prompt_id
)
select p.*, coalesce(b.samples, 0) as samples, coalesce(b.decided, 0) as decided, coalesce(b.passed, 0) as passed,
    coalesce(b.hits, 0) as hits, coalesce(b.near_misses, 0) as near_misses, coalesce(b.undecided, 0) as undecided,
    b.anchor_passed
from _prompts p left join became b using (prompt_id)
"""
_MACROS = """
create macro pass_at_k(n, c, k) as
    case when k < 1 or n < k then null when n - c < k then 1.0
    else 1 - exp(lgamma(n - c + 1) - lgamma(n - c - k + 1) - lgamma(n + 1) + lgamma(n - k + 1)) end
"""


def _filters(store: Store, shards: Iterable[int]) -> pa.Table:
    """The filters that judged these shards: label, place in the order they ran, role."""
    filters = [facts for shard in shards for entry in judged.verdict_entries(store, shard) for facts in entry.facts["filters"]]
    return pa.table(
        {
            "filter": pa.array([facts["label"] for facts in filters], pa.string()),
            "place": pa.array(range(len(filters)), pa.int32()),
            "role": pa.array([facts["role"] for facts in filters], pa.string()),
        }
    )


def _judged_files(store: Store, shards: Iterable[int], scratch: Store) -> list[str]:
    """The files with the columns of JUDGED of each shard: those kept beside the run, or new ones in a scratch folder if they are
    missing or belong to other verdicts."""
    files = []
    for shard in shards:
        name, key = judged.judged_name(shard), judged.judged_key(store, shard)
        kept = store.entry(name)
        if kept is not None and kept.key == key and store.whole(kept, hashed=True):
            files.append(as_pattern(store, kept.path))
        elif key is not None:
            table = judged.read_judged(store, shard, ["error", "reference"])
            judged.write_judged(scratch, shard, table, key)
            files.append(as_pattern(scratch, f"{name}.parquet"))
    return files


def _view(connection: "DuckDBPyConnection", name: str, files: list[str], schema: pa.Schema) -> None:
    """Create a view of these files (SQL strings) with the columns of the schema, and the shard and row of each row in the pool.
    It is empty without files."""
    if not files:
        added_fields = [pa.field(column, pa.int32()) for column in ("shard", "row") if column not in schema.names]
        connection.register(name, pa.schema([*schema, *added_fields]).empty_table())
        return
    source = f"read_parquet([{', '.join(files)}], filename = true, file_row_number = true)"
    added = {
        "shard": r"try_cast(regexp_extract(filename, '(\d+)(-v\d+)?\.parquet$', 1) as integer)",
        "row": "file_row_number::integer",
    }
    columns = [f'{value} as "{column}"' for column, value in added.items() if column not in schema.names and name != "_prompts"]
    columns += [f'"{column}"' for column in schema.names]
    connection.execute(f"create view {name} as select {', '.join(columns)} from {source}")
