"""The contract of filters: keys, paths among parameters, and verdicts as columns."""

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel

from filters.base import Filter, LocalPath, Role, Scope, verdict_table

FILTER = Filter("mine", "1", Scope.SAMPLE, Role.QUALITY, lambda table: [], ("completion",), {"a": 1})


class Config(BaseModel):
    path: LocalPath


def test_the_key_is_of_name_version_and_parameters() -> None:
    changed = [replace(FILTER, name="other"), replace(FILTER, version="2"), replace(FILTER, parameters={"a": 2})]

    assert len({FILTER.key, *(filter_.key for filter_ in changed)}) == 4
    assert replace(FILTER, cost_us=99.0, role=Role.VERIFIER, columns=()).key == FILTER.key


@pytest.mark.parametrize(
    ("base", "path"), [(None, "words.txt"), ("/recipes", "/recipes/words.txt"), (Path("data"), "data/words.txt")]
)
def test_paths_are_relative_to_the_recipe(base: Path | str | None, path: str) -> None:
    assert Config.model_validate({"path": "words.txt"}, context={"base": base}).path == path
    assert Config.model_validate({"path": "/words.txt"}, context={"base": base}).path == "/words.txt"


def test_columns_of_nulls_may_be_omitted() -> None:
    table = verdict_table(["keep", "drop"], ["", "bad"])

    assert table.to_pylist() == [
        {"outcome": "keep", "reason": "", "score": None, "detail": None},
        {"outcome": "drop", "reason": "bad", "score": None, "detail": None},
    ]
