"""Counts one shard from its rows, and says where they contradict each other.

Nothing that a step has counted is believed: who should have seen a sample is worked out anew from the verdict rows.
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
from thresher.audit.evidence import Evidence, evidence_of
from thresher.errors import StoreError
from thresher.estimators.diversity import Sums, sums_of
from thresher.pool import judged as pool
from thresher.pool.judged import pass_rates, prompt_counts
from thresher.pool.run import Run
from thresher.pool.store import Store, shard_name

COLUMNS = [
    "sample_id", "prompt_id", "family", "index", "anchor", "temperature", "finish_reason", "unreadable", "error", "reference",
    "cumulative_logprob",
]  # fmt: skip
"""What is read of the pool."""

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Counts:
    """What is counted of one shard, or of several."""

    samples: Counter[tuple[str, bool, str, str | None, bool | None]] = field(default_factory=Counter)
    """By family, anchor, outcome, kind, truncated; null where nobody knows how it ended."""
    verdicts: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    """By family, filter, outcome, reason, without the anchors'."""
    prompts: Counter[tuple[str, int, int, float | None]] = field(default_factory=Counter)
    """By family, decided samples, passed samples, and the unbiased estimate of the pass rate."""
    temperatures: Counter[tuple[float | None, str, str | None]] = field(default_factory=Counter)
    """Samples without anchors by temperature, outcome, kind."""
    failed: Counter[str] = field(default_factory=Counter)
    """Samples that the engine could not draw, by its error."""
    references: Counter[tuple[str, bool]] = field(default_factory=Counter)
    """Samples without anchors by family, and whether they have a reference answer."""
    likely: Counter[bool] = field(default_factory=Counter)
    """Samples without anchors by whether they have log-probabilities."""
    diversity: Sums = field(default_factory=Counter)
    """What says how different the hits are."""
    distinct: dict[str, list[float]] = field(default_factory=dict)
    """By family: prompts, and the sums of distinct-1 and distinct-2, as the shards' entries have them."""
    evidence: Evidence = field(default_factory=Evidence)
    """What says how far the filters can be trusted."""

    def add(self, other: "Counts") -> None:
        """Count another shard's in."""
        self.samples.update(other.samples)
        self.verdicts.update(other.verdicts)
        self.prompts.update(other.prompts)
        self.temperatures.update(other.temperatures)
        self.failed.update(other.failed)
        self.references.update(other.references)
        self.likely.update(other.likely)
        self.diversity.update(other.diversity)
        for family, sums in other.distinct.items():
            mine = self.distinct.setdefault(family, [0.0] * len(sums))
            mine[:] = [a + b for a, b in zip(mine, sums, strict=True)]
        self.evidence.add(other.evidence)


def count_shard(run: Run, shard: int) -> tuple[Counts, list[str]]:
    """Count a shard that is sampled and judged, and list what is wrong with it. Raises StoreError on a damaged file."""
    store, name = run.store, f"samples/{shard_name(shard)}"
    entry, problems = _entry(store, name), list[str]()
    tables, facts = list[pa.Table](), list[dict[str, Any]]()
    for verdicts in pool.verdict_names(store, shard):
        given, made = store.read_table(verdicts), _entry(store, verdicts, "filters")
        problems += _rows_agree(store.path(made.path), made.rows, given)
        tables.append(given)
        facts += made.facts["filters"]
    given = pa.concat_tables(tables)
    scored = given["score"].null_count < given.num_rows  # lengths are only read to be set against scores
    columns = [*COLUMNS, *(["completion"] if scored else [])]
    samples = store.read_table(name, columns)
    characters: Rows = np.zeros(samples.num_rows, np.int64)
    if scored:
        characters = pc.utf8_length(samples["completion"]).to_numpy().astype(np.int64)
        samples = samples.drop_columns(["completion"])
    path = store.path(entry.path)
    problems += _rows_agree(path, entry.rows, samples)
    anchors = int(pc.sum(samples["anchor"]).as_py() or 0)
    for fact, found in (("samples", samples.num_rows - anchors), ("anchors", anchors)):
        if entry.facts.get(fact, found) != found:
            problems.append(f"{path}: {found} {fact} found, {entry.facts[fact]} noted in {name}.json; {AGAIN}")
    if repeated := samples.num_rows - len(pc.unique(samples["sample_id"])):
        problems.append(f"{path}: {repeated} sample ids stand there twice, none may; {AGAIN}")
    if run.sampled:
        problems += _as_planned(run, shard, samples, path)
    where = store.path(f"verdicts/{shard_name(shard)}.parquet")
    given, found_wrong = sound(samples, given, facts, where)
    problems += found_wrong
    problems += cascade(samples, given, facts, where)
    known = [one for made in pool.verdict_entries(store, shard) for one in pool.filters_of(made)]
    judged = pool.judged(samples, given, known)
    problems += _keep(store, shard, judged)
    counts = counted(judged, given, run.recipe.sampling)
    counts.diversity.update(sums_of(judged))
    counts.distinct.update((store.entry(f"verdicts/{shard_name(shard)}") or entry).facts.get("distinct", {}))
    counts.evidence.add(evidence_of(given, facts, samples["anchor"].to_numpy(), characters))
    return counts, problems


