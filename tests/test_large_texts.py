"""Runs with more text than one Arrow array, one batch or one shard may hold.

Fast tests lower those bounds to a few bytes, so that small runs go through all that is done in chunks. Slow ones have 3 GB.
"""

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from filters import chunks, judging
from filters.similarity import kernel
from helpers.own_samples import related_samples
from helpers.runs import filter_rows, run_recipe
from thresher.dataset import distill, parquet_files
from thresher.estimators import diversity
from thresher.judging import verdict_cache
from thresher.pool import journal, rows, store

Write = Callable[..., Path]
VIEWS = {"license": "mit", "views": ["sft", "prompts", "preference", "unpaired", "rollouts"], "test_share": 0.2}
CALL = [{"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]


@pytest.fixture
def few_bytes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lower every bound to one or two rows."""

    def lower() -> None:
        for module in (chunks, rows, journal, kernel):
            monkeypatch.setattr(module, "CHUNK_BYTES", 600)
        for module in (judging, verdict_cache):
            monkeypatch.setattr(module, "BATCH_BYTES", 300)
        for module in (store, parquet_files):
            monkeypatch.setattr(module, "GROUP_BYTES", 700)
        monkeypatch.setattr(distill, "PART_BYTES", 500)
        monkeypatch.setattr(diversity, "PART_BYTES", 30)

    return lower


def tables(run: Path) -> dict[str, Any]:
    """The rows of every table of a run and of its dataset, by folder; names of files have hashes of their bytes."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for file in sorted(run.rglob("*.parquet")):
        found[str(file.relative_to(run).parent)] += pq.read_table(file).to_pylist()
    return found


def distinct(run: Path) -> list[float]:
    """The sums of distinct-1 and distinct-2 of the only shard and family."""
    facts = json.loads((run / "verdicts/00000.json").read_text())["facts"]
    return list(facts["distinct"]["default"])


def conversations() -> list[dict[str, Any]]:
    """Samples that think and call tools."""
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}]
    said: dict[str, Any] = {"role": "assistant", "content": "A: 2"}
    extras: list[dict[str, Any]] = [{}, {"reasoning_content": "Two."}, {"tool_calls": CALL}, {"content": "A: 3"}]
    return [
        {
            "messages": [*turns, said | extra],
            "reference": "2",
            "tools": [{"type": "function", "function": {"name": "add"}}],
            "n": number,
        }
        for number, extra in enumerate(extras * 3)
    ]


@pytest.mark.slow
def test_brought_samples_give_the_same_dataset_in_any_chunks(tmp_path: Path, few_bytes: Callable[[], None]) -> None:
    """Duplicates, near misses, tool calls and reasoning included."""
    samples, recipe = [*related_samples(3), *conversations()], {"dataset": VIEWS}
    filter_rows(tmp_path, samples, recipe, "whole")
    few_bytes()
    filter_rows(tmp_path, samples, recipe, "cut")

    assert pq.read_metadata(tmp_path / "cut/samples/00000.parquet").num_row_groups > 10
    assert tables(tmp_path / "cut") == tables(tmp_path / "whole")
    assert distinct(tmp_path / "cut") == pytest.approx(distinct(tmp_path / "whole"))


@pytest.mark.slow
def test_a_run_gives_the_same_dataset_in_any_chunks(recipe: Write, tmp_path: Path, few_bytes: Callable[[], None]) -> None:
    """What is drawn, journalled and joined with its prompts."""
    path = recipe(dedupe={}, dataset=VIEWS)
    run_recipe(path, tmp_path / "whole")
    few_bytes()
    run_recipe(path, tmp_path / "cut")

    assert pq.read_metadata(tmp_path / "cut/samples/00000.parquet").num_row_groups > 3
    assert tables(tmp_path / "cut") == tables(tmp_path / "whole")


def test_arrow_refuses_what_the_chunks_are_for() -> None:
    """Where a version of Arrow joins more than 2 GiB by itself, filters.chunks is not needed any more. The 2.5 GiB are never
    touched, and take no memory."""
    offsets = np.arange(513, dtype=np.int32) << 20
    text = pa.StringArray.from_buffers(512, pa.py_buffer(offsets), pa.py_buffer(np.zeros(512 << 20, np.uint8)))
    column = pa.chunked_array([text] * 5)

    with pytest.raises(pa.ArrowInvalid, match="offset overflow"):
        column.take(pa.array([0]))
    assert chunks.take(pa.table([column], ["text"]), np.array([2559, 3]))["text"].nbytes > 1 << 21


PROGRAM = """
import sys
from thresher.cli import main
status = main(sys.argv[1:])
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
sys.exit(status)
"""
"""A command of thresher that prints the largest resident set of its process, in KiB."""
LINE = "A long text of many words, each of them right and none of them needed. "
LARGE: dict[str, Any] = {
    "name": "large",
    "engine": {"kind": "replay", "path": "answers.jsonl"},
    "prompts": [
        {
            "family": "large", "source": {"kind": "jsonl", "path": "prompts.jsonl"}, "reference": None, "metadata": [],
            "system": "{{ text }}", "template": "{{ question }}",
        }
    ],
    "sampling": {"samples_per_prompt": 1, "anchor": False, "max_tokens": 16},
    "filters": [{"name": "finished"}],
    "dedupe": None,
    "near_miss": None,
    "run": {"filter_workers": 0},
    "dataset": {"license": "mit", "views": ["sft"]},
}  # fmt: skip


def peak_of(folder: Path, recipe: dict[str, Any], *arguments: str) -> int:
    """Run a command in a process of its own; returns its largest resident set in bytes."""
    (folder / "large.yaml").write_text(yaml.safe_dump(recipe))
    command, path = [sys.executable, "-c", PROGRAM, *arguments], os.pathsep.join(filter(None, sys.path))
    ended = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return int(ended.stdout.split()[-1]) << 10


@pytest.mark.slow
def test_three_gigabytes_of_prompts(tmp_path: Path) -> None:
    """2,048 prompts of 1.5 MB would be one shard by their number, which no column of one chunk could hold. Memory is that of a
    few shards."""
    text = LINE * (1_500_000 // len(LINE))
    with (tmp_path / "prompts.jsonl").open("w") as prompts, (tmp_path / "answers.jsonl").open("w") as answers:
        for number in range(2048):
            prompts.write(f'{{"text": "{number:04d}{text}", "question": "{number}?"}}\n')
            answers.write(f'{{"prompt": "{number}?", "completion": "{number}!"}}\n')
    peak = peak_of(tmp_path, LARGE, "run", "large.yaml", "--out", "run", "--no-prefect")

    lengths = [
        size
        for file in sorted((tmp_path / "run/dataset/sft/train").iterdir())
        for batch in pq.ParquetFile(file).iter_batches(16, columns=["prompt"])
        for size in pc.utf8_length(batch["prompt"].flatten().field("content")).to_pylist()[::2]
    ]
    assert lengths == [4 + len(text)] * 2048
    assert peak < 4 << 30
