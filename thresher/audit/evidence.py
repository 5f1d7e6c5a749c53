"""How far a run's filters can be trusted: classes of evidence, canaries, the pull of length on scores, overlaps, and alarms."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from filters.base import Role
from schemas.sample import CLASSES, Outcome, verdict_class

MOST = {"unparsed": 0.30, "timeout": 0.005, "crash": 0.005, "verifier_error": 0.0, "tampering": 0.0}
"""Shares of a verifier's verdicts above which there is an alarm."""
MOST_ERRORS, ERROR_CHARS, OTHER = 20, 100, "other errors"
"""Different errors of a filter and reason that are counted apart, and how much of each tells them apart."""
WHY = {
    "unparsed": "no answer could be read from so many: look at the few-shot turns and at what the filter takes for an answer",
    "timeout": "raise the filter's seconds, or run fewer processes side by side",
    "crash": "look at the errors in the verdicts' detail",
    "verifier_error": "the filter itself failed: mend it, raise its version, run again",
    "tampering": "programs meddled with how they are judged: read them",
}


@dataclass(frozen=True)
class Evidence:
    """What is summed of one shard's verdicts, or of several, beside their counts."""

    scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """By filter: n and the sums of x, y, x^2, y^2, x y, with x the characters of a completion and y its score."""
    canaries: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By filter and `asked` or `right`."""
    benchmarks: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Contaminated samples by filter and benchmark."""
    overlaps: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By two filters that are shown every sample: samples that both saw (`seen`), and of those what the `first`, the `second`,
    and `both` dropped."""
    errors: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Samples by filter, the reason why it could not judge them, and the beginning of the error; `other` beyond MOST_ERRORS."""

    def add(self, other: "Evidence") -> None:
        """Count another shard's in."""
        for label, sums in other.scores.items():
            self.scores[label] = self.scores.get(label, np.zeros(6)) + sums
        self.canaries.update(other.canaries)
        self.benchmarks.update(other.benchmarks)
        self.overlaps.update(other.overlaps)
        self.errors.update(other.errors)
        _trim(self.errors)


def evidence_of(
    given: pa.Table, filters: Sequence[Mapping[str, Any]], anchor: NDArray[np.bool_], characters: NDArray[np.int64]
) -> Evidence:
    """Sum up the verdicts (schema VERDICTS) on one shard. By row of it: whether the sample is an anchor, which counts in nothing
    but canaries, and the length of its completion."""
    found = Evidence()
    for facts in filters:
        label, mine = facts["label"], given.filter(pc.equal(given["filter"], facts["label"]))
        batches = {str(detail["canaries"]): detail["canaries"] for detail in _details(mine, "canaries")}
        for canaries in batches.values():  # equal samples have equal verdicts, so a batch may be told of twice
            found.canaries.update({(label, "asked"): int(canaries["asked"]), (label, "right"): int(canaries["right"])})
    given = given.filter(pa.array(~anchor[given["row"].to_numpy()]))
    for facts in filters:
        mine = given.filter(pc.equal(given["filter"], facts["label"]))
        if facts["role"] in (Role.VERIFIER.value, Role.QUALITY.value):
            found.add(_of_one(facts["label"], mine, characters))
    wide = [facts["label"] for facts in filters if facts.get("exhaustive")]
    found.overlaps.update(dict(_overlaps(given, wide, len(characters))))
    undecided = given.filter(pc.equal(given["outcome"], Outcome.UNDECIDED.value))
    columns = (undecided[name].to_pylist() for name in ("filter", "reason", "detail"))
    for label, reason, detail in zip(*columns, strict=True):
        if detail is not None and isinstance(error := json.loads(detail).get("error"), str):
            found.errors[label, reason, error.split("\n")[0][:ERROR_CHARS]] += 1
    _trim(found.errors)
    return found


