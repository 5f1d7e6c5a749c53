"""Budgets that contradict themselves are refused, and what a sound one allows."""

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.sampling import Sampling


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({"samples_per_prompt": 4}, 4),
        ({"samples_per_prompt": 4, "target_hits": 2}, 64),
        ({"samples_per_prompt": 4, "target_hits": 2, "max_samples_per_prompt": 9}, 9),
        ({"samples_per_prompt": 60_000, "target_hits": 2}, 65_536),
    ],
)
def test_most_completions_of_a_prompt(settings: dict[str, Any], most: int) -> None:
    assert Sampling(**settings).most == most


def test_one_temperature_is_a_list_of_one() -> None:
    assert Sampling(temperature=0.5).temperatures == (0.5,)
    assert Sampling.model_validate({"temperature": [0.5, 1.0]}).temperatures == (0.5, 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples_per_prompt": 0, "anchor": False}, "draws only the anchors"),
        ({"max_samples_per_prompt": 8}, "target_hits, which is not set"),
        ({"give_up_below": 0.1}, "target_hits, which is not set"),
        ({"target_hits": 2, "max_samples_per_prompt": 8}, "less than samples_per_prompt 16"),
        ({"target_hits": 20, "max_samples_per_prompt": 18}, "can never be reached"),
        ({"target_hits": 2, "temperature": [0.5, 1.0]}, "contradict each other"),
        ({"temperature": [1.0, 1.0]}, "names one value twice"),
        ({"temperature": []}, "at least 1 item"),
        ({"stop": [""]}, "at least 1 character"),
    ],
)
def test_settings_that_cannot_be_sampled_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Sampling.model_validate(settings)
