"""Scheduled runs side by side: yield, pass rate, cost and releases over time, and what drifted since the run before.

Each run keeps its own audit (thresher.audit.cache), so a page over a year of nightly runs costs what the last night costs."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from thresher.audit import drift as drifting
from thresher.audit.cache import cached_audit, cached_drift_sums
from thresher.audit.compare import begun, run_roots
from thresher.audit.count_run import Audit
from thresher.audit.page import rendered
from thresher.audit.show import percent
from thresher.errors import AuditError, StoreError
from thresher.pool.run import Run, open_run
from thresher.pool.store import Store


@dataclass(frozen=True)
class RunRow:
    """A run in a line."""

    run: str
    name: str
    begun: str
    """When it was begun, UTC."""
    complete: bool | None = None
    """Null where the run cannot be read; `error` says why."""
    samples: int | None = None
    pass_rate: float | None = None
    low: float | None = None
    high: float | None = None
    hits: int | None = None
    hits_per_1000_tokens: float | None = None
    near_misses: int | None = None
    undecided: float | None = None
    """Share of the samples."""
    effective_solutions: float | None = None
    completion_tokens: int | None = None
    tokens_per_hit: float | None = None
    sampling_seconds: float | None = None
    filtering_seconds: float | None = None
    """Over all processes."""
    seconds_per_hit: float | None = None
    """Of sampling."""
    repo: str | None = None
    """Where it was published last."""
    release: str | None = None
    drifted: tuple[str, ...] = ()
    """What differs from the last complete run of the same name before it."""
    error: str | None = None


def across(folder: str | Path) -> list[RunRow]:
    """Every run in the folder, a directory or an fsspec URL, the oldest first. Raises AuditError where there is none."""
    place = str(folder).rstrip("/") or "/"
    roots = run_roots(place)
    if not roots:
        raise AuditError(f"{folder}: holds no runs; give a directory of run directories, such as data/runs")
    rows: list[RunRow] = []
    last: dict[str, Mapping[str, drifting.Sums]] = {}
    for root in roots:
        row, sums = _counted(root)
        if sums is not None:
            if row.name in last:
                drifted = tuple(share.words for share in drifting.between(sums, last[row.name]) if share.drifted)
                row = replace(row, drifted=drifted)
            last[row.name] = sums
        rows.append(row)
    return rows


def table(rows: list[RunRow]) -> pa.Table:
    """The rows, with nothing left out or rounded."""
    listed = [asdict(row) | {"drifted": ", ".join(row.drifted)} for row in rows]
    return pa.Table.from_pylist(listed)


def short_table(rows: list[RunRow]) -> pa.Table:
    """The same for a terminal of 80 columns."""
    listed = []
    for row in rows:
        rate = "" if row.pass_rate is None else percent(row.pass_rate)
        span = "" if row.low is None or row.high is None else f"{100 * row.low:.0f}-{100 * row.high:.0f}"
        state = "" if row.complete else "unreadable" if row.complete is None else "unfinished"
        drifted = "; ".join(one.split(" (p ")[0] for one in row.drifted)
        listed.append(
            {
                "begun (UTC)": row.begun[:16].replace("T", " "),
                "run": row.run.rsplit("/", 1)[-1],
                "passed": rate,
                "95 %": span,
                "hits": row.hits,
                "tokens/hit": None if row.tokens_per_hit is None else round(row.tokens_per_hit),
                "release": row.release,
                "notes": ". ".join(filter(None, [state, row.error and row.error.rsplit("/", 1)[-1], drifted])),
            }
        )
    return pa.Table.from_pylist(listed)


def page(rows: list[RunRow]) -> str:
    """The same as a page that needs no network."""
    return rendered("across.html.j2", _lines(rows) if len(rows) > 1 else {}, rows=rows)


# -- inside --------------------------------------------------------------------------------------------------------------


def _lines(rows: list[RunRow]) -> dict[str, Any]:
    """A line for each name over time: pass rate with its interval, yield, and cost; a release is a larger mark."""
    import altair as alt

    values = [
        asdict(row) | {"drifted": ", ".join(row.drifted), "run": row.run.rsplit("/", 1)[-1], "released": row.release or "none"}
        for row in rows
        if row.pass_rate is not None
    ]
    if not values:
        return {}
    color = alt.Color("name:N", title=None, legend=alt.Legend(orient="top", symbolOpacity=1))
    base = alt.Chart(alt.Data(values=values)).encode(x=alt.X("begun:T", title=None), color=color)  # type: ignore[no-untyped-call]
    tips = ["run:N", "released:N", "drifted:N"]
    size = alt.condition("datum.release", alt.value(110), alt.value(30))

    def line(name: str, title: str) -> Any:
        y = alt.Y(f"{name}:Q", title=title, axis=alt.Axis(tickCount=5))
        shown = [*tips, alt.Tooltip(f"{name}:Q", title=title, format=",.4~g")]
        return base.mark_line().encode(y=y) + base.mark_point(filled=True, opacity=1).encode(y=y, size=size, tooltip=shown)

    band = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title="pass rate"), y2="high:Q")
    lines = {
        "passed": band + line("pass_rate", "pass rate"),
        "yields": line("hits", "hits"),
        "tokens": line("tokens_per_hit", "tokens per hit"),
        "seconds": line("seconds_per_hit", "seconds of sampling per hit"),
    }
    return {name: chart.properties(width="container", height=180) for name, chart in lines.items()}


def _counted(root: str) -> tuple[RunRow, Mapping[str, drifting.Sums] | None]:
    """A run's row, without what depends on other runs, and the sums that drift is tested with, of a complete run."""
    store = Store(root)
    try:
        run = open_run(store)
        audit = cached_audit(run)
        sums = cached_drift_sums(run) if audit.complete else None
        return RunRow(run=root, begun=begun(store), **_row(run, audit)), sums
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one run, the others are shown
        name = root.rstrip("/").rsplit("/", 1)[-1]
        return RunRow(run=root, begun=begun(store), name=name, error=str(error).split("\n")[0] or type(error).__name__), None


def _row(run: Run, found: Audit) -> dict[str, Any]:
    low, high = found.total.interval or (None, None)
    diversity = found.diversity[-1] if found.diversity else None
    tokens, hits = found.tokens.completion, found.total.hits
    published = _published(run.store)
    return {
        "name": found.name,
        "complete": found.complete,
        "samples": found.samples,
        "pass_rate": found.total.pass_rate,
        "low": low,
        "high": high,
        "hits": hits,
        "hits_per_1000_tokens": 1000 * hits / tokens if tokens else None,
        "near_misses": found.kinds["near_miss"],
        "undecided": found.outcomes["undecided"] / found.samples if found.samples else None,
        "effective_solutions": diversity.effective_solutions if diversity else None,
        "completion_tokens": tokens,
        "tokens_per_hit": found.tokens.per_hit,
        "sampling_seconds": found.seconds.sampling,
        "filtering_seconds": found.seconds.filtering,
        "seconds_per_hit": found.seconds.sampling / hits if hits and found.seconds.sampling else None,
        "repo": published.get("repo"),
        "release": published.get("version"),
    }


def _published(store: Store) -> dict[str, Any]:
    """Where a run was published last; nothing where it was not, or where the note of it cannot be read."""
    with suppress(StoreError, ValueError):
        if store.exists("published.json") and isinstance(found := json.loads(store.read_bytes("published.json")), dict):
            return found
    return {}
