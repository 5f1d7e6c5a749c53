"""Scheduled runs side by side: yield, pass rate, cost and releases over time, and what drifted since the run before."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from thresher.audit.drift import drift
from thresher.audit.stats import audit
from thresher.errors import AuditError, ThresherError
from thresher.store import Store


@dataclass(frozen=True)
class RunRow:
    """A run in a line."""

    run: str
    name: str
    begun: str
    """When its run.json was written, UTC."""
    complete: bool | None = None
    """Null where the run cannot be read; `error` says why."""
    samples: int | None = None
    pass_rate: float | None = None
    low: float | None = None
    high: float | None = None
    hits: int | None = None
    hits_per_1000_tokens: float | None = None
    undecided: float | None = None
    effective_solutions: float | None = None
    sampling_seconds: float | None = None
    release: str | None = None
    drifted: tuple[str, ...] = ()
    """What differs from the last complete run of the same name before it."""
    error: str | None = None


def across(folder: str | Path) -> list[RunRow]:
    """Every run in the folder, the oldest first. Raises AuditError where there is none."""
    roots = [path.parent for path in Path(folder).glob("*/run.json")] + [
        p.parent for p in [Path(folder, "run.json")] if p.exists()
    ]
    if not roots:
        raise AuditError(f"{folder}: holds no runs; give a directory of run directories, such as data/runs")
    found: list[RunRow] = []
    last: dict[str, Path] = {}
    for root in sorted(roots, key=lambda root: ((root / "run.json").stat().st_mtime_ns, root)):
        row = _row(root, last)
        found.append(row)
        if row.complete:
            last[row.name] = root
    return found


def table(rows: list[RunRow]) -> pa.Table:
    """The rows, to be printed."""
    listed = [asdict(row) | {"drifted": ", ".join(row.drifted)} for row in rows]
    return pa.Table.from_pylist(listed)


def page(rows: list[RunRow]) -> str:
    """The same as a page that needs no network."""
    from thresher.audit.report import rendered

    return rendered("across.html.j2", {"lines": _lines(rows)} if len(rows) > 1 else {}, rows=rows)


def _lines(rows: list[RunRow]) -> Any:
    import altair as alt

    values = [
        asdict(row) | {"drifted": ", ".join(row.drifted), "run": Path(row.run).name} for row in rows if row.pass_rate is not None
    ]
    base = alt.Chart(alt.Data(values=values)).encode(x=alt.X("begun:T", title=None), color=alt.Color("name:N", title=None))  # type: ignore[no-untyped-call]
    band = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title="pass rate"), y2="high:Q")
    tips = ["run:N", "pass_rate:Q", "hits:Q", "drifted:N"]
    return (band + base.mark_line(point=True).encode(y="pass_rate:Q", tooltip=tips)).properties(width="container", height=240)


def _row(root: Path, last: dict[str, Path]) -> RunRow:
    begun = datetime.fromtimestamp((root / "run.json").stat().st_mtime, UTC).isoformat(timespec="seconds")
    try:
        store = Store(root)
        found = audit(store)
        drifted = tuple(_drifted(store, last.get(found.name))) if found.complete else ()
    except (ThresherError, OSError) as error:
        return RunRow(str(root), root.name, begun, error=str(error).split("\n")[0])
    low, high = found.total.interval or (None, None)
    diversity = found.diversity[-1] if found.diversity else None
    tokens = found.tokens.completion
    return RunRow(
        run=str(root),
        name=found.name,
        begun=begun,
        complete=found.complete,
        samples=found.samples,
        pass_rate=found.total.pass_rate,
        low=low,
        high=high,
        hits=found.total.hits,
        hits_per_1000_tokens=1000 * found.total.hits / tokens if tokens else None,
        undecided=found.outcomes["undecided"] / found.samples if found.samples else None,
        effective_solutions=diversity.effective_solutions if diversity else None,
        sampling_seconds=found.seconds.sampling,
        release=json.loads(store.read_bytes("published.json"))["version"] if store.exists("published.json") else None,
        drifted=drifted,
    )


def _drifted(store: Store, before: Path | None) -> Iterator[str]:
    for one in drift(store, Store(before)) if before is not None else ():
        if one.drifted:
            yield f"{one.of} {one.before:.3f} to {one.after:.3f} (p {one.p:.2g})"
