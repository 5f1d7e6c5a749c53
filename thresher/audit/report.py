"""A run's audit as one HTML file that needs no network: the funnel first, charts, and a browser of examples.

What a model wrote is never part of the page's markup: examples travel as JSON in which `<`, `>` and `&` are escaped, and the
page's script puts them into text nodes. A content security policy lets the page load nothing.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thresher import __version__
from thresher.audit.across import since
from thresher.audit.review import lines_of, reviewed
from thresher.audit.show import calibration_lines, number, percent, share, summary, trust_lines
from thresher.audit.sql import connect
from thresher.audit.statistics import SIMILARITY_BINS, Statistics, statistics
from thresher.audit.stats import Audit, Gather, audit, here
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
select f.sample_id, f.family, coalesce(f.kind, case when f.outcome = 'undecided' then 'undecided' else 'unfit' end) as kind,
    f.failed_filter as filter, f.reason, f.messages[-1].content as prompt, f.completion, f.detail, f.similarity,
    n.completion as nearest, f.reference, f.cumulative_logprob as logprob, f.error
from samples f join few on f.shard = few.shard and f."row" = few."row" left join near n on f.nearest = n.sample_id
order by f.family, f.failed_filter, f.reason, f.sample_id
"""
OUTCOMES = ("kept", "dropped", "undecided")


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
    """Write a page; returns where it is."""
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
        reasons=[_reasons(one.dropped) for one in found.filters],
        undecided=[_reasons(one.undecided) for one in found.filters],
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


# -- charts --------------------------------------------------------------------------------------------------------------


def charts(found: Audit, said: Statistics) -> "dict[str, alt.Chart | alt.LayerChart]":
    """The charts that there are numbers for, by name."""
    import altair as alt

    made: dict[str, Any] = {}
    families = [one.family for one in found.families] + ["all"] * (len(found.families) > 1)
    legend = alt.Legend(symbolOpacity=1, symbolType="circle")
    colour = alt.Color("family:N", title=None, scale=alt.Scale(domain=families), legend=legend)
    funnel = [
        {"filter": one.name, "outcome": outcome, "samples": count, "place": place}
        for one in found.filters
        for place, (outcome, count) in enumerate(
            zip(OUTCOMES, (one.kept, sum(one.dropped.values()), sum(one.undecided.values())), strict=True)
        )
    ]
    if any(row["samples"] for row in funnel):
        colours = alt.Scale(domain=list(OUTCOMES), range=["#2a9d6f", "#d1495b", "#8d99ae"])
        made["funnel"] = (
            _chart(funnel)
            .mark_bar()
            .encode(
                y=alt.Y("filter:N", sort=[one.name for one in found.filters], title=None),
                x=alt.X("samples:Q", title="samples", axis=_counts(max(one.seen for one in found.filters))),
                color=alt.Color("outcome:N", scale=colours, legend=alt.Legend(orient="top", title=None)),
                order=alt.Order("place:Q"),
                tooltip=["filter:N", "outcome:N", alt.Tooltip("samples:Q", format=",")],
            )
            .properties(width="container", height=26 * len(found.filters) + 4)
        )
    if said.pass_at_k:
        rows = [
            {"family": o.family, "k": o.k, "pass": o.value, "low": o.interval[0], "high": o.interval[1]} for o in said.pass_at_k
        ]
        ks = sorted({one.k for one in said.pass_at_k})
        base = _chart(rows).encode(
            x=alt.X(
                "k:Q",
                scale=alt.Scale(type="log", base=2),
                axis=alt.Axis(values=ks, format="d"),
            ),
            color=colour,
        )
        band = base.mark_area(opacity=0.12).encode(y=alt.Y("low:Q", title="pass@k", scale=alt.Scale(domain=[0, 1])), y2="high:Q")
        tips = ["family:N", "k:Q", *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("pass", "low", "high"))]
        line = base.mark_line(point=True).encode(y="pass:Q", tooltip=tips)
        made["pass_at_k"] = (band + line).properties(width="container", height=260)
    if said.rates:
        labels = ["none", *(f"≤{10 * number} %" for number in range(1, 11)), "every"]
        rows = [
            {"family": one.family, "rate": label, "prompts": count}
            for one in said.rates
            if one.family != "all"
            for label, count in zip(labels, (one.none, *one.tenths, one.every), strict=True)
        ]
        apart = [(one.none, *one.tenths, one.every) for one in said.rates if one.family != "all"]
        most = max(map(sum, zip(*apart, strict=True)))
        made["rates"] = (
            _chart(rows)
            .mark_bar()
            .encode(
                x=alt.X("rate:N", sort=labels, title="pass rate of a prompt"),
                y=alt.Y("prompts:Q", title="prompts", axis=_counts(most)),
                color=colour,
                tooltip=["family:N", "rate:N", "prompts:Q"],
            )
            .properties(width="container", height=220)
        )
    rows = [
        {"kind": kind, "similarity": (place + 0.5) / SIMILARITY_BINS, "samples": count}
        for kind, counts in (("near miss", said.near_miss_similarity), ("duplicate", said.duplicate_similarity))
        for place, count in enumerate(counts)
        if count
    ]
    if rows:
        most = max(map(sum, zip(said.near_miss_similarity, said.duplicate_similarity, strict=True)))
        made["similarity"] = (
            _chart(rows)
            .mark_bar(size=12)
            .encode(
                x=alt.X(
                    "similarity:Q", scale=alt.Scale(domain=[0, 1]), title="similarity to the nearest hit, or to what it repeats"
                ),
                y=alt.Y("samples:Q", axis=_counts(most)),
                color=alt.Color("kind:N", title=None),
                tooltip=["kind:N", "similarity:Q", "samples:Q"],
            )
            .properties(width="container", height=200)
        )
    if said.likelihoods:
        rows = [{"kind": one.kind.replace("_", " "), "nats": one.surprisal, "samples": one.samples} for one in said.likelihoods]
        made["likelihood"] = (
            _chart(rows)
            .mark_bar()
            .encode(
                y=alt.Y("kind:N", sort=[str(row["kind"]) for row in rows], title=None),
                x=alt.X("nats:Q", title="surprisal, nats per token"),
                tooltip=["kind:N", alt.Tooltip("nats:Q", format=".3f"), alt.Tooltip("samples:Q", format=",")],
            )
            .properties(width="container", height=24 * len(rows) + 4)
        )
    seconds = [{"filter": one.name, "seconds": one.seconds} for one in found.filters if one.seconds]
    if seconds:
        made["seconds"] = (
            _chart(seconds)
            .mark_bar()
            .encode(
                y=alt.Y("filter:N", sort="-x", title=None),
                x=alt.X("seconds:Q", title="seconds, all processes"),
                tooltip=["filter:N", alt.Tooltip("seconds:Q", format=".2f")],
            )
            .properties(width="container", height=24 * len(seconds) + 4)
        )
    return made


def _counts(most: int) -> Any:
    """An axis of counts up to `most`: no half ones between few."""
    import altair as alt

    return alt.Axis(format=",d", values=list(range(most + 1))) if most <= 10 else alt.Axis(format=",d", tickMinStep=1)


def _chart(rows: list[dict[str, Any]]) -> Any:
    import altair as alt

    return alt.Chart(alt.Data(values=rows))  # type: ignore[no-untyped-call]


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


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {number(count)}" for reason, count in counts.items())


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
