"""Samples that could not be drawn: a rerun tries them again, those of a refused prompt once what decides that has changed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.runs import pool_rows, run_recipe
from schemas.engines import HttpEngine
from thresher.errors import EngineError
from thresher.inputs import recipe_file
from thresher.pool import undrawn
from thresher.pool.run import open_run
from thresher.pool.store import Store
from thresher.running import steps
from thresher.running.progress import Progress
from thresher.running.sample_shard import sample_shard
from thresher.samplers.replay import ReplaySampler
from thresher.samplers.sampler import Drawn, Group

Write = Callable[..., Path]
Answer = Callable[[ReplaySampler, Group], Drawn]
REAL = ReplaySampler.answer


def failing(asked: list[Group], *, refused: bool) -> Answer:
    """The engine draws nothing for the first prompt of the plan."""

    def answer(self: ReplaySampler, group: Group) -> Drawn:
        asked.append(group)
        text = group.messages[-1].content
        if "France" in text:
            return Drawn(group.number, (), error=f"no: {text}", source="table", refused=refused)
        return REAL(self, group)

    return answer


def run_with(answer: Answer, recipe: Path, out: Path, *changes: str) -> steps.Finished:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReplaySampler, "answer", answer)
        return run_recipe(recipe, out, *changes)


def asks_all(asked: list[Group]) -> Answer:
    def answer(self: ReplaySampler, group: Group) -> Drawn:
        asked.append(group)
        return REAL(self, group)

    return answer


def test_what_failed_is_drawn_by_the_next_run_and_nothing_else(recipe: Write, tmp_path: Path) -> None:
    path, out = recipe(), tmp_path / "run"
    finished = run_with(failing([], refused=False), path, out)
    undrawn = [row for row in pool_rows(out) if row["error"] is not None]
    assert len(undrawn) == sum(finished.audit.not_sampled.values()) == 5  # four samples and the anchor
    begun = steps.begin(recipe_file.load(path), out)
    assert (begun.missing, steps.finished(begun)) == ([0], None)

    again: list[Group] = []
    run_with(asks_all(again), path, out)
    run_recipe(path, tmp_path / "undisturbed")

    assert {group.messages[-1].content for group in again} == {"Capital of France?"}
    assert pool_rows(out) == pool_rows(tmp_path / "undisturbed")
    assert "undrawn" not in open_run(out).store.read_bytes("samples/00000.json").decode()
    assert steps.finished(steps.begin(recipe_file.load(path), out)) is not None


def test_a_refused_prompt_is_tried_again_when_the_engines_settings_have_changed(
    recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is finished, with the prompt undecided in the engine's words. Here the table is another file of equal content."""
    path, out = recipe(), tmp_path / "run"
    run_with(failing([], refused=True), path, out)

    begun = steps.begin(recipe_file.load(path), out)
    finished = steps.finished(begun)
    assert begun.missing == []
    assert finished is not None
    assert all(words.startswith("no: ") for words in finished.audit.not_sampled)
    monkeypatch.setattr("thresher.pool.undrawn.__version__", "99")
    again: list[Group] = []
    run_with(asks_all(again), path, out)

    assert len({group.messages for group in again}) == 1
    assert all(row["error"] is None for row in pool_rows(out))


def test_a_prompt_that_fails_again_has_one_row_a_sample_with_the_last_words(recipe: Write, tmp_path: Path) -> None:
    path, out = recipe(), tmp_path / "run"
    for _ in range(2):
        run_with(failing([], refused=False), path, out)
    ids = [row["sample_id"] for row in pool_rows(out)]

    assert len(ids) == len(set(ids))
    assert sum(row["error"] is not None for row in pool_rows(out)) == 5


