"""`thresher study`, from a recipe to the page."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.studies import DRAWS, run_small_study, small_study
from thresher.cli import main

Write = Callable[..., Path]


@pytest.mark.slow
def test_a_study_from_its_recipe_to_its_page(recipe: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """A second call draws nothing, and one with more samples draws only those."""
    path = small_study(recipe)
    assert run_small_study(path, "--samples", str(DRAWS)) == 0
    assert "recommended: --set sampling.temperature=" in capsys.readouterr().out
    out = path.parent / "study"
    study = json.loads((out / "study.json").read_text())
    assert {hypothesis["verdict"] for hypothesis in study["hypotheses"]} <= {"supported", "refuted", "open"}
    assert [(row["temperature"], row["draws"]) for row in study["temperatures"]] == [(0, 10), (0.5, 80), (1, 80), (1.5, 80)]
    page = (out / "study.html").read_text()
    assert "temperature study" in page
    assert "https://" not in page.split("<script")[0]
    entries = {file.name: file.stat().st_mtime_ns for file in (out / "draws" / "samples").glob("*.parquet")}
    assert run_small_study(path, "--samples", str(DRAWS), "--json") == 0
    assert json.loads(capsys.readouterr().out)["hypotheses"] == study["hypotheses"]
    assert {file.name: file.stat().st_mtime_ns for file in (out / "draws" / "samples").glob("*.parquet")} == entries
    assert run_small_study(path, "--samples", str(DRAWS + 2), "--csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [int(row["draws"]) for row in rows if row["table"] == "temperatures"] == [10, 100, 100, 100]
    assert {row["table"] for row in rows} == {"temperatures", "volumes", "changes", "equivalent", "hypotheses"}
    assert run_small_study(path, "--samples", str(DRAWS)) == 0
    assert (
        f"NOTE There are {DRAWS + 2} draws of each prompt and temperature, some from an earlier call" in capsys.readouterr().out
    )
    assert run_small_study(path, "--samples", str(DRAWS), "--wording", "Please: {}") == 1
    assert "salt was" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["nothing right", "no references", "one prompt"])
def test_a_study_notes_what_could_not_be_computed(recipe: Write, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = small_study(recipe)
    folder = path.parent
    if fault == "nothing right":
        rows = [json.loads(line) | {"completion": "no idea"} for line in (folder / "answers.jsonl").read_text().splitlines()]
        (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"no references": ["--set", "prompts.0.reference=null"], "one prompt": ["--set", "prompts.0.limit=1"]}.get(
        fault, []
    )
    assert run_small_study(path, "--samples", "4", *options) == 0
    page = (folder / "study" / "study.html").read_text()
    note = {
        "nothing right": "Nothing passed at any temperature",
        "no references": "of the draws could not be judged",
        "one prompt": "There is one prompt",
    }[fault]
    assert note in page
    printed = capsys.readouterr().out
    assert note in " ".join(printed.split())
    study = json.loads((folder / "study" / "study.json").read_text())
    assert {hypothesis["verdict"] for hypothesis in study["hypotheses"]} == {"open"}
    assert any(note in missing for missing in study["missing"])
    assert "recommended" in printed
    if fault == "no references":
        assert {row["solutions"]["value"] for row in study["temperatures"]} == {None}


def test_a_run_of_greedy_answers_only_needs_anchors(recipe: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """samples_per_prompt 0 draws greedy answers only, and is refused with `anchor: false`."""
    path = recipe(sampling={"samples_per_prompt": 0, "max_tokens": 16})
    assert main(["run", str(path), "--out", str(path.parent / "run"), "--no-prefect"]) == 0
    assert "0 samples" in capsys.readouterr().out
    path = recipe(sampling={"samples_per_prompt": 0, "max_tokens": 16, "anchor": False})
    assert main(["check", str(path)]) == 1
    assert "draws only the anchors" in capsys.readouterr().err
