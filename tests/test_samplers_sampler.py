"""What all samplers share: parameters, prompts of base models, counts of tokens."""

import numpy as np
import pytest

from schemas.sample import Message
from schemas.sampling import Sampling
from thresher.samplers.sampler import (
    NEUTRAL,
    Completion,
    Drawn,
    anchor_parameters,
    draw_parameters,
    label_parameters,
    plain_text,
)


def test_parameters_are_all_explicit() -> None:
    sampling = Sampling(top_p=0.9, max_tokens=7, stop=("\n",))
    expected = {**NEUTRAL, "top_p": 0.9, "max_tokens": 7, "stop": ["\n"], "temperature": 0.5}

    assert draw_parameters(sampling, 0.5) == expected
    assert list(draw_parameters(sampling, 0.5)) == [*NEUTRAL, "max_tokens", "stop"]


def test_anchors_and_labels_are_greedy_and_nothing_else() -> None:
    sampling = Sampling(top_p=0.9, max_tokens=7)

    assert anchor_parameters(sampling) == {**NEUTRAL, "temperature": 0.0, "max_tokens": 7, "stop": []}
    forcing = Sampling.model_validate({"max_tokens": 7, "thinking_tokens": 3, "structured": {"regex": "a"}})
    forced = {"thinking_tokens": 3, "structured": {"regex": "a"}}
    assert anchor_parameters(forcing) == {**anchor_parameters(sampling), **forced}
    assert draw_parameters(forcing, 1.0) == {**draw_parameters(Sampling(max_tokens=7), 1.0), **forced}
    assert label_parameters() == {**NEUTRAL, "temperature": 0.0, "max_tokens": 1, "stop": []}


def test_a_base_model_reads_contents_with_blank_lines_between() -> None:
    assert plain_text((Message("system", "Be brief."), Message("user", "Why?"))) == "Be brief.\n\nWhy?"


@pytest.mark.parametrize("by", ["token_ids", "logprobs"])
def test_tokens_are_counted_as_far_as_they_are_known(by: str) -> None:
    values = {"token_ids": np.zeros(3, np.int32), "logprobs": np.zeros(3, np.float32)}
    completions = (Completion("a", "stop", **{by: values[by]}), Completion("b", "stop"))  # type: ignore[arg-type]  # by name

    assert Drawn(0, completions).tokens == 3
