"""The audit of a run is counted once for each state of the run's files."""

import json
import os
from pathlib import Path

import pytest

from helpers.small_run import small_run
from thresher.auditing import cache, kept
from thresher.auditing.audit import Audit
from thresher.auditing.cache import cached_audit, cached_drift_sums, cached_statistics
from thresher.auditing.count_run import count
from thresher.auditing.drift import share_sums
from thresher.auditing.statistics import statistics
from thresher.errors import StoreError
from thresher.executors.executor import Map
from thresher.pool.run import Run
from thresher.pool.store import Store

FILE = f"{kept.FOLDER}/audit.json"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that were counted."""
    names: list[str] = []

    def count_and_note(run: Run, map_shards: Map) -> Audit:
        names.append(Path(run.root).name)
        return count(run, map_shards)

    monkeypatch.setattr(cache, "count", count_and_note)
    return names


def test_a_run_is_counted_again_only_when_its_pool_changes(tmp_path: Path, counted: list[str]) -> None:
    run = small_run(tmp_path / "one")
    audit = cached_audit(run)
    run.store.write_bytes("report.html", b"...")

    assert cached_audit(run) == audit
    assert counted == ["one"]

    run.store.remove("verdicts/00002.json")

    assert cached_audit(run).shards.judged == audit.shards.judged - 1
    assert counted == ["one", "one"]


@pytest.mark.slow
def test_what_is_kept_equals_what_is_computed(tmp_path: Path) -> None:
    run = small_run(tmp_path / "one", corpus=True)
    for _ in range(2):
        assert cached_audit(run) == count(run)
        assert cached_statistics(run) == statistics(run)
        assert cached_drift_sums(run) == share_sums(run)


@pytest.mark.parametrize("torn", ["{", "[]", '{"key": "other", "audit": {}}'])
def test_a_torn_or_foreign_file_is_not_believed(tmp_path: Path, counted: list[str], torn: str) -> None:
    run = small_run(tmp_path / "one")
    audit = cached_audit(run)
    run.store.write_bytes(FILE, torn.encode())

    assert cached_audit(run) == audit
    assert counted == ["one", "one"]
    assert json.loads(run.store.read_bytes(FILE))["key"] == kept.state_of(run)


def test_a_run_that_cannot_be_written_to_is_counted_each_time(
    tmp_path: Path, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run(tmp_path / "one")

    def refuse(*_: object, **__: object) -> None:
        raise StoreError("read-only")

    monkeypatch.setattr(Store, "write_bytes", refuse)

    assert cached_audit(run) == cached_audit(run)
    assert counted == ["one", "one"]


def test_counting_again_finds_damage_that_leaves_size_and_time(tmp_path: Path) -> None:
    run = small_run(tmp_path / "one")
    cached_audit(run)
    file = tmp_path / "one" / "samples" / "00001.parquet"
    before = file.stat()
    file.write_bytes(file.read_bytes()[:-9] + b"x" * 9)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert cached_audit(run).problems == ()

    kept.forget(run)

    assert any("damaged" in problem for problem in cached_audit(run).problems)
