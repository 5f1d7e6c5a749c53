"""The steps end to end on the replay engine: what is kept, resumed, refused and made again."""

import json
import operator
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from thresher.audit.count_run import audit
from thresher.errors import EngineError, SourceError, StoreError
from thresher.executors.local import LocalExecutor
from thresher.inputs import recipe_file
from thresher.pool.store import Store
from thresher.run import steps
from thresher.run.progress import Progress
from thresher.samplers.replay import ReplaySampler
from thresher.samplers.sampler import Drawn

Write = Callable[..., Path]


def whole(path: Path, out: Path, *overrides: str, salt: str | None = None) -> dict[str, Any]:
    """Run a recipe through all steps; the audit as JSON has it."""
    begun = steps.begin(recipe_file.load(path, overrides), out, salt=salt)
    with Progress() as progress:
        found, _ = steps.run(begun, progress)
    return found.to_dict()


def sample_rows(out: Path) -> list[dict[str, Any]]:
    store = Store(out)
    return [row for name in store.names("samples", ".parquet") for row in store.read_table(f"samples/{name[:-8]}").to_pylist()]


def test_a_run_ends_with_hits_misses_and_duplicates_that_add_up(recipe: Write, tmp_path: Path) -> None:
    """16 samples: Paris x2 and Lyon, Madrid, Tokyo x2 and Kyoto x2, Rome x2 and two that were cut."""
    found = whole(recipe(), tmp_path / "run")

    assert found["samples"] == 16
    assert found["anchors"] == 4
    assert found["outcomes"] == {"keep": 4, "drop": 12, "undecided": 0}
    assert {kind: found["kinds"][kind] for kind in ("hit", "duplicate", "miss")} == {"hit": 4, "duplicate": 7, "miss": 3}
    assert found["problems"] == []
    assert found["total"]["passed"] == 11


def test_every_sample_records_its_parameters(recipe: Write, tmp_path: Path) -> None:
    """Temperature 1 and nothing truncated for samples, greedy for the anchor."""
    whole(recipe(), tmp_path / "run")
    rows = sample_rows(tmp_path / "run")

    assert {json.loads(row["sampling"])["temperature"] for row in rows if not row["anchor"]} == {1.0}
    assert {json.loads(row["sampling"])["temperature"] for row in rows if row["anchor"]} == {0.0}
    assert {row["index"] for row in rows} == {-1, 0, 1, 2, 3}
    assert len({row["sample_id"] for row in rows}) == 20


def test_ids_are_the_same_in_every_run_and_others_under_another_salt(recipe: Write, tmp_path: Path) -> None:
    """Identity comes from content; a scheduled run brings its own salt."""
    path = recipe()
    for name, salt in (("one", None), ("two", None), ("salted", "night")):
        whole(path, tmp_path / name, salt=salt)
    one, two, salted = ({row["sample_id"] for row in sample_rows(tmp_path / name)} for name in ("one", "two", "salted"))

    assert one == two
    assert not one & salted


def test_a_finished_run_is_known_as_finished(recipe: Write, tmp_path: Path) -> None:
    """A second call of the same command has nothing to do."""
    path = recipe()
    begun = steps.begin(recipe_file.load(path), tmp_path / "run")

    assert steps.finished(begun) is None
    whole(path, tmp_path / "run")
    assert steps.finished(steps.begin(recipe_file.load(path), tmp_path / "run")) is not None


class Dies:
    """A sampler that fails for good after so many groups, as an engine would."""

    def __init__(self, inner: Any, after: int) -> None:
        self._inner, self.facts, self.left = inner, inner.facts, after

    def stream(self, priority: int = 0) -> Any:
        self._stream, self._groups = self._inner.stream(priority), []
        return self

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def submit(self, groups: Any) -> None:
        self._groups += groups

    def take(self, timeout: float) -> Any:
        if not self._groups:
            return []
        if not self.left:
            raise EngineError("the engine died")
        self.left -= 1
        self._stream.submit([self._groups.pop(0)])
        return self._stream.take(timeout)

    def close(self) -> None:
        return None


def sample_until_it_dies(path: Path, out: Path, after: int) -> None:
    """Sample a run with an engine that answers `after` groups and then fails."""
    begun = steps.begin(recipe_file.load(path), out)
    sampler = Dies(ReplaySampler(path.parent / "answers.jsonl"), after)
    with Progress() as progress, LocalExecutor(0) as executor, pytest.raises(EngineError):
        executor.overlap(
            begun.missing,
            range(begun.shards),
            lambda shard: steps.sample_shard(begun.root, shard, sampler, progress),
            lambda shard: steps.winnow_shard(begun.root, shard),
            in_flight=lambda: 1,
        )


