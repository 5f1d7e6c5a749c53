"""When a finished shard has what the recipe wants."""

from typing import Any

import pytest

from schemas.manifest import Entry
from schemas.sampling import Sampling
from thresher.pool.wanted import complete, wanted

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
