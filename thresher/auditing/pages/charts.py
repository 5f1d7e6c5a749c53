"""The charts of a report, drawn from the audit and the statistics. A chart without data is None."""

from collections.abc import Callable
from typing import Any, TypeAlias

from thresher.auditing.audit import Audit, FilterCounts, FilterStats
from thresher.auditing.draw_sums import SIMILARITY_BINS
from thresher.auditing.statistics import Statistics

Chart: TypeAlias = Any
"""Altair's Chart or LayerChart; Altair's own functions are typed as Any."""
OUTCOMES = {"kept": "#2a9d6f", "dropped": "#d1495b", "undecided": "#8d99ae"}
"""Outcomes and their colours."""
MOST_REASONS = 16
"""Most reasons in the chart; the table below it lists all."""
WIDE = "container"


def charts(audit: Audit, statistics: Statistics) -> dict[str, Chart]:
    """Draw all charts that have data, by name."""
    draw_chart: dict[str, Callable[[Audit, Statistics], Chart | None]] = {
        "funnel": funnel,
        "reasons": reasons,
        "pass_at_k": pass_at_k,
        "each_prompt": each_prompt,
        "rates": rates,
        "similarity": similarity,
        "likelihood": likelihood,
        "seconds": seconds,
    }
    return {name: chart for name, draw in draw_chart.items() if (chart := draw(audit, statistics)) is not None}


def funnel(audit: Audit, _statistics: Statistics) -> Chart | None:
    """Kept, dropped and undecided samples of each filter: for all families together and for each; the page shows one of them."""
    import altair as alt

    funnels: list[tuple[str, tuple[FilterStats, ...] | tuple[FilterCounts, ...]]] = [
        ("all", audit.filters),
        *((family.family, family.filters) for family in audit.families),
    ]
    rows = [
        {"family": family, "filter": counts.name, "outcome": outcome, "samples": samples, "place": place}
        for family, filters in funnels
        for counts in filters
        for place, (outcome, samples) in enumerate(
            zip(OUTCOMES, (counts.kept, sum(counts.dropped.values()), sum(counts.undecided.values())), strict=True)
        )
    ]
    if not any(row["samples"] for row in rows):
        return None
    chart = _chart(rows).mark_bar()
    chart = chart.encode(
        y=alt.Y("filter:N", sort=[filter_.name for filter_ in audit.filters], title=None),
        x=alt.X("samples:Q", title="samples", axis=_counts(max(filter_.seen for filter_ in audit.filters))),
        color=alt.Color("outcome:N", scale=_outcomes(), legend=alt.Legend(orient="top", title=None)),
        order=alt.Order("place:Q"),
        tooltip=["filter:N", "outcome:N", alt.Tooltip("samples:Q", format=",")],
    )
    return chart.properties(width=WIDE, height=26 * len(audit.filters) + 4)


def reasons(audit: Audit, _statistics: Statistics) -> Chart | None:
    """Reasons why samples were lost, the most frequent first."""
    import altair as alt

    rows = [
        {"why": f"{reason.filter}: {reason.reason.replace('_', ' ')}", "samples": reason.samples, "share": reason.share}
        | {"outcome": {"drop": "dropped"}.get(reason.outcome, reason.outcome)}
        for reason in audit.reasons[:MOST_REASONS]
    ]
    if not rows:
        return None
    chart = _chart(rows).mark_bar()
    chart = chart.encode(
        y=alt.Y("why:N", sort=[str(row["why"]) for row in rows], title=None, axis=alt.Axis(labelLimit=260)),
        x=alt.X("samples:Q", title="samples", axis=_counts(audit.reasons[0].samples)),
        color=alt.Color("outcome:N", scale=_outcomes(), legend=None),
        tooltip=["why:N", "outcome:N", alt.Tooltip("samples:Q", format=","), alt.Tooltip("share:Q", format=".1%")],
    )
    return chart.properties(width=WIDE, height=24 * len(rows) + 4)


def pass_at_k(audit: Audit, statistics: Statistics) -> Chart | None:
    """pass@k of each family with its interval."""
    import altair as alt

    if not statistics.pass_at_k:
        return None
    rows = [
        {"family": point.family, "k": point.k, "pass": point.value, "low": point.interval[0], "high": point.interval[1]}
        for point in statistics.pass_at_k
    ]
    names = _family_names(audit)
    base = _chart(rows).encode(x=_of_k(statistics), color=_families(names, names))
    band = base.mark_area(opacity=0.12).encode(y=_share("low", "pass@k"), y2="high:Q")
    tips = ["family:N", "k:Q", *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("pass", "low", "high"))]
    return (band + base.mark_line(point=True).encode(y="pass:Q", tooltip=tips)).properties(width=WIDE, height=260)


def each_prompt(_audit: Audit, statistics: Statistics) -> Chart | None:
    """Quantiles of the pass@k of single prompts."""
    import altair as alt

    if not statistics.pass_at_k:
        return None
    names, whole = ("p5", "p25", "median", "p75", "p95"), statistics.pass_at_k[-1].family
    rows = [
        {"k": point.k, **dict(zip(names, point.quantiles, strict=True))}
        for point in statistics.pass_at_k
        if point.family == whole
    ]
    base = _chart(rows).encode(x=_of_k(statistics))
    bands = [
        base.mark_area(opacity=0.15).encode(y=_share(low, "pass@k"), y2=f"{high}:Q")
        for low, high in (("p5", "p95"), ("p25", "p75"))
    ]
    tips = ["k:Q", *(alt.Tooltip(f"{name}:Q", format=".3f") for name in names)]
    return alt.layer(*bands, base.mark_line(point=True).encode(y="median:Q", tooltip=tips)).properties(width=WIDE, height=260)


