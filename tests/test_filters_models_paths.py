"""Models and engines of filters: local paths are relative to the recipe."""

from pathlib import Path

from pydantic import BaseModel

from filters.models.paths import LocalEngine, LocalModel, resolved_model
from schemas.engines import ModelSpec, VllmEngine


class Config(BaseModel):
    model: LocalModel = ModelSpec()
    engine: LocalEngine = VllmEngine()


def test_a_folder_is_relative_to_the_recipe_and_a_hub_id_is_not(tmp_path: Path) -> None:
    (tmp_path / "judge").mkdir()

    def name(model: str, base: Path | None) -> str:
        return Config.model_validate({"model": {"name": model}}, context={"base": base}).model.name

    assert name("judge", tmp_path) == str(tmp_path / "judge")
    assert name("org/judge", tmp_path) == "org/judge"
    assert name("judge", None) == "judge"
    assert resolved_model(ModelSpec(name="judge"), tmp_path).name == str(tmp_path / "judge")


def test_replayed_answers_are_relative_to_the_recipe(tmp_path: Path) -> None:
    config = Config.model_validate({"engine": {"kind": "replay", "path": "answers.jsonl"}}, context={"base": tmp_path})

    assert config.engine.model_dump()["path"] == str(tmp_path / "answers.jsonl")
