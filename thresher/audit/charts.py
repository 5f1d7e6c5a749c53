"""The charts of a report, each of numbers that the audit has; a chart that there is nothing for is None."""

from collections.abc import Callable
from typing import Any, TypeAlias

from thresher.audit.count_run import Audit, FilterCounts, FilterStats
from thresher.audit.statistics import SIMILARITY_BINS, Statistics

Chart: TypeAlias = Any
"""Altair's Chart or LayerChart; its own functions say no more than Any."""
OUTCOMES = {"kept": "#2a9d6f", "dropped": "#d1495b", "undecided": "#8d99ae"}
"""Each with its colour."""
MOST_REASONS = 16
"""Reasons in the chart; the table beside it has all."""
WIDE = "container"


def charts(found: Audit, said: Statistics) -> dict[str, Chart]:
    """The charts that there are numbers for, by name."""
    makers: dict[str, Callable[[Audit, Statistics], Chart | None]] = {
        "funnel": funnel,
        "reasons": reasons,
        "pass_at_k": pass_at_k,
        "each_prompt": each_prompt,
        "rates": rates,
        "similarity": similarity,
        "likelihood": likelihood,
        "seconds": seconds,
    }
    return {name: chart for name, make in makers.items() if (chart := make(found, said)) is not None}


def funnel(found: Audit, _said: Statistics) -> Chart | None:
    """What each filter kept, dropped and could not judge: of every family, and of each; the page shows one at a time."""
    import altair as alt

    whole: list[tuple[str, tuple[FilterStats, ...] | tuple[FilterCounts, ...]]] = [("all", found.filters)]
    rows = [
        {"family": family, "filter": one.name, "outcome": outcome, "samples": count, "place": place}
        for family, filters in [*whole, *((one.family, one.filters) for one in found.families)]
        for one in filters
        for place, (outcome, count) in enumerate(
            zip(OUTCOMES, (one.kept, sum(one.dropped.values()), sum(one.undecided.values())), strict=True)
        )
    ]
    if not any(row["samples"] for row in rows):
        return None
    chart = _chart(rows).mark_bar()
    chart = chart.encode(
        y=alt.Y("filter:N", sort=[one.name for one in found.filters], title=None),
        x=alt.X("samples:Q", title="samples", axis=_counts(max(one.seen for one in found.filters))),
        color=alt.Color("outcome:N", scale=_outcomes(), legend=alt.Legend(orient="top", title=None)),
        order=alt.Order("place:Q"),
        tooltip=["filter:N", "outcome:N", alt.Tooltip("samples:Q", format=",")],
    )
    return chart.properties(width=WIDE, height=26 * len(found.filters) + 4)


def reasons(found: Audit, _said: Statistics) -> Chart | None:
    """Why samples were lost, the most frequent reason first."""
    import altair as alt

    rows = [
        {"why": f"{one.filter}: {one.reason.replace('_', ' ')}", "samples": one.samples, "share": one.share}
        | {"outcome": {"drop": "dropped"}.get(one.outcome, one.outcome)}
        for one in found.reasons[:MOST_REASONS]
    ]
    if not rows:
        return None
    chart = _chart(rows).mark_bar()
    chart = chart.encode(
        y=alt.Y("why:N", sort=[str(row["why"]) for row in rows], title=None, axis=alt.Axis(labelLimit=260)),
        x=alt.X("samples:Q", title="samples", axis=_counts(found.reasons[0].samples)),
        color=alt.Color("outcome:N", scale=_outcomes(), legend=None),
        tooltip=["why:N", "outcome:N", alt.Tooltip("samples:Q", format=","), alt.Tooltip("share:Q", format=".1%")],
    )
    return chart.properties(width=WIDE, height=24 * len(rows) + 4)


def pass_at_k(found: Audit, said: Statistics) -> Chart | None:
    """The curve of each family, with its interval."""
    import altair as alt

    if not said.pass_at_k:
        return None
    rows = [{"family": o.family, "k": o.k, "pass": o.value, "low": o.interval[0], "high": o.interval[1]} for o in said.pass_at_k]
    names = [one.family for one in found.families] + ["all"] * (len(found.families) > 1)
    base = _chart(rows).encode(x=_of_k(said), color=_families(names, names))
    band = base.mark_area(opacity=0.12).encode(y=_share("low", "pass@k"), y2="high:Q")
    tips = ["family:N", "k:Q", *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("pass", "low", "high"))]
    return (band + base.mark_line(point=True).encode(y="pass:Q", tooltip=tips)).properties(width=WIDE, height=260)


