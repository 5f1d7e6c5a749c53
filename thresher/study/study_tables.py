"""A study as tables: short ones for a terminal, and one with every value for CSV."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import pyarrow as pa

from thresher.auditing.show import table_of
from thresher.study.bootstrap import Estimate
from thresher.study.results import Study
from thresher.study.training.comparison import Arm, Difference, Training

SHORT_COLUMNS = {"fail": "failure", "near": "near_misses", "depart": "departed", "right": "right_where_departed"}


def short_table(study: Study) -> pa.Table:
    """A row per temperature, over all prompts, narrow enough for a terminal; shares in percent."""
    rows = []
    for row in study.temperatures:
        if row.family == study.widest:
            shares = {name: getattr(row, field).value for name, field in SHORT_COLUMNS.items()}
            cells = {name: None if value is None else f"{100 * value:.1f} %" for name, value in shares.items()}
            rates = {f"per 1,000 {study.unit}": row.solutions.value, "entropy": row.entropy.value}
            cells |= {name: None if value is None else f"{value:.2f}" for name, value in rates.items()}
            rows.append({"temperature": f"{row.temperature:g}", "draws": row.draws, **cells})
    return pa.Table.from_pylist(rows)


def training_table(training: Training) -> pa.Table:
    """A row per training set, first the model before training; shares in percent."""
    rows = []
    for arm in training.arms:
        passes = {f"pass@{k}": _percent(estimate) for k, estimate in zip(training.ks, arm.pass_at_k, strict=True)}
        different = None if arm.distinct.value is None else f"{arm.distinct.value:.2f}"
        rows.append({"trained on": arm.name, "rows": arm.rows, "steps": arm.steps, **passes, "different": different})
    return pa.Table.from_pylist(rows)


def hypothesis_lines(study: Study) -> list[str]:
    """The notes of a study, then two or three lines per hypothesis, over all prompts."""
    lines = [f"NOTE {note}" for note in study.missing]
    for hypothesis in study.hypotheses:
        if hypothesis.family == study.widest:
            value = "-" if hypothesis.value is None else _three_decimals(hypothesis.value)
            if hypothesis.interval:
                low, high = map(_three_decimals, hypothesis.interval)
                value += f" [{low}, {high}] at {100 * hypothesis.level:.3g} %"
            lines += [f"{hypothesis.verdict}: {hypothesis.says}", f"  {hypothesis.statistic}: {value}"]
            lines += [f"  {hypothesis.remark}"] if hypothesis.remark else []
    return lines


def whole_table(study: Study, training: Training | None = None) -> pa.Table:
    """All tables of a study as one, nothing rounded; the column `table` names the table of each row. An estimate has three
    columns: its value, and the ends of its interval."""
    parts = {
        "temperatures": [_flat(row) for row in study.temperatures],
        "volumes": [_flat(row) for row in study.volumes],
        "changes": [_flat(row) for row in study.changes],
        "equivalent": [_flat(row) for row in study.equivalent],
        "hypotheses": [
            {name: value for name, value in asdict(hypothesis).items() if name != "interval"}
            | dict(zip(("value_low", "value_high"), hypothesis.interval or (None, None), strict=True))
            for hypothesis in study.hypotheses
        ],
        "training": [],
        "differences": [],
    }
    if training is not None:
        parts["training"] = [_with_passes(arm, training.ks) for arm in training.arms]
        parts["differences"] = [_with_passes(difference, training.ks) for difference in training.differences]
    return table_of(**parts)


def _flat(row: Any) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for field in fields(row):
        value = getattr(row, field.name)
        columns |= _with_ends(field.name, value) if isinstance(value, Estimate) else {field.name: value}
    return columns


def _with_passes(row: Arm | Difference, ks: Sequence[int]) -> dict[str, Any]:
    columns = {name: value for name, value in _flat(row).items() if name != "pass_at_k"}
    for k, estimate in zip(ks, row.pass_at_k, strict=True):
        columns |= _with_ends(f"pass_at_{k}", estimate)
    return columns


def _with_ends(name: str, estimate: Estimate) -> dict[str, float | None]:
    low, high = estimate.interval or (None, None)
    return {name: estimate.value, f"{name}_low": low, f"{name}_high": high}


def _three_decimals(value: float) -> str:
    """Three decimals, and 0.000 instead of -0.000."""
    return f"{round(value, 3) + 0.0:.3f}"


def _percent(estimate: Estimate) -> str | None:
    if estimate.value is None:
        return None
    interval = "" if estimate.interval is None else f" [{100 * estimate.interval[0]:.0f}, {100 * estimate.interval[1]:.0f}]"
    return f"{100 * estimate.value:.1f} %{interval}"
