"""The prompts of a recipe and their sources."""

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.prompt_sets import DatasetSource, GridSource, PromptSet


def test_the_kind_selects_the_source() -> None:
    """With the defaults of that source."""
    prompts = PromptSet.model_validate({"family": "sums", "source": {"kind": "dataset", "path": "org/name"}})

    assert prompts.source == DatasetSource(kind="dataset", path="org/name")
    assert (prompts.template, prompts.reference, prompts.source.split) == ("{{ question }}", "answer", "train")


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "two words"},
        {"source": {"kind": "csv", "path": "rows.csv"}},
        {"source": {"kind": "grid", "fields": {}}},
        {"source": {"kind": "grid", "fields": {"n": []}}},
        {"source": {"kind": "reasoning_gym", "name": "chain_sum", "size": 0}},
        {"limit": 0},
        {"few_shot": [{"user": "1 + 1"}]},
    ],
)
def test_incomplete_sets_are_refused(changes: dict[str, Any]) -> None:
    """Names, sources, limits and worked examples."""
    with pytest.raises(ValidationError):
        PromptSet.model_validate({"family": "sums", "source": {"kind": "jsonl", "path": "rows.jsonl"}} | changes)


def test_a_grid_keeps_the_order_of_its_fields() -> None:
    """Rows follow the order written."""
    assert list(GridSource(kind="grid", fields={"b": [1], "a": [2]}).fields) == ["b", "a"]
