"""A study as one HTML file that needs no network, and as tables of a terminal."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import pyarrow as pa

from thresher import __version__
from thresher.audit.page import rendered
from thresher.audit.show import table_of
from thresher.study.bootstrap import Figure
from thresher.study.results import Study
from thresher.study.training import Arm, Difference, Training


def page(study: Study, *, name: str, model: str, draws: int, training: Training | None = None) -> str:
    """The page. Charts are of all families together."""
    families = list(dict.fromkeys(one.family for one in study.temperatures))
    whole = families[-1]
    return rendered(
        "study.html.j2",
        _charts(study, whole, training),
        study=study,
        name=name,
        model=model,
        draws=draws,
        families=families[::-1],
        whole=whole,
        training=training,
        version=__version__,
    )


def lines_of(study: Study) -> list[str]:
    """What a terminal shows after the table: what is missing, and a line or two per hypothesis, of all families together."""
    lines = [f"NOTE {one}" for one in study.missing]
    for one in study.hypotheses:
        if one.family == study.temperatures[-1].family:
            spread = f" [{_near(one.interval[0])}, {_near(one.interval[1])}] at {100 * one.level:.3g} %" if one.interval else ""
            lines += [
                f"{one.verdict}: {one.says}",
                f"  {one.statistic}: {'-' if one.value is None else _near(one.value)}{spread}",
            ]
            lines += [f"  {one.remark}"] if one.remark else []
    return lines


def training_table(training: Training) -> pa.Table:
    """A row per way of training, before it first; shares in percent."""
    rows = []
    for arm in training.arms:
        passes = {f"pass@{k}": _percent(one) for k, one in zip(training.ks, arm.pass_at_k, strict=True)}
        different = None if arm.distinct.value is None else f"{arm.distinct.value:.2f}"
        rows.append({"trained on": arm.name, "rows": arm.rows, "steps": arm.steps, **passes, "different": different})
    return pa.Table.from_pylist(rows)


def short_table(study: Study) -> pa.Table:
    """A row per temperature, of all families together, short enough for a terminal; shares in percent."""
    columns = {"fail": "failure", "near": "near_misses", "depart": "departed", "right": "right_where_departed"}
    rows = []
    for one in study.temperatures:
        if one.family == study.temperatures[-1].family:
            shares = {name: getattr(one, field).value for name, field in columns.items()}
            shown = {name: None if value is None else f"{100 * value:.1f} %" for name, value in shares.items()}
            rates = {f"per 1,000 {study.unit}": one.solutions.value, "entropy": one.entropy.value}
            shown |= {name: None if value is None else f"{value:.2f}" for name, value in rates.items()}
            rows.append({"temperature": f"{one.temperature:g}", "draws": one.draws, **shown})
    return pa.Table.from_pylist(rows)


def whole_table(study: Study, training: Training | None = None) -> pa.Table:
    """All tables of a study, nothing rounded: `table` says which a row is of. A figure is three columns: itself, and the ends of
    its interval."""
    parts = {
        "temperatures": [_flat(one) for one in study.temperatures],
        "volumes": [_flat(one) for one in study.volumes],
        "changes": [_flat(one) for one in study.changes],
        "equivalent": [_flat(one) for one in study.equivalent],
        "hypotheses": [
            {name: value for name, value in asdict(one).items() if name != "interval"}
            | dict(zip(("value_low", "value_high"), one.interval or (None, None), strict=True))
            for one in study.hypotheses
        ],
        "training": [],
        "differences": [],
    }
    if training is not None:
        parts["training"] = [_passes(one, training.ks) for one in training.arms]
        parts["differences"] = [_passes(one, training.ks) for one in training.differences]
    return table_of(**parts)


# -- inside --------------------------------------------------------------------------------------------------------------


def _flat(row: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in fields(row):
        value = getattr(row, field.name)
        found |= _ends(field.name, value) if isinstance(value, Figure) else {field.name: value}
    return found


def _passes(row: Arm | Difference, ks: Sequence[int]) -> dict[str, Any]:
    found = {name: value for name, value in _flat(row).items() if name != "pass_at_k"}
    for k, one in zip(ks, row.pass_at_k, strict=True):
        found |= _ends(f"pass_at_{k}", one)
    return found


def _ends(name: str, one: Figure) -> dict[str, float | None]:
    low, high = one.interval or (None, None)
    return {name: one.value, f"{name}_low": low, f"{name}_high": high}


def _near(value: float) -> str:
    """Three decimals, and no negative nought."""
    return f"{round(value, 3) + 0.0:.3f}"


def _percent(one: Figure) -> str | None:
    if one.value is None:
        return None
    spread = "" if one.interval is None else f" [{100 * one.interval[0]:.0f}, {100 * one.interval[1]:.0f}]"
    return f"{100 * one.value:.1f} %{spread}"


def _charts(study: Study, whole: str, training: Training | None) -> dict[str, Any]:
    import altair as alt

    def rows_of(names: dict[str, str]) -> list[dict[str, Any]]:
        return [
            {"temperature": one.temperature, "what": label, **_spread(getattr(one, name))}
            for one in study.temperatures
            if one.family == whole
            for name, label in names.items()
            if getattr(one, name).value is not None
        ]

    def lines(rows: list[dict[str, Any]], x: Any, title: str, colour: Any, *, share: bool = False) -> Any:
        y = alt.Y("value:Q", title=title, scale=alt.Scale(domain=[0, 1]) if share else alt.Undefined)
        base = alt.Chart(alt.Data(values=rows)).encode(x=x, color=colour)  # type: ignore[no-untyped-call]
        band = base.mark_area(opacity=0.12).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
        tips = [
            *(f"{name}:N" for name in rows[0] if name not in {"value", "low", "high"}),
            *(alt.Tooltip(f"{one}:Q", format=".3f") for one in ("value", "low", "high")),
        ]
        return (band + base.mark_line(point=True).encode(y=y, tooltip=tips)).properties(width="container", height=260)

    heat = alt.X("temperature:Q")
    what = alt.Color("what:N", title=None, legend=alt.Legend(orient="top", symbolOpacity=1))
    charts: dict[str, Any] = {}
    shares = rows_of({"failure": "fail", "near_misses": "near misses of those", "departed": "depart from greedy"})
    if shares:
        charts["failures"] = lines(shares, heat, "share", what, share=True)
    entropies = rows_of({"entropy": "entropy of answers", "surprisal": "surprisal per token"})
    if entropies:
        charts["entropy"] = lines(entropies, heat, "nats", what)
    mine = [one for one in study.volumes if one.family == whole]
    rows = [
        {"temperature": one.temperature, "draws": one.draws, **_spread(one.solutions)}
        for one in mine
        if one.temperature > 0 and one.solutions.value is not None
    ]
    if rows:
        draws = alt.Color("draws:O", title="draws", scale=alt.Scale(scheme="viridis"), legend=alt.Legend(symbolOpacity=1))
        charts["yields"] = lines(rows, heat, f"solutions per 1,000 {study.unit}", draws)
    rows = [
        {"k": one.draws, "temperature": one.temperature, **_spread(one.pass_at_k)}
        for one in mine
        if one.temperature > 0 and one.pass_at_k.value is not None
    ]
    if rows:
        ks = sorted({row["k"] for row in rows})
        x = alt.X("k:Q", scale=alt.Scale(type="log", base=2), axis=alt.Axis(values=ks, format="d"))
        heats = alt.Color("temperature:O", scale=alt.Scale(scheme="turbo"), legend=alt.Legend(symbolOpacity=1))
        charts["pass_at_k"] = lines(rows, x, "pass@k", heats, share=True)
    rows = [{"change": one.change, **_spread(one.departed)} for one in study.changes if one.family == whole]
    if rows:
        charts["changes"] = _bars(rows, "change", "share of greedy answers that moved")
    if training is not None:
        rows = [
            {"arm": arm.name, "k": f"pass@{k}", **_spread(one)}
            for arm in training.arms
            for k, one in zip(training.ks, arm.pass_at_k, strict=True)
        ]
        charts["training"] = _bars(rows, "arm", "share", colour="k", order=[f"pass@{k}" for k in training.ks])
    return charts


def _bars(rows: list[dict[str, Any]], name: str, title: str, colour: str | None = None, order: Sequence[str] = ()) -> Any:
    import altair as alt

    of: dict[str, Any] = {}
    if colour:
        of = {"yOffset": alt.YOffset(f"{colour}:N", sort=[*order]), "color": alt.Color(f"{colour}:N", sort=[*order], title=None)}
    y = alt.Y(f"{name}:N", title=None, sort=list(dict.fromkeys(row[name] for row in rows)), axis=alt.Axis(labelLimit=320))
    base = alt.Chart(alt.Data(values=rows)).encode(y=y, **of)  # type: ignore[no-untyped-call]
    tips = [f"{name}:N", *(alt.Tooltip(f"{one}:Q", format=".3f") for one in ("value", "low", "high"))]
    bars = base.mark_bar().encode(x=alt.X("value:Q", title=title), tooltip=tips)
    rules = base.mark_rule().encode(x=alt.X("low:Q", title=title), x2="high:Q", color=alt.value("#8d99ae"))
    return (bars + rules).properties(width="container", height=22 * len(rows) + 4)


def _spread(one: Figure) -> dict[str, Any]:
    low, high = one.interval or (one.value, one.value)
    return {"value": one.value, "low": low, "high": high}
