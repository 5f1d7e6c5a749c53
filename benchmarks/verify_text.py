"""False alarms of `coherence` on clean sentences and its recall on splices, by rule; sentences/s against plain Python regexes.

The sentences are English prose of this machine (benchmarks/text_corpus.py), of packages from which nothing was learned.

python benchmarks/verifiers.py text
"""

import random
import re
import time
from collections import Counter
from typing import Any, cast

import pyarrow as pa
import text_corpus

import filters

SPLICED = 2_000
ROUNDS = 3


def rows() -> list[dict[str, Any]]:
    """Tables: false alarms, recall per kind of splice, throughput."""
    everywhere = [one for _, found in text_corpus.sentences()["test"] for one in found]
    only_python = text_corpus.held_back()
    made: list[dict[str, Any]] = []
    for source, texts in (("Debian and Python packages", everywhere), ("Python packages", only_python)):
        random.Random(0).shuffle(texts)
        said = Counter(reasons(texts))
        worst = ", ".join(f"{reason} {count / len(texts):.2%}" for reason, count in said.most_common(5) if reason)
        made.append({"clean sentences of": source, "sentences": len(texts), "flagged %": _share(said), "by": worst})
    for kind in text_corpus.KINDS:
        spoilt = [text_corpus.spoilt(kind, everywhere[at], everywhere[-1 - at], at) for at in range(SPLICED)]
        said = Counter(reasons(spoilt))
        found = ", ".join(f"{reason} {count / SPLICED:.0%}" for reason, count in said.most_common(3) if reason)
        made.append({"splice": kind, "found %": _share(said), "by": found})
    return made + _throughput(everywhere)


def reasons(texts: list[str]) -> list[str]:
    """What the filter drops each for, empty where it keeps it."""
    table = cast("pa.Table", _COHERENCE.judge(pa.table({"completion": texts})))
    return cast("list[str]", table["reason"].to_pylist())


def _share(said: Counter[str]) -> float:
    return round(100 * (1 - said[""] / said.total()), 2)


_RULES = [re.compile(rule) for rule in (r"[a-z][A-Z]", r"[^\w\s]{4,}", r"\b(\w+)(?: \1){4,}\b", r"[\u0400-\u04ff]", r"\w{25,}")]


def _throughput(texts: list[str]) -> list[dict[str, Any]]:
    """Of the filter and of five regular expressions searched one after the other, best of the rounds, by process time."""
    size = sum(map(len, texts)) / 1e6
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, run in (
            ("coherence", lambda: reasons(texts)),
            ("five regular expressions", lambda: [any(rule.search(text) for rule in _RULES) for text in texts]),
        ):
            began = time.process_time()
            run()
            best[name] = min(best.get(name, 1e9), time.process_time() - began)
    plain = best["five regular expressions"]
    return [
        {"way": name, "sentences/s/core": round(len(texts) / took), "MB/s": size / took, "x regular expressions": plain / took}
        for name, took in best.items()
    ]


_COHERENCE = filters.build("coherence", {})
