"""Counts one shard from its rows and checks its files against each other.

The counts that a step has noted are not used: which filter should have seen which sample is derived again from the verdict rows.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from filters.base import Role, Scope
from schemas.manifest import Entry
from schemas.sample import Outcome
from schemas.sampling import Sampling
from thresher.auditing.counting.evidence import MOST_ERRORS, Evidence, evidence_of, kinds_of_errors
from thresher.errors import StoreError
from thresher.estimators.diversity import Sums, sums_of
from thresher.pool import judged as pool
from thresher.pool.model_rows import COLUMNS as OF_MODELS
from thresher.pool.model_rows import has_samples, model_numbers
from thresher.pool.prompt_counts import pass_rates, prompt_counts
from thresher.pool.run import Run
from thresher.pool.store import Store, shard_name
from thresher.pool.wanted import answered

COLUMNS = [
    "sample_id", "prompt_id", "family", "index", "anchor", "temperature", "finish_reason", "unreadable", "error", "reference",
    "cumulative_logprob",
]  # fmt: skip
"""Columns that are read of the pool."""

AGAIN = "remove this file and run the same command again: it is written again"
"""What to do about a damaged file."""

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Counts:
    """Counts of one shard, or sums of several."""

    samples: Counter[tuple[str, bool, str, str | None, bool | None]] = field(default_factory=Counter)
    """By family, anchor, outcome, kind, truncated; null where the finish reason is unknown."""
    verdicts: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    """By family, filter, outcome, reason, without those on anchors."""
    prompts: Counter[tuple[str, int, int, float | None]] = field(default_factory=Counter)
    """By family, decided samples, passed samples, and the unbiased estimate of the pass rate."""
    temperatures: Counter[tuple[float | None, str, str | None]] = field(default_factory=Counter)
    """Samples without anchors by temperature, outcome, kind."""
    failed: Counter[str] = field(default_factory=Counter)
    """Samples that the engine could not draw, by its error (kinds_of_errors)."""
    references: Counter[tuple[str, bool]] = field(default_factory=Counter)
    """Samples without anchors by family, and whether they have a reference answer."""
    likely: Counter[bool] = field(default_factory=Counter)
    """Samples without anchors by whether they have log-probabilities."""
    diversity: Sums = field(default_factory=Counter)
    """Sums for the diversity of the hits (thresher.estimators.diversity)."""
    distinct: dict[str, list[float]] = field(default_factory=dict)
    """By family: number of prompts, and the sums of distinct-1 and distinct-2, as noted in the shards' entries."""
    evidence: Evidence = field(default_factory=Evidence)
    models: dict[str, "Counts"] = field(default_factory=dict)
    """Counts of the samples of each model, by its label, where there are several; without diversity and evidence."""

    def add(self, other: "Counts") -> None:
        """Add the counts of other shards."""
        self.samples.update(other.samples)
        self.verdicts.update(other.verdicts)
        self.prompts.update(other.prompts)
        self.temperatures.update(other.temperatures)
        self.failed.update(other.failed)
        if len(self.failed) > MOST_ERRORS:
            kinds = kinds_of_errors(self.failed)
            self.failed.clear()
            self.failed.update(kinds)
        self.references.update(other.references)
        self.likely.update(other.likely)
        self.diversity.update(other.diversity)
        for family, sums in other.distinct.items():
            total = self.distinct.setdefault(family, [0.0] * len(sums))
            total[:] = [a + b for a, b in zip(total, sums, strict=True)]
        self.evidence.add(other.evidence)
        for label, counts in other.models.items():
            self.models.setdefault(label, Counts()).add(counts)


