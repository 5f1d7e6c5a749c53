"""Shows an audit: tables for a terminal of 80 columns or more, markdown, and rows for export."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from thresher.auditing.audit import Audit, FamilyStats, FilterCounts, FilterStats, ModelStats
from thresher.auditing.markdown import inline
from thresher.auditing.statistics import Statistics
from thresher.estimators.calibration import Calibration
from thresher.estimators.intervals import wilson

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

THIN = "\u202f"
"""Narrow no-break space, between groups of three digits."""

SIDE_BY_SIDE, NARROW = 5, 11
"""Most families that are shown side by side, and most characters of their names there."""

_FUNNEL = ("filter", "seen", "kept", "dropped", "undecided", "why")
_FAMILIES = ("family", "prompts", "samples", "pass rate (95 %)", "hits", "greedy")
_MODELS = ("model", "prompts", "samples", "pass rate (95 %)", "hits", "tokens", "hits/1000")


def funnel_table(audit: Audit, *, gap: str = THIN) -> "Table":
    """Samples that each filter saw, kept, dropped and could not judge, without anchors. `gap` separates thousands."""
    from rich.markup import escape

    table = _table("Filters", ("filter", "seen", "kept", "", "dropped", "undecided"))
    for stats in audit.filters:
        dropped, undecided = sum(stats.dropped.values()), sum(stats.undecided.values())
        counts = [number(count, gap) for count in (stats.seen, stats.kept, dropped, undecided)]
        table.add_row(escape(stats.name), *counts[:2], share(stats.kept, stats.seen), *counts[2:])
        for reason, count in stats.dropped.items():
            table.add_row(f"  {escape(reason)}", "", "", "", number(count, gap), "", style="dim")
        for reason, count in stats.undecided.items():
            table.add_row(f"  {escape(reason)}", "", "", "", "", number(count, gap), style="dim")
    return table


def families_table(audit: Audit, *, gap: str = THIN) -> "Table":
    """Results of each family of prompts, with a last row for all if there are several. `greedy` is the share of anchors that
    passed."""
    from rich.markup import escape

    table = _table("Families", _FAMILIES)
    for family in _families(audit):
        if family is audit.total:
            table.add_section()
        table.add_row(*map(escape, _family_row(family, gap)))
    return table


def models_table(audit: Audit, *, gap: str = THIN) -> "Table":
    """Results of each model: `tokens` are those of its completions, `hits/1000` its hits per 1,000 of them."""
    from rich.markup import escape

    table = _table("Models", _MODELS)
    for model in audit.models:
        table.add_row(*map(escape, model_row(model, gap)))
    return table


def model_row(model: ModelStats, gap: str = THIN) -> list[str]:
    """The cells of a row of `models_table`."""
    each = "" if model.hits_per_1000_tokens is None else f"{model.hits_per_1000_tokens:.2f}"
    counts = [number(count, gap) for count in (model.prompts, model.samples, model.hits, model.completion_tokens)]
    return [model.model, *counts[:2], _rate(model), *counts[2:], each]


def by_family_table(audit: Audit) -> "Table":
    """For each filter and family, the share of the samples it saw that it kept."""
    from rich.markup import escape

    names = [family.family if len(family.family) <= NARROW else f"{family.family[: NARROW - 1]}…" for family in audit.families]
    table = _table("Kept, by family", ("filter", *map(escape, names)))
    for filter_ in audit.filters:
        by_family = [{counts.name: counts for counts in family.filters}.get(filter_.name) for family in audit.families]
        table.add_row(escape(filter_.name), *("" if counts is None else share(counts.kept, counts.seen) for counts in by_family))
    return table


def print_audit(audit: Audit, console: "Console") -> None:
    """Print the audit: a summary, its tables, and remarks and problems."""
    gap = THIN if console.encoding.lower().startswith("utf") else ","
    for line in summary(audit, gap=gap):
        console.print(line, highlight=False, markup=False)
    console.print(funnel_table(audit, gap=gap))
    if 1 < len(audit.families) <= SIDE_BY_SIDE:
        console.print(by_family_table(audit))
    console.print(families_table(audit, gap=gap))
    if audit.models:
        console.print(models_table(audit, gap=gap))
    if any(diversity.prompts_with_hits for diversity in audit.diversity):
        console.print(diversity_table(audit))
    if len(audit.temperatures) > 1:
        console.print(temperatures_table(audit, gap=gap))
    if audit.overlaps:
        console.print(overlaps_table(audit, gap=gap))
    for line in (*trust_lines(audit), *calibration_lines(audit)):
        console.print(line, highlight=False, markup=False)
    for fault in audit.calibration_faults:
        console.print(f"WARNING {fault}", style="bold yellow", highlight=False, markup=False)
    for alarm in audit.alarms:
        console.print(f"ALARM {alarm}", style="bold yellow", highlight=False, markup=False)
    for line in audit.missing:
        console.print(f"NOTE {line}", style="dim", highlight=False, markup=False)
    for problem in audit.problems:
        console.print(f"PROBLEM {problem}", style="bold red", highlight=False, markup=False)


def diversity_table(audit: Audit) -> "Table":
    """Diversity of the hits of each family (thresher.estimators.diversity)."""
    from rich.markup import escape

    table = _table("Diversity", ("family", "hits/prompt", "effective", "distinct-2", "largest", "near misses"))
    for diversity in audit.diversity:
        numbers = [diversity.hits_per_prompt, diversity.effective_solutions, diversity.distinct_2]
        shown = ["" if value is None else f"{value:.2f}" for value in numbers]
        largest = next(reversed(diversity.cluster_sizes), "")
        near = "" if diversity.near_miss_share is None else percent(diversity.near_miss_share)
        table.add_row(escape(diversity.family), *shown, largest, near)
    return table


def temperatures_table(audit: Audit, *, gap: str = THIN) -> "Table":
    """Results of the samples of each temperature."""
    table = _table("Temperatures", ("temperature", "samples", "passed", "pass rate"))
    for stats in audit.temperatures:
        rate = "" if stats.pass_rate is None else percent(stats.pass_rate)
        table.add_row(f"{stats.temperature:g}", number(stats.samples, gap), number(stats.passed, gap), rate)
    return table


def overlaps_table(audit: Audit, *, gap: str = THIN) -> "Table":
    """For every pair of filters, among the samples that both saw: how many each dropped, and how many both dropped."""
    from rich.markup import escape

    table = _table("Overlaps", ("filter", "and", "both saw", "first dropped", "second dropped", "both"))
    for overlap in audit.overlaps:
        table.add_row(
            *map(escape, overlap.filters), *(number(count, gap) for count in (overlap.seen, *overlap.dropped, overlap.both))
        )
    return table


def canary_words(stats: FilterStats) -> list[str]:
    """How a judge did on its canaries: in all, and each kind on which it fails or, of a judge that holds, does worst."""
    if not stats.canaries:
        return []
    right, asked = stats.canaries["right"], stats.canaries["asked"]
    low, high = wilson(right / asked, asked)
    words = [f"{right} of {asked} canaries judged right ({right / asked:.1%}, 95% interval {low:.1%} to {high:.1%})"]
    kinds = stats.canary_kinds.values()
    worst = max(kinds, key=lambda kind: 1 - kind.right / kind.asked, default=None)
    failing = [f"FAILS: it {kind}" for kind in kinds if kind.fails]
    return words + (failing or ([f"worst kind: {worst}"] if worst is not None and worst.right < worst.asked else []))


def trust_lines(audit: Audit) -> list[str]:
    """Evidence for trust in each filter: canaries, correlation of score and length, what was broken, contamination by
    benchmark."""
    lines = []
    for stats in audit.filters:
        remarks = canary_words(stats)
        if stats.length_correlation is not None:
            remarks.append(f"score against length r = {stats.length_correlation:+.2f}")
        if stats.broken:
            remarks.append(f"{number(stats.broken, ',')} undecided because something was broken, which the next run asks again")
        remarks += [f"{count} contaminated by {benchmark}" for benchmark, count in stats.benchmarks.items()]
        lines += [f"{stats.name}: {', '.join(remarks)}"] if remarks else []
    return lines


def calibration_lines(audit: Audit) -> list[str]:
    """The calibration test, one line for each source and declared setting."""
    return [
        f"calibration of {test.source}{' at ' + test.declared if test.declared else ''}: {_calibration_words(test)}"
        for test in audit.calibration
    ]


def _calibration_words(test: Calibration) -> str:
    if not test.tokens and test.masked:
        return test.status
    scores = ", ".join(f"{score.event} {'-' if score.z is None else format(score.z, '+.1f')}" for score in test.scores)
    masked = f"; {test.status.partition('; ')[2]}" if test.masked else ""
    return f"{number(test.tokens, ',')} tokens, z of {scores} (bound {test.bound:.2f}){masked}"


def summary(audit: Audit, *, gap: str = THIN) -> list[str]:
    """The main figures in a few lines of text."""
    shards, kinds = audit.shards, audit.kinds
    state = "complete" if audit.complete else "unfinished"
    became = (
        f"{number(kinds['hit'], gap)} hits, {number(kinds['duplicate'], gap)} duplicates, "
        f"{number(kinds['near_miss'], gap)} near misses, "
        f"{number(audit.outcomes['drop'] - kinds['duplicate'] - kinds['near_miss'], gap)} otherwise dropped, "
        f"{number(audit.outcomes['undecided'], gap)} undecided"
    )
    lines = [
        f"{audit.name}: {state}, {number(shards.judged, gap)} of {number(shards.planned, gap)} shards, {audit.origin}",
        f"{number(audit.samples, gap)} samples of {number(audit.total.prompts, gap)} prompts: {became}",
    ]
    if audit.tokens.completion:
        each = "" if audit.tokens.per_hit is None else f", {number(round(audit.tokens.per_hit), gap)} per hit"
        lines.append(f"{number(audit.tokens.completion, gap)} tokens sampled{each}")
    for error, count in audit.not_sampled.items():
        lines.append(f"{number(count, gap)} samples could not be drawn: {error}")
    if audit.starts > 1:
        lines.append(f"the engine was started {audit.starts} times")
    lines.append(f"{audit.seconds.sampling:.1f} s sampling, {audit.seconds.filtering:.1f} s filtering")
    return lines


def markdown(audit: Audit) -> str:
    """The funnel and the families as markdown; equal for every audit of the same pool."""
    funnel = _markdown(_FUNNEL, (_funnel_row(stats, THIN) for stats in audit.filters), {"filter", "why"})
    families = _markdown(_FAMILIES, (_family_row(family, THIN) for family in _families(audit)), {"family"})
    return f"{funnel}\n\n{families}\n"


def table_of(**parts: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Put rows into one table. With several parts the first column, `table`, names the part, and columns that a part lacks are
    null. Objects and lists become JSON text."""
    rows = [({"table": part} if len(parts) > 1 else {}) | dict(row) for part, part_rows in parts.items() for row in part_rows]
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: [_as_text(row.get(name)) for row in rows] for name in names})