def counted(judged: pa.Table, given: pa.Table, sampling: Sampling) -> Counts:
    """Count the rows of one judged shard and the verdicts on them."""
    truncated = pc.equal(judged["finish_reason"], "length")
    readable = judged.filter(pc.is_null(judged["unreadable"]))
    # In samples that were brought a prompt may be of several families, and is then counted in each.
    own = pc.binary_join_element_wise(readable["family"], readable["prompt_id"], "\0")
    readable = readable.set_column(readable.column_names.index("prompt_id"), "prompt_id", own)
    first, _, counts = prompt_counts(readable)
    decided = counts["samples"] - counts["undecided"]
    columns = [
        readable["family"].take(pa.array(first)),
        decided,
        counts["passed"],
        pa.array(pass_rates(readable, sampling), pa.float64()),
    ]
    prompts = pa.table(columns, ["family", "decided", "passed", "rate"])
    drawn = judged.filter(pc.invert(judged["anchor"]))
    said = given.filter(pc.invert(judged["anchor"].take(given["row"])))
    said = said.append_column("family", judged["family"].take(said["row"]))
    likely = _by(pa.table([pc.is_valid(drawn["cumulative_logprob"])], ["there"]), ["there"])
    return Counts(
        _by(judged.append_column("truncated", truncated), ["family", "anchor", "outcome", "kind", "truncated"]),
        _by(said, ["family", "filter", "outcome", "reason"]),
        _by(prompts, prompts.column_names),
        _by(drawn, ["temperature", "outcome", "kind"]),
        Counter(judged["error"].drop_null().to_pylist()),
        _by(drawn.append_column("there", pc.is_valid(drawn["reference"])), ["family", "there"]),
        Counter({there: n for (there,), n in likely.items()}),
    )


def sound(samples: pa.Table, given: pa.Table, filters: Sequence[Mapping[str, Any]], where: str) -> tuple[pa.Table, list[str]]:
    """The verdicts that can be one filter's word on one sample of the shard, and what is wrong with the others."""
    problems = []
    at = given["row"].to_numpy()
    inside = (at >= 0) & (at < samples.num_rows)
    if outside := int((~inside).sum()):
        problems.append(f"{where}: {outside} verdicts on rows outside the shard's {samples.num_rows}; {AGAIN}")
    given = given.filter(pa.array(inside))
    same = pc.equal(given["sample_id"], samples["sample_id"].take(given["row"]))
    if others := given.num_rows - int(pc.sum(same).as_py() or 0):
        problems.append(f"{where}: {others} verdicts name another sample than stands in their row of the pool; {AGAIN}")
    given = given.filter(same)
    known = pc.is_in(given["filter"], pa.array([one["label"] for one in filters], pa.string()))
    if strange := given.num_rows - int(pc.sum(known).as_py() or 0):
        problems.append(f"{where}: {strange} verdicts of filters that its entry does not name; {AGAIN}")
    return given.filter(known), problems


