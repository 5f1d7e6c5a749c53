"""Tables, JSON, CSV and lines of text."""

import argparse
import csv
import io
import json
import sys
from typing import Any

import pyarrow as pa
import pytest

from thresher.auditing.show import table_of
from thresher.cli.output import print_csv, print_error, print_json, print_line, print_note, print_rows, print_table
from thresher.terminal import visible

TABLE = pa.table({"name": ["a\x1b[2J", "b"], "rate": [0.123456789, None], "reasons": [{"cut": 1}, {"cut": 2}]})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, größer, 日本", "plain, größer, 日本"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("one\ntwo\tthree", "one\ntwo\tthree"),
        ("back\rward", "back\\rward"),
        ("\u202eleft", "\\u202eleft"),
    ],
)
def test_control_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_lines_and_errors_show_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    print_line("out\x07")
    print_error("bad\x07")

    assert capsys.readouterr() == ("out\\x07\n", "thresher: bad\\x07\n")


def test_a_terminal_without_unicode_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)

    print_line("größer")
    print_json({"größer": "日"})
    terminal.flush()
    line, *document = terminal.buffer.getvalue().decode("ascii").splitlines()
    assert line == "gr\\xf6\\xdfer"
    assert json.loads("".join(document)) == {"größer": "日"}


def test_notes_do_not_mix_with_data(capsys: pytest.CaptureFixture[str]) -> None:
    """They go to standard error where standard output is JSON or CSV."""
    print_note(argparse.Namespace(json=False, csv=False), "for people")
    print_note(argparse.Namespace(json=True, csv=False), "beside JSON")
    print_note(argparse.Namespace(json=False, csv=True), "beside CSV")

    assert capsys.readouterr() == ("for people\n", "beside JSON\nbeside CSV\n")


def test_json_has_null_for_what_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"rates": (float("nan"), float("inf"), 0.5)})

    assert json.loads(capsys.readouterr().out) == {"rates": [None, None, 0.5]}


def test_csv_has_json_text_for_objects(capsys: pytest.CaptureFixture[str]) -> None:
    print_csv(TABLE)

    assert capsys.readouterr().out.splitlines() == [
        "name,rate,reasons",
        'a\x1b[2J,0.123456789,"{""cut"": 1}"',
        'b,,"{""cut"": 2}"',
    ]


def test_no_cell_of_csv_is_a_formula_and_numbers_stay_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["=1+1", "+cmd", "-x", "@SUM(A1)", "\t=1", " =1", "\uff1d1", "-5", "+1.5e3", "plain", "a=b"]
    print_csv(pa.table({"=name": texts, "n": [-1.5] * 11}))

    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == ["'=name", "n"]
    assert [row[0] for row in rows[1:]] == [*(f"'{text}" for text in texts[:7]), "-5", "+1.5e3", "plain", "a=b"]
    assert {row[1] for row in rows[1:]} == {"-1.5"}


def test_a_table_shows_control_characters_and_six_digits(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(TABLE)

    header, _, first, second, *_ = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert header.split() == ["name", "rate", "reasons"]
    assert first.split(None, 2) == ["a\\x1b[2J", "0.123457", '{"cut": 1}']
    assert second.split(None, 1) == ["b", '{"cut": 2}']


def test_a_table_that_is_too_wide_has_one_value_per_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_table(pa.table({f"column_{number}": [number] for number in range(6)}))

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "row 1"
    assert [line.split() for line in lines[1:]] == [[f"column_{number}", str(number)] for number in range(6)]


@pytest.mark.parametrize(
    ("flag", "document", "printed"),
    [("csv", None, "x\n1\n"), ("json", None, '[\n {\n  "x": 1\n }\n]\n'), ("json", {"all": 1}, '{\n "all": 1\n}\n')],
)
def test_rows_are_printed_in_the_format_of_the_options(
    flag: str, document: dict[str, Any] | None, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_rows(argparse.Namespace(**({"json": False, "csv": False} | {flag: True})), pa.table({"x": [1]}), document)

    assert capsys.readouterr().out == printed


def test_a_table_of_several_parts_names_the_part() -> None:
    table = table_of(a=[{"x": 1}, {"x": 2.5, "y": {"k": 1}}], b=[{"z": [1]}])

    assert table.to_pylist() == [
        {"table": "a", "x": 1.0, "y": None, "z": None},
        {"table": "a", "x": 2.5, "y": '{"k": 1}', "z": None},
        {"table": "b", "x": None, "y": None, "z": "[1]"},
    ]
    assert table_of(a=[]).to_pylist() == []
