"""Whole runs that force tokens or keep the likeliest ones, from the recipe to the card, on a server that samples."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.fake_openai import FakeOpenAI
from helpers.runs import pool_rows, run_recipe
from helpers.thinking_model import MARKS
from schemas.recipe import Recipe
from thresher.auditing.audit import check
from thresher.auditing.show import calibration_lines
from thresher.errors import AuditError, RecipeError, StoreError
from thresher.estimators.calibration import Total, calibrations, empty_sums
from thresher.inputs import recipe_file
from thresher.inputs.models import embedded_model
from thresher.running import steps

CHOICE = {"structured": {"choice": ["yes", "no"]}}


def recipe(folder: Path, url: str, **settings: Any) -> Path:
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"question": f"Question {i}?"}) + "\n" for i in range(12)))
    spec = {
        "name": "declared",
        "prompts": [
            {"family": "f", "source": {"kind": "jsonl", "path": "prompts.jsonl"}, "reference": None},
        ],
        "model": {"name": "small"},
        "engine": {"kind": "openai_http", "base_urls": [url]},
        "sampling": {"samples_per_prompt": 32, "max_tokens": 24, **settings.pop("sampling", {})},
        "dedupe": None,
        "near_miss": None,
        "run": {"filter_workers": 0},
        **settings,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(spec))
    return folder / "recipe.yaml"


def test_a_structured_run_is_not_tested_and_says_so(tmp_path: Path) -> None:
    """It fails where the recipe expects ancestral samples, because nothing shows that they are."""
    with FakeOpenAI() as server:
        finished = run_recipe(recipe(tmp_path, server.url, sampling=CHOICE), tmp_path / "run")
    rows = pool_rows(tmp_path / "run")
    tokens = sum(len(row["completion_ids"]) for row in rows if not row["anchor"])
    [test] = finished.audit.calibration
    words = "not tested: masked: all tokens may be forced by structured output (choice)"

    assert {json.loads(row["sampling"])["structured"]["choice"][0] for row in rows} == {"yes"}
    assert {row["logprobs_kind"] for row in rows} == {"structured"}
    assert (test.declared, test.tokens, test.masked, test.status) == ("structured output (choice)", 0, tokens, words)
    assert calibration_lines(finished.audit) == [f"calibration of {test.source} at structured output (choice): {words}"]
    assert finished.audit.to_dict()["calibration"][0]["status"] == words
    with pytest.raises(AuditError, match="not tested: masked: all tokens may be forced"):
        check(finished.audit, calibration=True)
    card = (tmp_path / "run" / "dataset" / "README.md").read_text()
    assert "changed by structured output (choice)" in card
    assert words in card


@pytest.mark.slow
def test_a_structured_run_that_is_declared_is_no_fault(tmp_path: Path) -> None:
    sampling = {**CHOICE, "calibration": {"expect": "declared"}}
    with FakeOpenAI() as server:
        finished = run_recipe(recipe(tmp_path, server.url, sampling=sampling), tmp_path / "run")

    check(finished.audit, calibration=True)
    assert not finished.audit.calibration[0].tested


def test_a_budget_of_thinking_is_tested_before_it_and_named(tmp_path: Path) -> None:
    sampling = {"thinking_tokens": 20, "calibration": {"standard_error": 0.02}}
    with FakeOpenAI() as server:
        finished = run_recipe(recipe(tmp_path, server.url, sampling=sampling), tmp_path / "run")
    [test] = finished.audit.calibration

    assert test.declared == "thinking_tokens 20"
    assert test.tokens > 100
    assert test.masked > 10
    assert not finished.audit.calibration_faults
    assert f"masked: {test.masked} tokens that may be forced by thinking_tokens 20" in calibration_lines(finished.audit)[0]
    assert "changed by thinking_tokens 20" in (tmp_path / "run" / "dataset" / "README.md").read_text()
    assert {json.loads(row["sampling"])["thinking_tokens"] for row in pool_rows(tmp_path / "run")} == {20}


@pytest.mark.parametrize("expect", ["ancestral", "declared"])
def test_what_the_recipe_changes_is_a_fault_unless_it_is_expected(tmp_path: Path, expect: str) -> None:
    """Whatever the test shows: a server may report what it drew from, and then nothing differs."""
    sampling = {"temperature": 0.6, "calibration": {"standard_error": 0.02, "expect": expect}}
    with FakeOpenAI() as server:
        finished = run_recipe(recipe(tmp_path, server.url, sampling=sampling), tmp_path / "run")
    faults = finished.audit.calibration_faults

    assert bool(faults) == (expect == "ancestral")
    assert all("the recipe asks for temperature 0.6" in fault and "expect: declared" in fault for fault in faults)


@pytest.mark.slow
def test_the_likeliest_tokens_reach_the_pool_and_the_view(tmp_path: Path, load: Any) -> None:
    """Flat in the pool; what is drawn is the same without them, so ids and the column sampling are too."""
    plain, kept = tmp_path / "plain", tmp_path / "kept"
    views = {"license": "mit", "views": ["sft", "distill"]}
    for folder, settings in ((plain, {}), (kept, {"sampling": {"keep_top_logprobs": 4}, "dataset": views})):
        folder.mkdir()
        with FakeOpenAI() as server:
            run_recipe(recipe(folder, server.url, **settings), folder / "run")
    rows, without = pool_rows(kept / "run"), pool_rows(plain / "run")

    assert [(row["sample_id"], row["sampling"]) for row in rows] == [(row["sample_id"], row["sampling"]) for row in without]
    assert all(len(row["top_ids"]) == len(row["top_logprobs"]) == 4 * len(row["completion_ids"]) for row in rows)
    assert {row["top_ids"] for row in without} == {None}
    assert "structured" not in rows[0]["sampling"]
    hits = load(kept / "run" / "dataset", "distill")
    assert 0 < len(hits) == len(load(kept / "run" / "dataset", "sft"))
    assert {len(tokens) for row in hits for tokens in row["teacher_topk_ids"]} == {5}


@pytest.mark.parametrize("change", ["sampling.keep_top_logprobs=3", "sampling.thinking_tokens=3"])
def test_a_run_is_not_continued_with_other_settings(tmp_path: Path, change: str) -> None:
    with FakeOpenAI() as server:
        file = recipe(tmp_path, server.url)
        steps.begin(recipe_file.load(file), tmp_path / "run")
        with pytest.raises(StoreError, match=r"was not set and is now 3"):
            steps.begin(recipe_file.load(file, [change]), tmp_path / "run")


def test_defaults_decide_as_before_there_were_these_settings(tmp_path: Path) -> None:
    begun = steps.begin(recipe_file.load(recipe(tmp_path, "http://127.0.0.1:1/v1")), tmp_path / "run")
    decides = begun.run.manifest.model["decides"]["sampling"]

    assert not {"thinking_tokens", "reasoning_effort", "structured", "keep_top_logprobs"} & set(decides)


def test_the_engine_must_know_the_marks_of_the_thinking(tmp_path: Path) -> None:
    """The embedded model names none."""
    settings = {"engine": {"kind": "vllm"}, "sampling": {"thinking_tokens": 8}}
    file = recipe(tmp_path, "http://127.0.0.1:1/v1", **settings, model={"name": embedded_model().name})
    with pytest.raises(RecipeError, match=r"recipe.yaml:\d+: sampling.thinking_tokens: .* set model.reasoning to \{start"):
        steps.begin(recipe_file.load(file), tmp_path / "run")

    marks = dict(zip(("start", "end"), MARKS, strict=True))
    named = recipe(tmp_path, "", **settings, model={"name": embedded_model().name, "reasoning": marks})
    steps.begin(recipe_file.load(named), tmp_path / "run")


def test_an_effort_that_the_template_does_not_read_is_refused(tmp_path: Path) -> None:
    """It would be recorded and change nothing."""
    settings = {"engine": {"kind": "vllm"}, "sampling": {"reasoning_effort": "low"}, "model": {"name": embedded_model().name}}
    file = recipe(tmp_path, "http://127.0.0.1:1/v1", **settings)
    with pytest.raises(RecipeError, match=r"recipe.yaml:\d+: sampling.reasoning_effort: .* so low would change nothing"):
        steps.begin(recipe_file.load(file), tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": {"kind": "replay", "path": "x"}, "sampling": CHOICE}, "sampling.structured: the engine replay draws nothing"),
        ({"engine": {"kind": "replay", "path": "x"}, "sampling": {"keep_top_logprobs": 2}}, "keep_top_logprobs: the engine"),
        ({"model": {"reasoning": None}, "sampling": {"thinking_tokens": 2}}, "contradict each other"),
        (
            {
                "engine": {"kind": "openai_http", "base_urls": ["http://h/v1"], "api": "completions"},
                "sampling": {"reasoning_effort": "low"},
            },
            "engine.api completions has none",
        ),
        (
            {"engine": {"kind": "openai_http", "base_urls": ["http://h/v1"]}, "sampling": {"keep_top_logprobs": 20}},
            "lower it to 19",
        ),
        ({"dataset": {"views": ["distill"]}}, "set sampling.keep_top_logprobs"),
    ],
)
def test_what_the_engine_cannot_do_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.model_validate({"name": "r", **settings})


@pytest.mark.parametrize(
    ("declared", "explained"),
    [("", False), ("thinking_tokens 8, reasoning_effort low", False), ("temperature 0.5, thinking_tokens 8", True)],
)
def test_what_is_masked_explains_no_difference(declared: str, explained: bool) -> None:
    """So a sampler that is at fault is found although the recipe declares a budget of thinking."""
    assert calibrations({("a", declared): Total(10, empty_sums())})[0].explained == explained


def test_a_source_with_few_tokens_is_not_tested_either() -> None:
    """Its status does not look like a pass."""
    [few] = calibrations({("a", ""): Total(10, empty_sums())})
    [part] = calibrations({("a", "temperature 0.5, thinking_tokens 8"): Total(10, empty_sums(), 3)})

    assert few.status == "not tested: too few tokens"
    assert part.status == "not tested: too few tokens; masked: 3 tokens that may be forced by thinking_tokens 8"
