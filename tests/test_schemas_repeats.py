"""The parts of a recipe about duplicates and near misses."""

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.repeats import DedupeSpec, NearMissSpec, ReleasedSpec


def test_by_default_duplicates_of_a_prompt_and_of_the_run_are_found() -> None:
    """Not those in other words, nor those of earlier releases."""
    spec = DedupeSpec()

    assert (spec.within_prompt, spec.within_run, spec.semantic, spec.released) == (0.7, 0.7, None, None)
    assert spec.keep == ("highest_score", "shortest", "likeliest")


@pytest.mark.parametrize(
    ("part", "values"),
    [
        (DedupeSpec, {"within_prompt": 0}),
        (DedupeSpec, {"within_run": 1.5}),
        (DedupeSpec, {"guard": "words"}),
        (DedupeSpec, {"keep": ["longest"]}),
        (DedupeSpec, {"run_characters": -1}),
        (ReleasedSpec, {}),
        (NearMissSpec, {"edits": -1}),
        (NearMissSpec, {"share": 2}),
    ],
)
def test_values_out_of_range_are_refused(part: Any, values: dict[str, Any]) -> None:
    """Similarities lie above 0, and shares between 0 and 1."""
    with pytest.raises(ValidationError):
        part(**values)
