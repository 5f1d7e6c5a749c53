"""run, check, preview and estimate; study has a test file of its own."""

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.printed import numbers, printed_json, printed_lines, printed_rows
from helpers.small_model import write_model
from thresher.cli import main

Recipe = Callable[..., Path]


def test_run_then_run_again_then_audit(recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second run finds the work finished and prints the same; the audit counts all that a filter saw."""
    path, out = str(recipe()), str(tmp_path / "run")

    first = printed_lines(capsys, "run", path, "--out", out, "--no-prefect")
    again = printed_lines(capsys, "run", path, "--out", out)
    assert again == [f"already finished: {out} has nothing left to sample, filter or write", *first]
    assert first[-2:] == [
        f"dataset: {out}/dataset",
        f"""read it: python -c "from datasets import load_dataset; print(load_dataset('{out}/dataset', 'sft'))\"""",
    ]
    filters = printed_json(capsys, "audit", out)["filters"]
    assert "exact_answer" in [row["name"] for row in filters]
    for row in filters:
        assert row["seen"] == row["kept"] + sum(row["dropped"].values()) + sum(row["undecided"].values())


def test_a_model_directory_without_a_model_is_refused(recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is sampled; the message names the missing file."""
    (tmp_path / "model").mkdir()

    assert main(["run", str(recipe(model={"name": "./model"})), "--out", str(tmp_path / "run")]) == 1
    assert "config.json" in capsys.readouterr().err


def test_check_accepts_a_sound_recipe(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    """Every reference is tried on its own verifier, and a wrong answer too. A table of answers has no template."""
    path = str(recipe())

    assert printed_lines(capsys, "check", path) == [
        "capital: 4 prompts",
        "  user: Capital of France?",
        "exact_answer: 4 of 4 references accepted, 4 of 4 wrong answers refused",
        f"{path}: ready to run",
    ]


@pytest.mark.parametrize(
    ("filter_", "words", "line"),
    [
        (
            {"name": "exact_answer", "parameters": {"strip": "Paris"}},
            ["exact_answer: refuses the reference of capital 'Capital of France?'", "'Paris'", "bad_reference"],
            "exact_answer: 3 of 4 references accepted, 3 of 4 wrong answers refused",
        ),
        (
            {"name": "json_shape", "parameters": {"schema": {"type": "object"}}},
            ["json_shape: cannot judge capital 'Capital of France?'", '"Paris"', "no_reference"],
            "json_shape: 0 of 4 references accepted, 0 of 0 wrong answers refused",
        ),
    ],
    ids=["refused", "cannot be judged"],
)
def test_check_fails_on_a_reference_that_its_verifier_does_not_accept(
    filter_: dict[str, Any], words: list[str], line: str, recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names filter, prompt, reference and reason, and nothing says that the recipe is ready."""
    path = recipe(filters=[filter_])

    assert main(["check", str(path)]) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines() == ["capital: 4 prompts", "  user: Capital of France?", line]
    first = printed.err.splitlines()[0]
    assert first.startswith(f"thresher: {path}: {words[0]}")
    for word in words[1:]:
        assert word in first


def test_check_that_fails_prints_the_same_faults_in_json(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe(filters=[{"name": "json_shape", "parameters": {"schema": {"type": "object"}}}])

    assert main(["check", str(path), "--json"]) == 1
    printed = capsys.readouterr()
    faults = json.loads(printed.out)["faults"]
    assert len(faults) == 4
    assert printed.err.splitlines() == [f"thresher: {path}: {fault}" for fault in faults]


def test_check_names_a_missing_template_field(recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the row, the field, and the field with the nearest name."""
    path = recipe()
    (tmp_path / "prompts.jsonl").write_text('{"contry": "Peru", "answer": "Lima"}\n')

    assert main(["check", str(path)]) == 1
    printed = capsys.readouterr().err
    assert "prompts.jsonl:1" in printed
    assert "'country' is undefined; did you mean contry?" in printed


def test_check_prints_the_same_as_csv_and_json(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(recipe())
    rows, document = printed_rows(capsys, "check", path), printed_json(capsys, "check", path)

    assert rows[0] == {"table": "families", "name": "capital", "prompts": "4"} | dict.fromkeys(list(rows[0])[3:], "")
    assert document["families"] == {"capital": 4}
    (trial,) = document["trials"]
    assert (rows[1]["table"], rows[1]["name"]) == ("trials", trial["label"])
    names = ("prompts", "gold_kept", "wrong_dropped")
    assert numbers(rows[1], names) == [trial[name] for name in names]
    assert numbers(rows[1], names) == [4, 4, 4]


@pytest.mark.slow
def test_check_renders_prompts_and_names_all_that_is_missing(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As text, JSON and CSV; the faults come last, so that they are seen."""
    write_model(tmp_path / "model", context=18)
    judge = {"name": "judge", "parameters": {"engine": {"kind": "replay", "path": "none.jsonl"}}}
    path = str(recipe(model={"name": "./model"}, engine={"kind": "vllm"}, filters=[{"name": "exact_answer"}, judge]))

    assert main(["check", path]) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "capital: 4 prompts, 4 tokens",
        "  user: Capital of France?",
        "  as the model reads it, 4 tokens; the model has no thinking marks:",
        "  | <user>Capital of France?</user>",
        "  | <assistant>",
        "exact_answer: 4 of 4 references accepted, 4 of 4 wrong answers refused",
    ]
    too_long, unread = printed.err.splitlines()
    assert too_long.startswith(f"thresher: {path}: prompts: family capital: 4 of the 4 prompts counted leave no room")
    assert unread.startswith(f"thresher: {path}: judge: parameters.engine.path: the table of answers cannot be read")
    assert main(["check", path, "--json"]) == 1
    (entry,) = json.loads(capsys.readouterr().out)["rendered"]
    assert (entry["text"], entry["too_long"]) == ("<user>Capital of France?</user>\n<assistant>", 4)
    assert main(["check", path, "--csv"]) == 1
    row = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))[1]
    assert (row["table"], row["name"], row["tokens"], row["thinking"]) == (
        *("rendered", "capital", "4"),
        "the model has no thinking marks",
    )


