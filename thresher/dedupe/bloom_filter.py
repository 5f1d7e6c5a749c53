"""A blocked Bloom filter over 64-bit keys (Putze, Sanders, Singler 2007): 8 bits a key, all in one cache line of 512 bits."""

from typing import Any

import numpy as np

from filters.similarity.kernel import I64, U64, jit, mix

BITS_PER_KEY = 12


def blocks_for(keys: int) -> int:
    """The number of blocks of 8 words that a filter over this many keys takes."""
    return max(1, -(-keys * BITS_PER_KEY // 512))


@jit
def add_keys(bits: U64, keys: I64) -> None:
    """Add keys (n,) to a filter (blocks, 8)."""
    blocks = np.uint64(len(bits))
    for key in keys:
        hashed = mix(np.uint64(key) * np.uint64(0x9E3779B97F4A7C15))
        block = np.int64((hashed >> np.uint64(32)) * blocks >> np.uint64(32))
        further = mix(hashed + np.uint64(0x632BE59BD9B4E019))
        for word in range(8):
            bits[block, word] |= np.uint64(1) << (further >> np.uint64(6 * word) & np.uint64(63))


@jit
def may_hold(bits: U64, keys: I64) -> Any:
    """Whether each key (n,) may be in a filter (blocks, 8). False is certain."""
    blocks = np.uint64(len(bits))
    possible = np.empty(len(keys), np.bool_)
    for index in range(len(keys)):
        hashed = mix(np.uint64(keys[index]) * np.uint64(0x9E3779B97F4A7C15))
        block = np.int64((hashed >> np.uint64(32)) * blocks >> np.uint64(32))
        further = mix(hashed + np.uint64(0x632BE59BD9B4E019))
        all_set = True
        for word in range(8):
            bit = bits[block, word] >> (further >> np.uint64(6 * word) & np.uint64(63)) & np.uint64(1)
            all_set = all_set and bit == 1
        possible[index] = all_set
    return possible