def _overlaps(given: pa.Table, wide: Sequence[str], rows: int) -> Iterator[tuple[tuple[str, str, str], int]]:
    seen, dropped = np.zeros((rows, len(wide)), np.int64), np.zeros((rows, len(wide)), np.int64)
    for column, label in enumerate(wide):
        mine = given.filter(pc.equal(given["filter"], label))
        seen[mine["row"].to_numpy(), column] = 1
        dropped[mine["row"].filter(pc.equal(mine["outcome"], Outcome.DROP.value)).to_numpy(), column] = 1
    sums = {"seen": seen.T @ seen, "first": dropped.T @ seen, "second": seen.T @ dropped, "both": dropped.T @ dropped}
    for i, one in enumerate(wide):
        for j, other in enumerate(wide[i + 1 :], start=i + 1):
            yield from (((one, other, name), int(table[i, j])) for name, table in sums.items())


def _trim(errors: Counter[tuple[str, str, str]]) -> None:
    """Keep the most frequent errors of each filter and reason; the rest is `other`."""
    places = Counter[tuple[str, str]]()
    for (label, reason, error), count in errors.most_common():
        if error != OTHER:
            places[label, reason] += 1
            if places[label, reason] > MOST_ERRORS:
                del errors[label, reason, error]
                errors[label, reason, OTHER] += count


def _of_one(label: str, mine: pa.Table, characters: NDArray[np.int64]) -> Evidence:
    found = Evidence()
    scored = mine.filter(pc.is_valid(mine["score"]))
    if scored.num_rows:
        x, y = characters[scored["row"].to_numpy()].astype(np.float64), scored["score"].to_numpy()
        found.scores[label] = np.array([len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()])
    for detail in _details(mine.filter(pc.equal(mine["reason"], "contaminated")), "benchmark"):
        found.benchmarks[label, str(detail["benchmark"])] += 1
    return found


def _details(mine: pa.Table, key: str) -> Iterator[dict[str, Any]]:
    """The details that hold a key, parsed; the search for it is columnar, so that only those are."""
    texts = mine["detail"].filter(pc.fill_null(pc.match_substring(mine["detail"], f'"{key}"'), False))
    for text in texts.to_pylist():
        detail = json.loads(text)
        if key in detail:
            yield detail


def correlation(sums: NDArray[np.float64]) -> float | None:
    """Pearson's r of score and length from the sums of Evidence.scores; None where one of them does not vary."""
    n, x, y, xx, yy, xy = sums.tolist()
    spread = (n * xx - x * x) * (n * yy - y * y)
    return None if n < 3 or spread <= 1e-12 * n * n * xx * yy else float((n * xy - x * y) / spread**0.5)


def classes_of(kept: int, dropped: Mapping[str, int], undecided: Mapping[str, int]) -> dict[str, int]:
    """A verifier's verdicts by class, each of CLASSES."""
    found = Counter({"pass": kept, "fail": sum(dropped.values())})
    for reason, count in undecided.items():
        found[verdict_class(Outcome.UNDECIDED.value, reason)] += count
    return {name: found[name] for name in CLASSES}


def alarms(filters: Iterable[Any], facts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Where a verifier (FilterStats) says too little to be trusted, in words."""
    for one in filters:
        if one.role != Role.VERIFIER.value or not one.seen:
            continue
        for name, most in MOST.items():
            if one.classes[name] > most * one.seen:
                share = f"{one.classes[name]} of {one.seen} ({one.classes[name] / one.seen:.1%})"
                yield f"{one.name}: {name} {share}, at most {most:.1%} is wanted; {WHY[name]}"
        if one.canaries:
            wanted = float(facts[one.name].get("parameters", {}).get("canary_accuracy", 1.0))
            if one.canaries["right"] < wanted * one.canaries["asked"]:
                yield (
                    f"{one.name}: {one.canaries['right']} of {one.canaries['asked']} canaries judged right, {wanted:.0%} is "
                    "wanted; its verdicts are worth as much"
                )
