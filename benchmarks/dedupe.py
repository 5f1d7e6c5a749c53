"""Duplicates: thresher's kernel compared with its peers on the same corpus, in the same run, by processor time of one thread.

python benchmarks/dedupe.py [--rows 10000,100000] [--length short] [--peers datasketch,gaoya] [--rounds 3] [--hot]

Every contender runs in a process of its own, peers in environments of their own that are created when first needed. They take
turns in rounds, and the median counts. All use word bigrams and 25 bands of 5 slots. `signed/s` is from text to signature,
`full/s` from text to clusters. Quality is about pairs whose Jaccard similarity reaches the threshold: `recall` of the pairs
that the corpus made by copying, `precision` of all pairs of a cluster, `named` of the pairs of a duplicate and the row that it
names. --hot makes every tenth row one of eight refusals. A second table has the near misses: ms for groups of 256 and 4,096.
--files runs `thresher dedupe` in memory and through files. --index queries an index of as many released texts."""

import argparse
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray
from platformdirs import user_cache_path

sys.path.insert(0, str(Path(__file__).parents[1]))

import dedupe_corpus
import verifiers

from filters.similarity.duplicates import similarities
from filters.similarity.edits import nearest, tokens_of
from filters.similarity.kernel import normalised
from filters.similarity.signatures import Signed, joined, signed
from thresher.dedupe.index import Index

PEER = Path(__file__).parent / "peers" / "dedupe_peer.py"
PEERS = {
    "datasketch": ("datasketch==2.0.0",),
    "gaoya": ("gaoya==0.2.2",),
    "rensa": ("rensa==0.5.0",),
    "daft": ("daft==0.7.26",),
    "text-dedup": ("text-dedup==0.4.0", "pyspark<4.1", "setuptools>=69.1"),
    "datatrove": ("datatrove==0.10.1", "spacy", "nltk", "tokenizers", "xxhash<3.6"),
}
CACHE = user_cache_path("thresher") / "benchmarks"
PAIRS = 2_000_000
"""Most pairs of a corpus that are compared."""

Ints = NDArray[np.int64]


