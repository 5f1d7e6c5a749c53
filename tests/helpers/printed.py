"""What a command prints."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import pytest

from thresher.cli import main


def printed_lines(capsys: pytest.CaptureFixture[str], *command: str) -> list[str]:
    """Run a command that succeeds; return the lines on standard output."""
    capsys.readouterr()
    assert main(command) == 0
    return capsys.readouterr().out.splitlines()


def printed_rows(capsys: pytest.CaptureFixture[str], *command: str) -> list[dict[str, str]]:
    """Run a command with --csv; return its rows. Nothing else is on standard output."""
    capsys.readouterr()
    assert main([*command, "--csv"]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def printed_json(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    """Run a command with --json; return the document. Nothing else is on standard output."""
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def numbers(row: dict[str, str], names: Sequence[str]) -> list[float]:
    """Return cells of a CSV row as numbers."""
    return [float(row[name]) for name in names]
