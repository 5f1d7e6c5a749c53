"""Compile the numba kernels into the cache, so that no run waits for them: python -m thresher.dedupe.compile_kernels."""

import tempfile

import numpy as np
import pyarrow as pa

from filters.similarity.duplicates import among, similarities, within
from filters.similarity.edits import nearest, tokens_of
from filters.similarity.meaning import meanings
from filters.similarity.signatures import signed
from thresher.dedupe.index import Index

texts = pa.array(["one text and another one of some words", "a short one", "one text and another one of many words", "caf\u00e9"])
rows = np.arange(len(texts))
meanings(texts)
signatures = signed(texts, np.zeros(len(texts), np.uint64))
among(signatures, rows, 0.7)
within(signatures, np.zeros_like(rows), rows, 0.7)
similarities(signatures, rows, rows[::-1].copy())
nearest(tokens_of(texts), np.zeros_like(rows), rows[:2], rows[2:], edits=3, share=0.1, common=0.5)
with tempfile.TemporaryDirectory() as folder:
    Index(folder, {}).add("release", [(signatures, ["a", "b", "c", "d"])])
    Index(folder, {}).ask(signatures, 0.7)