def environment(name: str) -> str:
    """The interpreter of a contender, installed when first needed."""
    if name == "thresher":
        return sys.executable
    home = CACHE / f"dedupe-{name}"
    python = home / "bin" / "python"
    if not (home / "installed").exists():
        print(f"installing {name} into {home}", file=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([shutil.which("python3.11") or sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "numpy", "pyarrow", *PEERS[name]], check=True)
        (home / "installed").touch()
    return str(python)


def corpus(rows: int, length: str, *, hot: bool) -> Path:
    """The file of a corpus, generated when first needed."""
    plain = CACHE / "corpora" / f"{length}-{rows}.parquet"
    table = dedupe_corpus.read(rows, length, plain.parent)
    if not hot:
        return plain
    path = plain.with_suffix(".hot.parquet")
    if not path.exists():
        refusals = [
            f"I am sorry, but as a language model number {number} I cannot help with that request." for number in range(8)
        ]
        texts = table["text"].to_pylist()
        texts[::10] = [refusals[number % 8] for number in range(len(texts[::10]))]
        pq.write_table(table.set_column(0, "text", pa.array(texts)), path)
    return path


def measured(names: list[str], path: Path, threshold: float, rounds: int) -> dict[str, dict[str, Any]]:
    """Medians over the rounds, and the labels of the last one."""
    reports: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            labels = CACHE / f"{name}.npy"
            command = [environment(name), str(PEER), name, str(path), str(labels), str(threshold)]
            process = subprocess.run(command, capture_output=True, text=True, check=True)
            reports[name].append(json.loads(process.stdout.splitlines()[-1]) | {"labels": np.load(labels)})
    return {
        name: {
            key: statistics.median(report[key] for report in rounds_of)
            for key in ("signing", "full", "peak_kb", "before_kb", "rows")
        }
        | {"labels": rounds_of[-1]["labels"]}
        for name, rounds_of in reports.items()
    }


def quality(path: Path, results: dict[str, dict[str, Any]], threshold: float) -> dict[str, dict[str, float]]:
    """Precision and recall of each contender's clusters, by exact similarities."""
    table = pq.read_table(path)
    texts = signed(table["text"], np.zeros(table.num_rows, np.uint64))
    roots = table["copy_of"].to_numpy().copy()
    for row in np.flatnonzero(roots >= 0):
        roots[row] = roots[roots[row]] if roots[roots[row]] >= 0 else roots[row]
    left, right = pairs(np.where(roots < 0, np.arange(len(roots)), roots))
    alike = similarities(texts, left, right) >= threshold
    left, right = left[alike], right[alike]
    qualities = {}
    for name, result in results.items():
        labels = result["labels"]
        first, second = pairs(labels)
        duplicates = np.flatnonzero(labels != np.arange(len(labels)))
        qualities[name] = {
            "precision": float((similarities(texts, first, second) >= threshold).mean()),
            "named": float((similarities(texts, duplicates, labels[duplicates]) >= threshold).mean()),
            "recall": float((labels[left] == labels[right]).mean()),
        }
    return qualities


def pairs(labels: Ints) -> tuple[Ints, Ints]:
    """All pairs of equal labels, up to PAIRS of them."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    left, right, count = [], [], 0
    for members in np.split(order, starts[1:]):
        if 1 < len(members) <= 2_000 and count < PAIRS:
            i, j = np.triu_indices(len(members), 1)
            left.append(members[i])
            right.append(members[j])
            count += len(i)
    return np.concatenate(left), np.concatenate(right)


def near_misses(length: str) -> list[dict[str, Any]]:
    """Milliseconds for a group of samples, 40 % of which are right."""
    table_rows = []
    for size in (256, 4_096):
        rows = max(4_096, 10 * size if length == "short" else size)
        texts = pq.read_table(corpus(rows, length, hot=False))["text"]
        right = np.random.default_rng(0).random(rows) < 0.4
        groups, best = np.arange(rows) // size, 1e9
        for _ in range(5):
            start = time.process_time()
            tokens = tokens_of(texts)
            seekers, targets = np.flatnonzero(~right), np.flatnonzero(right)
            matches, _ = nearest(tokens, groups, seekers, targets, edits=3, share=0.1, common=0.5)
            best = min(best, time.process_time() - start)
        milliseconds, share = 1e3 * best / (rows / size), round(float((matches >= 0).mean()), 3)
        table_rows.append({"near misses in": length, "group of": size, "ms/group": milliseconds, "found": share})
    return table_rows


def floor(path: Path) -> list[dict[str, Any]]:
    """MB/s of processor time for a corpus through more and more steps: what the kernel is compared with."""
    texts = pq.read_table(path)["text"].combine_chunks()
    data: NDArray[np.uint8] = np.frombuffer(texts.buffers()[2], np.uint8)
    guards = np.zeros(len(texts), np.uint64)
    signed(texts[:1000], guards[:1000])
    stages: dict[str, Callable[[], Any]] = {
        "read": lambda: data.sum(dtype=np.uint64),
        "xxh3 of all": lambda: xxhash.xxh3_64_intdigest(data.data),
        "normalised": lambda: normalised(texts),
        "words": lambda: tokens_of(texts),
        "signed": lambda: signed(texts, guards),
    }
    rates: dict[str, Any] = {"MB/s": path.stem}
    for name, stage in stages.items():
        best = 1e9
        for _ in range(3):
            start = time.process_time()
            stage()
            best = min(best, time.process_time() - start)
        rates[name] = round(data.nbytes / 1e6 / best)
    return [rates]


def through_files(path: Path) -> list[dict[str, Any]]:
    """Run `thresher dedupe` on a file, with unlimited and with little memory. Reported are the times that it prints and its
    anonymous memory: pages of mapped files, which the system can take back, are not counted."""
    table_rows = []
    for memory in (64.0, 0.1):
        with tempfile.TemporaryDirectory() as folder:
            data = f"{folder}/data.parquet"
            pq.write_table(pq.read_table(path), data, row_group_size=50_000)
            command = [str(Path(sys.executable).parent / "thresher"), "dedupe", data, "--out", f"{folder}/out", "--json"]
            command += ["--memory", str(memory), "--workers", "1"]
            running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            peak = 0
            while running.poll() is None:
                status = Path(f"/proc/{running.pid}/status").read_text()
                peak = max(peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")), 0)
                time.sleep(0.02)
            assert running.stdout is not None
            report = json.loads(running.stdout.read())
        table_rows.append(
            {
                "thresher dedupe": f"--memory {memory:g}",
                "rows": report["rows"],
                "kept": report["kept"],
                "own memory MB": round(peak / 1024),
                **{f"{step} s": seconds for step, seconds in report["seconds"].items()},
            }
        )
    return table_rows


def released(rows: int) -> list[dict[str, Any]]:
    """An index of `rows` texts of 45 words; a tenth of the queries are texts of the index with one word changed."""
    rng = np.random.default_rng(0)
    words = np.array([f"{number:x}" for number in rng.integers(2**20, 2**24, 20_000)])
    step, report = 100_000, {"released": rows}

    def signatures(first: int, count: int) -> Signed:
        picked = np.random.default_rng(first).integers(0, len(words), (count, 45))
        return signed(pa.array([" ".join(row) for row in words[picked]]), np.zeros(count, np.uint64))

    with tempfile.TemporaryDirectory() as folder:
        index = Index(folder, {})
        spent = 0.0
        for first in range(0, rows, step):
            texts, names = signatures(first, step), [f"{first + number:032x}" for number in range(step)]
            start = time.process_time()
            index.add(str(first), [(texts, names)])
            spent += time.process_time() - start
        report["added/s"] = round(rows / spent)
        report["bytes each"] = round(sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / rows)
        for count in (1_000, 100_000):
            old = signatures(step, count // 10)
            queries = joined([old, signatures(1, count - count // 10)])
            start = time.process_time()
            matches = index.ask(queries, 0.7)
            report[f"{count} asked ms"] = round(1e3 * (time.process_time() - start))
            report[f"{count} found"] = sum(name is not None for name in matches.names)
    return [report]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="10000,100000")
    parser.add_argument("--length", default="short", choices=list(dedupe_corpus.SENTENCES))
    parser.add_argument("--peers", default="datasketch,gaoya,rensa,daft,text-dedup,datatrove")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threshold", type=float, default=0.7)
    parser.add_argument("--hot", action="store_true")
    parser.add_argument("--files", action="store_true")
    parser.add_argument("--index", type=int, metavar="TEXTS")
    options = parser.parse_args()
    names = ["thresher", *filter(None, options.peers.split(","))]
    table, full = [], {}
    for rows in map(int, options.rows.split(",")):
        path = corpus(rows, options.length, hot=options.hot)
        results = measured(names, path, options.threshold, options.rounds)
        qualities = quality(path, results, options.threshold)
        full[rows] = results["thresher"]["full"]
        table += [
            {
                "contender": name,
                "rows": rows,
                "signed/s": round(rows / result["signing"]),
                "full/s": round(rows / result["full"]),
                "thresher is x": round(result["full"] / results["thresher"]["full"], 1),
                "peak KB/row": round((result["peak_kb"] - result["before_kb"]) / rows, 2),
                **{key: round(value, 4) for key, value in qualities[name].items()},
            }
            for name, result in results.items()
        ]
    verifiers.table(table)
    sizes = sorted(full)
    for small, large in itertools.pairwise(sizes):
        print(f"cost grows as N^{np.log(full[large] / full[small]) / np.log(large / small):.2f} from {small:,} to {large:,}")
    verifiers.table([row for rows in sizes for row in floor(corpus(rows, options.length, hot=options.hot))])
    verifiers.table(near_misses(options.length))
    if options.files:
        verifiers.table([row for rows in sizes for row in through_files(corpus(rows, options.length, hot=options.hot))])
    if options.index:
        verifiers.table(released(options.index))
    return 0


if __name__ == "__main__":
    sys.exit(main())
