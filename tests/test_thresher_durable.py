import os
import threading
from pathlib import Path

import fsspec
import pytest

from thresher import durable


def test_a_file_is_replaced_and_no_other_file_is_left(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    for content in (b"first", memoryview(b"second")):
        durable.replace_file(path, content)

    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(b"old")

    def disk_full(_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(durable, "sync", disk_full)
    with pytest.raises(OSError, match="no space"):
        durable.replace_file(path, b"new")

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_removed_after_an_hour(tmp_path: Path) -> None:
    """In the run's directory and its folders; what may still be written stays, and so do files of other names."""
    (tmp_path / "samples").mkdir()
    old = [durable.temporary_name(tmp_path / "run.json"), durable.temporary_name(tmp_path / "samples/00000.parquet")]
    others = [durable.temporary_name(tmp_path / "now.json"), tmp_path / "mine.tmp", tmp_path / ".hidden"]
    for path in [*old, *others]:
        path.write_text("x")
    for path in [*old, *others[1:]]:
        os.utime(path, (0, 0))

    assert durable.remove_leftovers(tmp_path) == 2
    assert [path.exists() for path in [*old, *others]] == [False, False, True, True, True]


def test_of_many_writers_one_creates_a_file_and_it_is_whole(tmp_path: Path) -> None:
    """Readers never see it half written, for it is linked to its name when it is finished."""
    fs, path = fsspec.filesystem("file"), str(tmp_path / "a")
    start, created = threading.Barrier(8), list[int]()

    def create(number: int) -> None:
        start.wait()
        try:
            durable.create_file(fs, path, bytes([number]) * 100_000)
            created.append(number)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(created) == 1
    assert (tmp_path / "a").read_bytes() == bytes(created) * 100_000
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_conflict_on_an_object_store_is_a_lost_race() -> None:
    """S3 answers 409 while another one creates the object, which s3fs passes on as an error of input and output."""

    class Conflicting:
        def pipe_file(self, *_: object, **__: object) -> None:
            raise OSError(5, "An error occurred (ConditionalRequestConflict) when calling the PutObject operation")

    with pytest.raises(FileExistsError):
        durable.create_file(Conflicting(), "bucket/a", b"x")