def each_prompt(_found: Audit, said: Statistics) -> Chart | None:
    """Quantiles over the prompts of their own curves."""
    import altair as alt

    if not said.pass_at_k:
        return None
    names, whole = ("p5", "p25", "median", "p75", "p95"), said.pass_at_k[-1].family
    rows = [{"k": o.k, **dict(zip(names, o.quantiles, strict=True))} for o in said.pass_at_k if o.family == whole]
    base = _chart(rows).encode(x=_of_k(said))
    bands = [
        base.mark_area(opacity=0.15).encode(y=_share(low, "pass@k"), y2=f"{high}:Q")
        for low, high in (("p5", "p95"), ("p25", "p75"))
    ]
    tips = ["k:Q", *(alt.Tooltip(f"{name}:Q", format=".3f") for name in names)]
    return alt.layer(*bands, base.mark_line(point=True).encode(y="median:Q", tooltip=tips)).properties(width=WIDE, height=260)


def rates(found: Audit, said: Statistics) -> Chart | None:
    """How many prompts have which pass rate."""
    import altair as alt

    apart = {one.family: (one.none, *one.tenths, one.every) for one in said.rates if one.family != "all"}
    if not apart:
        return None
    labels = ["none", *(f"≤{10 * number} %" for number in range(1, 11)), "every"]
    rows = [
        {"family": family, "rate": label, "prompts": count}
        for family, counts in apart.items()
        for label, count in zip(labels, counts, strict=True)
    ]
    chart = _chart(rows).mark_bar()
    chart = chart.encode(
        x=alt.X("rate:N", sort=labels, title="pass rate of a prompt"),
        y=alt.Y("prompts:Q", title="prompts", axis=_counts(max(map(sum, zip(*apart.values(), strict=True))))),
        color=_families([one.family for one in found.families] + ["all"] * (len(found.families) > 1), list(apart)),
        tooltip=["family:N", "rate:N", "prompts:Q"],
    )
    return chart.properties(width=WIDE, height=220)


def similarity(_found: Audit, said: Statistics) -> Chart | None:
    """Near misses and duplicates by how similar they are to a hit."""
    import altair as alt

    rows = [
        {"kind": kind, "similarity": (place + 0.5) / SIMILARITY_BINS, "samples": count}
        for kind, counts in (("near miss", said.near_miss_similarity), ("duplicate", said.duplicate_similarity))
        for place, count in enumerate(counts)
        if count
    ]
    if not rows:
        return None
    most = max(map(sum, zip(said.near_miss_similarity, said.duplicate_similarity, strict=True)))
    title = "similarity to the nearest hit, or to what it repeats"
    chart = _chart(rows).mark_bar(size=12)
    chart = chart.encode(
        x=alt.X("similarity:Q", scale=alt.Scale(domain=[0, 1]), title=title),
        y=alt.Y("samples:Q", axis=_counts(most)),
        color=alt.Color("kind:N", title=None),
        tooltip=["kind:N", "similarity:Q", "samples:Q"],
    )
    return chart.properties(width=WIDE, height=200)


def likelihood(_found: Audit, said: Statistics) -> Chart | None:
    """How likely the model found what it drew, by what became of it."""
    import altair as alt

    rows = [{"kind": one.kind.replace("_", " "), "nats": one.surprisal, "samples": one.samples} for one in said.likelihoods]
    tips = ["kind:N", alt.Tooltip("nats:Q", format=".3f"), alt.Tooltip("samples:Q", format=",")]
    order = [str(row["kind"]) for row in rows]
    return _bars(rows, "kind", "nats", title="surprisal, nats per token", sort=order, tips=tips)


def seconds(found: Audit, _said: Statistics) -> Chart | None:
    """The time of each filter."""
    import altair as alt

    rows = [{"filter": one.name, "seconds": one.seconds} for one in found.filters if one.seconds]
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


def _of_k(said: Statistics) -> Any:
    import altair as alt

    ks = sorted({one.k for one in said.pass_at_k})
    return alt.X("k:Q", scale=alt.Scale(type="log", base=2), axis=alt.Axis(values=ks, format="d"))


def _share(name: str, title: str) -> Any:
    import altair as alt

    return alt.Y(f"{name}:Q", title=title, scale=alt.Scale(domain=[0, 1]))


def _families(every: list[str], shown: list[str]) -> Any:
    """One colour for each family, the same in every chart."""
    import altair as alt

    legend = alt.Legend(symbolOpacity=1, symbolType="circle", values=shown)
    return alt.Color("family:N", title=None, scale=alt.Scale(domain=every), legend=legend)


def _outcomes() -> Any:
    import altair as alt

    return alt.Scale(domain=list(OUTCOMES), range=list(OUTCOMES.values()))


def _counts(most: int) -> Any:
    """An axis of counts up to `most`: no half ones between few."""
    import altair as alt

    few = list(range(most + 1)) if most <= 10 else alt.Undefined
    return alt.Axis(format=",d", values=few, tickMinStep=1, tickCount=8)


def _chart(rows: list[dict[str, Any]]) -> Any:
    import altair as alt

    return alt.Chart(alt.Data(values=rows))  # type: ignore[no-untyped-call]
