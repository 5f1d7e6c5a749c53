"""How far a run's filters can be trusted: classes of verdicts, canaries, correlation of scores with length, overlaps, and
alarms."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from filters.base import Role
from filters.models.canaries import KINDS, failed
from schemas.sample import CLASSES, Outcome, verdict_class
from thresher.auditing.audit import CanaryKind, FilterStats
from thresher.estimators.intervals import wilson
from thresher.pool.judged import is_broken

MOST = {"unparsed": 0.30, "timeout": 0.005, "crash": 0.005, "verifier_error": 0.0, "tampering": 0.0}
"""Largest share of a verifier's verdicts in each class; above it there is an alarm."""
MOST_ERRORS, ERROR_CHARS, OTHER = 20, 200, "other errors"
"""Different errors that are counted separately for each filter and reason, and the number of characters by which they are
compared."""
ADVICE = {
    "unparsed": "no answer could be read from many completions: check the few-shot turns and how the filter finds the answer",
    "timeout": "raise the filter's seconds, or run fewer processes in parallel",
    "crash": "look at the errors in the verdicts' detail",
    "verifier_error": "the filter itself failed: mend what is broken and run again, which asks again",
    "tampering": "programs interfered with how they are judged: read them",
}


@dataclass(frozen=True)
class Evidence:
    """Sums over the verdicts of one shard, or of several, besides their counts."""

    scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """By filter: n and the sums of x, y, x^2, y^2, x y, with x the characters of a completion and y its score."""
    canaries: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By filter, and `asked` or `right`, of all kinds; and for each kind, `asked.KIND` or `right.KIND`."""
    benchmarks: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Contaminated samples by filter and benchmark."""
    overlaps: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By two exhaustive filters: samples that both saw (`seen`), and how many of those the `first`, the `second`, and `both`
    dropped."""
    errors: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Undecided samples by filter, reason, and the first characters of the error; OTHER beyond MOST_ERRORS."""
    broken: Counter[str] = field(default_factory=Counter)
    """By filter: samples that are undecided because something else was broken."""

    def add(self, other: "Evidence") -> None:
        """Add the sums of other shards."""
        for label, sums in other.scores.items():
            self.scores[label] = self.scores.get(label, np.zeros(6)) + sums
        self.canaries.update(other.canaries)
        self.benchmarks.update(other.benchmarks)
        self.overlaps.update(other.overlaps)
        self.errors.update(other.errors)
        self.broken.update(other.broken)
        _trim(self.errors)


def evidence_of(
    verdicts: pa.Table, filters: Sequence[Mapping[str, Any]], anchor: NDArray[np.bool_], characters: NDArray[np.int64]
) -> Evidence:
    """Sum up the verdicts (schema VERDICTS) on one shard. `anchor` (n,) marks the anchors, which count only for canaries;
    `characters` (n,) are the lengths of the completions."""
    evidence = Evidence()
    for facts in filters:
        label, of_filter = facts["label"], verdicts.filter(pc.equal(verdicts["filter"], facts["label"]))
        batches = {str(detail["canaries"]): detail["canaries"] for detail in _details(of_filter, "canaries")}
        for canaries in batches.values():  # equal samples have equal verdicts, so a batch may be reported twice
            evidence.canaries.update({(label, "asked"): int(canaries["asked"]), (label, "right"): int(canaries["right"])})
            for kind, (asked, right) in canaries.get("kinds", {}).items():
                evidence.canaries.update({(label, f"asked.{kind}"): int(asked), (label, f"right.{kind}"): int(right)})
    verdicts = verdicts.filter(pa.array(~anchor[verdicts["row"].to_numpy()]))
    for facts in filters:
        of_filter = verdicts.filter(pc.equal(verdicts["filter"], facts["label"]))
        if facts["role"] in (Role.VERIFIER.value, Role.QUALITY.value):
            evidence.add(_of_filter(facts["label"], of_filter, characters))
    exhaustive = [facts["label"] for facts in filters if facts.get("exhaustive")]
    evidence.overlaps.update(dict(_overlaps(verdicts, exhaustive, len(characters))))
    undecided = verdicts.filter(pc.equal(verdicts["outcome"], Outcome.UNDECIDED.value))
    for counted in pc.value_counts(undecided.filter(is_broken(undecided))["filter"]).to_pylist():
        evidence.broken[counted["values"]] += counted["counts"]
    columns = (undecided[name].to_pylist() for name in ("filter", "reason", "detail"))
    for label, reason, detail in zip(*columns, strict=True):
        if detail is not None and isinstance(error := json.loads(detail).get("error"), str):
            evidence.errors[label, reason, error.split("\n")[0][:ERROR_CHARS]] += 1
    _trim(evidence.errors)
    return evidence


def correlation(sums: NDArray[np.float64]) -> float | None:
    """Pearson's r of score and length from the sums of Evidence.scores; None if one of them does not vary."""
    n, x, y, xx, yy, xy = sums.tolist()
    spread = (n * xx - x * x) * (n * yy - y * y)
    return None if n < 3 or spread <= 1e-12 * n * n * xx * yy else float((n * xy - x * y) / spread**0.5)


def classes_of(kept: int, dropped: Mapping[str, int], undecided: Mapping[str, int]) -> dict[str, int]:
    """A verifier's verdicts by class, for each of CLASSES."""
    numbers = Counter({"pass": kept, "fail": sum(dropped.values())})
    for reason, number in undecided.items():
        numbers[verdict_class(Outcome.UNDECIDED.value, reason)] += number
    return {name: numbers[name] for name in CLASSES}


