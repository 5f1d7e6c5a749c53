"""The steps end to end on the replay engine: what is kept, resumed, refused and repaired."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import known
from helpers.runs import pool_rows, run_recipe, sample_until_it_dies
from thresher.auditing.count_run import count
from thresher.inputs import recipe_file
from thresher.pool.run import open_run
from thresher.running import steps
from thresher.samplers.sampler import EngineFacts

Write = Callable[..., Path]


def audit_of(recipe: Path, out: Path, *changes: str) -> dict[str, Any]:
    """Run a recipe to its end; returns the audit as JSON values."""
    return run_recipe(recipe, out, *changes).audit.to_dict()


def test_a_run_ends_with_hits_misses_and_duplicates_that_add_up(recipe: Write, tmp_path: Path) -> None:
    """16 samples: Paris x2 and Lyon, Madrid, Tokyo x2 and Kyoto x2, Rome x2 and two that were cut."""
    found = audit_of(recipe(), tmp_path / "run")

    assert found["samples"] == 16
    assert found["anchors"] == 4
    assert found["outcomes"] == {"keep": 4, "drop": 12, "undecided": 0}
    assert {kind: found["kinds"][kind] for kind in ("hit", "duplicate", "miss")} == {"hit": 4, "duplicate": 7, "miss": 3}
    assert found["problems"] == []
    assert found["total"]["passed"] == 11


def test_every_sample_records_its_parameters(recipe: Write, tmp_path: Path) -> None:
    """Temperature 1 and nothing truncated for samples, greedy for the anchor."""
    run_recipe(recipe(), tmp_path / "run")
    rows = pool_rows(tmp_path / "run")

    assert {json.loads(row["sampling"])["temperature"] for row in rows if not row["anchor"]} == {1.0}
    assert {json.loads(row["sampling"])["temperature"] for row in rows if row["anchor"]} == {0.0}
    assert {row["index"] for row in rows} == {-1, 0, 1, 2, 3}
    assert len({row["sample_id"] for row in rows}) == 20


def test_a_finished_run_is_known_as_finished(recipe: Write, tmp_path: Path) -> None:
    """A second call of the same command has nothing to do."""
    path = recipe()
    begun = steps.begin(recipe_file.load(path), tmp_path / "run")

    assert steps.finished(begun) is None
    run_recipe(path, tmp_path / "run")
    assert steps.finished(steps.begin(recipe_file.load(path), tmp_path / "run")) is not None


@pytest.mark.slow
def test_a_corrupt_shard_is_moved_aside_and_redone(recipe: Write, tmp_path: Path) -> None:
    """The other shard is left alone, and the dataset is complete again."""
    path = recipe()
    first = audit_of(path, tmp_path / "run")
    shard = tmp_path / "run/samples/00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-20])

    second = audit_of(path, tmp_path / "run")
    assert second["outcomes"] == first["outcomes"]
    assert shard.with_name("00001.parquet.damaged").exists()


def test_other_filters_are_applied_to_the_pool_without_sampling(recipe: Write, tmp_path: Path) -> None:
    """The replay table is taken away, so sampling again would fail."""
    run_recipe(recipe(), tmp_path / "run")
    path = recipe(filters=[{"name": "exact_answer", "parameters": {"case_sensitive": False}}])
    (tmp_path / "answers.jsonl").unlink()

    found = audit_of(path, tmp_path / "run")
    assert [filter_counts["name"] for filter_counts in found["filters"]] == ["exact_answer"]
    assert found["outcomes"]["keep"] == 11


def test_a_filter_over_the_run_drops_answers_to_other_prompts(recipe: Write, tmp_path: Path) -> None:
    """Scope corpus: duplicates of the run, after those of the prompt."""
    rows = [{"country": c, "answer": "Georgetown"} for c in ("Guyana", "Cayman")]
    path = recipe(filters=[{"name": "finished"}], dedupe={"run_characters": 0})
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = [{"prompt": f"Capital of {row['country']}?", "completion": "Georgetown"} for row in rows]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))

    found = audit_of(path, tmp_path / "run", "run.shard_samples=5")
    assert found["outcomes"] == {"keep": 1, "drop": 7, "undecided": 0}
    assert [filter_counts["name"] for filter_counts in found["filters"]] == ["finished", "near_duplicate", "near_duplicate_run"]
    assert found["filters"][2]["dropped"] == {"exact_duplicate": 1}


def test_a_third_party_filter_is_named_by_module(recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`module:build`, with a Config of its own; its failure on one sample leaves the others judged."""
    (tmp_path / "banned_words.py").write_text(
        "from pydantic import BaseModel\n"
        "from filters.base import Filter, Role, Scope\n"
        "from filters.judging import one_by_one\n"
        "from schemas.sample import Verdict\n"
        "class Config(BaseModel):\n    banned: str\n"
        "def build(config):\n"
        "    def judge(sample):\n"
        "        if sample.completion == 'Lyon': raise ValueError('cannot read Lyon')\n"
        "        return Verdict.drop('banned_word') if config.banned in sample.completion else Verdict.keep()\n"
        "    return Filter('banned', '1', Scope.SAMPLE, Role.QUALITY, one_by_one(judge, ['completion']), ('completion',))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = audit_of(recipe(filters=[{"name": "banned_words:build", "parameters": {"banned": "Kyoto"}}]), tmp_path / "run")
    sys.modules.pop("banned_words")

    assert found["filters"][0]["dropped"] == {"banned_word": 2}
    assert found["filters"][0]["undecided"] == {"filter_error": 1}
    assert found["outcomes"]["undecided"] == 1


@pytest.mark.slow
def test_filters_may_run_in_processes_of_their_own(recipe: Write, tmp_path: Path) -> None:
    """The same verdicts as in this process."""
    here = audit_of(recipe(), tmp_path / "here")
    apart = audit_of(recipe(), tmp_path / "apart", "run.filter_workers=1")

    assert [{**filter_counts, "seconds": 0} for filter_counts in here["filters"]] == [
        {**item, "seconds": 0} for item in apart["filters"]
    ]


def test_lost_verdicts_fail_the_audit(recipe: Write, tmp_path: Path) -> None:
    """Counts that do not add up are problems of the audit."""
    run_recipe(recipe(), tmp_path / "run")
    run = open_run(tmp_path / "run")
    store = run.store
    entry = known(store.entry("verdicts/00000"))
    store.write_table("verdicts/00000", store.read_table("verdicts/00000").slice(3), key=entry.key, facts=entry.facts)

    assert count(run).problems


RIGHT = {"France": 0, "Spain": 3, "Japan": 9, "Italy": None}
"""Number of the first right answer of each prompt; from there on right and wrong ones alternate, each right one in other
words."""


def adaptive(recipe: Write, tmp_path: Path, **sampling: Any) -> Path:
    """The small recipe with a budget, and answers of which some prompts need more."""
    budget = {"samples_per_prompt": 4, "target_hits": 2, "max_samples_per_prompt": 20, "max_tokens": 16} | sampling
    filters = [{"name": "exact_answer", "parameters": {"after": "A:"}}]
    path = recipe(sampling=budget, filters=filters, dedupe={"within_prompt": 1.0, "within_run": None})
    capitals = {"France": "Paris", "Spain": "Madrid", "Japan": "Tokyo", "Italy": "Rome"}
    rows = []
    for country, first in RIGHT.items():
        for n in range(20):
            right = first is not None and n >= first and (n - first) % 2 == 0
            answer = capitals[country] if right else "Bonn"
            rows.append({"prompt": f"Capital of {country}?", "completion": f"{n} A: {answer}"})
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def drawn_by_prompt(out: Path) -> dict[str, int]:
    rows = pool_rows(out)
    asked = [row["messages"][-1]["content"] for row in rows if not row["anchor"]]
    return {country: asked.count(f"Capital of {country}?") for country in RIGHT}


def test_prompts_get_waves_until_they_have_enough_hits(recipe: Write, tmp_path: Path) -> None:
    """Waves end at 4, 6, 9, 13, 19 and 20: two hits are found after 3, 6 and 12 draws; Italy never has one."""
    found = audit_of(adaptive(recipe, tmp_path), tmp_path / "run")

    assert drawn_by_prompt(tmp_path / "run") == {"France": 4, "Spain": 6, "Japan": 13, "Italy": 20}
    assert found["total"]["pass_rate"] == pytest.approx((1 / 2 + 1 / 5 + 1 / 11 + 0) / 4)
    assert found["problems"] == []


def test_a_hopeless_prompt_is_given_up(recipe: Write, tmp_path: Path) -> None:
    """With give_up_below 0.25, after the 9 draws of its third wave: 7 without a pass are enough. Japan's first hit is the
    tenth."""
    run_recipe(adaptive(recipe, tmp_path, give_up_below=0.25), tmp_path / "run")

    assert drawn_by_prompt(tmp_path / "run") == {"France": 4, "Spain": 6, "Japan": 9, "Italy": 9}


@pytest.mark.parametrize("after", [1, 5, 7])
@pytest.mark.slow
def test_an_interrupted_adaptive_run_equals_an_uninterrupted_one(recipe: Write, tmp_path: Path, after: int) -> None:
    """Its first shard stops after so many groups, in whatever wave."""
    path = adaptive(recipe, tmp_path)
    sample_until_it_dies(path, tmp_path / "run", after)
    run_recipe(path, tmp_path / "run")
    run_recipe(path, tmp_path / "uninterrupted")

    assert pool_rows(tmp_path / "run") == pool_rows(tmp_path / "uninterrupted")


@pytest.mark.slow
def test_a_raised_target_resumes_the_run(recipe: Write, tmp_path: Path) -> None:
    """Prompts that need more get more; the run equals one that had the higher target from the start."""
    path = adaptive(recipe, tmp_path)
    run_recipe(path, tmp_path / "run")
    run_recipe(path, tmp_path / "run", "sampling.target_hits=3")
    run_recipe(path, tmp_path / "at_once", "sampling.target_hits=3")

    ids = [{row["sample_id"] for row in pool_rows(tmp_path / name)} for name in ("run", "at_once")]
    assert ids[0] == ids[1]


@pytest.mark.slow
def test_a_run_with_enough_rows_samples_no_further_shard(recipe: Write, tmp_path: Path) -> None:
    """The run is complete and its dataset holds the sampled shards; a raised target samples the others."""
    path = recipe()
    rows = [{"country": f"C{number}", "answer": "Rome"} for number in range(24)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = [{"prompt": f"Capital of C{number}?", "completion": "Rome"} for number in range(24)]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    small = ["run.shards_in_flight=1", "run.shard_samples=5"]
    found = audit_of(path, tmp_path / "run", "sampling.target_rows=3", *small)
    sampled = found["shards"]["sampled"]

    assert found["complete"]
    assert 3 <= found["kinds"]["hit"] == sampled < 24
    assert steps.finished(steps.begin(recipe_file.load(path, ["sampling.target_rows=3", *small]), tmp_path / "run")) is not None
    more = audit_of(path, tmp_path / "run", f"sampling.target_rows={sampled + 1}", *small)
    assert sampled < more["shards"]["sampled"] <= 24
    assert audit_of(path, tmp_path / "run", *small)["kinds"]["hit"] == 24


@pytest.mark.slow
def test_a_list_of_temperatures_samples_each(recipe: Write, tmp_path: Path) -> None:
    """Each is labelled, has ids of its own and a row in the audit; the card names what is not temperature 1."""
    found = audit_of(recipe(), tmp_path / "run", "sampling.temperature=[0.5, 1.0]")
    rows = pool_rows(tmp_path / "run")

    assert found["samples"] == 32
    assert [(temperature["temperature"], temperature["samples"]) for temperature in found["temperatures"]] == [
        (0.5, 16),
        (1.0, 16),
    ]
    assert {json.loads(row["sampling"])["temperature"] for row in rows} == {0.0, 0.5, 1.0}
    assert all(row["temperature"] == json.loads(row["sampling"])["temperature"] for row in rows)
    assert len({row["sample_id"] for row in rows}) == len(rows)
    assert "changed by temperature 0.5 and 1" in (tmp_path / "run/dataset/README.md").read_text()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], 2 + 52),  # as many as fill 256 sequences twice: 512 samples in shards of 10
        (["run.shard_bytes=1900"], 3),
        (["run.shard_bytes=1"], 2),
        (["run.shard_bytes=1", "run.shards_in_flight=7"], 7),
    ],
)
def test_shards_with_much_text_are_not_sampled_all_at_once(
    recipe: Write, tmp_path: Path, changes: list[str], expected: int
) -> None:
    """Two full ones, or as many as have no more."""
    begun = steps.begin(recipe_file.load(recipe(), changes), tmp_path / "run")

    assert steps.shards_in_flight(begun.run, EngineFacts("replay", "1", 256, "chat", None)) == expected