def test_an_interrupted_run_keeps_its_finished_shards(recipe: Write, tmp_path: Path) -> None:
    """The rerun samples only what is missing and ends with the same ids as an uninterrupted one."""
    path = recipe()
    sample_until_it_dies(path, tmp_path / "run", after=4)
    before = (tmp_path / "run/samples/00000.parquet").stat().st_mtime_ns

    again = steps.begin(recipe_file.load(path), tmp_path / "run")
    assert again.missing == [1]
    whole(path, tmp_path / "run")
    whole(path, tmp_path / "uninterrupted")
    assert (tmp_path / "run/samples/00000.parquet").stat().st_mtime_ns == before
    assert [row["sample_id"] for row in sample_rows(tmp_path / "run")] == [
        row["sample_id"] for row in sample_rows(tmp_path / "uninterrupted")
    ]


@pytest.mark.parametrize("after", [0, 3, 5, 7])
def test_finished_prompt_groups_are_not_drawn_again(recipe: Write, tmp_path: Path, after: int) -> None:
    """Wherever the engine stops, its finished groups are in the journal: the rerun asks for the others only."""
    path = recipe()
    sample_until_it_dies(path, tmp_path / "run", after)
    asked = []
    real = ReplaySampler.answer

    def noted(self: ReplaySampler, group: Any) -> Any:
        asked.append(group)
        return real(self, group)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReplaySampler, "answer", noted)
        whole(path, tmp_path / "run")
    whole(path, tmp_path / "uninterrupted")

    assert len(asked) == 8 - after
    assert sample_rows(tmp_path / "run") == sample_rows(tmp_path / "uninterrupted")
    assert not list((tmp_path / "run").glob("journal/*"))


@pytest.mark.slow
def test_more_samples_per_prompt_draw_only_the_new_ones(recipe: Write, tmp_path: Path) -> None:
    """The first four keep their ids and rows; the file before is gone; the run equals one that wanted six at once."""
    path = recipe()
    whole(path, tmp_path / "run")
    before = {row["sample_id"] for row in sample_rows(tmp_path / "run")}
    asked = []
    real = ReplaySampler.answer

    def noted(self: ReplaySampler, group: Any) -> Any:
        asked.append(group)
        return real(self, group)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReplaySampler, "answer", noted)
        found = whole(path, tmp_path / "run", "sampling.samples_per_prompt=6")
    whole(path, tmp_path / "at_once", "sampling.samples_per_prompt=6")

    assert found["samples"] == 24
    assert {group.indices for group in asked} == {(4, 5)}
    rows = tables(tmp_path / "run")
    assert before < {row["sample_id"] for row in rows}
    key = operator.itemgetter("sample_id")
    assert sorted(rows, key=key) == sorted(sample_rows(tmp_path / "at_once"), key=key)
    assert len(list((tmp_path / "run/samples").glob("*.parquet"))) == 2
    assert whole(path, tmp_path / "run")["samples"] == 24  # fewer again: nothing drawn is thrown away


def tables(out: Path) -> list[dict[str, Any]]:
    """The pool's rows, by the entries."""
    return [row for shard in range(2) for row in Store(out).read_table(f"samples/{shard:05d}").to_pylist()]


def test_a_corrupt_shard_is_moved_aside_and_redone(recipe: Write, tmp_path: Path) -> None:
    """The other shard is left alone and the dataset is whole again."""
    path = recipe()
    first = whole(path, tmp_path / "run")
    shard = tmp_path / "run/samples/00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-20])

    second = whole(path, tmp_path / "run")
    assert second["outcomes"] == first["outcomes"]
    assert shard.with_name("00001.parquet.damaged").exists()


def test_other_filters_are_applied_to_the_pool_without_sampling(recipe: Write, tmp_path: Path) -> None:
    """The replay table is taken away, so sampling again would fail."""
    whole(recipe(), tmp_path / "run")
    path = recipe(filters=[{"name": "exact_answer", "parameters": {"case_sensitive": False}}])
    (tmp_path / "answers.jsonl").unlink()

    found = whole(path, tmp_path / "run")
    assert [one["name"] for one in found["filters"]] == ["exact_answer"]
    assert found["outcomes"]["keep"] == 11