def canary_kinds(counts: Mapping[str, int], accuracy: float) -> dict[str, CanaryKind]:
    """How a judge did on each kind of canary. `counts` has `asked.KIND` and `right.KIND`; `accuracy` is the share that it must
    judge right."""
    kinds = {}
    for kind, facts in KINDS.items():
        if asked := counts.get(f"asked.{kind}", 0):
            right = counts.get(f"right.{kind}", 0)
            interval = wilson(1 - right / asked, asked)
            kinds[kind] = CanaryKind(facts.failure, asked, right, interval, fails=failed(right, asked, accuracy))
    return kinds


def accuracy_required(facts: Mapping[str, Any]) -> float:
    """The share of its canaries that a filter must judge right, from its recorded facts."""
    return float(facts.get("parameters", {}).get("canary_accuracy", 1.0))


def alarms(filters: Iterable[FilterStats], facts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Report verifiers with too little evidence to be trusted, in words."""
    for stats in filters:
        if stats.role != Role.VERIFIER.value or not stats.seen:
            continue
        for name, most in MOST.items():
            if stats.classes[name] > most * stats.seen:
                share = f"{stats.classes[name]} of {stats.seen} ({stats.classes[name] / stats.seen:.1%})"
                yield f"{stats.name}: {name} {share}, at most {most:.1%} is acceptable; {ADVICE[name]}"
        if stats.canaries:
            wanted, asked, right = accuracy_required(facts[stats.name]), stats.canaries["asked"], stats.canaries["right"]
            if right < wanted * asked:
                low, high = wilson(right / asked, asked)
                share = f"{right / asked:.1%}, 95% interval {low:.1%} to {high:.1%}"
                yield (
                    f"{stats.name}: {right} of {asked} canaries judged right ({share}), at least {wanted:.0%} is required; "
                    "do not trust its verdicts"
                )
            for kind in stats.canary_kinds.values():
                if kind.fails:
                    yield f"{stats.name}: {kind}, at most {1 - wanted:.0%} is acceptable; do not trust its verdicts"


def kinds_of_errors(errors: Counter[str]) -> Counter[str]:
    """Count errors by the beginning of their first line. Where they are of more than MOST_ERRORS kinds, numbers in them count as
    equal; of still more, the rarest are summed up as OTHER."""
    kinds: Counter[str] = Counter()
    for error, count in errors.items():
        kinds[error.split("\n")[0][:ERROR_CHARS]] += count
    if len(kinds) > MOST_ERRORS:
        equal, kinds = kinds, Counter()
        for error, count in equal.items():
            kinds[re.sub(r"\d+", "N", error)] += count
    other = sum(count for error, count in kinds.most_common()[MOST_ERRORS:] if error != OTHER)
    kept = {error: count for error, count in kinds.most_common()[:MOST_ERRORS] if error != OTHER}
    return Counter(kept | ({OTHER: other + kinds[OTHER]} if other or kinds[OTHER] else {}))


# -- inside --------------------------------------------------------------------------------------------------------------


def _overlaps(verdicts: pa.Table, labels: Sequence[str], rows: int) -> Iterator[tuple[tuple[str, str, str], int]]:
    seen, dropped = np.zeros((rows, len(labels)), np.int64), np.zeros((rows, len(labels)), np.int64)
    for column, label in enumerate(labels):
        of_filter = verdicts.filter(pc.equal(verdicts["filter"], label))
        seen[of_filter["row"].to_numpy(), column] = 1
        dropped[of_filter["row"].filter(pc.equal(of_filter["outcome"], Outcome.DROP.value)).to_numpy(), column] = 1
    sums = {"seen": seen.T @ seen, "first": dropped.T @ seen, "second": seen.T @ dropped, "both": dropped.T @ dropped}
    for i, first in enumerate(labels):
        for j, second in enumerate(labels[i + 1 :], start=i + 1):
            yield from (((first, second, name), int(table[i, j])) for name, table in sums.items())


def _trim(errors: Counter[tuple[str, str, str]]) -> None:
    """Keep the most frequent errors of each filter and reason, and sum up the rest as OTHER."""
    ranks = Counter[tuple[str, str]]()
    for (label, reason, error), number in errors.most_common():
        if error != OTHER:
            ranks[label, reason] += 1
            if ranks[label, reason] > MOST_ERRORS:
                del errors[label, reason, error]
                errors[label, reason, OTHER] += number


def _of_filter(label: str, verdicts: pa.Table, characters: NDArray[np.int64]) -> Evidence:
    """The scores and benchmarks of one filter."""
    evidence = Evidence()
    scored = verdicts.filter(pc.is_valid(verdicts["score"]))
    if scored.num_rows:
        x, y = characters[scored["row"].to_numpy()].astype(np.float64), scored["score"].to_numpy()
        evidence.scores[label] = np.array([len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()])
    for detail in _details(verdicts.filter(pc.equal(verdicts["reason"], "contaminated")), "benchmark"):
        evidence.benchmarks[label, str(detail["benchmark"])] += 1
    return evidence


def _details(verdicts: pa.Table, key: str) -> Iterator[dict[str, Any]]:
    """The parsed details that have a key. The columnar search for it avoids parsing the rest."""
    texts = verdicts["detail"].filter(pc.fill_null(pc.match_substring(verdicts["detail"], f'"{key}"'), False))
    for text in texts.to_pylist():
        detail = json.loads(text)
        if key in detail:
            yield detail
