"""Duplicates found through files are those found in memory, however the work is divided."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from filters.similarity.duplicates import Clusters, Order, among
from filters.similarity.signatures import Signed, signed
from thresher.dedupe import components, out_of_core
from thresher.dedupe.components import read_repeats
from thresher.dedupe.duplicate_links import join
from thresher.dedupe.signed_texts import sign
from thresher.dedupe.step_files import Plan
from thresher.errors import SourceError

THRESHOLD = 0.7


def corpus(rows: int = 900) -> list[str]:
    """Texts with copies: some equal, some with a word changed, many of one refusal, some empty."""
    rng = np.random.default_rng(7)
    texts: list[str] = []
    for row in range(rows):
        kind = rng.integers(0, 10)
        if row > 20 and kind < 3:
            words = texts[int(rng.integers(0, row))].split()
            if kind and words:
                words[int(rng.integers(0, len(words)))] = "else"
            texts.append(" ".join(words))
        elif kind == 3:
            texts.append(f"I am sorry but as a language model of the kind number {row % 7} I can not help you with that")
        elif kind == 4:
            texts.append("" if row % 2 else "!")
        else:
            texts.append(" ".join(rng.choice([f"w{number}" for number in range(300)], 12)))
    return texts


def order_of(texts: list[str], first: int = 0) -> Order:
    numbers = np.arange(first, first + len(texts), dtype=np.uint64)
    return Order([np.array([len(text) for text in texts], float)], np.stack([numbers, numbers * 0], axis=1))


def signatures(texts: list[str]) -> Signed:
    return signed(pa.array(texts, pa.string()), np.zeros(len(texts), np.uint64))


def in_memory(texts: list[str]) -> Clusters:
    return among(signatures(texts), order_of(texts).rank(), THRESHOLD)


def written(folder: Path, texts: list[str], size: int) -> str:
    for part, first in enumerate(range(0, len(texts), size)):
        some = texts[first : first + size]
        sign(str(folder), part, signatures(some), order_of(some, first))
    return str(folder)


@pytest.mark.parametrize(("size", "memory"), [(1000, 1 << 30), (100, 20_000), pytest.param(37, 3_000, marks=pytest.mark.slow)])
def test_the_same_as_in_memory_however_it_is_cut(tmp_path: Path, size: int, memory: int) -> None:
    texts = corpus()
    plan = Plan(written(tmp_path, texts, size), THRESHOLD, memory)

    out_of_core.find_repeats(plan)

    found = read_repeats(plan)
    scopes = found.scopes
    expected = in_memory(texts)
    assert found.originals.tolist() == expected.originals.tolist()
    assert found.similarity.tolist() == expected.similarity.tolist()
    assert ((scopes == components.ALL) == (found.originals != np.arange(len(texts)))).all()
    assert (scopes == components.ALL).sum() > 200


@pytest.mark.slow
def test_workers_side_by_side_make_the_same_files(tmp_path: Path) -> None:
    texts = corpus()
    plans = [Plan(written(tmp_path / name, texts, 90), THRESHOLD, 9_000) for name in ("alone", "many")]

    def many(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        with ThreadPoolExecutor(4) as threads:
            return list(threads.map(lambda part: function(*part), [*arguments[::-1], *arguments]))

    out_of_core.find_repeats(plans[0])
    out_of_core.find_repeats(plans[1], many)

    for file in sorted(tmp_path.glob("alone/links/*")):
        other = np.load(tmp_path / "many" / "links" / file.name)["rows"]
        assert np.load(file)["rows"].tolist() == other.tolist()
    assert read_repeats(plans[0]).originals.tolist() == read_repeats(plans[1]).originals.tolist()


def test_finished_files_are_kept_and_a_failure_costs_one_file(tmp_path: Path) -> None:
    texts = corpus(300)
    plan = Plan(written(tmp_path, texts, 90), THRESHOLD, 9_000)
    failures: list[str] = []

    def failing(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        for number, part in enumerate(arguments):
            if function is join and number == 5 and not failures:
                failures.append("join 5")
                raise OSError("no space left")
            function(*part)
        return []

    with pytest.raises(OSError, match="no space"):
        out_of_core.find_repeats(plan, failing)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("links/*")}
    assert len(before) == 5
    out_of_core.find_repeats(plan, failing)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert read_repeats(plan).originals.tolist() == in_memory(texts).originals.tolist()
    assert not list(tmp_path.rglob(".*"))


def test_another_threshold_keeps_the_signatures_alone(tmp_path: Path) -> None:
    texts = corpus(300)
    folder = written(tmp_path, texts, 300)
    out_of_core.find_repeats(Plan(folder, THRESHOLD, 1 << 20))
    out_of_core.find_repeats(Plan(folder, 0.95, 1 << 20))

    kept = [int((read_repeats(Plan(folder, 0.95, 1 << 20)).scopes == 0).sum())]
    assert kept[0] > len(np.unique(in_memory(texts).originals))


def test_signatures_of_another_version_are_refused(tmp_path: Path) -> None:
    plan = Plan(written(tmp_path, corpus(30), 30), THRESHOLD, 1 << 20)
    out_of_core.find_repeats(plan)
    path = tmp_path / "plan.json"
    path.write_text(path.read_text().replace("_v", "_v9"))

    with pytest.raises(SourceError, match=r"signatures of the scheme .*_v9.*; remove the folder"):
        out_of_core.find_repeats(plan)


@pytest.mark.slow
def test_a_million_times_the_same_costs_little_memory(tmp_path: Path) -> None:
    """A bucket larger than a chunk is passed through in pieces."""
    refusals = [f"I am sorry but as a language model of kind {number} I can not help you with that today" for number in range(2)]
    texts = [refusals[row % 2] + " " + "ab"[row % 3 == 0] * (row % 9) for row in range(100_000)]
    plan = Plan(written(tmp_path, texts, 20_000), THRESHOLD, 100_000)

    out_of_core.find_repeats(plan)

    assert read_repeats(plan).originals.tolist() == in_memory(texts).originals.tolist()