def count_shard(run: Run, shard: int) -> tuple[Counts, list[str]]:
    """Count a shard that is sampled and judged, and list its problems. Raises StoreError on a damaged file."""
    store, name = run.store, f"samples/{shard_name(shard)}"
    entry = _entry(store, name)
    path, verdict_path = store.path(entry.path), store.path(f"verdicts/{shard_name(shard)}.parquet")
    verdicts, filters, problems = _read_verdicts(store, shard)
    columns = [*COLUMNS, *(OF_MODELS if run.several else ())]
    samples, characters = _read_samples(store, name, columns, with_lengths=verdicts["score"].null_count < verdicts.num_rows)
    problems += _rows_agree(path, entry.rows, samples)
    anchors = int(pc.sum(samples["anchor"]).as_py() or 0)
    for fact, actual in (("samples", samples.num_rows - anchors), ("anchors", anchors)):
        if entry.facts.get(fact, actual) != actual:
            problems.append(f"{path}: {actual} {fact} found, {entry.facts[fact]} noted in {name}.json; {AGAIN}")
    if repeated := samples.num_rows - len(pc.unique(samples["sample_id"])):
        problems.append(f"{path}: {repeated} sample ids occur twice, but they must be unique; {AGAIN}")
    numbers = model_numbers(run, samples) if run.several else None
    if run.sampled:
        problems += _as_planned(run, shard, samples, numbers, path)
    verdicts, unsound = sound(samples, verdicts, filters, verdict_path)
    problems += unsound
    problems += cascade(samples, verdicts, filters, verdict_path)
    known = [facts for verdict_entry in pool.verdict_entries(store, shard) for facts in pool.filters_of(verdict_entry)]
    judged = pool.judged(samples, verdicts, known)
    problems += _keep(store, shard, judged)
    counts = counted(judged, verdicts, run.recipe.sampling, numbers)
    if numbers is not None and len(run.models) > 1:
        for number, one in enumerate(run.models):
            mask = np.equal(numbers, number)
            counts.models[one.label] = counted(*_rows_of(judged, verdicts, mask), run.recipe.sampling, numbers[mask])
    counts.diversity.update(sums_of(judged))
    counts.distinct.update((store.entry(f"verdicts/{shard_name(shard)}") or entry).facts.get("distinct", {}))
    counts.evidence.add(evidence_of(verdicts, filters, samples["anchor"].to_numpy(), characters))
    return counts, problems


def counted(judged: pa.Table, verdicts: pa.Table, sampling: Sampling, models: Rows | None = None) -> Counts:
    """Count the rows of one judged shard and the verdicts on them. `models` (n,) has the number of the model that drew each row,
    where there are several."""
    if models is not None:
        models = models[pc.is_null(judged["unreadable"]).to_numpy()]
    truncated = pc.equal(judged["finish_reason"], "length")
    readable = judged.filter(pc.is_null(judged["unreadable"]))
    # In imported samples a prompt may belong to several families; it is counted in each.
    own = pc.binary_join_element_wise(readable["family"], readable["prompt_id"], "\0")
    readable = readable.set_column(readable.column_names.index("prompt_id"), "prompt_id", own)
    first, _, counts = prompt_counts(readable)
    columns = [
        readable["family"].take(pa.array(first)),
        counts["samples"] - counts["undecided"],
        counts["passed"],
        pa.array(pass_rates(readable, sampling, models), pa.float64()),
    ]
    prompts = pa.table(columns, ["family", "decided", "passed", "rate"])
    drawn = judged.filter(pc.invert(judged["anchor"]))
    on_drawn = verdicts.filter(pc.invert(judged["anchor"].take(verdicts["row"])))
    on_drawn = on_drawn.append_column("family", judged["family"].take(on_drawn["row"]))
    likely = _occurrences(pa.table([pc.is_valid(drawn["cumulative_logprob"])], ["known"]), ["known"])
    return Counts(
        _occurrences(judged.append_column("truncated", truncated), ["family", "anchor", "outcome", "kind", "truncated"]),
        _occurrences(on_drawn, ["family", "filter", "outcome", "reason"]),
        _occurrences(prompts, prompts.column_names),
        _occurrences(drawn, ["temperature", "outcome", "kind"]),
        kinds_of_errors(Counter(judged["error"].drop_null().to_pylist())),
        _occurrences(drawn.append_column("known", pc.is_valid(drawn["reference"])), ["family", "known"]),
        Counter({known: n for (known,), n in likely.items()}),
    )


def sound(samples: pa.Table, verdicts: pa.Table, filters: Sequence[Mapping[str, Any]], where: str) -> tuple[pa.Table, list[str]]:
    """Return the verdicts of known filters on samples of this shard, and the problems of all other verdicts."""
    problems = []
    rows = verdicts["row"].to_numpy()
    inside = (rows >= 0) & (rows < samples.num_rows)
    if outside := int((~inside).sum()):
        problems.append(f"{where}: {outside} verdicts on rows outside the shard's {samples.num_rows}; {AGAIN}")
    verdicts = verdicts.filter(pa.array(inside))
    same = pc.equal(verdicts["sample_id"], samples["sample_id"].take(verdicts["row"]))
    if mismatched := verdicts.num_rows - int(pc.sum(same).as_py() or 0):
        problems.append(f"{where}: {mismatched} verdicts name a different sample than their row of the pool; {AGAIN}")
    verdicts = verdicts.filter(same)
    known = pc.is_in(verdicts["filter"], pa.array([facts["label"] for facts in filters], pa.string()))
    if unknown := verdicts.num_rows - int(pc.sum(known).as_py() or 0):
        problems.append(f"{where}: {unknown} verdicts of filters that its entry does not name; {AGAIN}")
    return verdicts.filter(known), problems


