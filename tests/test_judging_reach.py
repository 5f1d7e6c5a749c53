"""What a recipe needs and this machine does not have is found before a run."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.fake_openai import FakeOpenAI
from helpers.http_sampler import free_port
from helpers.small_model import write_model
from thresher.inputs import recipe_file
from thresher.judging.build import build_filters, opened_tools
from thresher.judging.check import Report, check_recipe
from thresher.judging.reach import engine_faults, missing_packages, model_faults

Write = Callable[..., Path]


def judge(engine: dict[str, Any], **model: Any) -> list[dict[str, Any]]:
    return [{"name": "judge", "parameters": {"engine": engine, "model": {"name": "small", **model}}}]


def on_server(url: str) -> dict[str, Any]:
    return {"kind": "openai_http", "base_urls": [url]}


def faults_of_models(path: Path) -> list[str]:
    loaded = recipe_file.load(str(path), [])
    with opened_tools(loaded.recipe, loaded.base) as tools:
        return model_faults(loaded.recipe, build_filters(loaded.recipe, tools, imported=False))


def checked(path: Path, *overrides: str) -> Report:
    return check_recipe(recipe_file.load(str(path), list(overrides)))


def without(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a package were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == package else find(name, *more))


# -- the engine --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_option_that_vllm_does_not_know_is_named_with_the_nearest(recipe: Write) -> None:
    pytest.importorskip("vllm")
    options = {"block_size": 32, "max_num_batched_token": 64}
    path = recipe(engine={"kind": "vllm", "options": options})
    loaded = recipe_file.load(str(path), [])

    (fault,), notes = engine_faults(loaded.recipe, loaded.base)

    assert fault.startswith("engine.options.max_num_batched_token: vLLM 0.")
    assert "has no such option; did you mean max_num_batched_tokens or " in fault
    assert notes == []


def test_an_option_that_thresher_sets_is_a_fault(recipe: Write) -> None:
    loaded = recipe_file.load(str(recipe(engine={"kind": "vllm", "options": {"seed": 1}})), [])

    assert engine_faults(loaded.recipe, loaded.base)[0] == [
        "engine.options.seed: thresher sets this itself; remove it from the recipe"
    ]


def test_without_vllm_its_options_are_not_checked_and_that_is_said(recipe: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    without("vllm", monkeypatch)
    loaded = recipe_file.load(str(recipe(engine={"kind": "vllm", "options": {"blocksize": 1}})), [])

    faults, (note,) = engine_faults(loaded.recipe, loaded.base)
    assert faults == []
    assert note.startswith("the engine and its options: vLLM is not installed; pip install 'thresher[cpu]'")


def test_a_broken_vllm_is_a_fault(recipe: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the engine of the recipe and for that of a judge."""
    monkeypatch.setitem(sys.modules, "vllm.engine.arg_utils", None)
    engine = {"kind": "vllm", "options": {"block_size": 16}}
    loaded = recipe_file.load(str(recipe(engine=engine)), [])

    (fault,), _ = engine_faults(loaded.recipe, loaded.base)
    assert fault.startswith("vLLM cannot be imported: ")
    (fault,) = faults_of_models(recipe(filters=judge(engine, name="smollm2-135m-instruct")))
    assert fault.startswith("judge: vLLM cannot be imported: ")


def test_a_table_that_cannot_be_read_is_a_fault(recipe: Write, tmp_path: Path) -> None:
    path = recipe()
    (tmp_path / "answers.jsonl").write_text('{"prompt": "?"}\n')

    (fault,) = checked(path).faults
    assert fault.startswith("engine.path: the table of answers cannot be read: ")
    assert "wanted the texts prompt and completion" in fault


# -- packages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "package", "extra"), [("math_answer", "math_verify", "maths"), ("reasoning_gym", "reasoning_gym", "reasoning")]
)
def test_a_verifier_without_its_package_names_the_extra(
    recipe: Write, monkeypatch: pytest.MonkeyPatch, name: str, package: str, extra: str
) -> None:
    """It is not tried then: one fault, and not one per prompt."""
    without(package, monkeypatch)

    report = checked(recipe(filters=[{"name": name}]))

    assert report.faults == (f"{name}: its package {package} is not installed; pip install 'thresher[{extra}]'",)
    assert report.trials == ()


def test_a_judge_in_this_process_needs_vllm(recipe: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = recipe_file.load(str(recipe(filters=judge({"kind": "vllm"}))), [])
    with opened_tools(loaded.recipe, loaded.base) as tools:
        built = build_filters(loaded.recipe, tools, imported=False)
        assert missing_packages(built) == {}
        without("vllm", monkeypatch)
        assert missing_packages(built)["judge"].startswith("its model runs on vLLM; vLLM is not installed; pip install")


# -- models of filters -------------------------------------------------------------------------------------------------


def test_a_judge_whose_server_does_not_answer_is_a_fault(recipe: Write) -> None:
    path = recipe(filters=judge(on_server(f"http://127.0.0.1:{free_port()}/v1")))

    (fault,) = checked(path).faults
    assert fault.startswith("judge: no server can be reached (GET http://127.0.0.1:")


def test_a_judge_whose_server_answers_is_asked_nothing(recipe: Write) -> None:
    with FakeOpenAI() as server:
        assert checked(recipe(filters=judge(on_server(server.url)))).faults == ()
        assert server.lists_of_models == 1
        assert server.bodies == []


def test_a_judge_without_a_model_is_a_fault(recipe: Write, tmp_path: Path) -> None:
    (tmp_path / "judge").mkdir()
    (fault,) = faults_of_models(recipe(filters=judge({"kind": "vllm"}, name="./judge")))
    assert fault.startswith("judge: model ")
    assert "holds no complete model" in fault

    write_model(tmp_path / "judge")
    assert faults_of_models(recipe(filters=judge({"kind": "vllm"}, name="./judge"))) == []
    (fault,) = faults_of_models(recipe(filters=judge({"kind": "replay", "path": "none.jsonl"})))
    assert fault.startswith("judge: parameters.engine.path: the table of answers cannot be read: ")


def test_the_model_of_semantic_duplicates_is_looked_for(recipe: Write) -> None:
    path = recipe(dedupe={"within_run": None, "semantic": {"model": {"name": "./none"}}})

    assert any(fault.startswith("dedupe.semantic: model './none': ") for fault in faults_of_models(path))
