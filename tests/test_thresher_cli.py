"""The command line, as a user starts it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from thresher.cli import main

Write = Callable[..., Path]


def test_help_is_quick() -> None:
    """No heavy library is imported to print it."""
    code = "import sys, thresher.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\nprint(sorted(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert "Verified datasets" in said
    assert not {"pyarrow", "prefect", "vllm", "datasets", "pydantic", "rich"} & set(said.split("'"))


def test_run_then_run_again_then_audit(recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second run finds the finished work; the audit is JSON for machines."""
    path, out = str(recipe()), str(tmp_path / "run")

    assert main(["run", path, "--out", out, "--no-prefect"]) == 0
    assert "exact_answer" in capsys.readouterr().out
    assert main(["run", path, "--out", out]) == 0
    assert "already finished" in capsys.readouterr().out
    assert main(["audit", out, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for one in found["filters"]:
        assert one["seen"] == one["kept"] + sum(one["dropped"].values()) + sum(one["undecided"].values())


def test_check_accepts_a_sound_recipe(recipe: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Every reference is tried on its own verifier, and a wrong answer too."""
    assert main(["check", str(recipe())]) == 0
    said = capsys.readouterr().out

    assert "4 of 4 references accepted, 4 of 4 wrong answers refused" in said
    assert "capital: 4 prompts" in said


def test_check_fails_on_a_reference_its_verifier_refuses(recipe: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """A marker that the reference cannot carry twice; the prompt and the verdict are named."""
    path = recipe(filters=[{"name": "json_shape", "parameters": {"schema": {"type": "object"}}}])

    assert main(["check", str(path)]) == 1
    said = capsys.readouterr()
    assert "json_shape" in said.out + said.err


def test_check_names_a_missing_template_field(recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The row, the field, and the nearest there is."""
    path = recipe()
    (tmp_path / "prompts.jsonl").write_text('{"contry": "Peru", "answer": "Lima"}\n')

    assert main(["check", str(path)]) == 1
    said = capsys.readouterr().err
    assert "prompts.jsonl:1" in said
    assert "'country' is undefined; did you mean contry?" in said


def test_filter_brings_back_one_row_per_row(recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the file's order, with outcome and reason; a line that cannot be read is undecided."""
    import pyarrow.dataset

    lines = [
        json.dumps({"prompt": "Capital of Peru?", "completion": "Lima", "reference": "Lima", "id": 1}),
        json.dumps({"prompt": "Capital of Peru?", "completion": "Cusco", "reference": "Lima", "id": 2}),
        "{not json",
        json.dumps({"prompt": [{"role": "user", "content": "Capital of Chad?"}], "completion": "N'Djamena", "id": 4}),
        json.dumps({"prompt": "Capital of Peru?", "completion": "Lima ", "reference": "Lima", "id": 5}),
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines) + "\n")

    assert main(["filter", str(recipe()), "--samples", str(tmp_path / "mine.jsonl"), "--out", str(tmp_path / "out")]) == 0
    rows = pyarrow.dataset.dataset(tmp_path / "out/dataset/rollouts/train").to_table().to_pylist()
    assert [(row["outcome"], row["reason"]) for row in rows] == [
        ("keep", ""),
        ("drop", "wrong_answer"),
        ("undecided", "unreadable_row"),
        ("undecided", "no_reference"),
        ("drop", "exact_duplicate"),
    ]
    assert "mine.jsonl:3" in str(rows[2]["detail"])
    assert [json.loads(row["metadata"]).get("id") for row in rows] == [1, 2, None, 4, 5]
    assert main(["audit", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))["outcomes"]["undecided"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["audit", "nowhere"], "not a run directory"),
        (["run", "nowhere.yaml"], "cannot read the recipe"),
        (["schema", "exact_anser"], "did you mean exact_answer"),
    ],
)
def test_faults_are_one_message_and_no_traceback(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 1."""
    monkeypatch.chdir(tmp_path)

    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_a_model_directory_that_is_none_is_refused(recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is sampled; what is missing is listed."""
    (tmp_path / "model").mkdir()

    assert main(["run", str(recipe(model={"name": "./model"})), "--out", str(tmp_path / "run")]) == 1
    assert "config.json" in capsys.readouterr().err


def test_a_damaged_verdict_fails_the_audit(recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named, with what to do."""
    assert main(["run", str(recipe()), "--out", str(tmp_path / "run"), "--no-prefect"]) == 0
    path = tmp_path / "run/verdicts/00000.parquet"
    path.write_bytes(path.read_bytes()[:-9])

    assert main(["audit", str(tmp_path / "run")]) == 1
    assert "verdicts/00000.parquet" in capsys.readouterr().err
