"""One contender of benchmarks/dedupe.py: reads the corpus, signs and clusters it, and prints the time and memory that took.

python dedupe_peer.py NAME CORPUS.parquet LABELS.npy THRESHOLD, in the environment of NAME. Times are processor time of one
thread.
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
Result = tuple[float, Any]
"""Seconds of signing, and a label per row."""


def processor_time() -> float:
    """Processor seconds of this process and of its children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def shingles(text: str) -> set[str]:
    """Lower-case word bigrams, which all contenders use."""
    words = _WORD.findall(text.lower())
    return {f"{a} {b}" for a, b in itertools.pairwise(words)}


class Union:
    """Connected components, named by their lowest row."""

    def __init__(self, rows: int) -> None:
        self.parents = list(range(rows))

    def root(self, row: int) -> int:
        while self.parents[row] != row:
            self.parents[row] = self.parents[self.parents[row]]
            row = self.parents[row]
        return row

    def join(self, row: int, others: Iterable[int]) -> None:
        for other in others:
            a, b = self.root(row), self.root(other)
            self.parents[max(a, b)] = min(a, b)

    def labels(self) -> Any:
        return np.array([self.root(row) for row in range(len(self.parents))])


def thresher(texts: Any, threshold: float, clock: Clock) -> Result:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from filters.similarity.duplicates import among
    from filters.similarity.signatures import signed

    few = np.zeros(1000, np.uint64)
    among(signed(texts[:1000].combine_chunks(), few), np.arange(1000), threshold)  # Compiles the kernel, or reads it from disk.
    start = clock()
    signatures = signed(texts.combine_chunks(), np.zeros(len(texts), np.uint64))
    signing = clock() - start
    return signing, among(signatures, np.arange(len(texts)), threshold).originals


def datasketch(texts: Any, threshold: float, clock: Clock) -> Result:
    from datasketch import MinHash, MinHashLSH

    start = clock()
    sets = ([shingle.encode() for shingle in shingles(text)] for text in texts.to_pylist())
    hashes = MinHash.bulk(sets, num_perm=SLOTS)
    signing = clock() - start
    index, union = MinHashLSH(threshold=threshold, num_perm=SLOTS, params=(BANDS, ROWS)), Union(len(texts))
    for row, minhash in enumerate(hashes):
        union.join(row, (other for other in index.query(minhash) if minhash.jaccard(hashes[other]) >= threshold))
        index.insert(row, minhash)
    return signing, union.labels()


def gaoya(texts: Any, threshold: float, clock: Clock) -> Result:
    from gaoya.minhash import MinHashStringIndex

    index = MinHashStringIndex(32, threshold, BANDS, ROWS, SLOTS, "word", True, (2, 2))
    union, start = Union(len(texts)), clock()
    plain = texts.to_pylist()
    for number, text in enumerate(plain):
        index.insert_document(number, text)
    signing = clock() - start
    for number, text in enumerate(plain):
        union.join(number, index.query(text))
    return signing, union.labels()


def rensa(texts: Any, threshold: float, clock: Clock) -> Result:
    from rensa import RMinHash, RMinHashLSH

    start = clock()
    hashes = RMinHash.from_token_sets([list(shingles(text)) for text in texts.to_pylist()], num_perm=BANDS * ROWS, seed=42)
    signing = clock() - start
    index, union = RMinHashLSH(threshold, BANDS * ROWS, BANDS), Union(len(texts))
    index.insert_many(hashes)
    for number, matches in enumerate(index.query_all(hashes)):
        others = (other for other in matches if other < number)
        union.join(number, (other for other in others if hashes[number].jaccard(hashes[other]) >= threshold))
    return signing, union.labels()