def test_preview_prints_samples_taken_apart_and_judged(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(recipe())

    lines = printed_lines(capsys, "preview", path, "-n", "2")
    document, rows = printed_json(capsys, "preview", path, "-n", "2"), printed_rows(capsys, "preview", path, "-n", "2")

    assert lines[:10] == [
        "capital",
        "  user: Capital of France?",
        '  reference: "Paris"',
        "capital, sample 1: ended by stop",
        "  answer:",
        "  | Paris",
        "  finished: keep",
        "  exact_answer: keep",
        "  near_duplicate: keep",
        "  = kept (hit)",
    ]
    assert [(sample["answer"], sample["kind"]) for sample in document["samples"]] == [("Paris", "hit"), ("Lyon", "miss")]
    assert [row["completion"] for row in rows] == ["Paris", "Lyon"]


def test_preview_fails_on_a_wrong_command_line(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(recipe())

    assert main(["preview", path, "-n", "0"]) == 1
    assert "--samples: must be 1 or more, found 0" in capsys.readouterr().err
    assert main(["preview", path, "--family", "capitol"]) == 1
    assert "--family: no family 'capitol'; did you mean capital?; the recipe has capital" in capsys.readouterr().err


@pytest.mark.slow
def test_estimate_prints_the_same_as_csv_and_json(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(recipe())
    rows, document = printed_rows(capsys, "estimate", path), printed_json(capsys, "estimate", path)

    bounds = ("value", "low", "high")
    by_name = {row["of"]: numbers(row, bounds) for row in rows}
    for name, field in {"samples": "samples", "hits, at most": "hits", "pass rate": "pass_rate"}.items():
        assert by_name[name] == [document[field][bound] for bound in bounds]
    assert len(rows) == 6


def test_estimate_for_people_has_a_line_per_quantity(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    probe, whole, *lines = printed_lines(capsys, "estimate", str(recipe()))

    assert probe.startswith("probe: 20 samples of 4 prompts in ")
    assert whole == "the whole run, 4 prompts (95 % interval over prompts):"
    assert [line[2:24].strip() for line in lines] == [
        *("samples", "tokens", "seconds of sampling", "pass rate", "hits, at most", "hits per 1,000 tokens"),
    ]
    assert lines[0].split() == ["samples", "20", "[20,", "20]"]


@pytest.mark.parametrize(("flag", "least"), [("--prompts", 2), ("--samples", 1)])
def test_a_probe_that_is_too_small_is_refused(flag: str, least: int, recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", str(recipe()), flag, str(least - 1)]) == 1
    assert capsys.readouterr().err == f"thresher: {flag}: must be {least} or more, found {least - 1}\n"


def test_a_run_goes_on_without_a_prefect_that_cannot_be_imported(
    recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It reads files and variables when it is imported, and raises what it likes."""
    monkeypatch.setitem(sys.modules, "flows.pipeline", None)

    assert main(["run", str(recipe()), "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr()
    (line,) = [line for line in said.err.splitlines() if "Prefect" in line]
    assert line.startswith("thresher: going on without Prefect: it cannot be imported: import of flows.pipeline halted")
    assert "16 samples of 4 prompts: 4 hits" in said.out
