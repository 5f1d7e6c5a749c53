"""The index of released samples: what it finds, that it stays complete, and its errors when it cannot be used."""

import fcntl
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from filters.base import FilterError
from filters.similarity.duplicates import similarities
from filters.similarity.signatures import Signed, joined, signed
from thresher.dedupe import index, index_runs
from thresher.dedupe.index import Index

RULE = {"guard": "numbers", "run_characters": 200}
WORDS = [f"w{number}" for number in range(400)]


def texts(rows: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 20)) for _ in range(rows)]


def changed(text: str, words: int) -> str:
    parts = text.split()
    return " ".join([*parts[: len(parts) - words], *["else"] * words])


def signatures(some: list[str], guard: int = 0) -> Signed:
    return signed(pa.array(some, pa.string()), np.full(len(some), guard, np.uint64))


def names(some: list[str], release: str) -> list[str]:
    return [f"{release}-{number:04d}" for number in range(len(some))]


def add(folder: Path, release: str, some: list[str]) -> None:
    Index(folder, RULE).add(release, [(signatures(some), names(some, release))])


def test_released_texts_are_found_and_no_others(tmp_path: Path) -> None:
    first, second, others = texts(300), texts(200, 1), texts(400, 2)
    add(tmp_path, "one", first)
    add(tmp_path, "two", second)

    asked = [first[7].upper(), changed(second[9], 2), changed(first[8], 12), *others]
    found = Index(tmp_path, RULE).ask(signatures(asked), 0.7)

    assert found.names[:3] == ["one-0007", "two-0009", None]
    assert found.equal[:2].tolist() == [True, False]
    both = joined([signatures([second[9]]), signatures([asked[1]])])
    assert found.similarity[1] == pytest.approx(similarities(both, np.array([0]), np.array([1]))[0], abs=0.13)
    assert set(found.names[3:]) == {None}
    assert Index(tmp_path, RULE).ask(signatures(asked[:1], guard=1), 0.7).names == [None]


def test_many_copies_are_found(tmp_path: Path) -> None:
    """Nearly all copies with a similarity of 0.9 are found."""
    released = texts(2000)
    add(tmp_path, "one", released)

    found = Index(tmp_path, RULE).ask(signatures([changed(text, 1) for text in released]), 0.7)

    right = [name == expected for name, expected in zip(found.names, names(released, "one"), strict=True)]
    assert np.mean(right) > 0.99


def test_runs_are_merged_and_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With any size of the ranges in which runs are merged."""
    monkeypatch.setattr(index_runs, "RANGE_KEYS", 1000)
    monkeypatch.setattr(index_runs, "KEY_ROWS", 128)
    monkeypatch.setattr(index_runs, "SIGNATURE_ROWS", 16)
    monkeypatch.setattr(index_runs, "FILE_KEYS", 700)
    released = [texts(40, seed) for seed in range(9)]
    asked = [changed(text, 1) for some in released for text in some]
    for number, some in enumerate(released):
        add(tmp_path, f"r{number}", some)
    found = Index(tmp_path, RULE)
    said = found.ask(signatures(asked), 0.7)

    assert len(found.manifest.runs) == 3
    assert found.rows == 360
    assert found.manifest.releases == tuple(f"r{number}" for number in range(9))
    expected = [name for number, some in enumerate(released) for name in names(some, f"r{number}")]
    assert np.mean([one == other for one, other in zip(said.names, expected, strict=True)]) > 0.97
    monkeypatch.setattr(index, "TIER", 100)
    for number, some in enumerate(released):
        add(tmp_path / "apart", f"r{number}", some)
    assert Index(tmp_path / "apart", RULE).ask(signatures(asked), 0.7).names == said.names


def test_a_release_may_be_larger_than_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It arrives in batches and is written to several runs of files."""
    monkeypatch.setattr(index, "RUN_TEXTS", 16)
    some = texts(75)
    parts = [slice(first, first + 10) for first in range(0, 75, 10)]
    Index(tmp_path, RULE).add("one", ((signatures(some[part]), names(some, "one")[part]) for part in parts))

    found = Index(tmp_path, RULE)
    assert found.rows == 75
    assert [run.rows for run in found.manifest.runs] == [20, 20, 20, 15]
    assert found.ask(signatures(some), 0.7).names == names(some, "one")


def test_only_some_releases_may_be_asked_about(tmp_path: Path) -> None:
    some = texts(3)
    for release in ("one", "two", "three"):
        add(tmp_path, release, some)

    found = Index(tmp_path, RULE)
    assert found.ask(signatures(some), 0.7, known=()).names == [None] * 3
    assert found.ask(signatures(some), 0.7, known=["two"]).names == names(some, "two")
    assert found.ask(signatures(some), 0.7).names == names(some, "one")


def test_a_release_can_be_replaced(tmp_path: Path) -> None:
    old, new = texts(30), texts(20, 1)
    for release in ("zero", "one"):
        add(tmp_path, release, old if release == "one" else texts(10, 5))
    add(tmp_path, "two", texts(5, 9))
    add(tmp_path, "one", new)

    found = Index(tmp_path, RULE)
    assert found.rows == 35
    assert found.ask(signatures(old), 0.7).names == [None] * 30
    assert found.ask(signatures(new), 0.7).names == names(new, "one")
    assert found.manifest.releases == ("zero", "one", "two")