def test_another_sampling_in_the_same_directory_is_refused(recipe: Write, tmp_path: Path) -> None:
    """The message says what differs and what to do."""
    path = recipe()
    whole(path, tmp_path / "run")

    with pytest.raises(StoreError, match=r"sampling.max_tokens was 16 and is now 99; choose another directory with --out"):
        steps.begin(recipe_file.load(path, ["sampling.max_tokens=99"]), tmp_path / "run")


def test_changed_prompts_in_the_same_directory_are_refused(recipe: Write, tmp_path: Path) -> None:
    """The prompt file's hash is part of what decides the samples."""
    path = recipe()
    whole(path, tmp_path / "run")
    (tmp_path / "prompts.jsonl").write_text('{"country": "Peru", "answer": "Lima"}\n')

    with pytest.raises(StoreError, match=r"prompts.jsonl was"):
        steps.begin(recipe_file.load(path), tmp_path / "run")


def test_a_filter_over_the_run_drops_what_another_prompt_said(recipe: Write, tmp_path: Path) -> None:
    """Scope corpus: `exact_duplicate` within the run, after the one within the prompt."""
    rows = [{"country": c, "answer": "Georgetown"} for c in ("Guyana", "Cayman")]
    path = recipe(filters=[{"name": "exact_duplicate"}, {"name": "exact_duplicate", "parameters": {"within": "run"}}])
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = [{"prompt": f"Capital of {row['country']}?", "completion": "Georgetown"} for row in rows]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))

    found = whole(path, tmp_path / "run", "run.shard_samples=5")
    assert found["outcomes"] == {"keep": 1, "drop": 7, "undecided": 0}
    assert [one["name"] for one in found["filters"]] == ["exact_duplicate", "exact_duplicate_2"]
    assert found["filters"][1]["dropped"] == {"exact_duplicate": 1}


def test_a_corpus_filter_before_another_is_refused(recipe: Write, tmp_path: Path) -> None:
    """It could not see what the later one drops."""
    path = recipe(filters=[{"name": "exact_duplicate", "parameters": {"within": "run"}}, {"name": "finished"}])

    with pytest.raises(recipe_file.RecipeError, match=r"finished .scope sample. stands after exact_duplicate"):
        steps.begin(recipe_file.load(path), tmp_path / "run")


