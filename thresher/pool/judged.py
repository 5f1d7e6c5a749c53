"""What became of each sample: the pool's rows joined with the verdicts on them.

Rows of a verdict file carry the row of their sample in its shard, so the join is indexing, never hashing.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from filters.base import Role, Scope
from schemas.manifest import Entry
from schemas.sample import Kind, Outcome, to_json
from schemas.sampling import Sampling
from thresher import ids
from thresher.errors import StoreError
from thresher.estimators import pass_rate
from thresher.pool.store import Store, shard_name

JUDGED = ("outcome", "kind", "reason", "failed_filter", "detail", "nearest", "similarity", "multiplicity", "score", "answer")
"""Columns that `judged` adds: see docs/formats.md, and filters.base.SO_FAR for the last three."""

JUDGED_SCHEMA = pa.schema(
    [
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("kind", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("failed_filter", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("nearest", pa.string()),
        pa.field("similarity", pa.float64()),
        pa.field("multiplicity", pa.int32()),
        pa.field("score", pa.float64()),
        pa.field("answer", pa.string()),
    ]
)

NOT_SAMPLED = "not_sampled"
"""Reason of a sample that the engine could not draw."""

_KINDS = {Role.VERIFIER: Kind.MISS, Role.DUPLICATE: Kind.DUPLICATE, Role.QUALITY: None, Role.NEAR_MISS: None}


@dataclass(frozen=True)
class FilterFacts:
    """One filter of a run, as recorded in the entries of the verdict files."""

    label: str
    name: str
    version: str
    key: str
    scope: Scope
    role: Role


def shards(store: Store) -> int:
    """Number of shards of the run; 0 where the plan is not written yet."""
    entry = store.entry("prompts")
    return int(entry.facts["shards"]) if entry else 0


def sampled(store: Store) -> list[int]:
    """The shards whose samples are there, in order: all of them, unless the run is unfinished or had enough (target_rows)."""
    return sorted(_numbered(store, "samples"))


def _numbered(store: Store, folder: str) -> list[int]:
    """Shards that have an entry in a folder; other files that lie there are nobody's."""
    stems = (name.removesuffix(".json") for name in store.names(folder, ".json"))
    return [int(stem) for stem in stems if stem.isdecimal()]


def hits(store: Store) -> int:
    """Samples of the run that every filter kept so far, anchors apart."""
    last = (verdict_entries(store, shard)[-1:] for shard in sampled(store))
    return sum(int(entry.facts["hits"]) for entries in last for entry in entries)


def corpus_name(number: int, shard: int) -> str:
    """Verdict file of the corpus filter `number` (from 0) on a shard."""
    return f"corpus/{number:02d}-{shard_name(shard)}"


def verdict_names(store: Store, shard: int, before: int | None = None) -> list[str]:
    """The verdict files of a shard that are finished, in the order the filters ran; `before` leaves out the corpus filters
    from that number on."""
    names = [f"verdicts/{shard_name(shard)}"]
    while len(names) - 1 != before and store.exists(f"{corpus_name(len(names) - 1, shard)}.json"):
        names.append(corpus_name(len(names) - 1, shard))
    return [name for name in names if store.exists(f"{name}.json")]


def verdict_files(store: Store) -> Counter[int]:
    """How many verdict files that are finished each shard has, as far as the filters ran without a gap; from three listings."""
    found = Counter(_numbered(store, "verdicts"))
    for name in store.names("corpus", ".json"):  # by number of the filter, then by shard
        number, _, shard = name.removesuffix(".json").partition("-")
        if number.isdecimal() and shard.isdecimal() and found[int(shard)] == int(number) + 1:
            found[int(shard)] += 1
    return found


def verdict_entries(store: Store, shard: int, before: int | None = None) -> list[Entry]:
    """The entries of those files."""
    return [entry for name in verdict_names(store, shard, before) if (entry := store.entry(name))]


def drop_corpus(store: Store, *, keep: int) -> None:
    """Remove the verdicts of corpus filters from number `keep` on: they speak of another state of the pool."""
    for name in store.names("corpus", ".json"):
        if name[:2].isdecimal() and int(name[:2]) >= keep:
            store.remove(f"corpus/{name}")


