"""audit and sql."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.printed import numbers, printed_json, printed_lines, printed_rows
from helpers.small_run import small_run
from thresher.auditing.count_run import count
from thresher.cli import main

TABLES = [
    *("filters", "families", "funnels", "reasons"),
    *("diversity", "pass_at_k", "rates", "agreement", "answers", "likelihoods", "lengths"),
]


Audited = tuple[dict[str, list[dict[str, str]]], Any]
Recipe = Callable[..., Path]


def by_table(rows: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """The rows of each table of a CSV."""
    return {name: [row for row in rows if row["table"] == name] for name in dict.fromkeys(row["table"] for row in rows)}


@pytest.fixture
def audited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Audited:
    """The audit of a small run, as the tables of the CSV and as JSON."""
    root = small_run(tmp_path).root
    return by_table(printed_rows(capsys, "audit", root)), printed_json(capsys, "audit", root)


def test_audit_has_every_table_as_csv_and_as_json(audited: Audited) -> None:
    tables, document = audited

    assert list(tables) == TABLES
    for name in TABLES[5:]:
        assert len(tables[name]) == len(document["statistics"][name]) > 0


def test_the_rows_of_filters_are_those_of_the_json(audited: Audited) -> None:
    tables, document = audited

    for row, entry in zip(tables["filters"], document["filters"], strict=True):
        assert (row["name"], row["role"], int(row["seen"]), int(row["kept"])) == (
            *(entry["name"], entry["role"]),
            *(entry["seen"], entry["kept"]),
        )
        assert (json.loads(row["reasons"]), json.loads(row["errors"])) == (entry["dropped"], entry["undecided"])
        assert int(row["seen"]) == int(row["kept"]) + int(row["dropped"]) + int(row["undecided"])
        assert row["pass_rate"] == row["prompts"] == ""


def test_the_rows_of_families_are_those_of_the_json(audited: Audited) -> None:
    tables, document = audited

    for row, entry in zip(tables["families"], [*document["families"], document["total"]], strict=True):
        assert row["name"] == entry["family"]
        assert numbers(row, ("pass_rate", "low", "high")) == [entry["pass_rate"], *entry["interval"]]
        assert int(row["hits"]) == entry["hits"]
        assert row["seconds"] == ""
    funnels = [(family["family"], entry) for family in document["families"] for entry in family["filters"]]
    for row, (family, entry) in zip(tables["funnels"], funnels, strict=True):
        assert (row["name"], row["family"], int(row["seen"])) == (entry["name"], family, entry["seen"])
        assert json.loads(row["reasons"]) == entry["dropped"]


def test_the_rows_of_reasons_are_those_of_the_json(audited: Audited) -> None:
    tables, document = audited

    for row, entry in zip(tables["reasons"], document["reasons"], strict=True):
        assert (row["name"], row["outcome"], row["reason"]) == (entry["filter"], entry["outcome"], entry["reason"])
        assert (int(row["samples"]), float(row["share"])) == (entry["samples"], entry["share"])


def test_an_audit_against_an_earlier_run_has_the_drift(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = small_run(tmp_path / "a"), small_run(tmp_path / "b", [("sums", ["right", "wrong"], None)] * 9)
    command = ("audit", second.root, "--against", first.root)
    rows, document = by_table(printed_rows(capsys, *command))["drift"], printed_json(capsys, *command)

    assert len(rows) > 0
    for row, entry in zip(rows, document["drift"], strict=True):
        rates = ["" if entry[name] is None else str(entry[name]) for name in ("before", "after")]
        assert [row["of"], row["before"], row["after"]] == [entry["of"], *rates]
    assert printed_lines(capsys, *command)[-1] == document["against"]


def test_audit_all_has_a_row_per_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = small_run(tmp_path / "a")
    small_run(tmp_path / "b", [("sums", ["right", "wrong"], None)] * 9)
    rows, document = printed_rows(capsys, "audit", "--all", str(tmp_path)), printed_json(capsys, "audit", "--all", str(tmp_path))

    assert [(row["run"], float(row["pass_rate"])) for row in rows] == [(entry["run"], entry["pass_rate"]) for entry in document]
    assert len(rows) == 2
    assert float(rows[0]["pass_rate"]) == count(first).total.pass_rate


@pytest.mark.parametrize("command", [["audit"], ["audit", "RUN", "--all", "DIR"]])
def test_audit_wants_one_run_or_a_directory_of_runs(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 1
    assert "give either the directory of one run, or --all DIR" in capsys.readouterr().err


def test_a_page_is_named_beside_the_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, so that standard output stays JSON."""
    root = small_run(tmp_path).root

    assert main(["audit", root, "--json", "--html"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["name"]
    assert printed.err == f"report: {root}/report.html\n"


@pytest.mark.slow
def test_a_damaged_verdict_file_fails_the_audit(recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names the file."""
    assert main(["run", str(recipe()), "--out", str(tmp_path / "run"), "--no-prefect"]) == 0
    path = tmp_path / "run/verdicts/00000.parquet"
    path.write_bytes(path.read_bytes()[:-9])

    assert main(["audit", str(tmp_path / "run")]) == 1
    assert "verdicts/00000.parquet" in capsys.readouterr().err


def test_sql_prints_the_same_as_csv_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("sql", small_run(tmp_path).root, "select 1 as a, 'x,\"y\"' as b")

    assert printed_rows(capsys, *command) == [{"a": "1", "b": 'x,"y"'}]
    assert printed_json(capsys, *command) == [{"a": 1, "b": 'x,"y"'}]