def test_releases_of_a_merged_run_can_be_replaced_one_after_the_other(tmp_path: Path) -> None:
    """Four runs are merged into one with four row groups, of which each replacement empties one."""
    releases = [f"r{number}" for number in range(index.TIER)]
    for number, release in enumerate(releases):
        add(tmp_path, release, texts(3, number))
    for number, release in enumerate(releases):
        add(tmp_path, release, texts(3, 10 + number))

    found = Index(tmp_path, RULE)
    assert found.rows == 3 * len(releases)
    assert found.ask(signatures(texts(3, 0)), 0.7).names == [None] * 3
    assert found.ask(signatures(texts(3, 13)), 0.7).names == names(texts(3), releases[-1])


def test_an_empty_index_is_replaced_by_a_complete_one(tmp_path: Path) -> None:
    first, second = texts(30), texts(20, 1)
    for name in ("there", "again", "broken", "cut", "other run"):
        add(tmp_path / name, "first", first)
        Index(tmp_path / name, RULE).add("second", [(signatures(second), names(second, "second"))], version="v")
    next((tmp_path / "broken").rglob("bloom.npy")).unlink()
    keys = next((tmp_path / "cut").rglob("keys-*.parquet"))
    keys.write_bytes(keys.read_bytes()[:-9])
    texts_of, others = sorted((tmp_path / "other run").rglob("signatures.parquet"))
    texts_of.write_bytes(others.read_bytes())

    here = Index(tmp_path / "here", RULE)
    with pytest.raises(FilterError, match=r"bloom.npy is missing"):
        here.adopt(tmp_path / "broken")
    for damaged in ("cut", "other run"):
        with pytest.raises(FilterError, match="its files are damaged"):
            here.adopt(tmp_path / damaged)
    here.adopt(tmp_path / "there")
    assert Index(tmp_path / "here", RULE).manifest == Index(tmp_path / "again", RULE).manifest
    assert Index(tmp_path / "here", RULE).manifest.versions == {"first": "", "second": "v"}
    assert Index(tmp_path / "here", RULE).ask(signatures([*first, *second]), 0.7).names == [
        *names(first, "first"),
        *names(second, "second"),
    ]
    add(tmp_path / "here", "third", texts(5, 3))
    here.adopt(tmp_path / "again")
    assert Index(tmp_path / "here", RULE).rows == 55
    Index(tmp_path / "other", {"guard": "none"}).add("other", [(signatures(first), names(first, "other"))])
    with pytest.raises(FilterError, match="the rule"):
        Index(tmp_path / "new", RULE).adopt(tmp_path / "other")


def test_one_without_releases_and_texts_without_words(tmp_path: Path) -> None:
    assert Index(tmp_path / "none", RULE).ask(signatures(["a b c"]), 0.7).names == [None]
    assert Index(tmp_path / "none", RULE).ask(signatures([]), 0.7).names == []
    Index(tmp_path, RULE).add("empty", [])
    Index(tmp_path, RULE).add("blank", [(signatures(["", "x"]), ["b0", "b1"])])
    assert Index(tmp_path, RULE).ask(signatures([" ", "x", "y"]), 0.7).names == ["b0", "b1", None]


def test_an_index_that_cannot_be_used_is_refused_with_the_reason(tmp_path: Path) -> None:
    add(tmp_path, "one", texts(3))
    with pytest.raises(FilterError, match=r"made with the rule .*200.*, wanted .*answer.*rebuild it"):
        Index(tmp_path, {"guard": "answer"})
    path = tmp_path / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scheme": "other_v0"}))
    with pytest.raises(FilterError, match=r"index.json: the index was made with the scheme other_v0, wanted"):
        Index(tmp_path, RULE)
    path.write_text("{")
    with pytest.raises(FilterError, match=r"not an index of thresher"):
        Index(tmp_path, RULE)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "things.txt").touch()
    with pytest.raises(FilterError, match=r"holds other files"):
        Index(tmp_path / "other", RULE)


def test_a_failed_write_leaves_the_index_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some, more = texts(30), texts(30, 1)
    add(tmp_path, "one", some)
    with monkeypatch.context() as broken:
        broken.setattr(Index, "_switch", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
        with pytest.raises(OSError, match="no space"):
            add(tmp_path, "two", more)
    assert Index(tmp_path, RULE).manifest.releases == ("one",)
    assert len(list((tmp_path / "runs").iterdir())) == 2
    add(tmp_path, "two", more)
    assert Index(tmp_path, RULE).ask(signatures([*some, *more]), 0.7).names == [*names(some, "one"), *names(more, "two")]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == sorted(
        run.name for run in Index(tmp_path, RULE).manifest.runs
    )


@pytest.mark.slow
def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    """Even before there is a manifest."""
    left = tmp_path / ".index.json.7.tmp"
    for release in ("one", "two"):
        left.write_bytes(b"{")
        add(tmp_path, release, texts(3))
        assert not left.exists()


def test_leftovers_are_removed_while_nobody_writes(tmp_path: Path) -> None:
    """A folder that looks left may belong to the merge of a writer elsewhere. Nobody waits for one to remove it."""
    add(tmp_path, "one", texts(3))
    left = tmp_path / "runs/.run.7-0123abcd@elsewhere.tmp"
    with (tmp_path / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        left.mkdir()
        os.utime(left, (0, 0))
        Index(tmp_path, RULE).remove_leftovers()
        with Index(tmp_path, RULE).beside():
            assert left.exists()
    Index(tmp_path, RULE).remove_leftovers()
    assert not left.exists()


@pytest.mark.slow
def test_writers_wait_for_one_another(tmp_path: Path) -> None:
    spawn: Any = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=add, args=(tmp_path, f"r{number}", texts(50, number))) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert sorted(Index(tmp_path, RULE).manifest.releases) == ["r0", "r1", "r2", "r3"]
    assert Index(tmp_path, RULE).rows == 200