def rates(audit: Audit, statistics: Statistics) -> Chart | None:
    """Histogram of the prompts by pass rate."""
    import altair as alt

    by_family = {rates.family: (rates.none, *rates.tenths, rates.every) for rates in statistics.rates if rates.family != "all"}
    if not by_family:
        return None
    labels = ["none", *(f"≤{10 * number} %" for number in range(1, 11)), "every"]
    rows = [
        {"family": family, "rate": label, "prompts": count}
        for family, counts in by_family.items()
        for label, count in zip(labels, counts, strict=True)
    ]
    chart = _chart(rows).mark_bar()
    chart = chart.encode(
        x=alt.X("rate:N", sort=labels, title="pass rate of a prompt"),
        y=alt.Y("prompts:Q", title="prompts", axis=_counts(max(map(sum, zip(*by_family.values(), strict=True))))),
        color=_families(_family_names(audit), list(by_family)),
        tooltip=["family:N", "rate:N", "prompts:Q"],
    )
    return chart.properties(width=WIDE, height=220)


def similarity(_audit: Audit, statistics: Statistics) -> Chart | None:
    """Near misses and duplicates by their similarity to a hit."""
    import altair as alt

    rows = [
        {"kind": kind, "similarity": (place + 0.5) / SIMILARITY_BINS, "samples": count}
        for kind, counts in (("near miss", statistics.near_miss_similarity), ("duplicate", statistics.duplicate_similarity))
        for place, count in enumerate(counts)
        if count
    ]
    if not rows:
        return None
    most = max(map(sum, zip(statistics.near_miss_similarity, statistics.duplicate_similarity, strict=True)))
    title = "similarity to the nearest hit, or to what it repeats"
    chart = _chart(rows).mark_bar(size=12)
    chart = chart.encode(
        x=alt.X("similarity:Q", scale=alt.Scale(domain=[0, 1]), title=title),
        y=alt.Y("samples:Q", axis=_counts(most)),
        color=alt.Color("kind:N", title=None),
        tooltip=["kind:N", "similarity:Q", "samples:Q"],
    )
    return chart.properties(width=WIDE, height=200)


def likelihood(_audit: Audit, statistics: Statistics) -> Chart | None:
    """Mean surprisal of the samples of each kind."""
    import altair as alt

    rows = [
        {"kind": likelihood.kind.replace("_", " "), "nats": likelihood.surprisal, "samples": likelihood.samples}
        for likelihood in statistics.likelihoods
    ]
    tips = ["kind:N", alt.Tooltip("nats:Q", format=".3f"), alt.Tooltip("samples:Q", format=",")]
    order = [str(row["kind"]) for row in rows]
    return _bars(rows, "kind", "nats", title="surprisal, nats per token", sort=order, tips=tips)


def seconds(audit: Audit, _statistics: Statistics) -> Chart | None:
    """Time spent in each filter."""
    import altair as alt

    rows = [{"filter": filter_.name, "seconds": filter_.seconds} for filter_ in audit.filters if filter_.seconds]
    tips = ["filter:N", alt.Tooltip("seconds:Q", format=".2f")]
    return _bars(rows, "filter", "seconds", title="seconds, all processes", sort="-x", tips=tips)


# -- inside --------------------------------------------------------------------------------------------------------------


def _bars(rows: list[dict[str, Any]], of: str, number: str, *, title: str, sort: Any, tips: list[Any]) -> Any:
    import altair as alt

    if not rows:
        return None
    axis = alt.Axis(tickCount=8)
    chart = _chart(rows).mark_bar()
    chart = chart.encode(y=alt.Y(f"{of}:N", sort=sort, title=None), x=alt.X(f"{number}:Q", title=title, axis=axis), tooltip=tips)
    return chart.properties(width=WIDE, height=24 * len(rows) + 4)


def _of_k(statistics: Statistics) -> Any:
    import altair as alt

    ks = sorted({point.k for point in statistics.pass_at_k})
    return alt.X("k:Q", scale=alt.Scale(type="log", base=2), axis=alt.Axis(values=ks, format="d"))


def _share(name: str, title: str) -> Any:
    import altair as alt

    return alt.Y(f"{name}:Q", title=title, scale=alt.Scale(domain=[0, 1]))


def _families(names: list[str], shown: list[str]) -> Any:
    """A colour for each family, the same in every chart."""
    import altair as alt

    legend = alt.Legend(symbolOpacity=1, symbolType="circle", values=shown)
    return alt.Color("family:N", title=None, scale=alt.Scale(domain=names), legend=legend)


def _family_names(audit: Audit) -> list[str]:
    """The families, and `all` if there are several."""
    return [family.family for family in audit.families] + ["all"] * (len(audit.families) > 1)


def _outcomes() -> Any:
    import altair as alt

    return alt.Scale(domain=list(OUTCOMES), range=list(OUTCOMES.values()))


def _counts(most: int) -> Any:
    """An axis of counts up to `most`, without fractions between small counts."""
    import altair as alt

    few = list(range(most + 1)) if most <= 10 else alt.Undefined
    return alt.Axis(format=",d", values=few, tickMinStep=1, tickCount=8)


def _chart(rows: list[dict[str, Any]]) -> Any:
    import altair as alt

    return alt.Chart(alt.Data(values=rows))  # type: ignore[no-untyped-call]
