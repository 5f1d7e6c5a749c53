"""Duplicates: thresher's kernel beside its peers on the same corpus, in the same run, by processor time of one thread.

python benchmarks/dedupe.py [--rows 10000,100000] [--length short] [--peers datasketch,gaoya] [--rounds 3] [--hot]

Every contender runs in a process of its own, peers in environments of their own that are made when first needed, one after the
other in rounds; the median counts. All have word bigrams and 25 bands of 5 slots. `signed/s` is text to signature, `full/s`
text to clusters. Quality is told of pairs whose Jaccard similarity reaches the threshold: `recall` of the pairs that the corpus
made by copying, `precision` of all pairs of a cluster, `named` of the pairs of a duplicate and the row it names. --hot makes
every tenth row one of eight refusals. Then the near misses: ms for groups of 256 and 4,096. --files runs `thresher dedupe` in
memory and through files, --index asks an index of as many released texts."""

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
"""Pairs of a corpus that are looked at, at most."""

Ints = NDArray[np.int64]


def environment(name: str) -> str:
    """The interpreter of a contender."""
    if name == "thresher":
        return sys.executable
    home = CACHE / f"dedupe-{name}"
    python = home / "bin" / "python"
    if not (home / "made").exists():
        print(f"installing {name} into {home}", file=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([shutil.which("python3.11") or sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "numpy", "pyarrow", *PEERS[name]], check=True)
        (home / "made").touch()
    return str(python)


def corpus(rows: int, length: str, *, hot: bool) -> Path:
    """The corpus as a file."""
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
        texts[::10] = [refusals[at % 8] for at in range(len(texts[::10]))]
        pq.write_table(table.set_column(0, "text", pa.array(texts)), path)
    return path


def measured(names: list[str], path: Path, threshold: float, rounds: int) -> dict[str, dict[str, Any]]:
    """Medians of the rounds, and the labels of the last."""
    said: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            labels = CACHE / f"{name}.npy"
            command = [environment(name), str(PEER), name, str(path), str(labels), str(threshold)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            said[name].append(json.loads(done.stdout.splitlines()[-1]) | {"labels": np.load(labels)})
    return {
        name: {key: statistics.median(one[key] for one in found) for key in ("signing", "full", "peak_kb", "before_kb", "rows")}
        | {"labels": found[-1]["labels"]}
        for name, found in said.items()
    }


def quality(path: Path, found: dict[str, dict[str, Any]], threshold: float) -> dict[str, dict[str, float]]:
    """Precision and recall of each contender's clusters, by exact similarities."""
    table = pq.read_table(path)
    texts = signed(table["text"], np.zeros(table.num_rows, np.uint64))
    roots = table["copy_of"].to_numpy().copy()
    for row in np.flatnonzero(roots >= 0):
        roots[row] = roots[roots[row]] if roots[roots[row]] >= 0 else roots[row]
    one, other = pairs(np.where(roots < 0, np.arange(len(roots)), roots))
    alike = similarities(texts, one, other) >= threshold
    one, other = one[alike], other[alike]
    told = {}
    for name, said in found.items():
        labels = said["labels"]
        first, second = pairs(labels)
        duplicates = np.flatnonzero(labels != np.arange(len(labels)))
        told[name] = {
            "precision": float((similarities(texts, first, second) >= threshold).mean()),
            "named": float((similarities(texts, duplicates, labels[duplicates]) >= threshold).mean()),
            "recall": float((labels[one] == labels[other]).mean()),
        }
    return told


def pairs(labels: Ints) -> tuple[Ints, Ints]:
    """All pairs of equal labels, up to PAIRS of them."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    ones, others, count = [], [], 0
    for members in np.split(order, starts[1:]):
        if 1 < len(members) <= 2_000 and count < PAIRS:
            i, j = np.triu_indices(len(members), 1)
            ones.append(members[i])
            others.append(members[j])
            count += len(i)
    return np.concatenate(ones), np.concatenate(others)


def near_misses(length: str) -> list[dict[str, Any]]:
    """Milliseconds of a group of samples, 40 % of which are right."""
    made = []
    for size in (256, 4_096):
        rows = max(4_096, 10 * size if length == "short" else size)
        texts = pq.read_table(corpus(rows, length, hot=False))["text"]
        right = np.random.default_rng(0).random(rows) < 0.4
        groups, best = np.arange(rows) // size, 1e9
        for _ in range(5):
            began = time.process_time()
            tokens = tokens_of(texts)
            seekers, targets = np.flatnonzero(~right), np.flatnonzero(right)
            found, _ = nearest(tokens, groups, seekers, targets, edits=3, share=0.1, common=0.5)
            best = min(best, time.process_time() - began)
        each = 1e3 * best / (rows / size)
        made.append({"near misses in": length, "group of": size, "ms/group": each, "found": round(float((found >= 0).mean()), 3)})
    return made


def floor(path: Path) -> list[dict[str, Any]]:
    """The bytes of a corpus through ever more work, MB/s of processor time: what the kernel is measured against."""
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
    told: dict[str, Any] = {"MB/s": path.stem}
    for name, stage in stages.items():
        best = 1e9
        for _ in range(3):
            began = time.process_time()
            stage()
            best = min(best, time.process_time() - began)
        told[name] = round(data.nbytes / 1e6 / best)
    return [told]


def through_files(path: Path) -> list[dict[str, Any]]:
    """`thresher dedupe` on a file, with all the memory it wants and with little, by the time it says and its own memory: that of
    mapped files, which the system takes back when it wants, apart."""
    made = []
    for memory in (64.0, 0.1):
        with tempfile.TemporaryDirectory() as folder:
            data = f"{folder}/data.parquet"
            pq.write_table(pq.read_table(path), data, row_group_size=50_000)
            command = [str(Path(sys.executable).parent / "thresher"), "dedupe", data, "--out", f"{folder}/out", "--json"]
            command += ["--memory", str(memory), "--workers", "1"]
            running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            peak = 0
            while running.poll() is None:
                said = Path(f"/proc/{running.pid}/status").read_text()
                peak = max(peak, *(int(line.split()[1]) for line in said.splitlines() if line.startswith("RssAnon")), 0)
                time.sleep(0.02)
            assert running.stdout is not None
            told = json.loads(running.stdout.read())
        made.append(
            {
                "thresher dedupe": f"--memory {memory:g}",
                "rows": told["rows"],
                "kept": told["kept"],
                "own memory MB": round(peak / 1024),
                **{f"{step} s": seconds for step, seconds in told["seconds"].items()},
            }
        )
    return made


def released(rows: int) -> list[dict[str, Any]]:
    """An index of so many texts of 45 words, a tenth of what is asked for being in there with a word changed."""
    rng = np.random.default_rng(0)
    words = np.array([f"{number:x}" for number in rng.integers(2**20, 2**24, 20_000)])
    step, told = 100_000, {"released": rows}

    def signatures(first: int, count: int) -> Signed:
        picked = np.random.default_rng(first).integers(0, len(words), (count, 45))
        return signed(pa.array([" ".join(row) for row in words[picked]]), np.zeros(count, np.uint64))

    with tempfile.TemporaryDirectory() as folder:
        index = Index(folder, {})
        spent = 0.0
        for first in range(0, rows, step):
            made, names = signatures(first, step), [f"{first + number:032x}" for number in range(step)]
            began = time.process_time()
            index.add(str(first), [(made, names)])
            spent += time.process_time() - began
        told["added/s"] = round(rows / spent)
        told["bytes each"] = round(sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / rows)
        for count in (1_000, 100_000):
            old = signatures(step, count // 10)
            asked = joined([old, signatures(1, count - count // 10)])
            began = time.process_time()
            found = index.ask(asked, 0.7)
            told[f"{count} asked ms"] = round(1e3 * (time.process_time() - began))
            told[f"{count} found"] = sum(name is not None for name in found.names)
    return [told]


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
        found = measured(names, path, options.threshold, options.rounds)
        told = quality(path, found, options.threshold)
        full[rows] = found["thresher"]["full"]
        table += [
            {
                "contender": name,
                "rows": rows,
                "signed/s": round(rows / one["signing"]),
                "full/s": round(rows / one["full"]),
                "thresher is x": round(one["full"] / found["thresher"]["full"], 1),
                "peak KB/row": round((one["peak_kb"] - one["before_kb"]) / rows, 2),
                **{key: round(value, 4) for key, value in told[name].items()},
            }
            for name, one in found.items()
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
