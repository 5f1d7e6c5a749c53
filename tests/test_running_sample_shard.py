"""Sampling one shard: interrupted, extended, and with prompts that kill the engine."""

import operator
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.runs import pool_rows, run_recipe, sample_until_it_dies
from thresher.errors import StoreError
from thresher.inputs import recipe_file
from thresher.pool import journal
from thresher.running import steps
from thresher.running.progress import Progress
from thresher.running.sample_shard import sample_shard
from thresher.samplers.replay import ReplaySampler
from thresher.samplers.sampler import Drawn, Group

Write = Callable[..., Path]


def test_an_interrupted_run_keeps_its_finished_shards(recipe: Write, tmp_path: Path) -> None:
    """The rerun samples only what is missing and ends with the same ids as an uninterrupted one."""
    path = recipe()
    sample_until_it_dies(path, tmp_path / "run", after=4)
    before = (tmp_path / "run/samples/00000.parquet").stat().st_mtime_ns

    again = steps.begin(recipe_file.load(path), tmp_path / "run")
    assert again.missing == [1]
    run_recipe(path, tmp_path / "run")
    run_recipe(path, tmp_path / "uninterrupted")
    assert (tmp_path / "run/samples/00000.parquet").stat().st_mtime_ns == before
    assert [row["sample_id"] for row in pool_rows(tmp_path / "run")] == [
        row["sample_id"] for row in pool_rows(tmp_path / "uninterrupted")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 3, 5, 7])
def test_finished_prompt_groups_are_not_drawn_again(recipe: Write, tmp_path: Path, after: int) -> None:
    """Wherever the engine stops, its finished groups are in the journal: the rerun draws only the others."""
    path = recipe()
    sample_until_it_dies(path, tmp_path / "run", after)
    asked: list[Group] = []
    real = ReplaySampler.answer

    def noted(self: ReplaySampler, group: Group) -> Drawn:
        asked.append(group)
        return real(self, group)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReplaySampler, "answer", noted)
        run_recipe(path, tmp_path / "run")
    run_recipe(path, tmp_path / "uninterrupted")

    assert len(asked) == 8 - after
    assert pool_rows(tmp_path / "run") == pool_rows(tmp_path / "uninterrupted")
    assert not list((tmp_path / "run").glob("journal/*"))


@pytest.mark.parametrize("fault", ["the journal is gone", "another process finished it"])
def test_a_shard_that_is_not_as_it_was_drawn_is_not_written(recipe: Write, tmp_path: Path, fault: str) -> None:
    """What others finished meanwhile stays as it is."""
    begun = steps.begin(recipe_file.load(recipe()), tmp_path / "run")
    other = steps.begin(recipe_file.load(tmp_path / "recipe.yaml"), tmp_path / "other")
    sampler = ReplaySampler(tmp_path / "answers.jsonl")
    with Progress() as progress:
        sample_shard(other.run, 0, sampler, progress)
    store, real = begun.run.store, ReplaySampler.answer

    def answer(self: ReplaySampler, group: Group) -> Drawn:
        if store.names("journal", ".arrows") and fault == "the journal is gone":
            journal.remove(store, 0)
        elif fault != "the journal is gone":
            for name in ("samples/00000.parquet", "samples/00000.json"):
                store.write_bytes(name, other.run.store.read_bytes(name))
        return real(self, group)

    with pytest.MonkeyPatch.context() as patch, Progress() as progress:
        patch.setattr("thresher.samplers.replay.GROUPS_PER_TAKE", 1)
        patch.setattr(ReplaySampler, "answer", answer)
        with pytest.raises(StoreError, match=r"another process wrote it meanwhile|wanted the 10 samples of shard 0 .*, found "):
            sample_shard(begun.run, 0, sampler, progress)
    run_recipe(tmp_path / "recipe.yaml", tmp_path / "run")

    assert len(pool_rows(tmp_path / "run")) == 20


@pytest.mark.slow
def test_more_samples_per_prompt_draw_only_the_new_ones(recipe: Write, tmp_path: Path) -> None:
    """The first four keep their ids and rows; the old file is removed; the run equals one that drew six from the start."""
    path = recipe()
    run_recipe(path, tmp_path / "run")
    before = {row["sample_id"] for row in pool_rows(tmp_path / "run")}
    asked: list[Group] = []
    real = ReplaySampler.answer

    def noted(self: ReplaySampler, group: Group) -> Drawn:
        asked.append(group)
        return real(self, group)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReplaySampler, "answer", noted)
        found = run_recipe(path, tmp_path / "run", "sampling.samples_per_prompt=6").audit.to_dict()
    run_recipe(path, tmp_path / "at_once", "sampling.samples_per_prompt=6")

    assert found["samples"] == 24
    assert {group.indices for group in asked} == {(4, 5)}
    rows = pool_rows(tmp_path / "run")
    assert before < {row["sample_id"] for row in rows}
    key = operator.itemgetter("sample_id")
    assert sorted(rows, key=key) == sorted(pool_rows(tmp_path / "at_once"), key=key)
    assert len(list((tmp_path / "run/samples").glob("*.parquet"))) == 2
    assert run_recipe(path, tmp_path / "run").audit.samples == 24  # fewer again: nothing drawn is thrown away


class Poison(ReplaySampler):
    """A sampler whose engine cannot answer one prompt."""

    def answer(self, group: Group) -> Drawn:
        if "Japan" in group.messages[-1].content:
            return Drawn(group.number, (), error="the engine died 3 times while it sampled this prompt")
        return super().answer(group)


@pytest.mark.parametrize("budget", [[], ["sampling.target_hits=2"]], ids=["fixed", "adaptive"])
def test_a_prompt_that_kills_the_engine_is_undecided(recipe: Write, tmp_path: Path, budget: list[str]) -> None:
    """Its samples are in the pool with the error, no filter counts them, and the run ends complete."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("thresher.samplers.open_sampler.ReplaySampler", Poison)
        found = run_recipe(recipe(), tmp_path / "run", *budget).audit.to_dict()

    failed = [row for row in pool_rows(tmp_path / "run") if row["error"]]
    assert {row["messages"][-1]["content"] for row in failed} == {"Capital of Japan?"}
    assert found["not_sampled"] == {"the engine died 3 times while it sampled this prompt": 5}
    assert found["outcomes"]["undecided"] == 4
    assert found["filters"][0]["seen"] == found["samples"] - 4
    from datasets import load_dataset

    rollouts = load_dataset(str(tmp_path / "run/dataset"), "rollouts", split="train")
    assert {row["reason"] for row in rollouts if row["error"]} == {"not_sampled"}
