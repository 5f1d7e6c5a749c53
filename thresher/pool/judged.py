"""What became of each sample: the rows of the pool joined with the verdicts on them.

This is the one place where verdicts become an outcome and a kind (hit, near miss, miss, duplicate). The audit keeps the result
per shard in RUN/judged/, with the key of the verdicts it follows from; views, SQL and counts read it. Rows of a verdict file have
the row of their sample in its shard, so the join is indexing, not hashing.
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
from schemas.sample import FILTER_ERROR, Kind, Outcome, to_json
from thresher import ids
from thresher.errors import StoreError
from thresher.pool.store import HASHED_BYTES, Store, shard_name

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
        pa.field("accepted", pa.string()),
    ]
)
"""Columns that say what became of a sample; docs/formats.md has their meaning, filters.base.SO_FAR that of the last three."""
JUDGED = tuple(JUDGED_SCHEMA.names)
NOT_SAMPLED = "not_sampled"
"""Reason of a sample that the engine could not draw."""

_KIND_OF_DROP = {Role.VERIFIER: Kind.MISS, Role.DUPLICATE: Kind.DUPLICATE, Role.QUALITY: None, Role.NEAR_MISS: None}


@dataclass(frozen=True)
class FilterFacts:
    """One filter of a run, as noted in the entries of the verdict files."""

    label: str
    name: str
    version: str
    key: str
    scope: Scope
    role: Role


# -- files of a run ------------------------------------------------------------------------------------------------------


def shards(store: Store) -> int:
    """Number of shards of the run; 0 before the plan is written."""
    entry = store.entry("prompts")
    return int(entry.facts["shards"]) if entry else 0


def sampled(store: Store) -> list[int]:
    """The sampled shards in order: all of them, unless the run is unfinished or reached its target_rows."""
    return sorted(_numbered(store, "samples"))


def _numbered(store: Store, folder: str) -> list[int]:
    """Shards that have an entry in a folder; files with other names are ignored."""
    stems = (name.removesuffix(".json") for name in store.names(folder, ".json"))
    return [int(stem) for stem in stems if stem.isdecimal()]


def hits(store: Store) -> int:
    """Samples of the run that every filter has kept so far, without anchors."""
    return sum(hits_of_shards(store).values())


def hits_of_shards(store: Store) -> dict[int, int]:
    """The same for each judged shard."""
    files, hits = verdict_files(store), dict[int, int]()
    for shard in sampled(store):
        names = [f"verdicts/{shard_name(shard)}", *(corpus_name(number, shard) for number in range(files[shard] - 1))]
        last = next(filter(None, map(store.entry, reversed(names[: files[shard]]))), None)
        if last is not None:
            hits[shard] = int(last.facts["hits"])
    return hits


def corpus_name(number: int, shard: int) -> str:
    """The verdict file of corpus filter `number` (from 0) on a shard."""
    return f"corpus/{number:02d}-{shard_name(shard)}"


def verdict_names(store: Store, shard: int, before: int | None = None) -> list[str]:
    """The finished verdict files of a shard in the order the filters ran; with `before` only those of the corpus filters before
    that number."""
    names = [f"verdicts/{shard_name(shard)}"]
    while len(names) - 1 != before and store.exists(f"{corpus_name(len(names) - 1, shard)}.json"):
        names.append(corpus_name(len(names) - 1, shard))
    return [name for name in names if store.exists(f"{name}.json")]


def verdict_files(store: Store) -> Counter[int]:
    """How many finished verdict files each shard has, counted up to the first gap; from three listings."""
    counts = Counter(_numbered(store, "verdicts"))
    for name in store.names("corpus", ".json"):  # sorted by number of the filter, then by shard
        number, _, shard = name.removesuffix(".json").partition("-")
        if number.isdecimal() and shard.isdecimal() and counts[int(shard)] == int(number) + 1:
            counts[int(shard)] += 1
    return counts


def verdict_entries(store: Store, shard: int, before: int | None = None) -> list[Entry]:
    """The entries of the files that `verdict_names` returns."""
    return [entry for name in verdict_names(store, shard, before) if (entry := store.entry(name))]


def is_broken(verdicts: pa.Table) -> pa.ChunkedArray:
    """Which verdicts are undecided because something other than the sample was broken (schemas.sample.Verdict.broken)."""
    marked = pc.fill_null(pc.match_substring(verdicts["detail"], '"broken":true'), False)
    undecided = pc.equal(verdicts["outcome"], Outcome.UNDECIDED.value)
    return pc.and_(undecided, pc.or_(pc.equal(verdicts["reason"], FILTER_ERROR), marked))


def damaged_corpus(store: Store) -> list[str]:
    """The verdict files of corpus filters that are not what was written. Up to HASHED_BYTES are hashed."""
    damaged, hashed = [], 0
    for name in store.names("corpus", ".json"):
        entry = store.entry(f"corpus/{name.removesuffix('.json')}")
        hashed += entry.bytes if entry is not None else 0
        if entry is None or not store.whole(entry, hashed=hashed <= HASHED_BYTES):
            damaged.append(f"corpus/{name}")
    return damaged


def noted_broken(verdicts: pa.Table) -> dict[str, int]:
    """What the entry of a verdict file notes of them: how many are broken."""
    return {"broken": int(pc.sum(is_broken(verdicts)).as_py() or 0)}


def broken_in(store: Store, name: str, entry: Entry) -> int:
    """How many broken verdicts a verdict file has; the next run asks for them again. An entry of an earlier version does not note
    it, and its file is read. Raises StoreError on a damaged file."""
    if "broken" in entry.facts:
        return int(entry.facts["broken"])
    return noted_broken(store.read_table(name, ["outcome", "reason", "detail"]))["broken"]


def same_verdicts(store: Store, name: str, verdicts: pa.Table) -> bool:
    """Whether verdicts say the same as those of a file, whatever their `detail`. Raises StoreError on a damaged file."""
    columns = ["row", "filter", "outcome", "reason", "score"]
    return bool(store.read_table(name, columns).equals(verdicts.select(columns)))


def drop_corpus(store: Store, *, keep: int) -> None:
    """Remove the verdicts of corpus filters from number `keep` on: they are of another state of the pool."""
    names = [name for name in store.names("corpus", ".json") if name[:2].isdecimal() and int(name[:2]) >= keep]
    store.remove(*(f"corpus/{name}" for name in names))


def filters_in(facts: Iterable[Mapping[str, Any]]) -> list[FilterFacts]:
    """Filters from their noted facts, in the order they ran."""
    return [FilterFacts(f["label"], f["name"], f["version"], f["key"], Scope(f["scope"]), Role(f["role"])) for f in facts]


def filters_of(entry: Entry) -> list[FilterFacts]:
    """The filters of a verdict file, in the order they ran."""
    return filters_in(entry.facts["filters"])


def verdicts(store: Store, shard: int) -> tuple[pa.Table, list[FilterFacts]]:
    """All verdicts on a shard (schema VERDICTS) and the filters that gave them, both in the order the filters ran. Raises
    StoreError on a damaged file."""
    tables, facts = [], []
    for name in verdict_names(store, shard):
        tables.append(store.read_table(name))
        entry = store.entry(name)
        facts += filters_of(entry) if entry else []
    return pa.concat_tables(tables), facts


# -- what became of the samples ------------------------------------------------------------------------------------------


def judged(samples: pa.Table, verdicts: pa.Table, filters: list[FilterFacts]) -> pa.Table:
    """Add the columns of JUDGED to the samples of one shard, from its verdicts.

    A sample's outcome is that of the first filter that did not keep it, in the order of `verdicts`; `kind` follows from the role
    of that filter. A sample that every filter kept is a hit. A sample that the engine could not draw was judged by no filter: it
    is undecided.
    """
    roles = {facts.label: facts.role for facts in filters}
    by_role = {role: pa.array([label for label, own in roles.items() if own is role], pa.string()) for role in Role}
    lost = verdicts.filter(pc.not_equal(verdicts["outcome"], Outcome.KEEP.value))
    near = lost.filter(pc.is_in(lost["filter"], by_role[Role.NEAR_MISS]))
    lost = lost.filter(pc.invert(pc.is_in(lost["filter"], by_role[Role.NEAR_MISS])))
    columns = _outcomes(samples.num_rows, lost, roles)
    columns |= _relations(columns, near)
    columns |= _so_far(samples, verdicts, by_role)
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


def _outcomes(rows: int, lost: pa.Table, roles: Mapping[str, Role]) -> dict[str, Any]:
    """Outcome, kind, reason, filter and detail of each sample. `lost` holds the verdicts other than keep."""
    sample = lost["row"].to_numpy()
    first = np.full(rows, -1, np.int64)
    first[sample[::-1]] = np.arange(len(sample))[::-1]  # of several verdicts on a row the first is written last
    index = pa.array(first, mask=first < 0)
    labels = lost["filter"].combine_chunks() if len(sample) else pa.array([], pa.string())
    labels = labels.dictionary_encode()
    kinds = pa.array([_KIND_OF_DROP[roles[label.as_py()]] for label in labels.dictionary], pa.string()).take(labels.indices)
    kinds = pc.if_else(pc.equal(lost["outcome"], Outcome.UNDECIDED.value), pa.scalar(None, pa.string()), kinds)
    kept = pc.is_null(index)
    return {
        "outcome": pc.if_else(kept, Outcome.KEEP.value, lost["outcome"].take(index)),
        "kind": pc.if_else(kept, Kind.HIT.value, kinds.take(index)),
        "reason": pc.if_else(kept, "", lost["reason"].take(index)),
        "failed_filter": lost["filter"].take(index),
        "detail": lost["detail"].take(index),
    }


def _relations(columns: dict[str, Any], near: pa.Table) -> dict[str, Any]:
    """Kind, nearest and similarity: the sample that each duplicate repeats, the hit that each near miss is close to, and how
    similar they are."""
    rows = len(columns["kind"])
    kinds = columns["kind"].to_numpy(zero_copy_only=False).astype(object)
    missed = kinds == Kind.MISS.value
    nearest, similarity = np.full(rows, None, object), np.full(rows, np.nan)
    for row, text in zip(near["row"].to_pylist(), near["detail"].to_pylist(), strict=True):
        if missed[row]:
            detail = orjson.loads(text)
            kinds[row], nearest[row], similarity[row] = Kind.NEAR_MISS.value, detail["nearest"], detail["similarity"]
    duplicates = np.flatnonzero(kinds == Kind.DUPLICATE.value)
    for row, text in zip(duplicates.tolist(), columns["detail"].take(pa.array(duplicates)).to_pylist(), strict=True):
        detail = {} if text is None else orjson.loads(text)
        nearest[row], similarity[row] = detail.get("duplicate_of"), detail.get("similarity", np.nan)
    return {
        "kind": pa.array(kinds, pa.string()),
        "nearest": pa.array(nearest, pa.string()),
        "similarity": pa.array(similarity, mask=np.isnan(similarity)),
    }


def _so_far(samples: pa.Table, verdicts: pa.Table, by_role: Mapping[Role, pa.Array]) -> dict[str, Any]:
    """Multiplicity, score and accepted: the draws that fell on a sample which is no duplicate, the last score that a filter gave
    it, and the reference that a verifier accepted."""
    draws, scores = np.ones(samples.num_rows, np.int64), np.full(samples.num_rows, np.nan)
    kept = pc.equal(verdicts["outcome"], Outcome.KEEP.value)
    of_duplicates = pc.is_in(verdicts["filter"], by_role[Role.DUPLICATE])
    counted = verdicts.filter(pc.and_(pc.and_(of_duplicates, kept), pc.is_valid(verdicts["detail"])))
    rows = counted["row"].to_numpy()
    for row, count in zip(rows.tolist(), multiplicities(counted["detail"], np.ones(len(rows), np.int64)).tolist(), strict=True):
        draws[row] = count
    scoring = pa.concat_arrays([by_role[Role.VERIFIER], by_role[Role.QUALITY]])
    scored = verdicts.filter(pc.and_(pc.is_valid(verdicts["score"]), pc.is_in(verdicts["filter"], scoring)))
    scores[scored["row"].to_numpy()] = scored["score"].to_numpy()
    columns = {"multiplicity": pa.array(draws, pa.int32()), "score": pa.array(scores, mask=np.isnan(scores))}
    columns["accepted"] = pa.nulls(samples.num_rows, pa.string())
    if "reference" in samples.column_names:
        verified = np.zeros(samples.num_rows, bool)
        accepted = verdicts.filter(pc.and_(kept, pc.is_in(verdicts["filter"], by_role[Role.VERIFIER])))
        verified[accepted["row"].to_numpy()] = True
        columns["accepted"] = pc.if_else(pa.array(verified), samples["reference"], pa.scalar(None, pa.string()))
    return columns


def multiplicities(details: pa.ChunkedArray, before: NDArray[np.int64]) -> NDArray[np.int64]:
    """The draws that fell on samples (n,) which a filter for duplicates kept: from the details of its verdicts, else `before`."""
    counts = before.copy()
    noted = np.flatnonzero(pc.is_valid(details).to_numpy(zero_copy_only=False))
    for row, text in zip(noted.tolist(), details.take(pa.array(noted)).to_pylist(), strict=True):
        counts[row] = orjson.loads(text).get("multiplicity", before[row])
    return counts


# -- kept beside the run -------------------------------------------------------------------------------------------------


def judged_name(shard: int) -> str:
    """The file that keeps the columns of JUDGED of a shard."""
    return f"judged/{shard_name(shard)}"


def judged_key(store: Store, shard: int) -> str | None:
    """Hash of what those columns follow from: the samples and all verdicts on them. None where there are none."""
    samples, entries = store.entry(f"samples/{shard_name(shard)}"), verdict_entries(store, shard)
    if samples is None or not entries:
        return None
    return ids.digest("judged", samples.sha256, [[entry.sha256, entry.facts.get("filters", [])] for entry in entries])


def write_judged(store: Store, shard: int, table: pa.Table, key: str) -> None:
    """Keep the columns of JUDGED of a shard. `table` is what `judged` returned."""
    store.write_table(judged_name(shard), table.select(list(JUDGED)).cast(JUDGED_SCHEMA), key=key, durable=False)


def read_judged(store: Store, shard: int, columns: list[str] | None = None) -> pa.Table:
    """The samples of a shard (all columns, or the ones named) with the columns of JUDGED: the kept ones where they follow from
    the verdicts as they are now, else computed. Raises StoreError on a damaged file."""
    name = f"samples/{shard_name(shard)}"
    kept = store.entry(judged_name(shard))
    if kept is not None and kept.key == judged_key(store, shard):
        with suppress(StoreError):  # a damaged file is computed again
            became = store.read_table(judged_name(shard))
            samples = store.read_table(name, columns)
            for column in JUDGED:
                samples = samples.append_column(column, became[column])
            return samples
    samples = store.read_table(name, None if columns is None else [*columns, *({"error"} - set(columns))])
    return judged(samples, *verdicts(store, shard))


def as_read(table: pa.Table) -> pa.Table:
    """Samples as filters and statistics see them: `completion` is the answer, empty where there is none."""
    answers = pc.fill_null(table["answer"], "")
    table = table.drop_columns(["completion"]) if "completion" in table.column_names else table
    return table.append_column("completion", answers)


def each_judged(store: Store, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """All sampled shards of a run in order, one in memory at a time."""
    for shard in sampled(store):
        yield read_judged(store, shard, columns)