def filters_in(facts: Iterable[Mapping[str, Any]]) -> list[FilterFacts]:
    """Filters from their recorded facts, in the order they ran."""
    return [FilterFacts(f["label"], f["name"], f["version"], f["key"], Scope(f["scope"]), Role(f["role"])) for f in facts]


def filters_of(entry: Entry) -> list[FilterFacts]:
    """The filters a verdict file speaks of, in the order they ran."""
    return filters_in(entry.facts["filters"])


def verdicts(store: Store, shard: int) -> tuple[pa.Table, list[FilterFacts]]:
    """All verdicts on a shard (schema VERDICTS) and the filters that gave them, both in the order the filters ran."""
    tables, facts = [], []
    for name in verdict_names(store, shard):
        entry = store.entry(name)
        assert entry is not None
        tables.append(store.read_table(name))
        facts += filters_of(entry)
    return pa.concat_tables(tables), facts


def judged(samples: pa.Table, given: pa.Table, filters: list[FilterFacts]) -> pa.Table:
    """Add the columns of JUDGED to the samples of one shard. `given` holds its verdicts.

    A sample's outcome is that of the first filter that did not keep it, in the order of `given`. `kind` follows from that
    filter's role; a sample every filter kept is a hit. What the engine could not draw no filter saw: it is undecided.
    """
    rows = samples.num_rows
    ended = given.filter(pc.not_equal(given["outcome"], Outcome.KEEP.value))
    roles = {facts.label: facts.role for facts in filters}
    by_role = {role: pa.array([label for label, mine in roles.items() if mine is role], pa.string()) for role in Role}
    near = ended.filter(pc.is_in(ended["filter"], by_role[Role.NEAR_MISS]))
    ended = ended.filter(pc.invert(pc.is_in(ended["filter"], by_role[Role.NEAR_MISS])))
    at = ended["row"].to_numpy()
    pick = np.full(rows, -1, np.int64)
    pick[at[::-1]] = np.arange(len(at))[::-1]  # the first of several is written last
    index = pa.array(pick, mask=pick < 0)
    labels = ended["filter"].combine_chunks().dictionary_encode() if len(at) else pa.array([], pa.string()).dictionary_encode()
    kinds = pa.array([_KINDS[roles[label.as_py()]] for label in labels.dictionary], pa.string()).take(labels.indices)
    kinds = pc.if_else(pc.equal(ended["outcome"], Outcome.UNDECIDED.value), pa.scalar(None, pa.string()), kinds)
    kept = pc.is_null(index)
    columns = {
        "outcome": pc.if_else(kept, Outcome.KEEP.value, ended["outcome"].take(index)),
        "kind": pc.if_else(kept, Kind.HIT.value, kinds.take(index)),
        "reason": pc.if_else(kept, "", ended["reason"].take(index)),
        "failed_filter": ended["filter"].take(index),
        "detail": ended["detail"].take(index),
    }
    columns |= _related(columns, near)
    columns |= _so_far(samples, given, by_role)
    failed = pc.is_valid(samples["error"])
    if pc.any(failed).as_py():
        errors = [None if text is None else to_json({"error": text}) for text in samples["error"].to_pylist()]
        columns["outcome"] = pc.if_else(failed, Outcome.UNDECIDED.value, columns["outcome"])
        columns["kind"] = pc.if_else(failed, pa.scalar(None, pa.string()), columns["kind"])
        columns["reason"] = pc.if_else(failed, NOT_SAMPLED, columns["reason"])
        columns["detail"] = pc.if_else(failed, pa.array(errors, pa.string()), columns["detail"])
    for name in JUDGED:
        samples = samples.append_column(name, columns[name])
    return samples