def cascade(samples: pa.Table, given: pa.Table, filters: Sequence[Mapping[str, Any]], where: str) -> Iterator[str]:
    """Say where a filter did not see exactly the samples it is there for and every filter before it kept (an exhaustive one:
    those that could be read; near_miss: those that a verifier dropped), and where a sample was not kept more than once by filters
    that are not exhaustive."""
    rows = samples.num_rows
    anchor: Mask = samples["anchor"].to_numpy()
    at, kept = given["row"].to_numpy(), pc.equal(given["outcome"], Outcome.KEEP.value).to_numpy()
    alive: Mask = pc.is_null(samples["error"]).to_numpy().copy()
    everything: Mask = alive & pc.is_null(samples["unreadable"]).to_numpy()
    dropped: Mask = pc.equal(given["outcome"], Outcome.DROP.value).to_numpy()
    exhaustive: Mask = np.zeros(len(at), bool)
    missed: Mask = np.zeros(rows, bool)
    for facts in filters:
        aside = facts["role"] == Role.NEAR_MISS.value
        wanted = (everything if facts.get("exhaustive") else missed if aside else alive).copy()
        if facts.get("families") is not None:
            wanted &= pc.is_in(samples["family"], pa.array(facts["families"], pa.string())).to_numpy()
        if facts["scope"] != Scope.SAMPLE.value:
            wanted &= ~anchor
        mine: Mask = pc.equal(given["filter"], facts["label"]).to_numpy()
        exhaustive |= mine & (bool(facts.get("exhaustive")) or aside)
        times = np.bincount(at[mine], minlength=rows)
        if missing := int((wanted & (times == 0)).sum()):
            yield (
                f"{where}: {facts['label']} should have seen {int(wanted.sum())} samples, those every filter before it "
                f"kept; {missing} of them have no verdict of it; {AGAIN}"
            )
        if strangers := int(((times > 0) & ~wanted).sum()):
            yield f"{where}: {facts['label']} judged {strangers} samples that it should not have seen; {AGAIN}"
        if twice := int((times > 1).sum()):
            yield f"{where}: {facts['label']} judged {twice} samples more than once; {AGAIN}"
        if not aside:
            if facts["role"] == Role.VERIFIER.value:
                missed[at[mine & dropped & alive[at]]] = True
            alive[at[mine & ~kept]] = False
    if often := int((np.bincount(at[~kept & ~exhaustive], minlength=rows) > 1).sum()):
        yield f"{where}: {often} samples were dropped or undecided more than once, once is the most; {AGAIN}"


# -- inside --------------------------------------------------------------------------------------------------------------

AGAIN = "remove this file and run the same command again: it is made anew"
"""What to do about a damaged file."""


def _keep(store: Store, shard: int, judged: pa.Table) -> Iterator[str]:
    """Keep what became of each sample, for everything that reads it. What was kept of the same verdicts must be the same."""
    key, name = pool.judged_key(store, shard), pool.judged_name(shard)
    kept = store.entry(name)
    if key is None:
        return
    if kept is not None and kept.key == key and store.whole(kept, hashed=True):
        if not store.read_table(name).equals(judged.select(list(pool.JUDGED)).cast(pool.JUDGED_SCHEMA)):
            yield f"{store.path(kept.path)}: not what the verdicts of the shard come to; {AGAIN}"
        return
    with suppress(StoreError):  # a run that cannot be written to is audited all the same
        pool.write_judged(store, shard, judged, key)


def _entry(store: Store, name: str, *facts: str) -> Entry:
    """An entry that has these facts. Raises StoreError where it is none."""
    found = store.entry(name)
    if found is None or not all(fact in found.facts for fact in facts):
        raise StoreError(f"{store.path(name)}.json: damaged, it is no entry of its file; {AGAIN}")
    return found


def _rows_agree(path: str, noted: int, table: pa.Table) -> Iterator[str]:
    if table.num_rows != noted:
        yield f"{path}: {table.num_rows} rows found, {noted} noted in its entry; {AGAIN}"


def _as_planned(run: Run, shard: int, samples: pa.Table, path: str) -> Iterator[str]:
    """Compare the samples of each prompt with the plan: what the recipe asks for, or more where an earlier recipe asked for more;
    with target_hits, no fewer than the first wave."""
    store, sampling = run.store, run.recipe.sampling
    each = sampling.samples_per_prompt * len(sampling.temperatures) + sampling.anchor
    planned = store.read_group("prompts", shard)["prompt_id"]
    both = pa.chunked_array([*planned.chunks, *samples["prompt_id"].chunks], pa.string()).combine_chunks()
    codes = both.dictionary_encode().indices.to_numpy()
    wanted = each * np.bincount(codes[: len(planned)], minlength=codes.max(initial=-1) + 1)
    found = np.bincount(codes[len(planned) :], minlength=len(wanted))
    if wrong := int(((wanted > found) | (wanted == 0)).sum()):
        yield (
            f"{path}: {int(wanted.sum())} samples planned ({len(planned)} prompts, {each} each), {samples.num_rows} found; "
            f"{wrong} prompts have too few, or are not in the plan; {AGAIN}"
        )


def _by(table: pa.Table, columns: list[str]) -> Counter[Any]:
    """How often each combination of values occurs: a few, however many rows."""
    groups = table.group_by(columns).aggregate([([], "count_all")])
    found = zip(*(groups[name].to_pylist() for name in (*columns, "count_all")), strict=True)
    return Counter({row[:-1]: row[-1] for row in found})