def cascade(samples: pa.Table, verdicts: pa.Table, filters: Sequence[Mapping[str, Any]], where: str) -> Iterator[str]:
    """Report filters that did not see exactly the samples they should, and samples that several filters did not keep.

    A filter should see the samples of its families that every filter before it kept. Exceptions: an exhaustive filter sees all
    readable samples, near_miss those that a verifier dropped; both may judge samples that another filter did not keep."""
    count = samples.num_rows
    anchor: Mask = samples["anchor"].to_numpy()
    rows, kept = verdicts["row"].to_numpy(), pc.equal(verdicts["outcome"], Outcome.KEEP.value).to_numpy()
    alive: Mask = pc.is_null(samples["error"]).to_numpy().copy()
    readable: Mask = alive & pc.is_null(samples["unreadable"]).to_numpy()
    dropped: Mask = pc.equal(verdicts["outcome"], Outcome.DROP.value).to_numpy()
    exempt: Mask = np.zeros(len(rows), bool)
    missed: Mask = np.zeros(count, bool)
    for facts in filters:
        near_miss = facts["role"] == Role.NEAR_MISS.value
        wanted = (readable if facts.get("exhaustive") else missed if near_miss else alive).copy()
        if facts.get("families") is not None:
            wanted &= pc.is_in(samples["family"], pa.array(facts["families"], pa.string())).to_numpy()
        if facts["scope"] != Scope.SAMPLE.value:
            wanted &= ~anchor
        of_filter: Mask = pc.equal(verdicts["filter"], facts["label"]).to_numpy()
        exempt |= of_filter & (bool(facts.get("exhaustive")) or near_miss)
        times = np.bincount(rows[of_filter], minlength=count)
        yield from _seen_as_wanted(facts["label"], wanted, times, where)
        if not near_miss:
            if facts["role"] == Role.VERIFIER.value:
                missed[rows[of_filter & dropped & alive[rows]]] = True
            alive[rows[of_filter & ~kept]] = False
    if repeated := int((np.bincount(rows[~kept & ~exempt], minlength=count) > 1).sum()):
        yield f"{where}: {repeated} samples were dropped or undecided more than once, but a sample can be only once; {AGAIN}"


# -- inside --------------------------------------------------------------------------------------------------------------


def _read_verdicts(store: Store, shard: int) -> tuple[pa.Table, list[dict[str, Any]], list[str]]:
    """All verdicts on a shard, the facts of the filters that gave them, and the problems of their files."""
    tables, filters, problems = list[pa.Table](), list[dict[str, Any]](), list[str]()
    for name in pool.verdict_names(store, shard):
        table, entry = store.read_table(name), _entry(store, name, "filters")
        problems += _rows_agree(store.path(entry.path), entry.rows, table)
        tables.append(table)
        filters += entry.facts["filters"]
    return pa.concat_tables(tables), filters, problems


def _rows_of(judged: pa.Table, verdicts: pa.Table, mask: Mask) -> tuple[pa.Table, pa.Table]:
    """Some rows of a judged shard, and the verdicts on them by their row there."""
    verdicts = verdicts.filter(pa.array(mask[verdicts["row"].to_numpy()]))
    places = np.cumsum(mask) - 1
    moved = pa.array(places[verdicts["row"].to_numpy()].astype(np.int32))
    return judged.filter(pa.array(mask)), verdicts.set_column(verdicts.column_names.index("row"), "row", moved)


def _read_samples(store: Store, name: str, columns: list[str], *, with_lengths: bool) -> tuple[pa.Table, Rows]:
    """Columns of a shard, and the length of each answer in characters (n,): zeros unless `with_lengths`, since
    answers are large and their lengths are compared only with scores."""
    if not with_lengths:
        samples = store.read_table(name, columns)
        return samples, np.zeros(samples.num_rows, np.int64)
    samples = store.read_table(name, [*columns, "answer"])
    characters = pc.fill_null(pc.utf8_length(samples["answer"]), 0).to_numpy().astype(np.int64)
    return samples.drop_columns(["answer"]), characters


