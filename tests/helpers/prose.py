"""Random texts of common words, and their signatures."""

import random

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from filters.similarity.signatures import Signed, signed

WORDS = (
    "the of and a to in he have it that for they with as not on she at by this we you do but from or which one would all".split()
)
SHORT_TEXTS = st.lists(st.sampled_from(WORDS[:8]), max_size=14).map(" ".join)


def sign(*texts: str, guards: list[int] | None = None) -> Signed:
    """Signatures of texts, with equal guards unless some are given."""
    return signed(pa.array(texts, pa.string()), np.array(guards or [0] * len(texts), np.uint64))


def prose(rng: random.Random, words: int) -> str:
    """A text of so many random words."""
    return " ".join(rng.choice(WORDS) + str(rng.randrange(50)) for _ in range(words))


def levenshtein(first: list[str], second: list[str]) -> int:
    """The distance of two lists of words, by the plain algorithm."""
    row = list(range(len(second) + 1))
    for line, left in enumerate(first, 1):
        diagonal, row[0] = row[0], line
        for column, right in enumerate(second, 1):
            diagonal, row[column] = row[column], min(diagonal + (left != right), row[column] + 1, row[column - 1] + 1)
    return row[-1]
