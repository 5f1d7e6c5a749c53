"""Whole runs that draw from several models: each has its own samples, and a run continues with the model that is missing."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from helpers.fake_openai import FakeOpenAI
from helpers.runs import pool_rows, run_recipe
from helpers.several import model_directory, two_models
from thresher.auditing.pages.report import report
from thresher.auditing.statistics import statistics
from thresher.cli import main
from thresher.errors import EngineError, RecipeError, StoreError
from thresher.executors.fleet import start_fleet
from thresher.inputs import recipe_file
from thresher.pool.run import open_run
from thresher.running import steps
from thresher.running.progress import Progress
from thresher.samplers.replay import ReplaySampler
from thresher.samplers.sampler import Drawn, Group
from thresher.study.design import Design
from thresher.study.run_study import run_study

pytestmark = pytest.mark.slow

Write = Callable[..., Path]


def drawn_by(out: Path) -> Counter[tuple[str, bool]]:
    """The samples of a run by model, and whether they are anchors."""
    return Counter((row["model"], row["anchor"]) for row in pool_rows(out))


def asked_in(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tables that answer, one entry per group that is asked from now on."""
    asked: list[str] = []
    real = ReplaySampler.answer

    def noted(self: ReplaySampler, group: Group) -> Drawn:
        asked.append(self.path.name)
        return real(self, group)

    monkeypatch.setattr(ReplaySampler, "answer", noted)
    return asked


def run_with_fault(path: Path, out: Path) -> str:
    """Run a recipe that ends with an error of an engine; returns its text."""
    begun = steps.begin(recipe_file.load(path), out)
    with Progress() as progress, pytest.raises(EngineError) as caught:
        steps.run_steps(begun, progress)
    return str(caught.value)


def test_every_model_draws_its_own_samples(recipe: Write, tmp_path: Path) -> None:
    path = two_models(recipe, tmp_path)
    finished = run_recipe(path, tmp_path / "run")

    assert drawn_by(tmp_path / "run") == {
        (name, anchor): n for name in ("first", "second") for anchor, n in ((False, 16), (True, 4))
    }
    rows = pool_rows(tmp_path / "run")
    assert len({row["sample_id"] for row in rows}) == 40
    assert len({row["model_revision"] for row in rows}) == 2
    assert finished.audit.samples == 32
    assert finished.audit.total.prompts == 4


def test_a_share_chooses_prompts_by_their_hash(recipe: Write, tmp_path: Path) -> None:
    path = two_models(recipe, tmp_path, second={"share": 0.3})
    finished = run_recipe(path, tmp_path / "run")
    rows = pool_rows(tmp_path / "run")
    answered = {row["prompt_id"] for row in rows if row["model"] == "second"}

    assert answered == {row["prompt_id"] for row in rows if int(row["prompt_id"][8:16], 16) < 0.3 * 2**32}
    assert len(answered) == 2
    assert [(model.model, model.prompts, model.samples) for model in finished.audit.models] == [
        ("first", 4, 16),
        ("second", 2, 8),
    ]


def test_prompts_of_no_model_have_no_samples(recipe: Write, tmp_path: Path) -> None:
    """Shards whose prompts no model answers are empty, and the run is complete."""
    path = two_models(
        recipe, tmp_path, first={"share": 0.3}, second={"share": 0.1}, run={"shard_samples": 5, "filter_workers": 0}
    )
    finished = run_recipe(path, tmp_path / "run")

    assert drawn_by(tmp_path / "run")["first", False] == 8
    assert finished.audit.complete
    assert finished.audit.total.prompts == 2


@pytest.mark.slow
def test_families_choose_the_prompts(recipe: Write, tmp_path: Path) -> None:
    path = two_models(recipe, tmp_path)
    both = yaml.safe_load(path.read_text())
    again = {**both["prompts"][0], "family": "again", "template": "Capital of {{ country }}?", "limit": 2, "system": "Be short."}
    path = two_models(recipe, tmp_path, second={"families": ["again"]}, prompts=[*both["prompts"], again])
    run_recipe(path, tmp_path / "run")
    families = Counter((row["model"], row["family"]) for row in pool_rows(tmp_path / "run"))

    assert families == {("first", "capital"): 20, ("first", "again"): 10, ("second", "again"): 10}


