"""Runs side by side: yield, pass rate, cost and releases over time, and what drifted since the run before.

Each run keeps its own audit (thresher.auditing.cache), so a page over a year of nightly runs counts only the last one."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from thresher.auditing.audit import Audit
from thresher.auditing.cache import cached_audit, cached_drift_sums
from thresher.auditing.compare import begun, run_roots
from thresher.auditing.drift import ShareSums, between
from thresher.auditing.pages.page import rendered
from thresher.auditing.show import percent
from thresher.disclosure import public_text
from thresher.errors import AuditError, StoreError
from thresher.pool.run import Run, open_run
from thresher.pool.store import Store


@dataclass(frozen=True)
class RunRow:
    """One run of the table."""

    run: str
    name: str
    begun: str
    """When it was started, UTC."""
    complete: bool | None = None
    """Null if the run cannot be read; `error` has the reason."""
    samples: int | None = None
    pass_rate: float | None = None
    low: float | None = None
    high: float | None = None
    hits: int | None = None
    hits_per_1000_tokens: float | None = None
    near_misses: int | None = None
    undecided: float | None = None
    """Share of all samples."""
    effective_solutions: float | None = None
    completion_tokens: int | None = None
    tokens_per_hit: float | None = None
    sampling_seconds: float | None = None
    filtering_seconds: float | None = None
    """Summed over all processes."""
    seconds_per_hit: float | None = None
    """Seconds of sampling."""
    repo: str | None = None
    """Repository of the last release."""
    release: str | None = None
    drifted: tuple[str, ...] = ()
    """What drifted since the last complete run of the same name before it."""
    error: str | None = None


def across(folder: str | Path) -> list[RunRow]:
    """All runs in a folder (a directory or an fsspec URL), the oldest first. Raises AuditError if there is none."""
    place = str(folder).rstrip("/") or "/"
    roots = run_roots(place)
    if not roots:
        raise AuditError(f"{folder}: holds no runs; give a directory of run directories, such as data/runs")
    rows: list[RunRow] = []
    last: dict[str, Mapping[str, ShareSums]] = {}
    for root in roots:
        row, sums = _counted(root)
        if sums is not None:
            if row.name in last:
                drifted = tuple(share.words for share in between(sums, last[row.name]) if share.drifted)
                row = replace(row, drifted=drifted)
            last[row.name] = sums
        rows.append(row)
    return rows


def table(rows: list[RunRow]) -> pa.Table:
    """All columns of the rows, not rounded."""
    listed = [asdict(row) | {"drifted": ", ".join(row.drifted)} for row in rows]
    return pa.Table.from_pylist(listed)


def short_table(rows: list[RunRow]) -> pa.Table:
    """The main columns, rounded, for a terminal of 80 columns."""
    listed = []
    for row in rows:
        rate = "" if row.pass_rate is None else percent(row.pass_rate)
        span = "" if row.low is None or row.high is None else f"{100 * row.low:.0f}-{100 * row.high:.0f}"
        state = "" if row.complete else "unreadable" if row.complete is None else "unfinished"
        drifted = "; ".join(words.split(" (p ")[0] for words in row.drifted)
        listed.append(
            {
                "started (UTC)": row.begun[:16].replace("T", " "),
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
    """The rows and charts as an HTML page that works offline."""
    return rendered("across.html.j2", _lines(rows) if len(rows) > 1 else {}, rows=rows, said=public_text)


# -- inside --------------------------------------------------------------------------------------------------------------


def _lines(rows: list[RunRow]) -> dict[str, Any]:
    """Charts with a line for each name over time: pass rate with its interval, yield, and cost. Released runs have larger
    marks."""
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


def _counted(root: str) -> tuple[RunRow, Mapping[str, ShareSums] | None]:
    """A run's row without what depends on other runs; and the sums for the drift test if the run is complete."""
    store = Store(root)
    try:
        run = open_run(store)
        audit = cached_audit(run)
        sums = cached_drift_sums(run) if audit.complete else None
        return RunRow(run=root, begun=begun(store), **_row(run, audit)), sums
    except Exception as error:  # noqa: BLE001 - a broken run must not hide the rest
        name = root.rstrip("/").rsplit("/", 1)[-1]
        return RunRow(run=root, begun=begun(store), name=name, error=str(error).split("\n")[0] or type(error).__name__), None


def _row(run: Run, audit: Audit) -> dict[str, Any]:
    low, high = audit.total.interval or (None, None)
    diversity = audit.diversity[-1] if audit.diversity else None
    tokens, hits = audit.tokens.completion, audit.total.hits
    published = _published(run.store)
    return {
        "name": audit.name,
        "complete": audit.complete,
        "samples": audit.samples,
        "pass_rate": audit.total.pass_rate,
        "low": low,
        "high": high,
        "hits": hits,
        "hits_per_1000_tokens": 1000 * hits / tokens if tokens else None,
        "near_misses": audit.kinds["near_miss"],
        "undecided": audit.outcomes["undecided"] / audit.samples if audit.samples else None,
        "effective_solutions": diversity.effective_solutions if diversity else None,
        "completion_tokens": tokens,
        "tokens_per_hit": audit.tokens.per_hit,
        "sampling_seconds": audit.seconds.sampling,
        "filtering_seconds": audit.seconds.filtering,
        "seconds_per_hit": audit.seconds.sampling / hits if hits and audit.seconds.sampling else None,
        "repo": published.get("repo"),
        "release": published.get("version"),
    }


def _published(store: Store) -> dict[str, Any]:
    """The note of a run's last release; empty if there is none or it cannot be read."""
    with suppress(StoreError, ValueError):
        if store.exists("published.json") and isinstance(note := json.loads(store.read_bytes("published.json")), dict):
            return note
    return {}