def _seen_as_wanted(label: str, wanted: Mask, times: Rows, where: str) -> Iterator[str]:
    """Compare the samples that a filter should have seen with the number of its verdicts on each."""
    if missing := int((wanted & (times == 0)).sum()):
        yield (
            f"{where}: {label} should have seen {int(wanted.sum())} samples, those every filter before it "
            f"kept; {missing} of them have no verdict of it; {AGAIN}"
        )
    if unwanted := int(((times > 0) & ~wanted).sum()):
        yield f"{where}: {label} judged {unwanted} samples that it should not have seen; {AGAIN}"
    if twice := int((times > 1).sum()):
        yield f"{where}: {label} judged {twice} samples more than once; {AGAIN}"


def _keep(store: Store, shard: int, judged: pa.Table) -> Iterator[str]:
    """Keep what became of each sample for later readers. If it was kept before for the same verdicts, it must be equal."""
    key, name = pool.judged_key(store, shard), pool.judged_name(shard)
    kept = store.entry(name)
    if key is None:
        return
    if kept is not None and kept.key == key and store.whole(kept, hashed=True):
        if not store.read_table(name).equals(judged.select(list(pool.JUDGED)).cast(pool.JUDGED_SCHEMA)):
            yield f"{store.path(kept.path)}: does not agree with the verdicts of the shard; {AGAIN}"
        return
    with suppress(StoreError):  # a run in a read-only place can be audited too
        pool.write_judged(store, shard, judged, key)


def _entry(store: Store, name: str, *facts: str) -> Entry:
    """Return an entry that has these facts. Raises StoreError if there is none."""
    entry = store.entry(name)
    if entry is None or not all(fact in entry.facts for fact in facts):
        raise StoreError(f"{store.path(name)}.json: damaged, it is not an entry of its file; {AGAIN}")
    return entry


def _rows_agree(path: str, noted: int, table: pa.Table) -> Iterator[str]:
    if table.num_rows != noted:
        yield f"{path}: {table.num_rows} rows found, {noted} noted in its entry; {AGAIN}"


def _as_planned(run: Run, shard: int, samples: pa.Table, numbers: Rows | None, path: str) -> Iterator[str]:
    """Compare the number of samples of each prompt with the plan: the number in the recipe, or more if an earlier recipe had a
    larger number; with target_hits, at least the first wave. Of several models (`numbers` of the rows) each has that number of
    the prompts that it answers; a model whose samples are still missing is not compared."""
    store, sampling = run.store, run.recipe.sampling
    each = sampling.samples_per_prompt * len(sampling.temperatures) + sampling.anchor
    plan = store.read_group("prompts", shard, ["prompt_id", "family"])
    if numbers is None:
        yield from _compared(plan["prompt_id"], samples["prompt_id"], each, path, "", others=False)
        return
    if strangers := int((numbers < 0).sum()):
        yield f"{path}: {strangers} samples are of no model of the recipe; {AGAIN}"
    entry = _entry(store, f"samples/{shard_name(shard)}")
    for number, one in enumerate(run.models):
        if has_samples(entry, run, one):
            planned = plan["prompt_id"].filter(pa.array(answered(one.recipe.model, plan)))
            drawn = samples["prompt_id"].filter(pa.array(numbers == number))
            yield from _compared(planned, drawn, each, path, f" of {one.label}", others=True)


def _compared(
    planned: pa.ChunkedArray, drawn: pa.ChunkedArray, each: int, path: str, whose: str, *, others: bool
) -> Iterator[str]:
    """Report prompts with too few samples, and unless `others` are allowed prompts that are not in the plan."""
    both = pa.chunked_array([*planned.chunks, *drawn.chunks], pa.string()).combine_chunks()
    codes = both.dictionary_encode().indices.to_numpy()
    wanted = each * np.bincount(codes[: len(planned)], minlength=codes.max(initial=-1) + 1)
    actual = np.bincount(codes[len(planned) :], minlength=len(wanted))
    if wrong := int(((wanted > actual) | ((wanted == 0) & (not others))).sum()):
        yield (
            f"{path}: {int(wanted.sum())} samples{whose} planned ({len(planned)} prompts, {each} each), {len(drawn)} found; "
            f"{wrong} prompts have too few, or are not in the plan; {AGAIN}"
        )


def _occurrences(table: pa.Table, columns: list[str]) -> Counter[Any]:
    """How often each combination of values occurs. There are few combinations, however many rows."""
    groups = table.group_by(columns).aggregate([([], "count_all")])
    rows = zip(*(groups[name].to_pylist() for name in (*columns, "count_all")), strict=True)
    return Counter({row[:-1]: row[-1] for row in rows})
