"""Drop hits that repeat another hit of the same prompt or of the run, and decide which copy stays.

Two hits are duplicates if their normalised texts are equal, or if the Jaccard similarity of their shingles reaches the threshold
(filters.similarity.signatures), and if their guards agree (filters.similarity.guards): samples with different answers are never
duplicates, however similar their texts are.

The best copy stays: the one with the highest score, then the shortest, then the likeliest, then the smallest id, in the order
that `keep` names. Its verdict has the number of draws that fell on it. The verdicts of the others name it and the similarity.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from filters.base import Filter, Role, Scope, verdict_table
from filters.judging import compared_text
from filters.models.paths import resolved_model
from filters.similarity.duplicates import Clusters, Order, among, within
from filters.similarity.guards import guards, signed_in_run
from filters.similarity.kernel import F32, I64, U64, Bits
from filters.similarity.signatures import SCHEME, Signed, joined, signed
from filters.tools import Tools
from schemas.repeats import DedupeSpec
from schemas.sample import Outcome

RUN, RELEASED, SEMANTIC = "near_duplicate_run", "near_duplicate_released", "semantic_duplicate"
COLUMNS = ("sample_id", "prompt_id", "completion", "tool_calls", "cumulative_logprob", "accepted", "score", "multiplicity")


def within_prompt(spec: DedupeSpec) -> Filter:
    """Drop `exact_duplicate` and `near_duplicate` among the samples of each prompt. All pairs are compared."""
    threshold = spec.within_prompt
    assert threshold is not None

    def judge(table: pa.Table) -> pa.Table:
        prompts = table["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
        texts = signed(table["completion"], guards(table, spec))
        clusters = within(texts, prompts, order(table, spec).rank(), threshold)
        return verdicts(Comparison.within_table(table, clusters, texts.contents), "prompt")

    return duplicate_filter("near_duplicate", Scope.PROMPT, judge, spec, {"within_prompt", "guard", "keep"})


def as_compared(samples: pa.Table) -> pa.Table:
    """Samples of the pool with what is compared as their `completion`: the answer and its tool calls."""
    text = compared_text(pc.fill_null(samples["answer"], ""), samples["tool_calls"])
    return samples.append_column("completion", text)


def semantic(spec: DedupeSpec, tools: Tools) -> Filter:
    """Drop `semantic_duplicate` among the samples of each prompt: samples whose embeddings are close, all pairs compared."""
    settings = spec.semantic
    assert settings is not None
    model = resolved_model(settings.model, tools.base)

    def judge(table: pa.Table) -> pa.Table:
        prompts = table["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        compared = np.flatnonzero(np.bincount(prompts)[prompts] > 1) if len(prompts) else np.zeros(0, np.int64)
        clusters = Clusters(np.arange(table.num_rows), np.ones(table.num_rows, np.float32))
        if len(compared):
            embedder = tools.opened_models().embedder(settings.engine, model)
            embeddings = embedder.embeddings(table["completion"].take(pa.array(compared)).to_pylist())
            answers, rank = guards(table, spec), order(table, spec).rank()
            readable = [index for index, embedding in enumerate(embeddings) if not isinstance(embedding, str)]
            vectors = (
                np.stack([embeddings[index] for index in readable]).astype(np.float32)
                if readable
                else np.zeros((0, 1), np.float32)
            )
            rows = compared[readable]
            for prompt in np.unique(prompts[rows]):
                members = np.flatnonzero(prompts[rows] == prompt)
                members = members[np.argsort(rank[rows[members]])]
                _join_closest(vectors[members], rows[members], answers, settings.threshold, clusters)
        contents = np.arange(table.num_rows, dtype=np.uint64)  # all different: none is reported as an exact duplicate
        return verdicts(Comparison.within_table(table, clusters, contents), "semantic")

    built = duplicate_filter(SEMANTIC, Scope.PROMPT, judge, spec, {"guard", "keep"})
    parameters = built.parameters | {"model": settings.model.model_dump(mode="json"), "threshold": settings.threshold}
    return replace(built, version="1", parameters=parameters, cost_us=20_000.0)


def _join_closest(vectors: Any, rows: I64, answers: U64, threshold: float, clusters: Clusters) -> None:
    """Decide about texts (n, D) in their order, best first: each repeats the closest kept text, or is kept."""
    kept = np.empty_like(vectors)
    kept_rows: list[int] = []
    for index, row in enumerate(rows.tolist()):
        if kept_rows:
            cosines = np.where(answers[kept_rows] == answers[row], kept[: len(kept_rows)] @ vectors[index], -1)
            closest = int(cosines.argmax())
            if cosines[closest] >= threshold:
                clusters.originals[row] = kept_rows[closest]
                clusters.similarity[row] = min(float(cosines[closest]), 1.0)
                continue
        kept[len(kept_rows)] = vectors[index]
        kept_rows.append(row)


def within_run(spec: DedupeSpec) -> Filter:
    """Drop `exact_duplicate` and `near_duplicate` among the samples of all prompts, by band keys.

    Holds about 600 bytes per sample of 400 bytes, without its text. thresher.dedupe.within_run does the same for more samples
    than fit into memory.
    """
    threshold = spec.within_run
    assert threshold is not None

    def judge(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
        parts: list[Signed] = []
        tables: list[pa.Table] = []
        for table in batches:
            parts.append(signed_in_run(table, spec))
            lengths = pc.utf8_length(table["completion"]).cast(pa.int64())
            tables.append(table.drop_columns(["completion", "prompt_id", "accepted"]).append_column("length", lengths))
        if not tables:
            return
        texts, samples = joined(parts), pa.concat_tables(tables)
        parts.clear()
        clusters = among(texts, order(samples, spec).rank(), threshold)
        comparison = Comparison.within_table(samples, clusters, texts.contents)
        first = 0
        for table in tables:
            yield verdicts(comparison.rows(slice(first, first + table.num_rows)), "run")
            first += table.num_rows

    return duplicate_filter(RUN, Scope.CORPUS, judge, spec, {"within_run", "run_characters", "guard", "keep"})


def order(table: pa.Table, spec: DedupeSpec) -> Order:
    """Which sample is better than which: by the policies of `keep`, then by the first 16 bytes of their ids."""
    keys = []
    for policy in spec.keep:
        if policy == "shortest":
            lengths = table["length"] if "length" in table.column_names else pc.utf8_length(table["completion"])
            keys.append(lengths.to_numpy().astype(np.float64))
        else:
            name = "score" if policy == "highest_score" else "cumulative_logprob"
            keys.append(pc.fill_null(pc.negate(table[name].cast(pa.float64())), np.inf).to_numpy())
    prefixes = [text.encode()[:16] for text in table["sample_id"].to_pylist()]
    return Order(keys, np.array(prefixes, "S16").view(">u8").astype(np.uint64).reshape(-1, 2))


class Comparison(NamedTuple):
    """The result of comparing samples (n)."""

    kept: Bits
    equal: Any
    """Whether a sample equals the one that it repeats, word for word."""
    similarity: F32
    draws: I64
    """Number of draws that fell on each kept sample, including those that an earlier filter dropped."""
    originals: Sequence[str | None]
    """sample_id of the sample that each one repeats. It has no meaning for kept samples."""

    @classmethod
    def within_table(cls, table: pa.Table, clusters: Clusters, contents: U64) -> "Comparison":
        """The result for samples of a table that were compared with each other."""
        originals, rows = clusters.originals, np.arange(table.num_rows)
        draws = np.bincount(originals, weights=table["multiplicity"].to_numpy(), minlength=len(rows)).astype(np.int64)
        kept = originals == rows
        dropped = np.flatnonzero(~kept)
        names: list[str | None] = [None] * len(rows)
        for row, name in zip(dropped.tolist(), table["sample_id"].take(pa.array(originals[dropped])).to_pylist(), strict=True):
            names[row] = name
        return cls(kept, contents[originals] == contents, clusters.similarity, draws, names)

    def rows(self, rows: slice) -> "Comparison":
        """The result for some of the samples."""
        return Comparison(self.kept[rows], self.equal[rows], self.similarity[rows], self.draws[rows], self.originals[rows])


def verdicts(comparison: Comparison, scope: str) -> pa.Table:
    """A verdict on each sample; `scope` is noted in the details."""
    kept, equal, similarity, draws, originals = comparison
    unequal = SEMANTIC if scope == "semantic" else "near_duplicate"
    reasons = np.where(kept, "", np.where(equal, "exact_duplicate", unequal))
    detail: list[str | None] = [None] * len(kept)
    repeated = np.flatnonzero(kept & (draws > 1))
    for row, count in zip(repeated.tolist(), draws[repeated].tolist(), strict=True):
        detail[row] = f'{{"multiplicity":{count}}}'
    dropped = np.flatnonzero(~kept)
    scores = similarity.astype(float).round(4)
    for row, score in zip(dropped.tolist(), scores[dropped].tolist(), strict=True):
        detail[row] = orjson.dumps({"duplicate_of": originals[row], "scope": scope, "similarity": score}).decode()
    outcome = np.where(kept, Outcome.KEEP.value, Outcome.DROP.value)
    return verdict_table(pa.array(outcome, pa.string()), pa.array(reasons, pa.string()), pa.array(scores, mask=kept), detail)


def duplicate_filter(name: str, scope: Scope, judge: Any, spec: DedupeSpec, settings: set[str]) -> Filter:
    """A filter for duplicates whose parameters are the named settings of the recipe."""
    parameters = spec.model_dump(mode="json", include=settings)
    return Filter(name, SCHEME, scope, Role.DUPLICATE, judge, COLUMNS, parameters, cost_us=10.0)
