"""A study as one HTML file that needs no network. Charts are over all prompts together; bands and rules are 95 % intervals."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from thresher import __version__
from thresher.auditing.pages.page import rendered
from thresher.study.bootstrap import Estimate
from thresher.study.result_tables import AtTemperature
from thresher.study.results import Study
from thresher.study.training.comparison import Training

Rows = list[dict[str, Any]]


def page(study: Study, *, name: str, model: str, draws: int, training: Training | None = None) -> str:
    """Return the page."""
    return rendered(
        "study.html.j2",
        charts(study, training),
        study=study,
        name=name,
        model=model,
        draws=draws,
        families=list(dict.fromkeys(row.family for row in study.temperatures))[::-1],
        widest=study.widest,
        training=training,
        version=__version__,
    )


def charts(study: Study, training: Training | None) -> dict[str, Any]:
    """The Altair charts of a study, by the id of their element in the page. Charts without rows are left out."""
    drawn = {
        "failures": _shares(study),
        "entropy": _entropies(study),
        "yields": _yields(study),
        "pass_at_k": _pass_at_k(study),
        "changes": _changes(study),
        "training": _training(training) if training else None,
    }
    return {name: chart for name, chart in drawn.items() if chart is not None}


def _shares(study: Study) -> Any:
    rows = _by_temperature(study, {"failure": "fail", "near_misses": "near misses of those", "departed": "depart from greedy"})
    return _curves(rows, "temperature:Q", "share", _named("what"), domain=(0, 1))


def _entropies(study: Study) -> Any:
    rows = _by_temperature(study, {"entropy": "entropy of answers", "surprisal": "surprisal per token"})
    return _curves(rows, "temperature:Q", "nats", _named("what"))


def _yields(study: Study) -> Any:
    rows = [
        {"temperature": row.temperature, "draws": row.draws, **_value_and_ends(row.solutions)}
        for row in study.volumes
        if row.family == study.widest and row.temperature > 0 and row.solutions.value is not None
    ]
    return _curves(rows, "temperature:Q", f"solutions per 1,000 {study.unit}", _ordered("draws", "viridis", title="draws"))


def _pass_at_k(study: Study) -> Any:
    import altair as alt

    rows = [
        {"k": row.draws, "temperature": row.temperature, **_value_and_ends(row.pass_at_k)}
        for row in study.volumes
        if row.family == study.widest and row.temperature > 0 and row.pass_at_k.value is not None
    ]
    ks = sorted({row["k"] for row in rows})
    x = alt.X("k:Q", scale=alt.Scale(type="log", base=2), axis=alt.Axis(values=ks, format="d"))
    return _curves(rows, x, "pass@k", _ordered("temperature", "turbo"), domain=(0, 1))


def _changes(study: Study) -> Any:
    rows = [{"change": row.change, **_value_and_ends(row.departed)} for row in study.changes if row.family == study.widest]
    return _bars(rows, "change", "share of greedy answers that moved")


def _training(training: Training) -> Any:
    rows = [
        {"arm": arm.name, "k": f"pass@{k}", **_value_and_ends(estimate)}
        for arm in training.arms
        for k, estimate in zip(training.ks, arm.pass_at_k, strict=True)
    ]
    return _bars(rows, "arm", "share", colour="k", order=[f"pass@{k}" for k in training.ks])


# -- rows ----------------------------------------------------------------------------------------------------------------


def _by_temperature(study: Study, labels: dict[str, str]) -> Rows:
    """A row per temperature and column of AtTemperature, named by its label."""

    def estimates(row: AtTemperature) -> Iterator[tuple[str, Estimate]]:
        return ((label, getattr(row, column)) for column, label in labels.items())

    return [
        {"temperature": row.temperature, "what": label, **_value_and_ends(estimate)}
        for row in study.temperatures
        if row.family == study.widest
        for label, estimate in estimates(row)
        if estimate.value is not None
    ]


def _value_and_ends(estimate: Estimate) -> dict[str, Any]:
    low, high = estimate.interval or (estimate.value, estimate.value)
    return {"value": estimate.value, "low": low, "high": high}


# -- marks ---------------------------------------------------------------------------------------------------------------


def _curves(rows: Rows, x: Any, title: str, colour: Any, *, domain: Sequence[float] | None = None) -> Any:
    """Lines with bands; None without rows."""
    import altair as alt

    if not rows:
        return None
    y = alt.Y("value:Q", title=title, scale=alt.Scale(domain=[*domain]) if domain else alt.Undefined)
    base = alt.Chart(alt.Data(values=rows)).encode(x=alt.X(x) if isinstance(x, str) else x, color=colour)  # type: ignore[no-untyped-call]
    band = base.mark_area(opacity=0.12).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    tooltip = _tooltip(name for name in rows[0] if name not in {"value", "low", "high"})
    return (band + base.mark_line(point=True).encode(y=y, tooltip=tooltip)).properties(width="container", height=260)


def _bars(rows: Rows, name: str, title: str, colour: str | None = None, order: Sequence[str] = ()) -> Any:
    """Horizontal bars with a rule for the interval, in the order of the rows; None without rows."""
    import altair as alt

    if not rows:
        return None
    grouped: dict[str, Any] = {}
    if colour:
        grouped = {
            "yOffset": alt.YOffset(f"{colour}:N", sort=[*order]),
            "color": alt.Color(f"{colour}:N", sort=[*order], title=None),
        }
    y = alt.Y(f"{name}:N", title=None, sort=list(dict.fromkeys(row[name] for row in rows)), axis=alt.Axis(labelLimit=320))
    base = alt.Chart(alt.Data(values=rows)).encode(y=y, **grouped)  # type: ignore[no-untyped-call]
    bars = base.mark_bar().encode(x=alt.X("value:Q", title=title), tooltip=_tooltip([name]))
    rules = base.mark_rule().encode(x=alt.X("low:Q", title=title), x2="high:Q", color=alt.value("#8d99ae"))
    return (bars + rules).properties(width="container", height=22 * len(rows) + 4)


def _tooltip(names: Iterable[str]) -> list[Any]:
    import altair as alt

    return [*(f"{name}:N" for name in names), *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("value", "low", "high"))]


def _named(column: str) -> Any:
    import altair as alt

    return alt.Color(f"{column}:N", title=None, legend=alt.Legend(orient="top", symbolOpacity=1))


def _ordered(column: str, scheme: str, **title: str) -> Any:
    import altair as alt

    return alt.Color(f"{column}:O", scale=alt.Scale(scheme=scheme), legend=alt.Legend(symbolOpacity=1), **title)  # type: ignore[arg-type]
