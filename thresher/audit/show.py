"""Shows an audit to people: tables for a terminal of 80 columns or more, and the same as markdown."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from thresher.audit.count_run import Audit, FamilyStats, FilterStats

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from thresher.audit.statistics import Statistics

THIN = "\u202f"
"""Narrow no-break space, between groups of three digits."""

SIDE_BY_SIDE, NARROW = 5, 11
"""Families that are shown side by side at most, and characters of their names."""

_FUNNEL = ("filter", "seen", "kept", "dropped", "undecided", "why")
_FAMILIES = ("family", "prompts", "samples", "pass rate (95 %)", "hits", "greedy")


def funnel_table(audit: Audit, *, gap: str = THIN) -> "Table":
    """What each filter saw, kept, dropped and could not judge, without anchors. `gap` stands between thousands."""
    from rich.markup import escape

    table = _table("Filters", ("filter", "seen", "kept", "", "dropped", "undecided"))
    for one in audit.filters:
        dropped, undecided = sum(one.dropped.values()), sum(one.undecided.values())
        counts = [number(count, gap) for count in (one.seen, one.kept, dropped, undecided)]
        table.add_row(escape(one.name), *counts[:2], share(one.kept, one.seen), *counts[2:])
        for reason, count in one.dropped.items():
            table.add_row(f"  {escape(reason)}", "", "", "", number(count, gap), "", style="dim")
        for reason, count in one.undecided.items():
            table.add_row(f"  {escape(reason)}", "", "", "", "", number(count, gap), style="dim")
    return table


def families_table(audit: Audit, *, gap: str = THIN) -> "Table":
    """How each family of prompts came out; a last row for all where there are several. `greedy` is the share of anchors that
    passed."""
    from rich.markup import escape

    table = _table("Families", _FAMILIES)
    for one in _families(audit):
        if one is audit.total:
            table.add_section()
        table.add_row(*map(escape, _family_row(one, gap)))
    return table


def by_family_table(audit: Audit) -> "Table":
    """The funnel of each family: the share that a filter kept of what it saw."""
    from rich.markup import escape

    names = [one.family if len(one.family) <= NARROW else f"{one.family[: NARROW - 1]}…" for one in audit.families]
    table = _table("Kept, by family", ("filter", *map(escape, names)))
    for filter_ in audit.filters:
        mine = [{one.name: one for one in family.filters}.get(filter_.name) for family in audit.families]
        table.add_row(escape(filter_.name), *("" if one is None else share(one.kept, one.seen) for one in mine))
    return table


def print_audit(audit: Audit, console: "Console") -> None:
    """Print the audit: a summary, both tables, and the problems if there are any."""
    gap = THIN if console.encoding.lower().startswith("utf") else ","
    for line in summary(audit, gap=gap):
        console.print(line, highlight=False, markup=False)
    console.print(funnel_table(audit, gap=gap))
    if 1 < len(audit.families) <= SIDE_BY_SIDE:
        console.print(by_family_table(audit))
    console.print(families_table(audit, gap=gap))
    if any(one.prompts_with_hits for one in audit.diversity):
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
    """How different the hits of each family are: see thresher.estimators.diversity."""
    from rich.markup import escape

    table = _table("Diversity", ("family", "hits/prompt", "effective", "distinct-2", "largest", "near misses"))
    for one in audit.diversity:
        numbers = [one.hits_per_prompt, one.effective_solutions, one.distinct_2]
        shown = ["" if value is None else f"{value:.2f}" for value in numbers]
        largest = next(reversed(one.cluster_sizes), "")
        near = "" if one.near_miss_share is None else percent(one.near_miss_share)
        table.add_row(escape(one.family), *shown, largest, near)
    return table


def temperatures_table(audit: Audit, *, gap: str = THIN) -> "Table":
    """How the samples of each temperature came out."""
    table = _table("Temperatures", ("temperature", "samples", "passed", "pass rate"))
    for one in audit.temperatures:
        rate = "" if one.pass_rate is None else percent(one.pass_rate)
        table.add_row(f"{one.temperature:g}", number(one.samples, gap), number(one.passed, gap), rate)
    return table


def overlaps_table(audit: Audit, *, gap: str = THIN) -> "Table":
    """What every pair of filters dropped of what both saw, and both of them. What only one dropped is what the other would have
    let through."""
    from rich.markup import escape

    table = _table("Overlaps", ("filter", "and", "both saw", "first dropped", "second dropped", "both"))
    for one in audit.overlaps:
        table.add_row(*map(escape, one.filters), *(number(count, gap) for count in (one.seen, *one.dropped, one.both)))
    return table


def trust_lines(audit: Audit) -> list[str]:
    """What says how far filters can be trusted: canaries, the pull of length, contamination by benchmark."""
    lines = []
    for one in audit.filters:
        said = []
        if one.canaries:
            said.append(f"{one.canaries['right']} of {one.canaries['asked']} canaries judged right")
        if one.length_correlation is not None:
            said.append(f"score against length r = {one.length_correlation:+.2f}")
        said += [f"{count} contaminated by {benchmark}" for benchmark, count in one.benchmarks.items()]
        lines += [f"{one.name}: {', '.join(said)}"] if said else []
    return lines


def calibration_lines(audit: Audit) -> list[str]:
    """The calibration test in a line for each source and what it was asked for."""
    return [
        f"calibration of {one.source}{' at ' + one.declared if one.declared else ''}: {number(one.tokens, ',')} tokens, z of "
        + ", ".join(f"{score.event} {'-' if score.z is None else format(score.z, '+.1f')}" for score in one.scores)
        + f" (bound {one.bound:.2f})"
        for one in audit.calibration
    ]


def summary(audit: Audit, *, gap: str = THIN) -> list[str]:
    """The audit in a few lines of text."""
    shards, found = audit.shards, audit.kinds
    state = "complete" if audit.complete else "unfinished"
    became = (
        f"{number(found['hit'], gap)} hits, {number(found['duplicate'], gap)} duplicates, "
        f"{number(found['near_miss'], gap)} near misses, "
        f"{number(audit.outcomes['drop'] - found['duplicate'] - found['near_miss'], gap)} otherwise dropped, "
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
    """Both tables as markdown, without anything that differs between two runs over one pool."""
    funnel = _markdown(_FUNNEL, (_funnel_row(one, THIN) for one in audit.filters), {"filter", "why"})
    families = _markdown(_FAMILIES, (_family_row(one, THIN) for one in _families(audit)), {"family"})
    return f"{funnel}\n\n{families}\n"


def table_of(**parts: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as one table; of several parts the first column, `table`, says which a row is of, and what it does not have is null.
    Objects and lists become JSON text."""
    rows = [({"table": part} if len(parts) > 1 else {}) | dict(row) for part, some in parts.items() for row in some]
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: [_plain(row.get(name)) for row in rows] for name in names})