def audit_table(audit: Audit, statistics: Statistics, drift: Sequence[Mapping[str, Any]] = ()) -> pa.Table:
    """Put the audit, its statistics and the comparison with an earlier run into one table, not rounded."""
    filters = [
        {"name": stats.name, "role": stats.role, **_filter_columns(stats), "seconds": stats.seconds} for stats in audit.filters
    ]
    families = []
    for family in _families(audit):
        low, high = family.interval or (None, None)
        columns = {name: value for name, value in asdict(family).items() if name not in ("family", "interval", "filters")}
        families.append({"name": family.family} | columns | {"low": low, "high": high})
    funnels = [
        {"name": counts.name, "family": family.family, **_filter_columns(counts)}
        for family in audit.families
        for counts in family.filters
    ]
    reasons = [
        {"name": reason.filter} | {name: value for name, value in asdict(reason).items() if name != "filter"}
        for reason in audit.reasons
    ]
    errors = [
        {"name": stats.name, "reason": reason, "error": error, "samples": count}
        for stats in audit.filters
        for reason, counts_of in stats.errors.items()
        for error, count in counts_of.items()
    ]
    more = {name: [asdict(row) for row in getattr(audit, name)] for name in ("diversity", "temperatures", "overlaps", "models")}
    parts = ("pass_at_k", "rates", "agreement", "answers", "likelihoods", "lengths", "reasoning", "pass_at_k_of_models")
    more |= {name: [asdict(row) for row in getattr(statistics, name)] for name in parts}
    return table_of(
        filters=filters, families=families, funnels=funnels, reasons=reasons, errors_of_filters=errors, **more, drift=list(drift)
    )


