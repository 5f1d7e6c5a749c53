"""The Bloom filter never misses a key, and seldom reports one that was not added."""

import numpy as np
import pytest

from thresher.dedupe.bloom_filter import add_keys, blocks_for, may_hold


@pytest.mark.parametrize("keys", [1, 1_000, 50_000])
def test_every_key_is_found_and_few_others_are(keys: int) -> None:
    random = np.random.default_rng(keys)
    added = random.integers(-(2**62), 2**62, keys)
    bits = np.zeros((blocks_for(keys), 8), np.uint64)

    add_keys(bits, added)

    assert may_hold(bits, added).all()
    assert may_hold(bits, random.integers(-(2**62), 2**62, 20_000)).mean() < 0.02


def test_an_empty_filter_holds_nothing() -> None:
    bits = np.zeros((blocks_for(0), 8), np.uint64)

    assert len(bits) == 1
    assert not may_hold(bits, np.arange(100)).any()
