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
        ({"thinking_tokens": 512}, "leaves no room for an answer in max_tokens 512"),
        ({"thinking_tokens": 9, "reasoning_effort": "none"}, "contradict each other"),
        ({"structured": {"regex": "a"}, "stop": ["b"]}, "a stop string cuts the form"),
        ({"structured": {}}, "wanted one of json_schema, regex, choice; found none"),
        ({"structured": {"regex": "a", "choice": ["a"]}}, "found regex and choice"),
        ({"structured": {"regex": "("}}, "no regular expression"),
        ({"structured": {"json_schema": {"type": "number?"}}}, "no JSON Schema"),
        ({"structured": {"choice": ["a", "a"]}}, "names one text twice"),
        ({"keep_top_logprobs": 21}, "less than or equal to 20"),
    ],
)
def test_settings_that_cannot_be_sampled_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Sampling.model_validate(settings)
