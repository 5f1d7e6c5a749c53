"""Distinguish near misses from misses: samples that fail a verifier and are a few words away from one of the same prompt that
passes.

The distance is Levenshtein's over words and signs, to every hit of the prompt and to its anchor if that passed. The verdict names
the nearest, the edits, the similarity (1 - edits / words of the longer text) and the span in which the two differ. A near miss
stays dropped; only its kind changes.
"""

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
    """Drop `near_miss` among misses and keep the others, which changes no outcome: every miss was dropped before.

    The filter needs the misses, the hits and the anchors that passed, of whole prompts. It judges misses only.
    """

    def judge(table: pa.Table) -> pa.Table:
        prompts = table["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
        missed = pc.equal(table["kind"], Kind.MISS.value).to_numpy(zero_copy_only=False)
        by_prompt = np.lexsort((table["index"].to_numpy(), prompts))
        seekers, targets = by_prompt[missed[by_prompt]], by_prompt[~missed[by_prompt]]
        tokens = tokens_of(table["completion"])
        hits, edits = nearest(tokens, prompts, seekers, targets, edits=spec.edits, share=spec.share, common=spec.common)
        near = hits >= 0
        return _verdicts(table, seekers[near], hits[near], edits[near], np.diff(tokens.starts))

    columns = ("sample_id", "prompt_id", "index", "completion", "kind")
    parameters = spec.model_dump(mode="json")
    return Filter("near_miss", "1", Scope.PROMPT, Role.NEAR_MISS, judge, columns, parameters, cost_us=10.0)


def _verdicts(table: pa.Table, rows: I64, hits: I64, edits: I64, words: I64) -> pa.Table:
    outcome = np.full(table.num_rows, Outcome.KEEP.value, object)
    outcome[rows] = Outcome.DROP.value
    reason = np.full(table.num_rows, "", object)
    reason[rows] = "near_miss"
    details: list[str | None] = [None] * table.num_rows
    scores: list[float | None] = [None] * table.num_rows
    texts = table["completion"].take(pa.array(rows)).to_pylist()
    hit_texts = table["completion"].take(pa.array(hits)).to_pylist()
    names = table["sample_id"].take(pa.array(hits)).to_pylist()
    longer = np.maximum(words[rows], words[hits])
    for row, text, hit_text, name, steps, size in zip(
        rows.tolist(), texts, hit_texts, names, edits.tolist(), longer.tolist(), strict=True
    ):
        start, end, hit_end = differing(text, hit_text)
        similarity = round(1 - steps / size, 4)
        detail: dict[str, Any] = {"edits": steps, "nearest": name, "similarity": similarity, "span": [start, end]}
        detail |= {"is": text[start:end][:SPAN_CHARS]}
        detail |= {"hit": hit_text[start:hit_end][:SPAN_CHARS], "hit_span": [start, hit_end]}
        scores[row], details[row] = similarity, orjson.dumps(detail, option=orjson.OPT_SORT_KEYS).decode()
    return verdict_table(pa.array(outcome, pa.string()), pa.array(reason, pa.string()), scores, details)


def differing(first: str, second: str) -> tuple[int, int, int]:
    """The start of the span in which two texts differ, and its end in each text, in characters; whole words."""
    start = _common_prefix(first, second)
    while _cuts_a_word(first, start) or _cuts_a_word(second, start):
        start -= 1
    tail = min(_common_prefix(first[::-1], second[::-1]), len(first) - start, len(second) - start)
    while tail and (_cuts_a_word(first, len(first) - tail) or _cuts_a_word(second, len(second) - tail)):
        tail -= 1
    return start, len(first) - tail, len(second) - tail


def _cuts_a_word(text: str, position: int) -> bool:
    """Whether a position lies inside a word."""
    return 0 < position < len(text) and (text[position - 1] + text[position]).replace("_", "a").isalnum()


def _common_prefix(first: str, second: str) -> int:
    """Number of characters with which both texts start."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
