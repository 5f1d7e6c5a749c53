"""False alarms of `coherence` on clean sentences, its recall on splices by rule, and sentences/s compared with Python's re.

The sentences are English prose on this machine (benchmarks/text_corpus.py), from packages that the filter did not learn from.

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
    everywhere = [sentence for _, sentences in text_corpus.sentences()["test"] for sentence in sentences]
    only_python = text_corpus.held_back()
    table_rows: list[dict[str, Any]] = []
    for source, texts in (("Debian and Python packages", everywhere), ("Python packages", only_python)):
        random.Random(0).shuffle(texts)
        counts = Counter(reasons(texts))
        worst = ", ".join(f"{reason} {count / len(texts):.2%}" for reason, count in counts.most_common(5) if reason)
        table_rows.append({"clean sentences of": source, "sentences": len(texts), "flagged %": _share(counts), "by": worst})
    for kind in text_corpus.KINDS:
        spoilt = [text_corpus.spoilt(kind, everywhere[seed], everywhere[-1 - seed], seed) for seed in range(SPLICED)]
        counts = Counter(reasons(spoilt))
        rules = ", ".join(f"{reason} {count / SPLICED:.0%}" for reason, count in counts.most_common(3) if reason)
        table_rows.append({"splice": kind, "found %": _share(counts), "by": rules})
    return table_rows + _throughput(everywhere)


def reasons(texts: list[str]) -> list[str]:
    """The reason for which the filter drops each text; empty for a kept one."""
    table = cast("pa.Table", _COHERENCE.judge(pa.table({"completion": texts})))
    return cast("list[str]", table["reason"].to_pylist())


def _share(counts: Counter[str]) -> float:
    return round(100 * (1 - counts[""] / counts.total()), 2)


_RULES = [re.compile(rule) for rule in (r"[a-z][A-Z]", r"[^\w\s]{4,}", r"\b(\w+)(?: \1){4,}\b", r"[\u0400-\u04ff]", r"\w{25,}")]


def _throughput(texts: list[str]) -> list[dict[str, Any]]:
    """Throughput of the filter and of five regular expressions in sequence: the best of the rounds, in processor time."""
    size = sum(map(len, texts)) / 1e6
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, run in (
            ("coherence", lambda: reasons(texts)),
            ("five regular expressions", lambda: [any(rule.search(text) for rule in _RULES) for text in texts]),
        ):
            start = time.process_time()
            run()
            best[name] = min(best.get(name, 1e9), time.process_time() - start)
    plain = best["five regular expressions"]
    return [
        {"way": name, "sentences/s/core": round(len(texts) / took), "MB/s": size / took, "x regular expressions": plain / took}
        for name, took in best.items()
    ]


_COHERENCE = filters.build("coherence", {})
