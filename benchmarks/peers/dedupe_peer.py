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


def processor_time() -> float:
    """Of this process and of those it started."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


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
    from filters.similarity.signatures import signed

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


def rensa(texts: Any, threshold: float, clock: Clock) -> Said:
    from rensa import RMinHash, RMinHashLSH

    began = clock()
    hashes = RMinHash.from_token_sets([list(shingles(text)) for text in texts.to_pylist()], num_perm=BANDS * ROWS, seed=42)
    signing = clock() - began
    index, union = RMinHashLSH(threshold, BANDS * ROWS, BANDS), Union(len(texts))
    index.insert_many(hashes)
    for number, found in enumerate(index.query_all(hashes)):
        others = (other for other in found if other < number)
        union.join(number, (other for other in others if hashes[number].jaccard(hashes[other]) >= threshold))
    return signing, union.labels()


def daft(texts: Any, threshold: float, clock: Clock) -> Said:  # noqa: ARG001 - it has no verification of its own
    import daft as engine
    import pyarrow as pa
    from daft.functions import minhash

    began = clock()
    plain = pa.array([" ".join(_WORD.findall(text.lower())) for text in texts.to_pylist()])
    table = engine.from_arrow(pa.table({"text": plain, "row": np.arange(len(plain))}))
    hashes = minhash(engine.col("text"), num_hashes=BANDS * ROWS, ngram_size=2)
    signed = table.select("row", hashes.alias("hashes")).to_arrow()
    signing = clock() - began
    flat = np.asarray(signed["hashes"].combine_chunks().flatten(), np.uint32).reshape(-1, BANDS, ROWS)
    keys = [flat[:, band].copy().view(f"V{4 * ROWS}").ravel() for band in range(BANDS)]
    rows, union = signed["row"].to_numpy(), Union(len(texts))
    for band in range(BANDS):
        keyed = engine.from_arrow(pa.table({"key": pa.array([one.tobytes() for one in keys[band]]), "row": rows}))
        buckets = keyed.groupby("key").agg(engine.col("row").list_agg()).to_arrow()["row"].to_pylist()
        for bucket in buckets:
            union.join(min(bucket), bucket)
    return signing, union.labels()


def text_dedup(texts: Any, threshold: float, clock: Clock) -> Said:
    """Its own command, which reads and writes files of its own."""
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
        began = clock()
        minhash.main.main([word for pair in options.items() for word in (f"--{pair[0]}", pair[1])], standalone_mode=False)
        spent = clock() - began
        return spent, np.array([minhash.uf.find(number) for number in range(len(texts))])


def datatrove(texts: Any, threshold: float, clock: Clock) -> Said:  # noqa: ARG001 - it has no verification of its own
    """Its own pipeline, whose steps write files."""
    import tempfile

    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupCluster
    from loguru import logger

    logger.disable("datatrove")
    config = MinhashConfig(n_grams=2, num_buckets=BANDS, hashes_per_bucket=ROWS)
    with tempfile.TemporaryDirectory() as folder:
        began = clock()
        documents = (Document(text=text, id=str(number)) for number, text in enumerate(texts.to_pylist()))
        MinhashDedupSignature(f"{folder}/signatures", config).run(documents, 0, 1)
        signing = clock() - began
        for band in range(BANDS):
            MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config).run(None, band, BANDS)
        MinhashDedupCluster(f"{folder}/buckets", f"{folder}/clusters", config=config, save_cluster_id=True).run(None, 0, 1)
        made = np.fromfile(f"{folder}/clusters/000000.clusters", np.uint32).reshape(-1, 2)
    rows, clusters = made[:, 0].astype(np.int64), made[:, 1]
    first = np.full(int(clusters.max(initial=0)) + 1, len(texts))
    np.minimum.at(first, clusters, rows)
    labels = np.arange(len(texts))
    labels[rows] = first[clusters]
    return signing, labels


def main(name: str, corpus: str, labels: str, threshold: str) -> None:
    """Run one contender and print what it took."""
    contenders = {"thresher": thresher, "datasketch": datasketch, "gaoya": gaoya}
    contenders |= {"rensa": rensa, "daft": daft, "text-dedup": text_dedup, "datatrove": datatrove}
    texts = pq.read_table(corpus, columns=["text"])["text"]
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    spent = 0.0

    def clock() -> float:
        nonlocal spent
        spent = spent or processor_time()
        return processor_time()

    signing, found = contenders[name](texts, float(threshold), clock)
    full = processor_time() - spent
    np.save(labels, found)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = {"rows": len(texts), "signing": signing, "full": full, "peak_kb": peak, "before_kb": before, "start": spent - began}
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
