"""Drops hits that repeat another hit, of the same prompt, of the run or of what was released, and decides which copy stays.

Two hits repeat each other when their normalised texts are equal, or the Jaccard similarity of their shingles reaches the
threshold (filters.similarity), and their answers agree: samples that differ in what they answer are never duplicates, however
alike they read. The answer is the reference that a verifier accepted; without one, the numbers in the text.

The best stays: highest score, then shortest, then likeliest, then the smallest id, in the order that `keep` names. It carries
the number of draws that fell on it; each of the others names it, and how similar the two are.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from filters.base import Filter, Role, Scope, verdict_table
from filters.models.paths import resolved_model
from filters.similarity.duplicates import Clusters, Order, among, within
from filters.similarity.kernel import F32, I64, SCHEME, U64, Signed, joined, numbers, signed
from filters.tools import Tools
from schemas.repeats import DedupeSpec
from schemas.sample import Outcome

RUN, RELEASED, SEMANTIC = "near_duplicate_run", "near_duplicate_released", "semantic_duplicate"
COLUMNS = ("sample_id", "prompt_id", "completion", "cumulative_logprob", "answer", "score", "multiplicity")


def within_prompt(spec: DedupeSpec) -> Filter:
    """Drop `exact_duplicate` and `near_duplicate` among the samples of each prompt: all pairs are compared."""
    threshold = spec.within_prompt
    assert threshold is not None

    def judge(table: pa.Table) -> pa.Table:
        prompts = table["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
        texts = signed(table["completion"], guards(table, spec))
        found = within(texts, prompts, order(table, spec).rank(), threshold)
        return verdicts(Told.of(table, found, texts.contents), "prompt")

    return duplicate_filter("near_duplicate", Scope.PROMPT, judge, spec, {"within_prompt", "guard", "keep"})


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
                _stars(vectors[members], rows[members], answers, settings.threshold, clusters)
        contents = np.arange(table.num_rows, dtype=np.uint64)  # all different: none is reported as an exact duplicate
        return verdicts(Told.of(table, clusters, contents), "semantic")

    built = duplicate_filter(SEMANTIC, Scope.PROMPT, judge, spec, {"guard", "keep"})
    parameters = built.parameters | {"model": settings.model.model_dump(mode="json"), "threshold": settings.threshold}
    return replace(built, version="1", parameters=parameters, cost_us=20_000.0)


def _stars(vectors: Any, rows: I64, own: U64, threshold: float, repeated: Clusters) -> None:
    """Texts (n, D) in their order, best first: each repeats the one that it is closest to of those kept, or is kept."""
    kept = np.empty_like(vectors)
    names: list[int] = []
    for at, row in enumerate(rows.tolist()):
        if names:
            likes = np.where(own[names] == own[row], kept[: len(names)] @ vectors[at], -1)
            best = int(likes.argmax())
            if likes[best] >= threshold:
                repeated.originals[row], repeated.similarity[row] = names[best], min(float(likes[best]), 1.0)
                continue
        kept[len(names)] = vectors[at]
        names.append(row)


def within_run(spec: DedupeSpec) -> Filter:
    """Drop `exact_duplicate` and `near_duplicate` among the samples of all prompts, by band keys. Holds some 600 bytes of each
    sample of 400 bytes; not its text. thresher.dedupe.within_run does the same for more samples than memory holds."""
    threshold = spec.within_run
    assert threshold is not None

    def judge(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
        parts: list[Signed] = []
        tables: list[pa.Table] = []
        for table in batches:
            parts.append(signed_in_run(table, spec))
            lengths = pc.utf8_length(table["completion"]).cast(pa.int64())
            tables.append(table.drop_columns(["completion", "prompt_id", "answer"]).append_column("length", lengths))
        if not tables:
            return
        texts, everything = joined(parts), pa.concat_tables(tables)
        parts.clear()
        told = Told.of(everything, among(texts, order(everything, spec).rank(), threshold), texts.contents)
        first = 0
        for table in tables:
            yield verdicts(told.some(slice(first, first + table.num_rows)), "run")
            first += table.num_rows

    return duplicate_filter(RUN, Scope.CORPUS, judge, spec, {"within_run", "run_characters", "guard", "keep"})


def signed_in_run(table: pa.Table, spec: DedupeSpec) -> Signed:
    """Signatures that are compared with those of other prompts: short texts only meet those of their own."""
    own = guards(table, spec)
    short = pc.less(pc.utf8_length(table["completion"]), spec.run_characters).to_numpy(zero_copy_only=False)
    own[short] ^= hashes(table["prompt_id"].filter(pa.array(short)))
    return signed(table["completion"], own)


def guards(table: pa.Table, spec: DedupeSpec) -> U64:
    """What must agree in duplicates, as a hash (n,): the accepted answer (`answer`, or its `answer_id`), or else the numbers in
    the text."""
    found = np.zeros(table.num_rows, np.uint64)
    if spec.guard == "none":
        return found
    by = "answer_id" if "answer_id" in table.column_names else "answer"
    answered = pc.is_valid(table[by]).to_numpy(zero_copy_only=False)
    if spec.guard == "answer":
        some = table[by].filter(pa.array(answered))
        found[answered] = hashes(some) if by == "answer" else [int(one, 16) for one in some.to_pylist()]
    else:
        answered[:] = False
    if not answered.all():
        found[~answered] = numbers(table["completion"].filter(pa.array(~answered)))
    return found


def order(table: pa.Table, spec: DedupeSpec) -> Order:
    """Which sample is better than which: by the keep-policy, then by the first 16 bytes of their ids."""
    keys = []
    for one in spec.keep:
        if one == "shortest":
            given = table["length"] if "length" in table.column_names else pc.utf8_length(table["completion"])
            keys.append(given.to_numpy().astype(np.float64))
        else:
            name = "score" if one == "highest_score" else "cumulative_logprob"
            keys.append(pc.fill_null(pc.negate(table[name].cast(pa.float64())), np.inf).to_numpy())
    begins = [text.encode()[:16] for text in table["sample_id"].to_pylist()]
    return Order(keys, np.array(begins, "S16").view(">u8").astype(np.uint64).reshape(-1, 2))


def answer_ids(answers: pa.ChunkedArray) -> pa.Array:
    """The guards of accepted answers as text; null where there is none. `guards` reads them again."""
    found = pa.array([f"{one:016x}" for one in hashes(answers.drop_null()).tolist()], pa.string())
    some = pc.is_valid(answers).to_numpy(zero_copy_only=False)
    return found.take(pa.array(np.cumsum(some) - 1, mask=~some))


def hashes(texts: pa.ChunkedArray) -> U64:
    """64-bit hashes of texts, of each different one once."""
    encoded = texts.combine_chunks().dictionary_encode()
    made = np.array([xxhash.xxh3_64_intdigest(text.encode()) for text in encoded.dictionary.to_pylist()], np.uint64)
    return made[encoded.indices.to_numpy()] if len(made) else np.zeros(0, np.uint64)


class Told(NamedTuple):
    """What was found of samples (n)."""

    stays: Any
    equal: Any
    """Whether it is word for word what it repeats."""
    similarity: F32
    draws: I64
    """How many draws fell on each that stays, those counted that an earlier filter dropped."""
    repeats: Sequence[str | None]
    """sample_id of what each repeats; of those that stay it does not matter."""

    @classmethod
    def of(cls, table: pa.Table, found: Clusters, contents: U64) -> "Told":
        """All samples of a table that were compared with each other."""
        originals, rows = found.originals, np.arange(table.num_rows)
        fell = np.bincount(originals, weights=table["multiplicity"].to_numpy(), minlength=len(rows)).astype(np.int64)
        stays = originals == rows
        dropped = np.flatnonzero(~stays)
        repeats: list[str | None] = [None] * len(rows)
        names = table["sample_id"].take(pa.array(originals[dropped])).to_pylist()
        for row, name in zip(dropped.tolist(), names, strict=True):
            repeats[row] = name
        return cls(stays, contents[originals] == contents, found.similarity, fell, repeats)

    def some(self, rows: slice) -> "Told":
        """Of some of them."""
        return Told(self.stays[rows], self.equal[rows], self.similarity[rows], self.draws[rows], self.repeats[rows])


def verdicts(told: Told, scope: str) -> pa.Table:
    """A verdict on each sample."""
    stays, equal, similarity, draws, repeats = told
    other = SEMANTIC if scope == "semantic" else "near_duplicate"
    reasons = np.where(stays, "", np.where(equal, "exact_duplicate", other))
    detail: list[str | None] = [None] * len(stays)
    several = np.flatnonzero(stays & (draws > 1))
    for at, count in zip(several.tolist(), draws[several].tolist(), strict=True):
        detail[at] = f'{{"multiplicity":{count}}}'
    dropped = np.flatnonzero(~stays)
    likes = similarity.astype(float).round(4)
    for at, like in zip(dropped.tolist(), likes[dropped].tolist(), strict=True):
        detail[at] = orjson.dumps({"duplicate_of": repeats[at], "scope": scope, "similarity": like}).decode()
    outcome = np.where(stays, Outcome.KEEP.value, Outcome.DROP.value)
    return verdict_table(pa.array(outcome, pa.string()), pa.array(reasons, pa.string()), pa.array(likes, mask=stays), detail)


def duplicate_filter(name: str, scope: Scope, judge: Any, spec: DedupeSpec, settings: set[str]) -> Filter:
    parameters = spec.model_dump(mode="json", include=settings)
    return Filter(name, SCHEME, scope, Role.DUPLICATE, judge, COLUMNS, parameters, cost_us=10.0)
