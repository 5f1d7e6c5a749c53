"""The steps end to end on the replay engine: what is kept, resumed, refused and made again."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from thresher import recipes, steps
from thresher.audit.stats import audit
from thresher.errors import EngineError, SourceError, StoreError
from thresher.executors.local import LocalExecutor
from thresher.progress import Progress
from thresher.store import Store

Write = Callable[..., Path]


def whole(path: Path, out: Path, *overrides: str, salt: str | None = None) -> dict[str, Any]:
    """Run a recipe through all steps; the audit as JSON has it."""
    begun = steps.begin(recipes.load(path, overrides), out, salt=salt)
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
    begun = steps.begin(recipes.load(path), tmp_path / "run")

    assert steps.finished(begun) is None
    whole(path, tmp_path / "run")
    assert steps.finished(steps.begin(recipes.load(path), tmp_path / "run")) is not None


class Dies:
    """A sampler that fails at its second shard, as an engine would."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.facts, self.calls = inner, inner.facts, 0

    def sample(self, groups: Any) -> Any:
        self.calls += 1
        if self.calls == 2:
            raise EngineError("the engine died")
        return self._inner.sample(groups)

    def close(self) -> None:
        return None


def test_an_interrupted_run_keeps_its_finished_shards(recipe: Write, tmp_path: Path) -> None:
    """The rerun samples only what is missing and ends with the same ids as an uninterrupted one."""
    from thresher.samplers.replay import ReplaySampler

    path = recipe()
    begun = steps.begin(recipes.load(path), tmp_path / "run")
    sampler = Dies(ReplaySampler(tmp_path / "answers.jsonl"))
    with Progress() as progress, LocalExecutor(0) as executor, pytest.raises(EngineError):
        executor.overlap(
            begun.missing,
            range(begun.shards),
            lambda shard: steps.sample_shard(begun.root, shard, sampler, progress),
            lambda shard: steps.winnow_shard(begun.root, shard),
            in_flight=1,
        )
    before = (tmp_path / "run/samples/00000.parquet").stat().st_mtime_ns

    again = steps.begin(recipes.load(path), tmp_path / "run")
    assert again.missing == [1]
    whole(path, tmp_path / "run")
    whole(path, tmp_path / "uninterrupted")
    assert (tmp_path / "run/samples/00000.parquet").stat().st_mtime_ns == before
    assert [row["sample_id"] for row in sample_rows(tmp_path / "run")] == [
        row["sample_id"] for row in sample_rows(tmp_path / "uninterrupted")
    ]


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
        steps.begin(recipes.load(path, ["sampling.max_tokens=99"]), tmp_path / "run")


def test_changed_prompts_in_the_same_directory_are_refused(recipe: Write, tmp_path: Path) -> None:
    """The prompt file's hash is part of what decides the samples."""
    path = recipe()
    whole(path, tmp_path / "run")
    (tmp_path / "prompts.jsonl").write_text('{"country": "Peru", "answer": "Lima"}\n')

    with pytest.raises(StoreError, match=r"prompts.jsonl was"):
        steps.begin(recipes.load(path), tmp_path / "run")


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

    with pytest.raises(recipes.RecipeError, match=r"finished .scope sample. stands after exact_duplicate"):
        steps.begin(recipes.load(path), tmp_path / "run")


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
        steps.begin(recipes.load(path), tmp_path / "run")


def test_lost_verdicts_fail_the_audit(recipe: Write, tmp_path: Path) -> None:
    """Counts that do not add up are named, whoever made them so."""
    whole(recipe(), tmp_path / "run")
    store = Store(tmp_path / "run")
    entry = store.entry("verdicts/00000")
    assert entry is not None
    store.write_table("verdicts/00000", store.read_table("verdicts/00000").slice(3), key=entry.key, facts=entry.facts)

    assert audit(store).to_dict()["problems"]
