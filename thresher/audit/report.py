"""A run's audit as one HTML file that needs no network: the funnel first, charts, and a browser of examples.

What a model wrote is never part of the page's markup: examples travel as JSON in which `<`, `>` and `&` are escaped, and the
page's script puts them into text nodes. A content security policy lets the page load nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from thresher import __version__
from thresher.audit.cache import cached_audit, cached_statistics
from thresher.audit.charts import charts
from thresher.audit.compare import since
from thresher.audit.count_run import Overlap
from thresher.audit.examples import examples
from thresher.audit.page import _safe, rendered, write_page
from thresher.audit.review import lines_of, reviewed
from thresher.audit.show import calibration_lines, number, summary, trust_lines
from thresher.executors.executor import Map, map_here
from thresher.pool.run import Run


def write_report(run: Run, path: str | Path | None = None, *, before: Run | None = None, map_shards: Map = map_here) -> str:
    """Write the report of a run, RUN/report.html if no path is given; returns where it is. `before` is an earlier run to compare
    with, instead of the last complete one of the same name in the same folder. `map_shards` spreads the counting over the workers
    of an executor. A run that is cut short, or empty, has a report too, which says what is missing. Raises AuditError where it
    cannot be written."""
    text = report(run, before=before, map_shards=map_shards)
    if path is None:
        run.store.write_bytes("report.html", text.encode())
        return f"{run.root}/report.html"
    return write_page(text, path)


def report(run: Run, *, before: Run | None = None, map_shards: Map = map_here) -> str:
    """The report of a run as HTML."""
    audit, statistics = cached_audit(run, map_shards), cached_statistics(run, map_shards)
    review = reviewed(run)
    return rendered(
        "report.html.j2",
        charts(audit, statistics),
        audit=audit,
        statistics=statistics,
        drift=since(run, before),
        summary=summary(audit),
        trust=[*(lines_of(review) if review else []), *trust_lines(audit), *calibration_lines(audit)],
        listed=_listed,
        overlaps=_matrix(audit.overlaps),
        examples=_safe(examples(run)),
        version=__version__,
    )


# -- inside --------------------------------------------------------------------------------------------------------------


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {number(count)}" for reason, count in counts.items())


def _matrix(overlaps: Sequence[Overlap]) -> dict[str, dict[str, tuple[int, int] | None]]:
    """By two filters: what both dropped, and what the first dropped, of the samples that both saw; null of a filter with
    itself."""
    names = list(dict.fromkeys(name for one in overlaps for name in one.filters))
    found: dict[str, dict[str, tuple[int, int] | None]] = {name: dict.fromkeys(names) for name in names}
    for one in overlaps:
        first, second = one.filters
        found[first][second], found[second][first] = (one.both, one.dropped[0]), (one.both, one.dropped[1])
    return found
