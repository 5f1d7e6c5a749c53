"""Tells near misses from misses: samples that fail a verifier, a few words away from one of the same prompt that passes.

The distance is Levenshtein's over words and signs, to every hit of the prompt and to its anchor where that passed; the nearest is
named, with the edits, the similarity (1 - edits / words of the longer text) and the span in which the two differ. A near miss
stays dropped; only its kind changes."""

from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from filters.base import Filter, Role, Scope, verdict_table
from filters.similarity.edits import nearest, tokens_of
from filters.similarity.kernel import I64
from schemas.repeats import NearMissSpec
from schemas.sample import Kind, Outcome

SPAN_CHARS = 200


def build(spec: NearMissSpec) -> Filter:
    """Drop `near_miss` among misses, keep the others as they are: what is dropped here was dropped before. Shown misses, hits and
    anchors that passed, of whole prompts; speaks of misses only."""

    def judge(table: pa.Table) -> pa.Table:
        prompts = table["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
        missed = pc.equal(table["kind"], Kind.MISS.value).to_numpy(zero_copy_only=False)
        best = np.lexsort((table["index"].to_numpy(), prompts))
        seekers, targets = best[missed[best]], best[~missed[best]]
        tokens = tokens_of(table["completion"])
        found, apart = nearest(tokens, prompts, seekers, targets, edits=spec.edits, share=spec.share, common=spec.common)
        near = found >= 0
        return _verdicts(table, seekers[near], found[near], apart[near], np.diff(tokens.starts))

    columns = ("sample_id", "prompt_id", "index", "completion", "kind")
    parameters = spec.model_dump(mode="json")
    return Filter("near_miss", "1", Scope.PROMPT, Role.NEAR_MISS, judge, columns, parameters, cost_us=10.0)


def _verdicts(table: pa.Table, rows: I64, hits: I64, edits: I64, words: I64) -> pa.Table:
    outcome = np.full(table.num_rows, Outcome.KEEP.value, object)
    outcome[rows] = Outcome.DROP.value
    reason = np.full(table.num_rows, "", object)
    reason[rows] = "near_miss"
    detail: list[str | None] = [None] * table.num_rows
    score: list[float | None] = [None] * table.num_rows
    texts = table["completion"].take(pa.array(rows)).to_pylist()
    theirs = table["completion"].take(pa.array(hits)).to_pylist()
    names = table["sample_id"].take(pa.array(hits)).to_pylist()
    longer = np.maximum(words[rows], words[hits])
    for row, text, other, name, steps, size in zip(
        rows.tolist(), texts, theirs, names, edits.tolist(), longer.tolist(), strict=True
    ):
        start, end, finish = differing(text, other)
        said: dict[str, Any] = {"edits": steps, "nearest": name, "similarity": round(1 - steps / size, 4), "span": [start, end]}
        said |= {"is": text[start:end][:SPAN_CHARS], "hit": other[start:finish][:SPAN_CHARS], "hit_span": [start, finish]}
        score[row], detail[row] = said["similarity"], orjson.dumps(said, option=orjson.OPT_SORT_KEYS).decode()
    return verdict_table(pa.array(outcome, pa.string()), pa.array(reason, pa.string()), score, detail)


def differing(one: str, other: str) -> tuple[int, int, int]:
    """Where two texts begin to differ, and where that ends in each, in characters; whole words."""
    start = _common(one, other)
    while _inside(one, start) or _inside(other, start):
        start -= 1
    tail = min(_common(one[::-1], other[::-1]), len(one) - start, len(other) - start)
    while tail and (_inside(one, len(one) - tail) or _inside(other, len(other) - tail)):
        tail -= 1
    return start, len(one) - tail, len(other) - tail


def _inside(text: str, at: int) -> bool:
    """Whether a place cuts a word in two."""
    return 0 < at < len(text) and (text[at - 1] + text[at]).replace("_", "a").isalnum()


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
