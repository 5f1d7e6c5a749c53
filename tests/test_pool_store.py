"""The run directory: whole files or none, damage found, errors that say what to do."""

import os
import resource
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters import trust
from thresher.errors import SourceError, StoreError
from thresher.pool import store as store_module
from thresher.pool.store import Store

TABLE = pa.table({"a": list(range(1000))})


def test_written_tables_read_back(tmp_path: Path) -> None:
    """With an entry that says how many rows and bytes it has."""
    store = Store(tmp_path)
    entry = store.write_table("samples/00000", TABLE, key="k", facts={"x": 1})

    assert store.finished("samples/00000", "k") == entry
    assert (entry.rows, entry.facts) == (1000, {"x": 1})
    assert store.read_table("samples/00000").equals(TABLE)


def test_a_file_made_from_something_else_does_not_count(tmp_path: Path) -> None:
    """The key is the hash of what it was made from."""
    store = Store(tmp_path)
    store.write_table("samples/00000", TABLE, key="k")

    assert store.finished("samples/00000", "other") is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "entry"])
def test_a_damaged_shard_is_named_moved_aside_and_not_counted(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A torn write, a flipped byte, a lost file, an entry that is no entry."""
    store = Store(tmp_path)
    store.write_table("samples/00000", TABLE, key="k")
    path = tmp_path / "samples/00000.parquet"
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[:-10])
    elif damage == "flipped":
        path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    elif damage == "gone":
        path.unlink()
    else:
        path = tmp_path / "samples/00000.json"
        path.write_text("{}")

    assert store.finished("samples/00000", "k") is None
    assert str(path) in caplog.text
    if damage != "gone":
        assert path.with_name(f"{path.name}.damaged").exists()


def test_reading_a_damaged_shard_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Its hash is compared before its rows are used."""
    store = Store(tmp_path)
    store.write_table("samples/00000", TABLE, key="k")
    path = tmp_path / "samples/00000.parquet"
    path.write_bytes(path.read_bytes()[::-1])

    with pytest.raises(StoreError, match=r"00000.parquet: damaged.*run `thresher run` again"):
        store.read_table("samples/00000")


def test_an_unwritable_directory_is_explained(tmp_path: Path) -> None:
    """A file stands where the run directory should be; that fails for root too."""
    (tmp_path / "run").write_text("in the way")

    with pytest.raises(StoreError, match=r"run.*cannot write"):
        Store(tmp_path / "run").write_table("samples/00000", TABLE, key="k")


def test_a_directory_without_permission_is_named_with_advice() -> None:
    """Nobody makes directories in /sys, root neither."""
    with pytest.raises(StoreError, match=r"/sys/.*cannot write.*choose a directory you may write with --out"):
        Store("/sys/thresher").write_table("samples/00000", TABLE, key="k")


@pytest.mark.slow
def test_a_full_disk_keeps_what_is_finished(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk's end: the write fails half-way, the old shard stays whole."""
    store = Store(tmp_path)
    store.write_table("samples/00000", TABLE, key="k")
    code = (
        "import resource, signal, sys, pyarrow as pa\n"
        "from thresher.pool.store import Store; from thresher.errors import StoreError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))\n"
        "try: Store(sys.argv[1]).write_table('samples/00001', pa.table({'a': list(range(1000))}), key='k')\n"
        "except StoreError as error: print(error); sys.exit(7)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)

    assert ended.returncode == 7, ended.stderr
    assert "00001.parquet: cannot write: File too large; free some space" in ended.stdout
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["00000.json", "00000.parquet"]
    assert store.finished("samples/00000", "k") is not None
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 512


def test_a_run_may_live_on_any_fsspec_file_system() -> None:
    """Here in memory."""
    store = Store("memory://runs/one")
    entry = store.write_table("samples/00000", TABLE, key="k")

    assert store.finished("samples/00000", "k") == entry
    assert store.names("samples", ".json") == ["00000.json"]
    assert store.read_table("samples/00000").equals(TABLE)


def test_a_manifest_of_another_version_is_refused(tmp_path: Path) -> None:
    """Never guessed at."""
    (tmp_path / "run.json").write_text(
        '{"pool_version": 99, "name": "a", "origin": "sampled", "sampling_key": "", "recipe": {}, '
        '"model": {}, "thresher_version": "9"}'
    )

    with pytest.raises(StoreError, match="pool version 99, wanted 3"):
        Store(tmp_path).manifest()


def test_a_large_table_is_written_in_several_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers hold one at a time, and Arrow cannot read one with more than 2 GiB of messages."""
    monkeypatch.setattr(store_module, "GROUP_BYTES", 2_000)
    store = Store(tmp_path)
    store.write_table("samples/00000", TABLE, key="k")
    metadata = pq.read_metadata(tmp_path / "samples/00000.parquet")

    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [250] * 4
    assert store.read_table("samples/00000").equals(TABLE)


@pytest.mark.parametrize("root", ["{tmp}", "memory://groups"])
def test_groups_are_written_as_they_are_made(tmp_path: Path, root: str) -> None:
    """None is kept, facts may be counted on the way, and an error while one is made leaves the file as it was."""
    store, facts = Store(root.format(tmp=tmp_path)), dict[str, int]()
    made: list[weakref.ref[pa.Table]] = []

    def groups(count: int) -> Iterator[pa.Table]:
        for number in range(4):
            if number == count:
                raise SourceError("row 17")
            assert sum(reference() is not None for reference in made) <= 1
            group = pa.table({"a": [number] * 100})
            made.append(weakref.ref(group))
            facts["groups"] = number + 1
            yield group

    schema = pa.schema([("a", pa.int64())])
    entry = store.write_groups("prompts", schema, groups(4), key="k", facts=facts)
    with pytest.raises(SourceError, match="row 17"):
        store.write_groups("prompts", schema, groups(2), key="k")

    assert (entry.rows, entry.facts) == (400, {"groups": 4})
    assert store.finished("prompts", "k") == entry
    assert [store.read_group("prompts", group)["a"].to_pylist() for group in range(4)] == [[n] * 100 for n in range(4)]
    assert [name for name in store.names("", "") if name != "prompts.json"] == ["prompts.parquet"]


def test_objects_are_removed_in_bulk_after_one_look_at_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whose names would be patterns one by one, so that no others are removed."""
    store, looks, requests = Store("memory://removed"), list[int](), list[list[str]]()
    names = [f"journal/{name}" for name in ("a", "b", "c*", "cd", "d", "e")]
    rm = store.fs.rm

    def noted(paths: list[str]) -> None:
        requests.append(paths)
        rm(paths)

    with store.writing("test"):
        for name in names:
            store.write_bytes(name, b"x")
        monkeypatch.setattr(store.fs, "rm", noted)
        monkeypatch.setattr("thresher.pool.lease.check_held", lambda *_: looks.append(1))
        store.remove(*(name for name in names if name not in ("journal/cd", "journal/e")))
        store.remove("journal/e")
        store.remove()

    assert store.names("journal", "") == ["cd"]
    assert [len(paths) for paths in requests] == [3]
    assert len(looks) == 2


def test_paths_and_the_lease_are_not_looked_at_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are asked for at each of a million writes to a journal."""
    store, outside, realpath, asked = Store(tmp_path / "run"), trust.outside, os.path.realpath, list[str]()

    def looked(folder: str, name: str, *, local: bool) -> str | None:
        asked.append(name)
        return outside(folder, name, local=local)

    def resolved(path: str) -> str:
        asked.append(path)
        return realpath(path)

    with store.writing("test"):
        path = store.path("journal/00000-0001.arrows")
        store.check_lease()
        monkeypatch.setattr(os.path, "realpath", resolved)
        monkeypatch.setattr(trust, "outside", looked)
        for _ in range(3):
            store.check_lease()
            assert store.path("journal/00000-0001.arrows") == path
        assert asked == []
