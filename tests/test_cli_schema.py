"""JSON Schemas."""

import json
from pathlib import Path

import pytest

from helpers.printed import printed_lines
from thresher.cli import main
from thresher.dataset import schema_files


def test_the_schema_of_recipes_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads("\n".join(printed_lines(capsys, "schema")))

    assert {"name", "prompts", "engine", "filters"} <= set(document["properties"])


def test_the_schema_of_a_filter_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads("\n".join(printed_lines(capsys, "schema", "exact_answer")))

    assert "strip" in document["properties"]


def test_a_stale_schema_fails_the_check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(schema_files, "stale", lambda: [Path("schemas/recipe.schema.json")])

    assert main(["schema", "--check"]) == 1
    assert capsys.readouterr().err == "thresher: schemas/recipe.schema.json is stale; run `make schemas`\n"


def test_schemas_that_are_written_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(schema_files, "write", lambda: [Path("schemas/recipe.schema.json")])

    assert main(["schema", "--write"]) == 0
    assert capsys.readouterr().err == "thresher: wrote schemas/recipe.schema.json\n"