def test_what_failed_before_an_interruption_is_drawn_again(recipe: Write, tmp_path: Path) -> None:
    """Whether it was refused is known only once its shard is finished."""
    begun = steps.begin(recipe_file.load(recipe()), tmp_path / "run")
    sampler, asked = ReplaySampler(tmp_path / "answers.jsonl"), list[Group]()
    dies = failing(asked, refused=True)

    def answer(self: ReplaySampler, group: Group) -> Drawn:
        if len(asked) == 3:
            raise EngineError("it died")
        return dies(self, group)

    with pytest.MonkeyPatch.context() as patch, Progress() as progress:
        patch.setattr("thresher.samplers.replay.GROUPS_PER_TAKE", 1)
        patch.setattr(ReplaySampler, "answer", answer)
        with pytest.raises(EngineError):
            sample_shard(begun.run, 0, sampler, progress)
    with Progress() as progress:
        entry = sample_shard(begun.run, 0, sampler, progress)

    assert (entry.facts["failed"], entry.facts.get("undrawn")) == (0, None)
    assert progress.samples < entry.rows  # the groups that were drawn are not drawn again


def test_of_several_groups_of_a_prompt_one_that_may_succeed_is_tried_again(recipe: Write, tmp_path: Path) -> None:
    """Also where another group of it is refused afterwards."""
    begun = steps.begin(recipe_file.load(recipe()), tmp_path / "run")

    def answer(self: ReplaySampler, group: Group) -> Drawn:
        return Drawn(group.number, (), error="no", source="table", refused=group.parameters["temperature"] == 0)

    with pytest.MonkeyPatch.context() as patch, Progress() as progress:
        patch.setattr(ReplaySampler, "answer", answer)
        entry = sample_shard(begun.run, 0, ReplaySampler(tmp_path / "answers.jsonl"), progress)

    assert set(entry.facts["undrawn"][""].values()) == {""}


def test_an_entry_of_an_earlier_version_does_not_tell_and_everything_that_failed_is_tried_again(
    recipe: Write, tmp_path: Path
) -> None:
    path, out = recipe(), tmp_path / "run"
    run_with(failing([], refused=True), path, out)
    store = Store(out)
    noted = json.loads(store.read_bytes("samples/00000.json"))
    del noted["facts"]["undrawn"], noted["digest"]
    store.write_bytes("samples/00000.json", json.dumps(noted).encode())

    assert steps.begin(recipe_file.load(path), out).missing == [0]


def test_without_its_engine_a_run_is_finished_without_what_could_not_be_drawn(
    recipe: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A changed filter needs no engine, whatever is still to be tried again."""
    path, out = recipe(), tmp_path / "run"
    run_with(failing([], refused=False), path, out)
    before = pool_rows(out)
    (tmp_path / "answers.jsonl").write_text("")

    finished = run_recipe(path, out, "dataset.views=[rollouts]")

    assert "what could not be drawn before is not tried again" in caplog.text
    assert pool_rows(out) == before
    assert sum(finished.audit.not_sampled.values()) == 5
    assert [path.name for path in (out / "dataset").iterdir() if path.is_dir()] == ["rollouts"]


def test_progress_counts_what_could_not_be_drawn(recipe: Write, tmp_path: Path) -> None:
    begun = steps.begin(recipe_file.load(recipe()), tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch, Progress() as progress:
        patch.setattr(ReplaySampler, "answer", failing([], refused=True))
        sample_shard(begun.run, 0, ReplaySampler(tmp_path / "answers.jsonl"), progress)

    assert "5 could not be drawn" in progress.line()


def test_a_server_decides_by_its_version_and_context(recipe: Write, tmp_path: Path) -> None:
    """Only the server can tell: a shard with refused prompts is opened again, and nothing is asked if nothing changed."""

    run = steps.begin(recipe_file.load(recipe()), tmp_path / "run").run
    facts = ReplaySampler(tmp_path / "answers.jsonl").facts
    engine = HttpEngine(kind="openai_http", base_urls=["http://127.0.0.1:1/v1"])
    served = replace(run, manifest=run.manifest.model_copy(update={"recipe": run.recipe.model_copy(update={"engine": engine})}))

    decided = undrawn.decided_by(served, facts)

    assert decided == undrawn.decided_by(served, replace(facts, sequences=1))
    assert (
        len(
            {
                decided,
                undrawn.decided_by(served, replace(facts, context=9)),
                undrawn.decided_by(served, replace(facts, version="2")),
            }
        )
        == 3
    )
