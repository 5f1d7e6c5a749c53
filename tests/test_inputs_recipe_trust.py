"""What a recipe names, and what of it needs consent; test_security.py tries it through the commands."""

from pathlib import Path
from typing import Any

import pytest

from filters import trust
from schemas.recipe import Recipe
from thresher.inputs.recipe_trust import refusals


@pytest.fixture(autouse=True)
def untrusting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(trust.VARIABLE)
    monkeypatch.delenv(trust.ROOT)
    monkeypatch.setenv(trust.CONFIG, str(tmp_path / "none.toml"))
    monkeypatch.chdir(tmp_path)


def refused(base: Path, *, drawn: bool = True, **keys: Any) -> list[tuple[str | int, ...]]:
    recipe = Recipe.model_validate({"name": "a", **keys})
    return [key for key, _ in refusals(recipe, base, base, drawn=drawn)]


PROMPTS = [{"family": "a", "source": {"kind": "jsonl", "path": "/elsewhere/a.jsonl"}}]
MODELS = [{"name": "a/b", "engine": {"kind": "vllm", "options": {"scheduler_cls": "x"}}}, {"name": "/elsewhere"}]
SEMANTIC = {"semantic": {"model": {"name": "../../m"}, "engine": {"options": {"worker_cls": "x"}}}}


def test_each_place_of_a_recipe_is_named_by_its_key(tmp_path: Path) -> None:
    keys = refused(
        tmp_path,
        prompts=PROMPTS,
        models=MODELS,
        dedupe=SEMANTIC,
        executor={"kind": "ray", "address": "ray://elsewhere:10001"},
        filters=[{"name": "a:b"}, {"name": "judge", "parameters": {"engine": {"options": {"trust_remote_code": True}}}}],
    )

    assert keys == [
        ("filters", 0, "name"),
        ("filters", 1, "parameters", "engine", "options", "trust_remote_code"),
        ("prompts", 0, "source", "path"),
        ("models", 1, "name"),
        ("dedupe", "semantic", "model", "name"),
        ("executor", "address"),
        ("models", 0, "engine", "options", "scheduler_cls"),
        ("dedupe", "semantic", "engine", "options", "worker_cls"),
    ]


def test_of_a_finished_run_only_what_judging_uses(tmp_path: Path) -> None:
    """Its prompts and models are not read again."""
    keys = refused(tmp_path, drawn=False, prompts=PROMPTS, models=MODELS, dedupe=SEMANTIC, filters=[{"name": "a:b"}])

    assert keys == [
        ("filters", 0, "name"),
        ("dedupe", "semantic", "model", "name"),
        ("dedupe", "semantic", "engine", "options", "worker_cls"),
    ]


def test_a_secret_of_the_environment_is_no_key_of_a_server(tmp_path: Path) -> None:
    engine = {"kind": "openai_http", "base_urls": ["https://elsewhere/v1"], "api_key_env": "AWS_SECRET_ACCESS_KEY"}

    assert refused(tmp_path, engine=engine) == [("engine", "api_key_env")]
    judge = {"name": "judge", "parameters": {"engine": engine}}
    assert refused(tmp_path, filters=[judge]) == [("filters", 0, "parameters", "engine", "api_key_env")]


def test_a_filter_in_processes_of_its_own_is_no_way_around(tmp_path: Path) -> None:
    inner: dict[str, Any] = {"name": "python", "parameters": {"build": "python", "parameters": {"build": "a:b"}}}

    assert refused(tmp_path, filters=[inner]) == [("filters", 0, "parameters", "build")]


def test_a_name_that_is_a_link_beside_the_recipe_is_a_path(tmp_path: Path) -> None:
    """Models, adapters and datasets are looked for there before the Hub is asked."""
    base = tmp_path / "received"
    (base / "org").mkdir(parents=True)
    for link in ("m", "org/m"):
        (base / link).symlink_to("/etc")
        source = {"kind": "dataset", "path": link}
        models = [{"name": link}, {"name": "a/b", "adapter": link}]
        keys = refused(base, prompts=[{"family": "a", "source": source}], models=models)
        assert keys == [("prompts", 0, "source", "path"), ("models", 0, "name"), ("models", 1, "adapter")]


def test_ordinary_recipes_need_no_consent(tmp_path: Path) -> None:
    keys = refused(
        tmp_path,
        prompts=[
            {"family": "a", "source": {"kind": "jsonl", "path": "data/*.jsonl"}},
            {"family": "b", "source": {"kind": "dataset", "path": "org/name"}},
        ],
        model={"name": "org/name", "adapter": "org/lora@abc"},
        engine={"kind": "vllm", "options": {"quantization": "fp8"}},
        filters=[{"name": "finished"}, {"name": "regex", "parameters": {"pattern": "a:b"}}],
        publish={"repo": "org/name"},
    )

    assert keys == []
