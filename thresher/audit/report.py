"""A run's audit as one HTML file that needs no network: the funnel first, charts, and a browser of examples.

What a model wrote is never part of the page's markup: examples travel as JSON in which `<`, `>` and `&` are escaped, and the
page's script puts them into text nodes. A content security policy lets the page load nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from thresher import __version__
from thresher.audit.charts import charts
from thresher.audit.compare import since
from thresher.audit.count_run import Gather, Overlap, audit, here
from thresher.audit.examples import examples
from thresher.audit.page import _safe, rendered, write_page
from thresher.audit.review import lines_of, reviewed
from thresher.audit.show import calibration_lines, number, summary, trust_lines
from thresher.audit.statistics import statistics
from thresher.pool.store import Store


def write_report(store: Store, path: str | Path | None = None, *, before: Store | None = None, gather: Gather = here) -> str:
    """Write the report of a run, RUN/report.html if no path is given; returns where it is. `before` is an earlier run to compare
    with, instead of the last complete one of the same name in the same folder. `gather` spreads the counting over the workers of
    an executor. A run that is cut short, or empty, has a report too, which says what is missing. Raises StoreError where there is
    no run, AuditError where it cannot be written."""
    text = report(store, before=before, gather=gather)
    if path is None:
        store.write_bytes("report.html", text.encode())
        return f"{store.root}/report.html"
    return write_page(text, path)


def report(store: Store, *, before: Store | None = None, gather: Gather = here) -> str:
    """The page."""
    found = audit(store, gather)
    said, review = statistics(store, gather), reviewed(store)
    return rendered(
        "report.html.j2",
        charts(found, said),
        audit=found,
        statistics=said,
        drift=since(store, before),
        summary=summary(found),
        trust=[*(lines_of(review) if review else []), *trust_lines(found), *calibration_lines(found)],
        listed=_listed,
        overlaps=_matrix(found.overlaps),
        examples=_safe(examples(store)),
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
