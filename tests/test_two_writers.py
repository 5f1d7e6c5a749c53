"""Two commands on one run directory at once: the run ends whole, on a disk where no file can be locked and on an object store."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helpers import own_samples
from thresher.dataset.write import dataset_finished
from thresher.pool.run import open_run

PAIRS = 10
PROGRAM = Path(own_samples.__file__).with_name("many_writers.py")


def started_together(folder: Path, commands: list[list[str]]) -> list[tuple[int, str]]:
    """Exit status and messages of each command."""
    (folder / "commands.json").write_text(json.dumps(commands))
    program = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder / "commands.json")],
        stdout=subprocess.PIPE,
        check=True,
        timeout=300,
    )
    return [(status, words) for status, words in json.loads(program.stdout)]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["a disk without file locks", "s3"])
def test_ten_pairs_that_write_ten_runs_at_once_leave_ten_whole_runs(
    tmp_path: Path, where: str, request: pytest.FixtureRequest
) -> None:
    """One of each pair writes; the other waits for it and finds nothing left, or says who writes. Nothing is left over."""
    samples = tmp_path / "samples.jsonl"
    samples.write_text("".join(json.dumps(row) + "\n" for row in own_samples.related_samples(2)))
    recipe = tmp_path / "recipe.yaml"
    filters = [{"name": "exact_answer", "parameters": {"after": "A:"}}]
    run = {"filter_workers": 0}
    recipe.write_text(
        yaml.safe_dump({"name": "pairs", "filters": filters, "dataset": {"views": ["sft", "rollouts"]}, "run": run})
    )
    root = f"{request.getfixturevalue('s3')}/pairs" if where == "s3" else str(tmp_path)
    roots = [f"{root}/run{number}" for number in range(PAIRS)]
    commands = [["filter", str(recipe), "--samples", str(samples), "--out", out] for out in roots for _ in range(2)]

    ended = started_together(tmp_path, commands)

    for first, second in zip(ended[::2], ended[1::2], strict=True):
        assert 0 in (first[0], second[0]), (first, second)
        for status, words in (first, second):
            assert status == 0 or (status == 1 and "is writing this run, and only one process may" in words), words
            assert "Traceback" not in words
    for out in roots:
        run_ = open_run(out)
        assert dataset_finished(run_)
        assert sum(table.num_rows for table in run_.view("rollouts")) == 2 * 7
        if where != "s3":
            assert not [path for path in Path(out).rglob("*") if path.suffix in (".tmp", ".part", ".damaged", ".arrows")]
