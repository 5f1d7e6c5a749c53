"""A run's audit as one HTML file that needs no network: the funnel first, charts, and a browser of examples.

What a model wrote is never part of the page's markup: examples travel as JSON in which `<`, `>` and `&` are escaped, and the
page's script puts them into text nodes. A content security policy lets the page load nothing.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thresher import __version__
from thresher.audit.across import since
from thresher.audit.charts import charts
from thresher.audit.review import lines_of, reviewed
from thresher.audit.show import calibration_lines, number, percent, share, summary, trust_lines
from thresher.audit.sql import connect
from thresher.audit.statistics import statistics
from thresher.audit.stats import Gather, Overlap, audit, here
from thresher.errors import AuditError
from thresher.store import Store

if TYPE_CHECKING:
    import altair as alt

PER_REASON = 6
"""Examples of each filter, reason and family; three times as many hits."""
MOST_EXAMPLES, MOST_CHARACTERS = 1500, 2000
_FEW = f"""
create temp table few as
with chosen as (
    select shard, "row", nearest, failed_filter, reason, family,
        row_number() over (partition by failed_filter, reason, family order by hash(sample_id)) as place,
        {PER_REASON} * case when kind = 'hit' then 3 else 1 end as most
    from samples where not anchor
)
select shard, "row", nearest from chosen where place <= most order by place, failed_filter, reason, family limit {MOST_EXAMPLES}
"""
_SHARDS = """
select shard from few union
select shard from _samples where sample_id in (select nearest from few where nearest is not null)
"""
_NEAREST = """
create temp table near as
select sample_id, completion from _samples where sample_id in (select nearest from few where nearest is not null)
"""
_EXAMPLES = """
select f.sample_id, f.family, f.outcome,
    coalesce(f.kind, case when f.outcome = 'undecided' then 'undecided' else 'unfit' end) as kind,
    f.failed_filter as filter, f.reason, f.messages[-1].content as prompt, f.completion, f.detail, f.similarity,
    n.completion as nearest, f.reference, f.cumulative_logprob as logprob, f.error
from samples f join few on f.shard = few.shard and f."row" = few."row" left join near n on f.nearest = n.sample_id
order by f.family, f.failed_filter, f.reason, f.sample_id
"""


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


def write_page(text: str, path: str | Path) -> str:
    """Write a page, to a file or an fsspec URL; returns where it is."""
    if "://" in str(path):
        folder, _, name = str(path).rpartition("/")
        Store(folder).write_bytes(name, text.encode())
        return str(path)
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise AuditError(f"{path}: cannot write: {error.strerror or error}; name another file with --html") from error
    return str(path)


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


def rendered(template: str, charts: "Mapping[str, alt.Chart | alt.LayerChart]", **values: Any) -> str:
    """A page of this package with these charts. Every value is escaped, but for JSON made by `_safe`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("thresher.audit", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(
        charts=_safe({name: chart.to_dict() for name, chart in charts.items()}),
        library=_library(),
        safe=_safe,
        number=number,
        percent=percent,
        share=share,
        **values,
    )


# -- examples ------------------------------------------------------------------------------------------------------------


def examples(store: Store) -> list[dict[str, Any]]:
    """Samples to look at: of every filter, reason and family the same few at each call, with what near misses and duplicates are
    like."""
    connection = connect(store)
    try:
        connection.execute(_FEW)
        few = connection.sql("select * from few").to_arrow_table()
        shards = {shard for (shard,) in connection.execute(_SHARDS).fetchall()}
    finally:
        connection.close()
    connection = connect(store, shards)  # texts are large, and most shards have none of these
    try:
        connection.register("few", few)
        connection.execute(_NEAREST)
        rows = connection.sql(_EXAMPLES).to_arrow_table()
    finally:
        connection.close()
    found: list[dict[str, Any]] = rows.to_pylist()
    for row in found:
        for name in ("prompt", "completion", "nearest", "detail", "reference", "error"):
            if row[name] is not None and len(row[name]) > MOST_CHARACTERS:
                row[name] = row[name][:MOST_CHARACTERS] + " …"
    return found


# -- inside --------------------------------------------------------------------------------------------------------------


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {number(count)}" for reason, count in counts.items())


def _matrix(overlaps: Sequence[Overlap]) -> dict[str, dict[str, int]]:
    """What both of two filters dropped, by the one and the other; a filter with itself: all that it dropped."""
    names = list(dict.fromkeys(name for one in overlaps for name in one.filters))
    found = {name: dict.fromkeys(names, 0) for name in names}
    for one in overlaps:
        first, second = one.filters
        found[first][second] = found[second][first] = one.both
        found[first][first], found[second][second] = one.dropped
    return found


def _safe(value: Any) -> str:
    """JSON that can stand in a script element: nothing in it ends the element or begins another."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _library() -> str:
    """Vega, Vega-Lite and vega-embed, as one script."""
    import vl_convert

    bundle = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    return str(bundle).replace("</script", "<\\/script")
