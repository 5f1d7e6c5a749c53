"""Scheduled runs side by side: yield, pass rate, cost and releases over time, and what drifted since the run before.

A run is counted once: what is found of it is kept in the folder of the runs (audits.json), as long as its files are the same by
name, size and time, so that a page over a year of nightly runs costs what the last night costs."""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from thresher import __version__, ids
from thresher.audit import drift as drifting
from thresher.audit.compare import _roots, begun
from thresher.audit.count_run import Audit, audit
from thresher.audit.page import rendered
from thresher.audit.show import percent
from thresher.errors import AuditError, StoreError
from thresher.pool.store import Store

log = logging.getLogger(__name__)

KEPT = "audits.json"
"""In a folder of runs: what was found of each."""
_FOLDERS = ("samples", "verdicts", "corpus", "starts")
_FILES = ("run.json", "begun.json", "prompts.json", "published.json")


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
    there = str(folder).rstrip("/") or "/"
    roots = _roots(there)
    if not roots:
        raise AuditError(f"{folder}: holds no runs; give a directory of run directories, such as data/runs")
    base = Store(there)
    before = _kept(base)
    now: dict[str, Any] = {}
    found: list[RunRow] = []
    last: dict[str, Mapping[str, drifting.Sums]] = {}
    for root in roots:
        store, name = Store(root), root.rsplit("/", 1)[-1]
        mark = _mark(store)
        kept = before.get(name)
        now[name] = kept if kept and kept["mark"] == mark else {"mark": mark, **_counted(store)}
        row = RunRow(run=root, begun=begun(store), **now[name]["row"])
        if now[name]["sums"] is not None:
            sums = {of: drifting.Sums(*numbers) for of, numbers in now[name]["sums"].items()}
            if row.name in last:
                row = replace(row, drifted=tuple(one.words for one in drifting.between(sums, last[row.name]) if one.drifted))
            last[row.name] = sums
        found.append(row)
    if now != before:
        with suppress(StoreError):  # a folder that cannot be written to is counted again
            base.write_bytes(KEPT, json.dumps({"format": _format(), "runs": now}).encode())
    return found


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


def _counted(store: Store) -> dict[str, Any]:
    """A run's row, but for what hangs on other runs, and the sums that drift is told from."""
    try:
        found = audit(store)
        sums = {of: list(asdict(one).values()) for of, one in drifting.sums(store).items()} if found.complete else None
        return {"row": _row(store, found), "sums": sums}
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one run, the others are shown
        name = store.root.rstrip("/").rsplit("/", 1)[-1]
        return {"row": {"name": name, "error": str(error).split("\n")[0] or type(error).__name__}, "sums": None}


def _row(store: Store, found: Audit) -> dict[str, Any]:
    low, high = found.total.interval or (None, None)
    diversity = found.diversity[-1] if found.diversity else None
    tokens, hits = found.tokens.completion, found.total.hits
    published = _published(store)
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


def _kept(base: Store) -> dict[str, Any]:
    """What was found before of the runs of a folder; nothing where another thresher found it."""
    with suppress(StoreError, ValueError, KeyError, TypeError):
        if base.exists(KEPT):
            found = json.loads(base.read_bytes(KEPT))
            if found["format"] == _format():
                return dict(found["runs"])
    return {}


def _format() -> list[str]:
    return [__version__, *(field.name for field in fields(RunRow))]


def _mark(store: Store) -> str:
    """Hash of the names, sizes and times of a run's files."""
    found = []
    for folder in ("", *_FOLDERS):
        if not store.exists(folder):
            continue
        with store.explained(folder, verb="list"):
            listed = store.fs.ls(store.path(folder), detail=True)
        for info in listed:
            name = str(info["name"]).rsplit("/", 1)[-1]
            if folder or name in _FILES:
                time = next((info[key] for key in ("mtime", "LastModified", "created") if key in info), None)
                found.append([folder, name, info["size"], str(time)])
    return ids.digest(sorted(found))
