"""Charts are drawn from the audit's own numbers, and left out without data."""

from pathlib import Path
from typing import Any

from helpers.small_run import SIX_DRAWS, small_run
from thresher.auditing.count_run import count
from thresher.auditing.pages.charts import charts, funnel, rates, reasons
from thresher.auditing.statistics import statistics
from thresher.pool.run import Run


def rows(chart: Any) -> list[dict[str, Any]]:
    return list(chart.to_dict()["data"]["values"])


def drawn(run: Run) -> dict[str, Any]:
    return charts(count(run), statistics(run))


def test_the_funnel_has_every_filter_of_every_family(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    audit = count(run)

    values = rows(funnel(audit, statistics(run)))

    answer = {row["outcome"]: row["samples"] for row in values if (row["family"], row["filter"]) == ("all", "answer")}
    stats = audit.filters[1]
    assert answer == {"kept": stats.kept, "dropped": sum(stats.dropped.values()), "undecided": sum(stats.undecided.values())}
    assert {row["family"] for row in values} == {"all", "sums", "words"}


def test_reasons_and_rates_are_those_of_the_audit(tmp_path: Path) -> None:
    run = small_run(tmp_path, SIX_DRAWS)
    audit, figures = count(run), statistics(run)

    assert [row["samples"] for row in rows(reasons(audit, figures))] == [reason.samples for reason in audit.reasons]
    assert sum(row["prompts"] for row in rows(rates(audit, figures))) == 5


def test_charts_without_data_are_left_out(tmp_path: Path) -> None:
    assert drawn(small_run(tmp_path / "empty", stop_after=0)) == {}
    undecided = drawn(small_run(tmp_path / "undecided", [("sums", ["open"], None)]))
    assert {"funnel", "reasons"} <= undecided.keys()
    assert not {"pass_at_k", "rates", "similarity"} & undecided.keys()
