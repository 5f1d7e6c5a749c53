"""A run's audit as one HTML file that works offline: the funnel first, then charts, and a browser of examples.

Text from a model is never part of the page's markup: examples are embedded as JSON in which `<`, `>` and `&` are escaped, and
the page's script puts them into text nodes. A content security policy forbids the page to load anything.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from thresher import __version__
from thresher.auditing.audit import Audit, Overlap
from thresher.auditing.cache import cached_audit, cached_statistics
from thresher.auditing.compare import since
from thresher.auditing.pages.charts import charts
from thresher.auditing.pages.examples import examples
from thresher.auditing.pages.page import rendered, safe_json, write_page
from thresher.auditing.review import lines_of, reviewed
from thresher.auditing.show import calibration_lines, model_row, number, summary, trust_lines
from thresher.disclosure import public_detail, public_source, public_text, servers_among
from thresher.executors.executor import Map
from thresher.pool.run import Run


def write_report(run: Run, path: str | Path | None = None, *, before: Run | None = None, map_shards: Map | None = None) -> str:
    """Write the report of a run, by default to RUN/report.html; returns where it is. `before` is an earlier run to compare
    with, by default the last complete run of the same name in the same folder. `map_shards` spreads the counting over the
    workers of an executor. The report of an unfinished or empty run says what is missing. Raises AuditError if it cannot be
    written."""
    text = report(run, before=before, map_shards=map_shards)
    if path is None:
        run.store.write_bytes("report.html", text.encode())
        return f"{run.root}/report.html"
    return write_page(text, path)


def report(run: Run, *, before: Run | None = None, map_shards: Map | None = None) -> str:
    """Return the report of a run as HTML."""
    audit, statistics = cached_audit(run, map_shards), cached_statistics(run, map_shards)
    review = reviewed(run)
    details = run.recipe.dataset.engine_details
    said = str if details else _public(audit)
    detailed = str if details else partial(public_detail, servers=_servers(audit))
    shown = examples(run)
    for row in shown["rows"]:
        row["error"] = row["error"] and said(row["error"])
        row["detail"] = row["detail"] and (detailed(row["detail"]) if row["outcome"] == "undecided" else row["detail"])
    return rendered(
        "report.html.j2",
        charts(audit, statistics),
        audit=audit,
        statistics=statistics,
        drift=since(run, before),
        summary=[said(line) for line in summary(audit)],
        trust=[said(line) for line in (*(lines_of(review) if review else []), *trust_lines(audit), *calibration_lines(audit))],
        said=said,
        listed=_listed,
        model_row=model_row,
        overlaps=_matrix(audit.overlaps),
        examples=safe_json(shown),
        version=__version__,
    )


# -- inside --------------------------------------------------------------------------------------------------------------


def _public(audit: Audit) -> Callable[[str], str]:
    """What makes a text public: the servers that the audit names have no dots in their names, perhaps."""
    servers = _servers(audit)

    def said(text: str) -> str:
        for server in servers:
            text = text.replace(server, public_source(server))
        return public_text(text)

    return said


def _servers(audit: Audit) -> frozenset[str]:
    return servers_among(test.source for test in audit.calibration)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {number(count)}" for reason, count in counts.items())


def _matrix(overlaps: Sequence[Overlap]) -> dict[str, dict[str, tuple[int, int] | None]]:
    """By two filters: how many samples both dropped, and how many the first dropped, among the samples that both saw; None of a
    filter with itself."""
    names = list(dict.fromkeys(name for overlap in overlaps for name in overlap.filters))
    matrix: dict[str, dict[str, tuple[int, int] | None]] = {name: dict.fromkeys(names) for name in names}
    for overlap in overlaps:
        first, second = overlap.filters
        matrix[first][second] = (overlap.both, overlap.dropped[0])
        matrix[second][first] = (overlap.both, overlap.dropped[1])
    return matrix