def _related(columns: dict[str, Any], near: pa.Table) -> dict[str, Any]:
    """The sample that each duplicate repeats or near miss lies close to, how similar they are, and the kind of near misses."""
    rows = len(columns["kind"])
    kinds = columns["kind"].to_numpy(zero_copy_only=False).astype(object)
    missed = kinds == Kind.MISS.value
    names, likes = np.full(rows, None, object), np.full(rows, np.nan)
    for row, text in zip(near["row"].to_pylist(), near["detail"].to_pylist(), strict=True):
        if missed[row]:
            said = orjson.loads(text)
            kinds[row], names[row], likes[row] = Kind.NEAR_MISS.value, said["nearest"], said["similarity"]
    repeats = np.flatnonzero(kinds == Kind.DUPLICATE.value)
    for row, text in zip(repeats.tolist(), columns["detail"].take(pa.array(repeats)).to_pylist(), strict=True):
        said = {} if text is None else orjson.loads(text)
        names[row], likes[row] = said.get("duplicate_of"), said.get("similarity", np.nan)
    similarity = pa.array(likes, mask=np.isnan(likes))
    return {"kind": pa.array(kinds, pa.string()), "nearest": pa.array(names, pa.string()), "similarity": similarity}


def _so_far(samples: pa.Table, given: pa.Table, by_role: Mapping[Role, pa.Array]) -> dict[str, Any]:
    """The draws that fell on each sample that no filter for duplicates dropped, the last score it was given, and the reference
    that a verifier accepted."""
    draws, scores = np.ones(samples.num_rows, np.int64), np.full(samples.num_rows, np.nan)
    repeated = pc.is_in(given["filter"], by_role[Role.DUPLICATE])
    kept = pc.equal(given["outcome"], Outcome.KEEP.value)
    counted = given.filter(pc.and_(pc.and_(repeated, kept), pc.is_valid(given["detail"])))
    rows = counted["row"].to_numpy()
    for row, count in zip(rows.tolist(), multiplicities(counted["detail"], np.ones(len(rows), np.int64)).tolist(), strict=True):
        draws[row] = count
    judged_by = pa.concat_arrays([by_role[Role.VERIFIER], by_role[Role.QUALITY]])
    scored = given.filter(pc.and_(pc.is_valid(given["score"]), pc.is_in(given["filter"], judged_by)))
    scores[scored["row"].to_numpy()] = scored["score"].to_numpy()
    columns = {"multiplicity": pa.array(draws, pa.int32()), "score": pa.array(scores, mask=np.isnan(scores))}
    if "reference" in samples.column_names:
        verified = np.zeros(samples.num_rows, bool)
        verified[given.filter(pc.and_(kept, pc.is_in(given["filter"], by_role[Role.VERIFIER])))["row"].to_numpy()] = True
        columns["answer"] = pc.if_else(pa.array(verified), samples["reference"], pa.scalar(None, pa.string()))
    else:
        columns["answer"] = pa.nulls(samples.num_rows, pa.string())
    return columns


def multiplicities(details: pa.ChunkedArray, before: NDArray[np.int64]) -> NDArray[np.int64]:
    """The draws that fell on samples which a filter for duplicates kept (n,), as its details say, or as they were `before`."""
    found = before.copy()
    told = np.flatnonzero(pc.is_valid(details).to_numpy(zero_copy_only=False))
    for at, text in zip(told.tolist(), details.take(pa.array(told)).to_pylist(), strict=True):
        found[at] = orjson.loads(text).get("multiplicity", before[at])
    return found


def judged_name(shard: int) -> str:
    """The file that keeps the columns of JUDGED of a shard."""
    return f"judged/{shard_name(shard)}"


def judged_key(store: Store, shard: int) -> str | None:
    """Hash of what those columns are made from: the samples and all verdicts on them. None where there are none."""
    samples, entries = store.entry(f"samples/{shard_name(shard)}"), verdict_entries(store, shard)
    if samples is None or not entries:
        return None
    return ids.digest("judged", samples.sha256, [[entry.sha256, entry.facts.get("filters", [])] for entry in entries])


def write_judged(store: Store, shard: int, table: pa.Table, key: str, *, to: Store | None = None) -> None:
    """Keep the columns of JUDGED of a shard beside the run, or in another place. `table` is what `judged` returned."""
    (to or store).write_table(judged_name(shard), table.select(list(JUDGED)).cast(JUDGED_SCHEMA), key=key, durable=False)


