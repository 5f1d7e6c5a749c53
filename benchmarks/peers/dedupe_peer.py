"""One contender of benchmarks/dedupe.py: reads the corpus, signs and clusters it, says what that took.

python dedupe_peer.py NAME CORPUS.parquet LABELS.npy THRESHOLD, in the environment of NAME. Processor time of one thread.
"""

import itertools
import json
import re
import resource
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

SLOTS, BANDS, ROWS = 128, 25, 5
_WORD = re.compile(r"\w+")

Clock = Callable[[], float]
Said = tuple[float, Any]


def shingles(text: str) -> set[str]:
    """Word bigrams in lower case, as every contender has them."""
    words = _WORD.findall(text.lower())
    return {f"{a} {b}" for a, b in itertools.pairwise(words)}


class Union:
    """Connected components by the lowest number."""

    def __init__(self, rows: int) -> None:
        self.parents = list(range(rows))

    def root(self, at: int) -> int:
        while self.parents[at] != at:
            self.parents[at] = self.parents[self.parents[at]]
            at = self.parents[at]
        return at

    def join(self, one: int, others: Iterable[int]) -> None:
        for other in others:
            a, b = self.root(one), self.root(other)
            self.parents[max(a, b)] = min(a, b)

    def labels(self) -> Any:
        return np.array([self.root(at) for at in range(len(self.parents))])


def thresher(texts: Any, threshold: float, clock: Clock) -> Said:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from filters.similarity.duplicates import among
    from filters.similarity.kernel import signed

    few = np.zeros(1000, np.uint64)
    among(signed(texts[:1000].combine_chunks(), few), np.arange(1000), threshold)  # compiled, or read from disk
    began = clock()
    made = signed(texts.combine_chunks(), np.zeros(len(texts), np.uint64))
    signing = clock() - began
    return signing, among(made, np.arange(len(texts)), threshold).originals


def datasketch(texts: Any, threshold: float, clock: Clock) -> Said:
    from datasketch import MinHash, MinHashLSH

    began = clock()
    given = ([one.encode() for one in shingles(text)] for text in texts.to_pylist())
    hashes = MinHash.bulk(given, num_perm=SLOTS)
    signing = clock() - began
    index, union = MinHashLSH(threshold=threshold, num_perm=SLOTS, params=(BANDS, ROWS)), Union(len(texts))
    for number, one in enumerate(hashes):
        union.join(number, (other for other in index.query(one) if one.jaccard(hashes[other]) >= threshold))
        index.insert(number, one)
    return signing, union.labels()


def gaoya(texts: Any, threshold: float, clock: Clock) -> Said:
    from gaoya.minhash import MinHashStringIndex

    index = MinHashStringIndex(32, threshold, BANDS, ROWS, SLOTS, "word", True, (2, 2))
    union, began = Union(len(texts)), clock()
    given = texts.to_pylist()
    for number, text in enumerate(given):
        index.insert_document(number, text)
    signing = clock() - began
    for number, text in enumerate(given):
        union.join(number, index.query(text))
    return signing, union.labels()


def main(name: str, corpus: str, labels: str, threshold: str) -> None:
    """Run one contender and print what it took."""
    contenders = {"thresher": thresher, "datasketch": datasketch, "gaoya": gaoya}
    texts = pq.read_table(corpus, columns=["text"])["text"]
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    spent = 0.0

    def clock() -> float:
        nonlocal spent
        spent = spent or time.process_time()
        return time.process_time()

    signing, found = contenders[name](texts, float(threshold), clock)
    full = time.process_time() - spent
    np.save(labels, found)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = {"rows": len(texts), "signing": signing, "full": full, "peak_kb": peak, "before_kb": before, "start": spent - began}
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