def finite(value: Any) -> Any:
    """Replace NaN and infinity by None, which JSON can express."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def number(count: int, gap: str = THIN) -> str:
    """Format a count with `gap` between groups of three digits."""
    return f"{count:,}".replace(",", gap)


def share(part: float, whole: float) -> str:
    """Format a share in percent; empty if the whole is 0."""
    return percent(part / whole) if whole else ""


def percent(rate: float) -> str:
    """Format a rate in percent. A rate that is not exactly 0 or 1 is never rounded to 0 or 100 %."""
    value = 100 * rate
    if value in (0, 100):
        return f"{value:.0f} %"
    if value < 0.05 or value > 99.95:
        return "<0.1 %" if value < 50 else ">99.9 %"
    return f"{value:.1f} %"


# -- inside --------------------------------------------------------------------------------------------------------------


def _as_text(value: object) -> object:
    return json.dumps(finite(value), ensure_ascii=False, default=str) if isinstance(value, Mapping | list | tuple) else value


def _filter_columns(counts: FilterCounts | FilterStats) -> dict[str, Any]:
    return {
        "seen": counts.seen,
        "kept": counts.kept,
        "dropped": sum(counts.dropped.values()),
        "undecided": sum(counts.undecided.values()),
        "reasons": counts.dropped,
        "errors": counts.undecided,
    }


def _families(audit: Audit) -> tuple[FamilyStats, ...]:
    return audit.families if len(audit.families) == 1 else (*audit.families, audit.total)


def _funnel_row(stats: FilterStats, gap: str) -> list[str]:
    return [
        stats.name,
        number(stats.seen, gap),
        f"{number(stats.kept, gap)} {_in_brackets(share(stats.kept, stats.seen))}".strip(),
        number(sum(stats.dropped.values()), gap),
        number(sum(stats.undecided.values()), gap),
        ", ".join(f"{reason} {number(count, gap)}" for reason, count in _reasons(stats).items()),
    ]


def _rate(stats: FamilyStats | ModelStats) -> str:
    rate = "" if stats.pass_rate is None else percent(stats.pass_rate)
    if stats.interval is not None:
        low, high = (100 * bound for bound in stats.interval)
        rate += f" [{low:.1f}, {high:.1f}]"
    return rate


def _family_row(family: FamilyStats, gap: str) -> list[str]:
    return [
        family.family,
        number(family.prompts, gap),
        number(family.samples, gap),
        _rate(family),
        number(family.hits, gap),
        share(family.anchors_passed, family.anchors_judged),
    ]


def _reasons(stats: FilterStats) -> Mapping[str, int]:
    reasons = {**stats.dropped}
    for reason, count in stats.undecided.items():
        reasons[reason] = reasons.get(reason, 0) + count
    return reasons


def _in_brackets(text: str) -> str:
    return f"({text})" if text else ""


def _table(title: str, columns: Sequence[str]) -> "Table":
    """A table whose first column is folded on a narrow terminal; numbers never are."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column(columns[0], overflow="fold", min_width=12)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _markdown(columns: Iterable[str], rows: Iterable[list[str]], left: set[str]) -> str:
    names = list(columns)
    lines = ["| " + " | ".join(names) + " |", "|" + "|".join("---" if n in left else "---:" for n in names) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(map(inline, row)) + " |" for row in rows)])
