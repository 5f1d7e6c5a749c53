"""The view `tokens`: hits as the tokens that were sampled, as TRL's SFTTrainer takes them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from helpers.runs import dataset_of
from helpers.small_run import small_run
from thresher.dataset import tokens, views
from thresher.pool import judged as pool
from thresher.releases.validation import _validator

VIEWS = {"license": "mit", "views": ["sft", "tokens"]}
FOLDER = Path(__file__).parent / "helpers"


def judged(tmp_path: Path) -> pa.Table:
    return pool.read_judged(small_run(tmp_path, dataset=VIEWS).store, 0)


def test_a_row_is_the_prompt_and_what_was_sampled(tmp_path: Path) -> None:
    """The prompt 1, 2; the completion 0, 1, 2."""
    table = tokens.tokens(judged(tmp_path), "chat")
    [row] = table.to_pylist()

    assert table.schema.equals(views.schema("tokens", "chat"))
    assert row["input_ids"] == [1, 2, 0, 1, 2]
    assert row["labels"] == [-100, -100, 0, 1, 2]
    assert row["completion_mask"] == [0, 0, 1, 1, 1]
    assert not list(_validator("tokens").iter_errors(row))


def test_rows_of_any_length_keep_their_tokens_in_any_number_of_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    prompts = [random.integers(0, 50, size).tolist() for size in (0, 3, 7)]
    drawn = [random.integers(0, 50, size).tolist() for size in (4, 1, 9)]
    samples = pa.concat_tables([judged(tmp_path).slice(0, 1)] * 3)
    columns = {"prompt_ids": prompts, "completion_ids": drawn, "kind": ["hit"] * 3, "anchor": [False] * 3}
    for name, values in columns.items():
        place = samples.schema.get_field_index(name)
        samples = samples.set_column(place, name, pa.array(values, samples.schema.field(name).type))
    monkeypatch.setattr(tokens, "PART_BYTES", 50)
    parts = list(tokens.token_parts(samples, "chat"))
    rows = [row for part in parts for row in part.to_pylist()]

    assert len(parts) > 1
    assert [row["input_ids"] for row in rows] == [before + after for before, after in zip(prompts, drawn, strict=True)]
    assert [row["labels"] for row in rows] == [[-100] * len(a) + b for a, b in zip(prompts, drawn, strict=True)]


def test_a_hit_without_tokens_is_no_row(tmp_path: Path) -> None:
    samples = judged(tmp_path)
    place = samples.schema.get_field_index("completion_ids")
    samples = samples.set_column(place, "completion_ids", pa.nulls(samples.num_rows, samples.schema.field(place).type))

    assert tokens.tokens(samples, "chat").num_rows == 0


def test_datasets_reads_the_view(tmp_path: Path, load: Any) -> None:
    folder = dataset_of(small_run(tmp_path, dataset=VIEWS))
    rows = list(load(folder, "tokens"))

    assert len(rows) == len(list(load(folder, "sft"))) == 5
    assert all(len(row["input_ids"]) == len(row["labels"]) == len(row["completion_mask"]) for row in rows)


@pytest.mark.slow
def test_trl_trains_on_exactly_these_tokens(tmp_path: Path) -> None:
    """SFTTrainer of TRL 1.16 takes two steps, and its batches have the labels of the view."""
    dataset = dataset_of(small_run(tmp_path, dataset=VIEWS))
    command = [sys.executable, "-W", "ignore", str(FOLDER / "train_two_steps.py"), str(dataset), "tokens"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)

    assert done.returncode == 0, done.stderr[-4000:]
    assert "SFTTrainer: 2 steps" in done.stdout.splitlines()
    batch = json.loads(done.stdout.splitlines()[-1])
    assert {tuple(row[:5]) for row in batch["input_ids"]} == {(1, 2, 0, 1, 2)}
    assert {tuple(row[:5]) for row in batch["labels"]} == {(-100, -100, 0, 1, 2)}
