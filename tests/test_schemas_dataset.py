"""The dataset and publishing parts of a recipe."""

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.dataset import Dataset, GatesSpec, PreferenceSpec, PublishSpec


def test_by_default_all_views_are_written_and_nothing_is_held_out() -> None:
    """And publishing takes the views of the dataset."""
    assert Dataset().views == ("sft", "preference", "unpaired", "prompts", "rollouts")
    assert Dataset().test_share == 0
    assert PublishSpec().views is None


@pytest.mark.parametrize(
    ("part", "values"),
    [
        (Dataset, {"views": []}),
        (Dataset, {"views": ["sfft"]}),
        (Dataset, {"test_share": 1}),
        (PreferenceSpec, {"pairs_per_prompt": 0}),
        (PreferenceSpec, {"length_ratio": 0.5}),
        (GatesSpec, {"undecided": 2}),
        (PublishSpec, {"versions": "weekly"}),
        (PublishSpec, {"repository": "a/b"}),
    ],
)
def test_values_out_of_range_are_refused(part: Any, values: dict[str, Any]) -> None:
    """And so are unknown keys and views."""
    with pytest.raises(ValidationError):
        part(**values)
