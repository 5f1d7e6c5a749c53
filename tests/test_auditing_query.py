"""What `thresher sql` prints as CSV, as JSON and in a terminal."""

import csv
import io
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from helpers.small_run import small_run
from thresher.auditing.count_run import count
from thresher.auditing.query import query
from thresher.auditing.statistics import statistics
from thresher.cli import main
from thresher.errors import AuditError
from thresher.pool.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return small_run(tmp_path / "run")


def asked(capsys: pytest.CaptureFixture[str], run: Run, sql: Any, *how: Any) -> Any:
    assert main(["sql", run.root, sql, *how]) == 0
    return capsys.readouterr().out


@pytest.mark.slow
def test_columns_with_the_same_name_are_numbered(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    sql = 'select v.sample_id, s.sample_id, 1 as sample_id from verdicts v join samples s using (shard, "row") limit 2'

    assert asked(capsys, run, sql, "--csv").splitlines()[0] == "sample_id,sample_id_2,sample_id_3"
    assert all(row.keys() == {"sample_id", "sample_id_2", "sample_id_3"} for row in json.loads(asked(capsys, run, sql, "--json")))
    assert main(["sql", run.root, "select * from verdicts join samples using (sample_id)"]) == 0


def test_numbers_stay_numbers_and_missing_values_are_null(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "select sum(len(completion_ids)) as s, 'nan'::double as n, 1.5::decimal(4, 2) as d, 1e30::hugeint as h from samples"

    assert json.loads(asked(capsys, run, sql, "--json")) == [{"s": 100, "n": None, "d": 1.5, "h": 1e30}]


def test_lists_are_json_in_csv(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    text = asked(capsys, run, "select completion_ids, messages from samples order by sample_id limit 1", "--csv")

    (row,) = csv.DictReader(io.StringIO(text))
    assert isinstance(json.loads(row["completion_ids"]), list)
    message = json.loads(row["messages"])[0]
    assert {name: text for name, text in message.items() if text is not None} == {"role": "system", "content": "Be brief."}


def test_a_terminal_shows_texts_and_does_nothing_else(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    shown = asked(capsys, run, "select ':smile: [bold]x[/bold]' as a, chr(27) || '[31m' as b")

    assert ":smile: [bold]x[/bold]" in shown
    assert "\\x1b[31m" in shown
    assert "\x1b" not in shown


def test_wide_rows_are_shown_a_value_a_line(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = asked(capsys, run, "select * from samples limit 2")

    assert "row 1" in shown
    assert "row 2" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_stats_has_every_number_of_the_audit_with_its_labels(run: Run) -> None:
    rows = query(run, "select * from stats").to_pylist()
    values = {(row["section"], row["of"], row["name"]): row["value"] for row in rows}
    audit, figures = count(run), statistics(run)

    for reason in audit.reasons:
        assert values["reasons", f"{reason.filter} / {reason.reason}", "samples"] == reason.samples
    for family in audit.families:
        for counts in family.filters:
            assert values["families", f"{family.family} / {counts.name}", "filters.seen"] == counts.seen
    for point in figures.pass_at_k:
        assert values["pass_at_k", f"{point.family} / {point.k}", "value"] == point.value
    for answers in figures.answers:
        assert values["answers", f"{answers.family} / {answers.of}", "entropy"] == answers.entropy
    assert values["total", "all", "pass_rate"] == audit.total.pass_rate


@pytest.mark.slow
@pytest.mark.parametrize("where", ["disk", "memory"])
def test_a_query_reads_the_run_and_nothing_else(tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other file, no writing, no network, no extensions, no settings, no variables of this process."""
    run = small_run(tmp_path / "run" if where == "disk" else f"memory://{tmp_path.name}/run")
    secret, inside = tmp_path / "secret.csv", f"{run.root}/mine.csv"
    secret.write_text("key\nvalue\n")
    monkeypatch.chdir(tmp_path)
    table = pa.table({"variable": [1]})
    assert table.num_rows == 1
    refused = [
        f"select * from read_csv('{secret}')",
        f"select * from read_text('{tmp_path}/run/../secret.csv')",
        "select * from 'secret.csv'",
        f"select * from glob('{tmp_path}/*')",
        "select * from table",
        "select * from read_csv('http://127.0.0.1:1/x.csv')",
        f"copy (select 1) to '{inside}'",
        f"explain analyze copy (select 1) to '{inside}'",
        f"explain /*x*/ analyze copy (select 1) to '{inside}'",
        f"explain (format json) copy (select 1) to '{inside}'",
        f"/* explain */ explain analyze -- x\n copy (select 1) to '{inside}'",
        f"select 1; copy (select 1) to '{inside}'",
        f"attach '{inside}' as other",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "pragma memory_limit = '9GB'",
        "drop view samples",
        "",
    ]

    for sql in refused:
        with pytest.raises(AuditError, match=r"--unsafe|does not exist|syntax error"):
            query(run, sql)
    assert not run.store.exists("mine.csv")
    for sql in ("from samples", "with a as (select 1) select * from a", "describe samples", "explain select * from prompts"):
        assert query(run, sql).num_rows
    if where == "disk":
        assert query(run, f"select * from read_csv('{secret}')", unsafe=True).to_pylist() == [{"key": "value"}]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_query_is_interrupted_while_duckdb_computes(
    run: Run, capsys: pytest.CaptureFixture[str], number: signal.Signals, status: int
) -> None:
    """The query would take hours. The process gets the signal once DuckDB is at it."""
    long = "select count(*) from range(1000000000) a, range(1000000000) b where a.range + b.range < 0"
    timer = threading.Timer(0.5, os.kill, (os.getpid(), number))
    timer.start()

    assert main(["sql", run.root, long]) == status

    timer.join()
    assert capsys.readouterr().err.count("interrupted") == 1
    assert json.loads(asked(capsys, run, "select 1 as a", "--json")) == [{"a": 1}]
