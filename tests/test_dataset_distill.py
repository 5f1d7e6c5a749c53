"""The view `distill`: hits with the likeliest tokens of each position, as TRL's distillation trainer reads them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from helpers.runs import dataset_of
from helpers.small_run import small_run
from schemas.sampling import Sampling
from thresher.dataset import views
from thresher.dataset.distill import distill
from thresher.dataset.messages import decoded
from thresher.pool import judged as pool
from thresher.releases.validation import _validator

KEPT = {"keep_top_logprobs": 2}
VIEWS = {"license": "mit", "views": ["sft", "distill"]}
FOLDER = Path(__file__).parent / "helpers"


def judged(tmp_path: Path) -> pa.Table:
    return pool.read_judged(small_run(tmp_path, sampling=KEPT, dataset=VIEWS).store, 0)


def test_a_row_has_the_likeliest_tokens_and_the_drawn_one(tmp_path: Path) -> None:
    """The prompt 1, 2; the completion 0, 1, 2, where 0 and 1 were the likeliest at each position."""
    table = distill(judged(tmp_path), "chat")
    [row] = table.to_pylist()
    none = float("-inf")

    assert table.schema.equals(views.schema("distill", "chat"))
    assert row["input_ids"] == [1, 2, 0, 1, 2]
    assert row["completion_mask"] == [0, 0, 1, 1, 1]
    assert row["teacher_topk_ids"] == [[-1] * 3, [-1] * 3, [0, 1, -1], [0, 1, -1], [0, 1, 2]]
    assert row["teacher_topk_logprobs"] == [[none] * 3, [none] * 3, [-0.5, -1.5, none], [-0.5, -1.5, none], [-0.5, -1.5, -0.5]]
    assert row["logprobs_kind"] == "raw"


def test_samples_without_the_lists_have_no_row(tmp_path: Path) -> None:
    """Those of a server that gave none."""
    samples = judged(tmp_path)
    place = samples.schema.get_field_index("top_ids")
    without = samples.set_column(place, "top_ids", pa.nulls(samples.num_rows, samples["top_ids"].type))

    assert distill(without, "chat").num_rows == 0
    assert distill(samples.slice(0, 0), "chat").num_rows == 0


def test_rows_of_different_lengths_stay_apart(tmp_path: Path) -> None:
    """Against the rows put together one by one."""
    random = np.random.default_rng(5)
    lengths, k = [3, 1, 7], 4
    rows: dict[str, Any] = {"prompt_ids": [], "completion_ids": [], "logprobs": [], "top_ids": [], "top_logprobs": []}
    for length in lengths:
        rows["prompt_ids"].append(random.integers(0, 50, length + 1).tolist())
        rows["completion_ids"].append(random.integers(0, 9, length).tolist())
        rows["logprobs"].append(random.normal(size=length).astype(np.float32).tolist())
        rows["top_ids"].append(np.concatenate([random.permutation(9)[:k] for _ in range(length)]).tolist())
        rows["top_logprobs"].append(random.normal(size=length * k).astype(np.float32).tolist())
    whole = judged(tmp_path).slice(0, 1)
    samples = pa.concat_tables([whole] * 3)
    for name, values in {**rows, "kind": ["hit"] * 3, "anchor": [False] * 3}.items():
        place = samples.schema.get_field_index(name)
        samples = samples.set_column(place, name, pa.array(values, samples.schema.field(name).type))

    for number, row in enumerate(distill(samples, "chat").to_pylist()):
        prompt, drawn = rows["prompt_ids"][number], rows["completion_ids"][number]
        ids, logprobs = np.reshape(rows["top_ids"][number], (-1, k)), np.reshape(rows["top_logprobs"][number], (-1, k))
        assert row["input_ids"] == prompt + drawn
        assert len(row["teacher_topk_ids"]) == len(row["teacher_topk_logprobs"]) == len(prompt) + len(drawn)
        for at, token in enumerate(drawn):
            listed = token in ids[at]
            assert row["teacher_topk_ids"][len(prompt) + at] == [*ids[at], -1 if listed else token]
            last = float("-inf") if listed else rows["logprobs"][number][at]
            assert row["teacher_topk_logprobs"][len(prompt) + at] == [*logprobs[at], last]


def test_datasets_reads_the_view_and_its_rows_fit_the_schema(tmp_path: Path, load: Any) -> None:
    folder = dataset_of(small_run(tmp_path, sampling=KEPT, dataset=VIEWS))
    rows = list(load(folder, "distill").with_format("numpy"))

    assert len(rows) == len(list(load(folder, "sft"))) == 5
    assert [row["teacher_topk_ids"].shape for row in rows] == [(len(row["input_ids"]), 3) for row in rows]
    assert rows[0]["teacher_topk_logprobs"].dtype == np.float32
    for row in decoded(distill(judged(tmp_path / "again"), "chat")):
        assert not list(_validator("distill").iter_errors(row))


def test_other_views_do_not_read_the_lists(tmp_path: Path) -> None:
    assert {"top_ids", "top_logprobs"} <= views.unread(["rollouts", "sft"])
    assert not views.unread(["distill"])


def test_the_view_wants_what_it_shows(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"set sampling\.keep_top_logprobs"):
        small_run(tmp_path, dataset=VIEWS)
    assert Sampling().keep_top_logprobs is None


@pytest.mark.slow
def test_trl_distils_from_the_view_as_it_is(tmp_path: Path) -> None:
    """Two steps of the one trainer of TRL 1.16 that reads likeliest tokens instead of asking a teacher."""
    dataset = dataset_of(small_run(tmp_path, sampling=KEPT, dataset=VIEWS))
    command = [sys.executable, "-W", "ignore", str(FOLDER / "train_two_steps.py"), str(dataset), "distill"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)

    assert done.returncode == 0, done.stderr[-4000:]
    assert "AsyncDistillationTrainer: 2 steps" in done.stdout.splitlines()
    losses = json.loads(done.stdout.splitlines()[-1])
    assert len(losses) == 2
    assert all(0 < loss < 20 for loss in losses)