def audit_table(audit: Audit, said: "Statistics", drift: Sequence[Mapping[str, Any]] = ()) -> pa.Table:
    """All tables of the audit, its statistics and what it was compared with, with nothing rounded."""
    filters = [
        {"name": one.name, "role": one.role, "seen": one.seen, "kept": one.kept, "dropped": sum(one.dropped.values())}
        | {"undecided": sum(one.undecided.values()), "reasons": one.dropped, "errors": one.undecided, "seconds": one.seconds}
        for one in audit.filters
    ]
    families = []
    for one in _families(audit):
        low, high = one.interval or (None, None)
        given = {name: value for name, value in asdict(one).items() if name not in ("family", "interval", "filters")}
        families.append({"name": one.family} | given | {"low": low, "high": high})
    funnels = [
        {"name": one.name, "family": family.family, "seen": one.seen, "kept": one.kept, "dropped": sum(one.dropped.values())}
        | {"undecided": sum(one.undecided.values()), "reasons": one.dropped, "errors": one.undecided}
        for family in audit.families
        for one in family.filters
    ]
    reasons = [{"name": one.filter} | {k: v for k, v in asdict(one).items() if k != "filter"} for one in audit.reasons]
    errors = [
        {"name": one.name, "reason": reason, "error": error, "samples": count}
        for one in audit.filters
        for reason, found in one.errors.items()
        for error, count in found.items()
    ]
    more = {name: [asdict(one) for one in getattr(audit, name)] for name in ("diversity", "temperatures", "overlaps")}
    parts = ("pass_at_k", "rates", "agreement", "answers", "likelihoods", "lengths")
    more |= {name: [asdict(one) for one in getattr(said, name)] for name in parts}
    return table_of(
        filters=filters, families=families, funnels=funnels, reasons=reasons, errors_of_filters=errors, **more, drift=list(drift)
    )


def finite(value: Any) -> Any:
    """The same without what JSON has no word for: what is no number is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    return [finite(one) for one in value] if isinstance(value, list | tuple) else value


def _plain(value: object) -> object:
    return json.dumps(finite(value), ensure_ascii=False, default=str) if isinstance(value, Mapping | list | tuple) else value


def number(count: int, gap: str = THIN) -> str:
    """A count with `gap` between groups of three digits."""
    return f"{count:,}".replace(",", gap)


def share(part: float, whole: float) -> str:
    """A share in percent, to three digits; empty where the whole is nothing."""
    return percent(part / whole) if whole else ""


def percent(rate: float) -> str:
    """A rate in percent. What is not nought or all is never shown as if it were."""
    value = 100 * rate
    if value in (0, 100):
        return f"{value:.0f} %"
    if value < 0.05 or value > 99.95:
        return "<0.1 %" if value < 50 else ">99.9 %"
    return f"{value:.1f} %"


# -- inside --------------------------------------------------------------------------------------------------------------


def _families(audit: Audit) -> tuple[FamilyStats, ...]:
    return audit.families if len(audit.families) == 1 else (*audit.families, audit.total)


def _funnel_row(one: FilterStats, gap: str) -> list[str]:
    return [
        one.name,
        number(one.seen, gap),
        f"{number(one.kept, gap)} {_in_brackets(share(one.kept, one.seen))}".strip(),
        number(sum(one.dropped.values()), gap),
        number(sum(one.undecided.values()), gap),
        ", ".join(f"{reason} {number(count, gap)}" for reason, count in _reasons(one).items()),
    ]


def _family_row(one: FamilyStats, gap: str) -> list[str]:
    rate = "" if one.pass_rate is None else percent(one.pass_rate)
    if one.interval is not None:
        low, high = (100 * bound for bound in one.interval)
        rate += f" [{low:.1f}, {high:.1f}]"
    return [
        one.family,
        number(one.prompts, gap),
        number(one.samples, gap),
        rate,
        number(one.hits, gap),
        share(one.anchors_passed, one.anchors_judged),
    ]


def _reasons(one: FilterStats) -> Mapping[str, int]:
    both = {**one.dropped}
    for reason, count in one.undecided.items():
        both[reason] = both.get(reason, 0) + count
    return both


def _in_brackets(text: str) -> str:
    return f"({text})" if text else ""


def _table(title: str, columns: Sequence[str]) -> "Table":
    """A table whose first column may be folded where the terminal is narrow; numbers never are."""
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
    return "\n".join(
        [*lines, *("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows)]
    )