def read_judged(store: Store, shard: int, columns: list[str] | None = None) -> pa.Table:
    """The samples of a shard with the columns of JUDGED: those that were kept, where they are of the verdicts as they are now."""
    name = f"samples/{shard_name(shard)}"
    kept = store.entry(judged_name(shard))
    if kept is not None and kept.key == judged_key(store, shard):
        with suppress(StoreError):  # damaged: it is made from the verdicts
            became = store.read_table(judged_name(shard))
            samples = store.read_table(name, columns)
            for column in JUDGED:
                samples = samples.append_column(column, became[column])
            return samples
    samples = store.read_table(name, None if columns is None else [*columns, *({"error"} - set(columns))])
    return judged(samples, *verdicts(store, shard))


def each_judged(store: Store, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """All sampled shards of a run in order, one in memory at a time."""
    for shard in sampled(store):
        yield read_judged(store, shard, columns)


Ints = NDArray[np.int64]


def prompt_counts(judged: pa.Table) -> tuple[Ints, Ints, dict[str, Ints]]:
    """Count each prompt's samples without the anchor: samples, passed, hits, duplicates, undecided (int64, one per prompt).

    Also returns the first row of each prompt, in order, and the number of each row's prompt.
    """
    encoded = _whole(judged["prompt_id"]).dictionary_encode()
    prompt = encoded.indices.to_numpy()
    first = np.full(len(encoded.dictionary), len(prompt), np.int64)
    np.minimum.at(first, prompt, np.arange(len(prompt)))
    drawn = ~judged["anchor"].to_numpy()

    def count(mask: pa.ChunkedArray | None = None) -> Ints:
        chosen = drawn if mask is None else drawn & pc.fill_null(mask, False).to_numpy()
        return np.bincount(prompt[chosen], minlength=len(first))

    hits = count(pc.equal(judged["kind"], Kind.HIT.value))
    duplicates = count(pc.equal(judged["kind"], Kind.DUPLICATE.value))
    undecided = count(pc.equal(judged["outcome"], Outcome.UNDECIDED.value))
    counts = {
        "samples": count(),
        "passed": hits + duplicates,
        "hits": hits,
        "duplicates": duplicates,
        "undecided": undecided,
    }
    return first, prompt, counts


@dataclass(frozen=True)
class PromptCount:
    """What became of the samples of a prompt, anchors apart; `failed` could not be drawn and are undecided."""

    drawn: int
    decided: int
    passed: int
    hits: int
    failed: int


def prompt_count(judged: pa.Table) -> dict[str, PromptCount]:
    """The counts of each prompt by prompt_id."""
    first, prompt, counts = prompt_counts(judged)
    failed = np.bincount(prompt[pc.is_valid(judged["error"]).to_numpy()], minlength=len(first))
    names = judged["prompt_id"].take(pa.array(first)).to_pylist()
    drawn, decided = counts["samples"], counts["samples"] - counts["undecided"]
    columns = (drawn, decided, counts["passed"], counts["hits"], failed)
    return {name: PromptCount(*map(int, row)) for name, row in zip(names, zip(*columns, strict=True), strict=True)}


def pass_rates(judged: pa.Table, sampling: Sampling | None = None) -> list[float | None]:
    """Each prompt's pass rate, in the order of `prompt_counts`: passed / decided, corrected where drawing stopped because of what
    was found (thresher.estimators.pass_rate)."""
    first, prompt, counts = prompt_counts(judged)
    decided = counts["samples"] - counts["undecided"]
    if sampling is None or sampling.target_hits is None:
        return [int(p) / int(d) if d else None for p, d in zip(counts["passed"], decided, strict=True)]
    there = ~judged["anchor"].to_numpy() & pc.not_equal(judged["outcome"], Outcome.UNDECIDED.value).to_numpy()
    rows = np.flatnonzero(there)
    rows = rows[np.lexsort((judged["index"].to_numpy()[rows], prompt[rows]))]
    hit = pc.fill_null(pc.equal(judged["kind"], Kind.HIT.value), False).to_numpy()[rows]
    passed = hit | pc.fill_null(pc.equal(judged["kind"], Kind.DUPLICATE.value), False).to_numpy()[rows]
    ends = np.cumsum(np.bincount(prompt[rows], minlength=len(first)))
    return [pass_rate.pass_rate(sampling, passed[a:b], hit[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """One array of all chunks; one without chunks is empty."""
    return column.combine_chunks() if column.num_chunks else pa.array([], column.type)
