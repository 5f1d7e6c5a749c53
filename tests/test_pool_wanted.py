"""When a finished shard has what the recipe wants."""

from typing import Any

import pytest

from schemas.manifest import Entry
from schemas.recipe import Recipe
from schemas.sampling import Sampling
from thresher.pool.wanted import complete, samples_of_shard, wanted

ADAPTIVE = {"samples_per_prompt": 4, "target_hits": 2}


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"samples_per_prompt": 4}, {"samples_per_prompt": 4}, True),
        ({"samples_per_prompt": 8}, {"samples_per_prompt": 4}, True),
        ({"samples_per_prompt": 4}, {"samples_per_prompt": 8}, False),
        ({"anchor": False}, {"anchor": True}, False),
        ({"anchor": True}, {"anchor": False}, True),
        (ADAPTIVE, ADAPTIVE, True),
        (ADAPTIVE, ADAPTIVE | {"target_hits": 1}, False),
        (ADAPTIVE, {"samples_per_prompt": 4}, False),
        ({"max_tokens": 16}, {"max_tokens": 32}, True),
    ],
)
def test_more_than_wanted_is_complete(before: dict[str, Any], now: dict[str, Any], expected: bool) -> None:
    """The sampling key covers what is not about numbers, such as max_tokens."""
    facts = {"wanted": wanted(Sampling(**before))}
    entry = Entry(path="samples/00000.parquet", rows=1, bytes=1, sha256="a", key="k", facts=facts)

    assert complete(entry, Sampling(**now)) is expected


@pytest.mark.parametrize(("max_tokens", "samples"), [(512, 2048), (16_384, 2048), (32_768, 1024), (1 << 26, 1)])
def test_a_shard_of_long_completions_has_fewer_samples(max_tokens: int, samples: int) -> None:
    recipe = Recipe(name="long", sampling=Sampling(max_tokens=max_tokens))

    assert samples_of_shard(recipe) == samples
