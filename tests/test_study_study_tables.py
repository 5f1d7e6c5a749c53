"""A study in a terminal and as CSV."""

from helpers.studies import simulated_measures
from thresher.study.results import results
from thresher.study.study_tables import hypothesis_lines, short_table, whole_table

STUDY = results(simulated_measures(20, 1, rate=lambda temperature: 0.3))


def test_the_short_table_has_a_row_per_temperature() -> None:
    rows = short_table(STUDY).to_pylist()

    assert [row["temperature"] for row in rows] == ["0", "0.3", "1", "1.5"]
    assert set(rows[0]) == {"temperature", "draws", "fail", "near", "depart", "right", "per 1,000 tokens", "entropy"}


def test_the_whole_table_has_a_value_and_two_ends_per_estimate() -> None:
    table = whole_table(STUDY)

    assert set(table["table"].to_pylist()) == {"temperatures", "volumes", "changes", "equivalent", "hypotheses"}
    assert {"failure", "failure_low", "failure_high", "value_low", "value_high"} <= set(table.column_names)


def test_each_hypothesis_has_its_verdict_and_statistic() -> None:
    text = "\n".join(hypothesis_lines(STUDY))

    for hypothesis in STUDY.hypotheses:
        assert f"{hypothesis.verdict}: {hypothesis.says}" in text
        assert hypothesis.statistic in text
    assert "-0.000" not in text
