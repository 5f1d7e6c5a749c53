"""Scheduled runs side by side: yield, pass rate, cost and releases over time, and what drifted since the run before."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from thresher.audit.drift import Drift, drift
from thresher.audit.older import opened
from thresher.audit.stats import audit, is_complete
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


@dataclass(frozen=True)
class Since:
    """What differs from an earlier run."""

    run: str
    """Its directory."""
    begun: str
    """When its run.json was written, UTC."""
    found: tuple[Drift, ...]

    @property
    def drifted(self) -> tuple[str, ...]:
        """What drifted, in words."""
        return tuple(one.words for one in self.found if one.drifted)


def since(store: Store, before: Store | None = None) -> Since | None:
    """Compare a run with an earlier one: the last complete one of the same name in the same folder, if none is given. None where
    there is none, or where the run is not on a local disk."""
    if before is None:
        before = run_before(store)
    if before is None:
        return None
    return Since(before.root, _begun(before), drift(store, before))


def run_before(store: Store) -> Store | None:
    """The last complete run of the same name in the same folder that was begun before this one."""
    here = Path(store.base)
    if not store.local:
        return None
    roots, name = _roots(here.parent), opened(store).name
    for root in reversed(roots[: roots.index(here)]):
        one = Store(root)
        with suppress(ThresherError):  # what cannot be read is no run to compare with
            if opened(one).name == name and is_complete(one):
                return one
    return None


def across(folder: str | Path) -> list[RunRow]:
    """Every run in the folder, the oldest first. Raises AuditError where there is none."""
    roots = _roots(Path(folder))
    if not roots:
        raise AuditError(f"{folder}: holds no runs; give a directory of run directories, such as data/runs")
    found: list[RunRow] = []
    last: dict[str, Path] = {}
    for root in roots:
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
    store = Store(root)
    begun = _begun(store)
    try:
        found = audit(store)
        before = last.get(found.name)
        drifted = since(store, Store(before)) if found.complete and before is not None else None
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
        drifted=() if drifted is None else drifted.drifted,
    )


def _roots(folder: Path) -> list[Path]:
    """The runs in a folder, and itself if it is one, the oldest first."""
    found = [path.parent for path in (*folder.glob("*/run.json"), *folder.glob("run.json"))]
    return sorted(found, key=lambda root: ((root / "run.json").stat().st_mtime_ns, root))


def _begun(store: Store) -> str:
    """When a run's run.json was written, UTC."""
    when: datetime = store.fs.modified(store.path("run.json"))
    return when.astimezone(UTC).isoformat(timespec="seconds")
