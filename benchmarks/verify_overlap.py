"""Benchmark contamination: documents and megabytes per second of one core, compared with a plain set of runs of words.

python benchmarks/verifiers.py overlap

The index has 10,000 made-up items; samples come in batches of 4,096, one in a hundred with an item in it. The peer is what most
pipelines do: every run of 13 lower-cased words, joined by spaces, in a Python set. It reports only whether a run is shared: no
shares of shorter runs, no short items, not which item or where. Times are processor time of this process, the best of three
rounds.
"""

import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1]))

import filters
from filters.base import Filter
from filters.judging import judge

ITEMS = 10_000
BATCH = 4096
ROUNDS = 3
RUN = 13
_WORD = re.compile(r"[^\W_]+")
_VOCABULARY_WORDS = 20_000


def rows() -> list[dict[str, Any]]:
    """Tables: the cost of building the index, and the speed by length of the completion."""
    draw = random.Random(0)
    vocabulary = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(_VOCABULARY_WORDS)]
    # As in a language, a few words make up most of a text.
    weights = [1 / (rank + 3) for rank in range(_VOCABULARY_WORDS)]

    def text(words: int) -> str:
        return " ".join(draw.choices(vocabulary, weights, k=words)).capitalize() + "."

    items = [text(draw.randint(20, 80)) for _ in range(ITEMS)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.jsonl"
        path.write_text("".join(json.dumps({"question": item}) + "\n" for item in items))
        parameters = {"benchmarks": [{"name": "made up", "path": str(path)}], "scan": "completion"}
        start = time.process_time()
        built = filters.build("decontaminate", parameters)
        build_s = time.process_time() - start
    start = time.process_time()
    runs = {run for item in items for run in _runs(item)}
    table_rows: list[dict[str, Any]] = [
        {
            "index of": f"{ITEMS:,} items",
            "decontaminate s": build_s,
            "set s": time.process_time() - start,
            "runs in set": len(runs),
        }
    ]
    for words in (50, 200, 800):
        completions = [text(words) for _ in range(BATCH)]
        for row in range(0, BATCH, 100):
            completions[row] += " " + items[draw.randrange(ITEMS)]
        table = pa.table({"completion": completions})
        megabytes = sum(map(len, completions)) / 1e6
        ways: dict[str, Callable[[], int]] = {
            "decontaminate": partial(_dropped, built, table),
            "set of runs": partial(_sharing, runs, completions),
        }
        timed = _timed(ways)
        for name, (seconds, dropped) in timed.items():
            table_rows.append(
                {
                    "way": name,
                    "words": words,
                    "dropped": dropped,
                    "documents/s/core": round(BATCH / seconds),
                    "MB/s/core": megabytes / seconds,
                    "x set": timed["set of runs"][0] / seconds,
                }
            )
    return table_rows


def _runs(text: str) -> list[str]:
    words = _WORD.findall(text.lower())
    return [" ".join(words[start : start + RUN]) for start in range(len(words) - RUN + 1)]


def _dropped(built: Filter, table: pa.Table) -> int:
    return int(judge(built, table)["outcome"].to_pylist().count("drop"))


def _sharing(runs: set[str], texts: list[str]) -> int:
    return sum(not runs.isdisjoint(_runs(text)) for text in texts)


def _timed(ways: dict[str, Callable[[], int]]) -> dict[str, tuple[float, int]]:
    """Seconds of each contender's best round, and how many documents it found; they take turns."""
    rounds: dict[str, list[tuple[float, int]]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = time.process_time()
            dropped = way()
            rounds[name].append((time.process_time() - start, dropped))
    return {name: min(timed) for name, timed in rounds.items()}