def daft(texts: Any, threshold: float, clock: Clock) -> Result:  # noqa: ARG001 - it does not verify pairs
    import daft as engine
    import pyarrow as pa
    from daft.functions import minhash

    start = clock()
    plain = pa.array([" ".join(_WORD.findall(text.lower())) for text in texts.to_pylist()])
    table = engine.from_arrow(pa.table({"text": plain, "row": np.arange(len(plain))}))
    hashes = minhash(engine.col("text"), num_hashes=BANDS * ROWS, ngram_size=2)
    signed = table.select("row", hashes.alias("hashes")).to_arrow()
    signing = clock() - start
    flat = np.asarray(signed["hashes"].combine_chunks().flatten(), np.uint32).reshape(-1, BANDS, ROWS)
    keys = [flat[:, band].copy().view(f"V{4 * ROWS}").ravel() for band in range(BANDS)]
    rows, union = signed["row"].to_numpy(), Union(len(texts))
    for band in range(BANDS):
        keyed = engine.from_arrow(pa.table({"key": pa.array([key.tobytes() for key in keys[band]]), "row": rows}))
        buckets = keyed.groupby("key").agg(engine.col("row").list_agg()).to_arrow()["row"].to_pylist()
        for bucket in buckets:
            union.join(min(bucket), bucket)
    return signing, union.labels()


def text_dedup(texts: Any, threshold: float, clock: Clock) -> Result:
    """Run its own command, which reads and writes files."""
    import tempfile

    import pyarrow as pa
    from text_dedup import minhash

    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pa.table({"text": texts}), f"{folder}/in.parquet")
        options = {"path": "parquet", "data_files": f"{folder}/in.parquet", "split": "train", "cache_dir": f"{folder}/cache"}
        options |= {"output": f"{folder}/out", "column": "text", "num_proc": "1", "batch_size": "10000", "ngram": "2"}
        options |= {
            "min_length": "1",
            "num_perm": str(BANDS * ROWS),
            "b": str(BANDS),
            "r": str(ROWS),
            "threshold": str(threshold),
        }
        start = clock()
        minhash.main.main([word for pair in options.items() for word in (f"--{pair[0]}", pair[1])], standalone_mode=False)
        spent = clock() - start
        return spent, np.array([minhash.uf.find(number) for number in range(len(texts))])


def datatrove(texts: Any, threshold: float, clock: Clock) -> Result:  # noqa: ARG001 - it does not verify pairs
    """Run its own pipeline, whose steps write files."""
    import tempfile

    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupCluster
    from loguru import logger

    logger.disable("datatrove")
    config = MinhashConfig(n_grams=2, num_buckets=BANDS, hashes_per_bucket=ROWS)
    with tempfile.TemporaryDirectory() as folder:
        start = clock()
        documents = (Document(text=text, id=str(number)) for number, text in enumerate(texts.to_pylist()))
        MinhashDedupSignature(f"{folder}/signatures", config).run(documents, 0, 1)
        signing = clock() - start
        for band in range(BANDS):
            MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config).run(None, band, BANDS)
        MinhashDedupCluster(f"{folder}/buckets", f"{folder}/clusters", config=config, save_cluster_id=True).run(None, 0, 1)
        pairs = np.fromfile(f"{folder}/clusters/000000.clusters", np.uint32).reshape(-1, 2)
    rows, clusters = pairs[:, 0].astype(np.int64), pairs[:, 1]
    first = np.full(int(clusters.max(initial=0)) + 1, len(texts))
    np.minimum.at(first, clusters, rows)
    labels = np.arange(len(texts))
    labels[rows] = first[clusters]
    return signing, labels


def main(name: str, corpus: str, labels: str, threshold: str) -> None:
    """Run one contender, and print its times and memory."""
    contenders = {"thresher": thresher, "datasketch": datasketch, "gaoya": gaoya}
    contenders |= {"rensa": rensa, "daft": daft, "text-dedup": text_dedup, "datatrove": datatrove}
    texts = pq.read_table(corpus, columns=["text"])["text"]
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    spent = 0.0

    def clock() -> float:
        nonlocal spent
        spent = spent or processor_time()
        return processor_time()

    signing, labels_of_rows = contenders[name](texts, float(threshold), clock)
    full = processor_time() - spent
    np.save(labels, labels_of_rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = {"rows": len(texts), "signing": signing, "full": full, "peak_kb": peak, "before_kb": before, "start": spent - start}
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