def test_the_audit_has_a_row_for_each_model(recipe: Write, tmp_path: Path) -> None:
    audit = run_recipe(two_models(recipe, tmp_path), tmp_path / "run").audit
    first, second = audit.models

    assert (first.passed, first.samples, second.passed, second.samples) == (11, 16, 6, 16)
    assert (first.pass_rate, second.pass_rate) == (11 / 16, 6 / 16)
    assert first.hits + second.hits == audit.total.hits
    assert audit.total.prompts == first.prompts == second.prompts == 4


@pytest.mark.slow
def test_a_smaller_share_and_more_samples_draw_for_the_prompts_that_are_left(recipe: Write, tmp_path: Path) -> None:
    """Samples of prompts that a model answers no more stay in the pool."""
    run_recipe(two_models(recipe, tmp_path), tmp_path / "run")
    before = {row["sample_id"] for row in pool_rows(tmp_path / "run")}

    run_recipe(two_models(recipe, tmp_path, second={"share": 0.3}), tmp_path / "run", "sampling.samples_per_prompt=6")

    rows = pool_rows(tmp_path / "run")
    assert before < {row["sample_id"] for row in rows}
    assert len(rows) > len(before)


@pytest.mark.slow
def test_a_larger_share_draws_only_the_new_prompts(recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_recipe(two_models(recipe, tmp_path, second={"share": 0.3}), tmp_path / "run")
    before = {row["sample_id"] for row in pool_rows(tmp_path / "run")}
    asked = asked_in(monkeypatch)
    run_recipe(two_models(recipe, tmp_path), tmp_path / "run")

    after = {row["sample_id"] for row in pool_rows(tmp_path / "run")}
    assert before < after
    assert len(after) == 40
    assert set(asked) == {"second.jsonl"}


@pytest.mark.slow
def test_an_interrupted_run_continues_with_what_is_missing(
    recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the models, and in the middle of the second: the rerun asks only for what is missing, and the pool equals
    that of a run without an interruption."""
    path = two_models(recipe, tmp_path)
    real = ReplaySampler.answer
    left = [11]

    def dying(self: ReplaySampler, group: Group) -> Drawn:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return real(self, group)

    for groups in (8, 3):
        left[0] = groups
        monkeypatch.setattr(ReplaySampler, "answer", dying)
        begun = steps.begin(recipe_file.load(path), tmp_path / "run")
        with Progress() as progress, pytest.raises(KeyboardInterrupt):
            steps.run_steps(begun, progress)
    monkeypatch.setattr(ReplaySampler, "answer", real)
    asked = asked_in(monkeypatch)
    again = steps.begin(recipe_file.load(path), tmp_path / "run")
    assert again.lacking[0] == []
    assert again.lacking[1]
    run_recipe(path, tmp_path / "run")

    assert 0 < len(asked) <= 8
    assert set(asked) == {"second.jsonl"}
    run_recipe(path, tmp_path / "uninterrupted")
    assert pool_rows(tmp_path / "run") == pool_rows(tmp_path / "uninterrupted")


@pytest.mark.slow
def test_a_model_that_cannot_start_loses_nothing(recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model after it is drawn and judged, no dataset is written, and a rerun draws only the missing model."""
    path = two_models(recipe, tmp_path, first={"engine": {"kind": "replay", "path": "later.jsonl"}})
    text = run_with_fault(path, tmp_path / "run")

    assert "1 of 2 models" in text
    assert "first: " in text
    assert "later.jsonl" in text
    assert drawn_by(tmp_path / "run") == {("second", False): 16, ("second", True): 4}
    assert not (tmp_path / "run/dataset.json").exists()
    assert len(list((tmp_path / "run/verdicts").glob("*.json"))) == steps.begin(recipe_file.load(path), tmp_path / "run").shards
    asked = asked_in(monkeypatch)
    assert "later.jsonl" in run_with_fault(path, tmp_path / "run")
    assert asked == []

    (tmp_path / "later.jsonl").write_bytes((tmp_path / "answers.jsonl").read_bytes())
    run_recipe(path, tmp_path / "run")
    assert set(asked) == {"later.jsonl"}
    run_recipe(path, tmp_path / "whole")
    assert pool_rows(tmp_path / "run") == pool_rows(tmp_path / "whole")


@pytest.mark.slow
def test_a_model_that_fails_on_its_way_loses_nothing(recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it drew before is kept, beside the samples of the model after it."""
    path = two_models(recipe, tmp_path, first={"engine": {"kind": "replay", "path": "part.jsonl"}})
    answers = (tmp_path / "answers.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "part.jsonl").write_text("".join(line for line in answers if "Italy" not in line))
    assert "no completion for the prompt 'Capital of Italy?'" in run_with_fault(path, tmp_path / "run")
    before = drawn_by(tmp_path / "run")
    assert before["second", False] == 16
    assert before["first", False] >= 4

    (tmp_path / "part.jsonl").write_text("".join(answers))
    asked = asked_in(monkeypatch)
    run_recipe(path, tmp_path / "run")
    assert set(asked) == {"part.jsonl"}
    assert len(asked) <= 4  # of the last two prompts, samples and anchor each
    run_recipe(path, tmp_path / "whole")
    assert pool_rows(tmp_path / "run") == pool_rows(tmp_path / "whole")


@pytest.mark.parametrize("began", ["model", "models"])
def test_a_model_is_added_to_a_finished_run(recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, began: str) -> None:
    two_models(recipe, tmp_path)
    path = recipe(**({"model": {"name": "first"}} if began == "model" else {"models": [{"name": "first"}]}))
    run_recipe(path, tmp_path / "run")
    before = {row["sample_id"] for row in pool_rows(tmp_path / "run")}
    asked = asked_in(monkeypatch)
    path = two_models(recipe, tmp_path)
    run_recipe(path, tmp_path / "run")

    assert set(asked) == {"second.jsonl"}
    assert before < {row["sample_id"] for row in pool_rows(tmp_path / "run")}
    asked.clear()
    run_recipe(path, tmp_path / "run")
    assert asked == []
    more = recipe_file.load(path, ["sampling.samples_per_prompt=5"])
    assert steps.begin(more, tmp_path / "run").lacking == ([0, 1], [0, 1])


def test_a_model_is_neither_removed_nor_changed(recipe: Write, tmp_path: Path) -> None:
    run_recipe(two_models(recipe, tmp_path), tmp_path / "run")
    for changed in (
        recipe(model={"name": "first"}),
        recipe(models=[{"name": "first"}]),
        two_models(recipe, tmp_path, second={"reasoning": None}),
    ):
        with pytest.raises(StoreError, match=r"models\.second"):
            steps.begin(recipe_file.load(changed), tmp_path / "run")


def test_a_model_that_drew_nothing_may_be_taken_out(recipe: Write, tmp_path: Path) -> None:
    path = two_models(recipe, tmp_path, second={"engine": {"kind": "replay", "path": "gone.jsonl"}})
    assert "taken out" in run_with_fault(path, tmp_path / "run")
    model_directory(tmp_path, "third")
    run_recipe(recipe(models=[{"name": "first"}, {"name": "third"}]), tmp_path / "run")
    assert {model for model, _ in drawn_by(tmp_path / "run")} == {"first", "third"}
    with pytest.raises(StoreError, match=r"models\.third"):
        steps.begin(recipe_file.load(recipe(models=[{"name": "first"}])), tmp_path / "run")


def test_the_same_model_twice_is_refused(recipe: Write, tmp_path: Path) -> None:
    two_models(recipe, tmp_path)
    path = recipe(models=[{"name": "first"}, {"name": "./first/../first", "share": 0.5}, {"name": "first", "share": 0.5}])
    with pytest.raises(RecipeError, match=r"models\[2\]: the same model with the same settings as models\[0\]"):
        steps.begin(recipe_file.load(path), tmp_path / "run")


def test_each_model_has_its_own_budget_of_hits(recipe: Write, tmp_path: Path) -> None:
    """With target_hits a model stops by its own hits: what the other found does not count."""
    sampling = {"samples_per_prompt": 2, "target_hits": 1, "max_samples_per_prompt": 6, "max_tokens": 16}
    run_recipe(two_models(recipe, tmp_path, sampling=sampling), tmp_path / "run")
    draws = Counter((row["model"], row["messages"][0]["content"]) for row in pool_rows(tmp_path / "run") if not row["anchor"])

    assert draws["first", "Capital of Spain?"] == 2
    assert draws["second", "Capital of Spain?"] == 6
    assert draws["first", "Capital of Japan?"] == draws["second", "Capital of Japan?"] == 2


def test_audit_card_and_table_show_the_models(recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_recipe(two_models(recipe, tmp_path), tmp_path / "run")
    assert main(["audit", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    card = (tmp_path / "run/dataset/README.md").read_text()

    assert re.search(r"^ *first +4 +16 +68\.8 %", shown, re.MULTILINE)
    assert "| model | `second`, revision `" in card
    assert "sampled from `first` and `second` for 4 prompts" in card
    assert re.search(r"^\| second \| 4 \| 16 \| 37\.5 %", card, re.MULTILINE)


@pytest.mark.slow
def test_statistics_do_not_mix_the_draws_of_models_that_stopped_at_their_hits(recipe: Write, tmp_path: Path) -> None:
    """The pass rate of each model is that of a run of its own, and of a prompt the mean of both."""
    sampling = {"samples_per_prompt": 2, "target_hits": 1, "max_samples_per_prompt": 6, "max_tokens": 16}
    both = run_recipe(two_models(recipe, tmp_path, sampling=sampling), tmp_path / "run").audit
    alone = [
        run_recipe(recipe(model={"name": name}, engine={"kind": "replay", "path": table}, sampling=sampling), tmp_path / name)
        for name, table in (("first", "answers.jsonl"), ("second", "second.jsonl"))
    ]
    rates = [finished.audit.total.pass_rate for finished in alone]

    assert [model.pass_rate for model in both.models] == rates
    assert both.total.pass_rate == pytest.approx(sum(rate for rate in rates if rate is not None) / 2)


def test_check_looks_at_every_model(recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What each model is shown and what is wrong with it names the model."""
    path = two_models(recipe, tmp_path, second={"share": 0.3, "engine": {"kind": "replay", "path": "gone.jsonl"}})
    assert main(["check", str(path)]) == 1
    printed = capsys.readouterr()

    assert "models[0] first, capital: 4 prompts" in printed.out
    assert "models[1] second, capital: 2 prompts" in printed.out
    assert "models[1] second: engine.path: the table of answers cannot be read" in printed.err.replace("\n", " ")


def test_preview_shows_every_model(recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preview", str(two_models(recipe, tmp_path)), "-n", "2"]) == 0
    shown = capsys.readouterr().out

    assert [line for line in shown.splitlines() if line.startswith("model ")] == ["model first", "model second"]
    assert "4 samples, " in shown


@pytest.mark.slow
def test_estimate_probes_every_model(recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = two_models(recipe, tmp_path, second={"share": 0.3})
    assert main(["estimate", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "models[0] first\n" in shown
    assert "all 2 models, one after the other: 30 samples," in shown
    assert main(["estimate", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [document[name]["samples"]["value"] for name in ("models[0] first", "models[1] second")] == [20, 10]

    path = two_models(recipe, tmp_path, second={"engine": {"kind": "replay", "path": "gone.jsonl"}})
    assert main(["estimate", str(path)]) != 0
    assert "models[1] second: " in capsys.readouterr().err


def test_what_takes_one_model_refuses_several(recipe: Write, tmp_path: Path) -> None:
    path = two_models(recipe, tmp_path)
    loaded = recipe_file.load(path)
    with pytest.raises(RecipeError, match="a fleet serves one model"):
        start_fleet(loaded.recipe, tmp_path, tmp_path / "fleet")
    with pytest.raises(RecipeError, match=r"recipe.yaml:\d+: models: a study is of one model"):
        run_study(loaded, str(tmp_path / "study"), Design())
    with pytest.raises(RecipeError, match="nothing is drawn for your own samples"):
        steps.begin_brought(loaded, tmp_path / "own.jsonl", tmp_path / "own")


def test_a_recipe_names_one_model_or_several(recipe: Write, tmp_path: Path) -> None:
    two_models(recipe, tmp_path)
    entries = [{"name": "first"}, {"name": "second"}]
    for changes, words in (
        ({"model": {"name": "first"}, "models": entries}, r"recipe.yaml:\d+: model: the recipe has `models` too"),
        ({"models": [entries[0], entries[0]]}, "two entries are equal"),
        ({"models": [{**entries[0], "families": ["capitals"]}]}, "first names the family capitals, but prompts has only"),
        ({"models": [{**entries[0], "share": 1.5}]}, r"models\[0\]\.share"),
        ({"models": [{**entries[0], "engine": {"kind": "replay", "file": "a"}}]}, r"models\[0\]\.engine\.file: no such key"),
        ({"models": entries, "sampling": {"target_rows": 4}}, "target_rows counts the rows of all models"),
    ):
        with pytest.raises(RecipeError, match=words):
            recipe_file.load(recipe(**changes))
    (prompts,) = yaml.safe_load(recipe().read_text())["prompts"]
    path = recipe(
        models=[{**entries[0], "families": ["capital"]}], prompts=[{**prompts, "family": name} for name in ("capital", "other")]
    )
    with pytest.raises(RecipeError, match="no model answers the family other"):
        recipe_file.load(path)


@pytest.mark.slow
@pytest.mark.parametrize("adaptive", [False, True])
def test_pass_at_k_of_each_model_is_that_of_a_run_of_its_own(recipe: Write, tmp_path: Path, adaptive: bool) -> None:
    sampling = {"samples_per_prompt": 2, "target_hits": 1, "max_samples_per_prompt": 6} if adaptive else {"samples_per_prompt": 4}
    sampling["max_tokens"] = 16
    run_recipe(two_models(recipe, tmp_path, sampling=sampling), tmp_path / "run")
    both = statistics(open_run(tmp_path / "run"))
    for name, table in (("first", "answers.jsonl"), ("second", "second.jsonl")):
        run_recipe(recipe(model={"name": name}, engine={"kind": "replay", "path": table}, sampling=sampling), tmp_path / name)
        alone = statistics(open_run(tmp_path / name)).pass_at_k
        assert [(row.k, row.value, row.prompts) for row in both.pass_at_k_of_models if row.family == name] == [
            (row.k, row.value, row.prompts) for row in alone
        ]
    pairs = [row for row in both.pass_at_k if row.k == 1]
    each = [row.value for row in both.pass_at_k_of_models if row.k == 1]
    assert [row.value for row in pairs] == [pytest.approx(sum(each) / 2)]
    assert pairs[0].prompts == 8
    assert both.agreement[0].prompts == 8


def test_the_view_prompts_has_a_row_for_each_prompt(recipe: Write, tmp_path: Path) -> None:
    """Counts are those of both models, and a greedy answer that failed decides."""
    run_recipe(two_models(recipe, tmp_path), tmp_path / "run")
    (table,) = open_run(tmp_path / "run").view("prompts")
    rows = {row["prompt"][0]["content"]: row for row in table.to_pylist()}

    assert {name: row["samples"] for name, row in rows.items()} == dict.fromkeys(rows, 8)
    assert {name: row["anchor_passed"] for name, row in rows.items()} == {
        "Capital of France?": True,
        "Capital of Spain?": False,
        "Capital of Japan?": True,
        "Capital of Italy?": False,
    }
    assert rows["Capital of France?"]["pass_rate"] == 5 / 8


@pytest.mark.slow
def test_sql_and_the_report_have_the_figures_of_each_model(
    recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_recipe(two_models(recipe, tmp_path), tmp_path / "run")
    where = "section in ('models', 'pass_at_k_of_models') and name in ('pass_rate', 'value') order by all"
    assert main(["sql", str(tmp_path / "run"), f"select section, of, value from stats where {where}", "--json"]) == 0
    rows = [tuple(row.values()) for row in json.loads(capsys.readouterr().out)]
    assert ("models", "first", 11 / 16) in rows
    assert ("pass_at_k_of_models", "second / 1", pytest.approx(6 / 16)) in rows
    query = "select metadata, anchor_passed, samples from prompts"
    assert main(["sql", str(tmp_path / "run"), query, "--json"]) == 0
    shown = {row["metadata"]: (row["anchor_passed"], row["samples"]) for row in json.loads(capsys.readouterr().out)}
    assert shown['{"country":"Spain"}'] == (False, 8)
    page = report(open_run(tmp_path / "run"))
    assert "<h2>Models</h2>" in page
    assert "pass@k of each model" in page


def test_one_server_may_have_all_models(recipe: Write, tmp_path: Path) -> None:
    """Requests name their model, and each model is calibrated by itself although both come from one source."""
    with FakeOpenAI(models=("a", "b")) as server:
        path = recipe(
            models=[{"name": "a"}, {"name": "b"}],
            engine={"kind": "openai_http", "base_urls": [server.url]},
            sampling={"samples_per_prompt": 8, "max_tokens": 16},
            filters=[],
        )
        audit = run_recipe(path, tmp_path / "run").audit
        asked = [body["model"] for body in server.bodies]
        url = server.url

    assert asked == sorted(asked)
    assert set(asked) == {"a", "b"}
    sources = [test.source for test in audit.calibration]
    assert [source.partition(": ")[0] for source in sources] == ["a", "b"]
    assert all(source.partition(": ")[2] in url for source in sources)
    rows = pool_rows(tmp_path / "run")
    for model in audit.models:
        tokens = sum(len(row["completion_ids"]) for row in rows if row["model"] == model.model)
        assert model.completion_tokens == tokens > 0
        assert model.hits_per_1000_tokens == 1000 * model.hits / tokens
