"""Drops hits that repeat another hit, of the same prompt or of the run, and decides which copy stays.

Two hits repeat each other when their normalised texts are equal, or the Jaccard similarity of their shingles reaches the
threshold (filters.similarity), and their answers agree: samples that differ in what they answer are never duplicates, however
alike they read. The answer is the reference that a verifier accepted; without one, the numbers in the text.

The best stays: highest score, then shortest, then likeliest, then the smallest id, in the order that `keep` names. It carries
the number of draws that fell on it; each of the others names it, and how similar the two are.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from filters.base import Filter, Role, Scope, verdict_table
from filters.similarity.duplicates import Clusters, Order, among, within
from filters.similarity.kernel import I64, SCHEME, U64, Signed, joined, numbers, signed
from schemas.recipe import DedupeSpec
from schemas.sample import Outcome

COLUMNS = ("sample_id", "prompt_id", "completion", "cumulative_logprob", "answer", "score", "multiplicity")


def within_prompt(spec: DedupeSpec) -> Filter:
    """Drop `exact_duplicate` and `near_duplicate` among the samples of each prompt: all pairs are compared."""
    threshold = spec.within_prompt
    assert threshold is not None

    def judge(table: pa.Table) -> pa.Table:
        prompts = table["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
        texts = signed(table["completion"], guards(table, spec))
        found = within(texts, prompts, order(table, spec).rank(), threshold)
        return _verdicts(_Compared.of(table, found, texts.contents), np.arange(table.num_rows), "prompt")

    return Filter("near_duplicate", SCHEME, Scope.PROMPT, Role.DUPLICATE, judge, COLUMNS, _parameters(spec), cost_us=10.0)


def within_run(spec: DedupeSpec) -> Filter:
    """Drop `exact_duplicate` and `near_duplicate` among the samples of all prompts, by band keys. Holds some 600 bytes of each
    sample of 400 bytes; not its text."""
    threshold = spec.within_run
    assert threshold is not None

    def judge(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
        parts: list[Signed] = []
        tables: list[pa.Table] = []
        for table in batches:
            own = guards(table, spec)
            short = pc.less(pc.utf8_length(table["completion"]), spec.run_characters).to_numpy(zero_copy_only=False)
            own[short] ^= hashes(table["prompt_id"].filter(pa.array(short)))
            parts.append(signed(table["completion"], own))
            lengths = pc.utf8_length(table["completion"]).cast(pa.int64())
            tables.append(table.drop_columns(["completion", "prompt_id", "answer"]).append_column("length", lengths))
        if not tables:
            return
        texts, everything = joined(parts), pa.concat_tables(tables)
        parts.clear()
        found = among(texts, order(everything, spec).rank(), threshold)
        compared, first = _Compared.of(everything, found, texts.contents), 0
        for table in tables:
            rows = np.arange(first, first + table.num_rows)
            yield _verdicts(compared, rows, "run")
            first += table.num_rows

    return Filter("near_duplicate_run", SCHEME, Scope.CORPUS, Role.DUPLICATE, judge, COLUMNS, _parameters(spec), cost_us=10.0)


def guards(table: pa.Table, spec: DedupeSpec) -> U64:
    """What must agree in duplicates, as a hash (n,): the accepted answer, or else the numbers in the text."""
    found = np.zeros(table.num_rows, np.uint64)
    if spec.guard == "none":
        return found
    answered = pc.is_valid(table["answer"]).to_numpy(zero_copy_only=False)
    if spec.guard == "answer":
        found[answered] = hashes(table["answer"].filter(pa.array(answered)))
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


def hashes(texts: pa.ChunkedArray) -> U64:
    """64-bit hashes of texts, of each different one once."""
    encoded = texts.combine_chunks().dictionary_encode()
    made = np.array([xxhash.xxh3_64_intdigest(text.encode()) for text in encoded.dictionary.to_pylist()], np.uint64)
    return made[encoded.indices.to_numpy()] if len(made) else np.zeros(0, np.uint64)


class _Compared(NamedTuple):
    """Samples that were compared (n)."""

    names: pa.ChunkedArray
    found: Clusters
    contents: U64
    draws: I64
    """How many draws fell on each that is kept, those counted that an earlier filter dropped."""

    @classmethod
    def of(cls, table: pa.Table, found: Clusters, contents: U64) -> "_Compared":
        fell = np.bincount(found.originals, weights=table["multiplicity"].to_numpy(), minlength=table.num_rows)
        return cls(table["sample_id"], found, contents, fell.astype(np.int64))


def _verdicts(compared: _Compared, rows: I64, scope: str) -> pa.Table:
    """Verdicts on some of them."""
    names, found, contents, draws = compared
    originals = found.originals[rows]
    kept = originals == rows
    exact = (contents[originals] == contents[rows]) & ~kept
    reasons = np.where(kept, "", np.where(exact, "exact_duplicate", "near_duplicate"))
    detail: list[str | None] = [None] * len(rows)
    several = np.flatnonzero(kept & (draws[rows] > 1))
    for at, count in zip(several.tolist(), draws[rows[several]].tolist(), strict=True):
        detail[at] = f'{{"multiplicity":{count}}}'
    dropped = np.flatnonzero(~kept)
    repeated = names.take(pa.array(originals[dropped])).to_pylist()
    likes = found.similarity[rows[dropped]].astype(float).round(4).tolist()
    for at, name, like in zip(dropped.tolist(), repeated, likes, strict=True):
        detail[at] = orjson.dumps({"duplicate_of": name, "scope": scope, "similarity": like}).decode()
    outcome = np.where(kept, Outcome.KEEP.value, Outcome.DROP.value)
    score = pa.array(found.similarity[rows].astype(float).round(4), mask=kept)
    return verdict_table(pa.array(outcome, pa.string()), pa.array(reasons, pa.string()), score, detail)


def _parameters(spec: DedupeSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json")
