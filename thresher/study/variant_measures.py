"""Measures the greedy answers to a study's changed prompts, against the greedy answers to the prompts themselves."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.similarity.edits import nearest, tokens_of
from schemas.sample import Kind, Outcome
from thresher.pool import judged as pool
from thresher.pool.run import Run
from thresher.study.prompt_variants import VARIANT
from thresher.study.shard_measures import F64

_COLUMNS = ["sample_id", "prompt_id", "anchor", "answer", "error", "metadata"]
_MEASURES = ("departed", "similarity", "judged", "passed", "known")


@dataclass(frozen=True)
class KnownAnswers:
    """What was drawn for a prompt as it is written."""

    greedy: str
    drawn_at_1: set[str]


def known_answers(shard: pa.Table) -> dict[str, KnownAnswers]:
    """The answers of a shard of draws, by prompt_id, for prompts that have a greedy answer."""
    drawn = shard.filter(pc.is_null(shard["error"]))
    by_prompt = {prompt: KnownAnswers(text, set()) for prompt, text in _texts(drawn.filter(drawn["anchor"]))}
    at_1 = drawn.filter(pc.and_(pc.invert(drawn["anchor"]), pc.equal(drawn["temperature"], 1.0)))
    for prompt, text in _texts(at_1):
        if prompt in by_prompt:
            by_prompt[prompt].drawn_at_1.add(text)
    return by_prompt


def measure_variants(
    variants: Run, prompts: list[str], known: Mapping[str, KnownAnswers]
) -> tuple[tuple[str, ...], dict[str, F64]]:
    """The names of the changes (V), and the measures of the greedy answers (P, V) by name; see Measures.changed."""
    answers = list(_variant_answers(variants, known))
    names = tuple(dict.fromkeys(answer.change for answer in answers))
    row = {prompt: number for number, prompt in enumerate(prompts)}
    column = {name: number for number, name in enumerate(names)}
    measures = {name: np.full((len(prompts), len(names)), np.nan) for name in _MEASURES}
    similarities = _similarities([answer.text for answer in answers], [known[answer.prompt].greedy for answer in answers])
    for answer, similarity in zip(answers, similarities, strict=True):
        values = {
            "departed": answer.text != known[answer.prompt].greedy,
            "similarity": similarity,
            "judged": answer.judged,
            "passed": answer.judged and answer.passed,
            "known": answer.text in known[answer.prompt].drawn_at_1,
        }
        for name in _MEASURES:
            measures[name][row[answer.prompt], column[answer.change]] = values[name]
    return names, measures


@dataclass(frozen=True)
class _VariantAnswer:
    """The greedy answer to a changed prompt; `prompt` is the prompt_id of the original."""

    prompt: str
    change: str
    text: str
    judged: bool
    passed: bool


def _variant_answers(variants: Run, known: Mapping[str, KnownAnswers]) -> Iterator[_VariantAnswer]:
    for shard in map(pool.as_read, pool.each_judged(variants.store, _COLUMNS)):
        greedy = shard.filter(pc.and_(shard["anchor"], pc.is_null(shard["error"])))
        columns = (greedy[name].to_pylist() for name in ("metadata", "completion", "outcome", "kind"))
        for metadata, text, outcome, kind in zip(*columns, strict=True):
            variant = json.loads(metadata)[VARIANT]
            if variant["of"] in known:
                judged, passed = outcome != Outcome.UNDECIDED.value, kind in {Kind.HIT.value, Kind.DUPLICATE.value}
                yield _VariantAnswer(variant["of"], variant["name"], text, judged, passed)


def _texts(rows: pa.Table) -> Iterator[tuple[str, str]]:
    return zip(rows["prompt_id"].to_pylist(), rows["completion"].to_pylist(), strict=True)


def _similarities(left: list[str], right: list[str]) -> list[float]:
    """1 - edits / words of the longer text, for each pair."""
    if not left:
        return []
    tokens = tokens_of(pa.array([*left, *right], pa.string()))
    count, words = len(left), np.diff(tokens.starts)
    groups = np.tile(np.arange(count), 2)
    _, edits = nearest(tokens, groups, np.arange(count), np.arange(count, 2 * count), edits=2**31 - 1, share=1.0, common=0.0)
    similarities: list[float] = (1 - edits / np.maximum(1, np.maximum(words[:count], words[count:]))).tolist()
    return similarities