def test_a_third_party_filter_is_named_by_module(recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`module:build`, with a Config of its own; its failure on one sample leaves the others judged."""
    (tmp_path / "third_party.py").write_text(
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
    found = whole(recipe(filters=[{"name": "third_party:build", "parameters": {"banned": "Kyoto"}}]), tmp_path / "run")
    sys.modules.pop("third_party")

    assert found["filters"][0]["dropped"] == {"banned_word": 2}
    assert found["filters"][0]["undecided"] == {"filter_error": 1}
    assert found["outcomes"]["undecided"] == 1


@pytest.mark.slow
def test_filters_may_run_in_processes_of_their_own(recipe: Write, tmp_path: Path) -> None:
    """The same verdicts as in this process."""
    here = whole(recipe(), tmp_path / "here")
    apart = whole(recipe(), tmp_path / "apart", "run.filter_workers=1")

    assert [{**one, "seconds": 0} for one in here["filters"]] == [{**one, "seconds": 0} for one in apart["filters"]]


def test_no_prompts_is_an_error_before_anything_is_written(recipe: Write, tmp_path: Path) -> None:
    """An empty prompt file is named."""
    path = recipe()
    (tmp_path / "prompts.jsonl").write_text("")

    with pytest.raises(SourceError, match=r"capital.*no rows"):
        steps.begin(recipe_file.load(path), tmp_path / "run")


def test_lost_verdicts_fail_the_audit(recipe: Write, tmp_path: Path) -> None:
    """Counts that do not add up are named, whoever made them so."""
    whole(recipe(), tmp_path / "run")
    store = Store(tmp_path / "run")
    entry = store.entry("verdicts/00000")
    assert entry is not None
    store.write_table("verdicts/00000", store.read_table("verdicts/00000").slice(3), key=entry.key, facts=entry.facts)

    assert audit(store).to_dict()["problems"]


RIGHT = {"France": 0, "Spain": 3, "Japan": 9, "Italy": None}
"""Number of the first right answer of each prompt; from there on right and wrong ones alternate, each right one in other
words."""


def adaptive(recipe: Write, tmp_path: Path, **sampling: Any) -> Path:
    """The small recipe with a budget, on answers of which some prompts need more."""
    budget = {"samples_per_prompt": 4, "target_hits": 2, "max_samples_per_prompt": 20, "max_tokens": 16} | sampling
    filters = [{"name": "exact_answer", "parameters": {"after": "A:"}}, {"name": "exact_duplicate"}]
    path = recipe(sampling=budget, filters=filters)
    capitals = {"France": "Paris", "Spain": "Madrid", "Japan": "Tokyo", "Italy": "Rome"}
    rows = []
    for country, first in RIGHT.items():
        for n in range(20):
            right = first is not None and n >= first and (n - first) % 2 == 0
            answer = capitals[country] if right else "Bonn"
            rows.append({"prompt": f"Capital of {country}?", "completion": f"{'I' * n} A: {answer}"})
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def drawn_by_prompt(out: Path) -> dict[str, int]:
    rows = tables(out)
    asked = [row["messages"][-1]["content"] for row in rows if not row["anchor"]]
    return {country: asked.count(f"Capital of {country}?") for country in RIGHT}


def test_prompts_get_waves_until_they_have_enough_hits(recipe: Write, tmp_path: Path) -> None:
    """Waves end at 4, 6, 9, 13, 19 and 20: two hits stand there after 3, 6 and 12 draws; Italy never has one."""
    found = whole(adaptive(recipe, tmp_path), tmp_path / "run")

    assert drawn_by_prompt(tmp_path / "run") == {"France": 4, "Spain": 6, "Japan": 13, "Italy": 20}
    assert found["total"]["pass_rate"] == pytest.approx((1 / 2 + 1 / 5 + 1 / 11 + 0) / 4)
    assert found["problems"] == []


def test_a_hopeless_prompt_is_given_up(recipe: Write, tmp_path: Path) -> None:
    """With give_up_below 0.25, after the 9 draws of its third wave: 7 without a pass would do. Japan's first hit is the tenth."""
    whole(adaptive(recipe, tmp_path, give_up_below=0.25), tmp_path / "run")

    assert drawn_by_prompt(tmp_path / "run") == {"France": 4, "Spain": 6, "Japan": 9, "Italy": 9}


@pytest.mark.parametrize("after", [1, 5, 7])
@pytest.mark.slow
def test_an_interrupted_adaptive_run_draws_what_an_uninterrupted_one_would(recipe: Write, tmp_path: Path, after: int) -> None:
    """Its first shard stops after so many groups, in whatever wave."""
    path = adaptive(recipe, tmp_path)
    sample_until_it_dies(path, tmp_path / "run", after)
    whole(path, tmp_path / "run")
    whole(path, tmp_path / "uninterrupted")

    assert tables(tmp_path / "run") == tables(tmp_path / "uninterrupted")


@pytest.mark.slow
def test_a_raised_target_goes_on_where_it_stopped(recipe: Write, tmp_path: Path) -> None:
    """Prompts that need more get more; the run equals one that wanted as much at once."""
    path = adaptive(recipe, tmp_path)
    whole(path, tmp_path / "run")
    whole(path, tmp_path / "run", "sampling.target_hits=3")
    whole(path, tmp_path / "at_once", "sampling.target_hits=3")

    ids = [{row["sample_id"] for row in tables(tmp_path / name)} for name in ("run", "at_once")]
    assert ids[0] == ids[1]


@pytest.mark.slow
def test_a_run_with_enough_rows_begins_no_further_shard(recipe: Write, tmp_path: Path) -> None:
    """The run is complete and its dataset is of the shards that were begun; a raised target goes on with the others."""
    path = recipe()
    rows = [{"country": f"C{number}", "answer": "Rome"} for number in range(24)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = [{"prompt": f"Capital of C{number}?", "completion": "Rome"} for number in range(24)]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    small = ["run.shards_in_flight=1", "run.shard_samples=5"]
    found = whole(path, tmp_path / "run", "sampling.target_rows=3", *small)
    sampled = found["shards"]["sampled"]

    assert found["complete"]
    assert 3 <= found["kinds"]["hit"] == sampled < 24
    assert steps.finished(steps.begin(recipe_file.load(path, ["sampling.target_rows=3", *small]), tmp_path / "run")) is not None
    more = whole(path, tmp_path / "run", f"sampling.target_rows={sampled + 1}", *small)
    assert sampled < more["shards"]["sampled"] <= 24
    assert whole(path, tmp_path / "run", *small)["kinds"]["hit"] == 24


def test_a_list_of_temperatures_samples_each(recipe: Write, tmp_path: Path) -> None:
    """Each is labelled, has ids of its own and a row in the audit; the card names what is not temperature 1."""
    found = whole(recipe(), tmp_path / "run", "sampling.temperature=[0.5, 1.0]")
    rows = sample_rows(tmp_path / "run")

    assert found["samples"] == 32
    assert [(one["temperature"], one["samples"]) for one in found["temperatures"]] == [(0.5, 16), (1.0, 16)]
    assert {json.loads(row["sampling"])["temperature"] for row in rows} == {0.0, 0.5, 1.0}
    assert all(row["temperature"] == json.loads(row["sampling"])["temperature"] for row in rows)
    assert len({row["sample_id"] for row in rows}) == len(rows)
    assert "changed by temperature 0.5 and 1" in (tmp_path / "run/dataset/README.md").read_text()


class Poison(ReplaySampler):
    """A sampler whose engine cannot answer one prompt."""

    def answer(self, group: Any) -> Any:
        if "Japan" in group.messages[-1].content:
            return Drawn(group.number, (), error="the engine died 3 times while it sampled this prompt")
        return super().answer(group)


@pytest.mark.parametrize("budget", [[], ["sampling.target_hits=2"]], ids=["fixed", "adaptive"])
def test_a_prompt_that_kills_the_engine_is_undecided(recipe: Write, tmp_path: Path, budget: list[str]) -> None:
    """Its samples stand in the pool with the error, in no filter's count, and the run ends whole."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("thresher.samplers.replay.ReplaySampler", Poison)
        found = whole(recipe(), tmp_path / "run", *budget)

    failed = [row for row in tables(tmp_path / "run") if row["error"]]
    assert {row["messages"][-1]["content"] for row in failed} == {"Capital of Japan?"}
    assert found["not_sampled"] == {"the engine died 3 times while it sampled this prompt": 5}
    assert found["outcomes"]["undecided"] == 4
    assert found["filters"][0]["seen"] == found["samples"] - 4
    from datasets import load_dataset

    rollouts = load_dataset(str(tmp_path / "run/dataset"), "rollouts", split="train")
    assert {row["reason"] for row in rollouts if row["error"]} == {"not_sampled"}


def test_no_start_of_an_engine_has_the_seed_of_another(recipe: Write, tmp_path: Path) -> None:
    """They are numbered in the run directory; another salt has others."""
    path = recipe()
    begun = steps.begin(recipe_file.load(path), tmp_path / "run")
    salted = steps.begin(recipe_file.load(path), tmp_path / "salted", salt="night")
    again = steps.begin(recipe_file.load(path), tmp_path / "again")
    starts = [begun.start(), begun.start(), salted.start()]

    assert [number for number, _ in starts] == [1, 2, 1]
    assert len({seed for _, seed in starts}) == 3
    assert again.start() == starts[0]


@pytest.mark.slow
def test_an_estimate_is_what_the_run_brings(recipe: Write, tmp_path: Path) -> None:
    """Of all prompts and as many samples as the run draws, without touching the run's directory."""
    from thresher.run.estimate import estimate

    path = recipe()
    found = estimate(recipe_file.load(path), prompts=4, samples=4)
    audited = whole(path, tmp_path / "run")

    assert found.samples.value == audited["samples"] + audited["anchors"]
    assert found.hits.value == pytest.approx(audited["kinds"]["hit"])
    assert found.pass_rate.low <= found.pass_rate.value <= found.pass_rate.high
    assert found.tokens.value == 0  # a table has none
    fewer = estimate(recipe_file.load(path, ["sampling.target_rows=2"]), prompts=4, samples=4)
    assert fewer.hits.value == pytest.approx(2)
    assert fewer.samples.value == pytest.approx(found.samples.value / 2)


def test_completions_that_leave_no_room_for_a_prompt_are_refused(recipe: Write, tmp_path: Path) -> None:
    """Before an engine is started, with the line of the recipe."""
    path = recipe(engine={"kind": "vllm", "max_model_len": 16})

    with pytest.raises(
        recipe_file.RecipeError, match=r"sampling.max_tokens: 16 tokens leave no room for a prompt in the context of 16"
    ):
        steps.begin(recipe_file.load(path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_only_a_run_on_a_cluster_is_scaled(recipe: Write, tmp_path: Path) -> None:
    whole(recipe(), tmp_path / "run")
    for where, why in (("run", "executor.kind is local: one engine, in its process"), ("nowhere", "not a run directory")):
        with pytest.raises(StoreError, match=why):
            steps.scale(Store(tmp_path / where), 2)
        assert not (tmp_path / where / "replicas.json").exists()
