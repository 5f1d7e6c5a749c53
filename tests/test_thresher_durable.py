import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import fsspec
import pytest

from helpers.recorded_disk import RecordedDisk
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


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    """In a folder and the folders there: at once where the writer was a process of this machine that has ended, after an hour
    where it cannot be asked for. What may still be written stays, and so do files of other names."""
    (tmp_path / "samples").mkdir()
    dead = subprocess.Popen(["true"])
    dead.wait()
    here = durable.machine_id()
    left = {
        f".run.json.{dead.pid}-0123abcd@{here}.tmp": True,
        f"samples/.00000.parquet.{dead.pid}-0123abcd@{here}.tmp": True,
        f".run.json.{dead.pid}-0123abcd@{socket.gethostname()}.tmp": False,
        durable.temporary_name("run.json").name: False,
        ".old.json.7-0123abcd.tmp": True,
        ".old.json.7-0123abcd@elsewhere.tmp": True,
        "mine.old.tmp": False,
        ".old.tmp": False,
    }
    for name in left:
        (tmp_path / name).write_text("x")
        if "old" in name:
            os.utime(tmp_path / name, (0, 0))

    durable.settle(tmp_path)

    assert {name: not (tmp_path / name).exists() for name in left} == left


def test_a_machine_of_the_same_host_name_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a container, whose processes this one does not see."""
    here = durable.machine_id()
    monkeypatch.setattr(durable, "machine", lambda: "other/1")
    elsewhere = durable.machine_id()
    monkeypatch.setattr(durable, "machine", lambda: "")

    assert here != elsewhere
    assert durable.temporary_name("a").name.count("@") == 0
    assert not any(durable.has_ended(name, 2**22 + 1) for name in (here, elsewhere, "", None))


def test_a_folder_is_as_old_as_the_newest_file_in_it(tmp_path: Path) -> None:
    """A job of another machine may write into its folder for days."""
    now, ages = time.time(), {"hours": 3 * 3600, "days": 8 * 86400}
    for name, age_s in ages.items():
        file = tmp_path / f".{name}.7-0123abcd@elsewhere.tmp/part/a"
        file.parent.mkdir(parents=True)
        file.touch()
        for path in (file, file.parent):
            os.utime(path, (now - age_s, now - age_s))
        os.utime(file.parents[1], (0, 0))

    durable.remove_leftovers(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == [".hours.7-0123abcd@elsewhere.tmp"]


def test_new_folders_survive_a_power_cut(tmp_path: Path) -> None:
    """Their names are synced, and those of folders above them."""
    disk = RecordedDisk(tmp_path)
    with disk.recording():
        durable.make_folders(tmp_path / "a/b/c")
        durable.make_folders(str(tmp_path / "a/b"))

    assert disk.synced() == {"a": None, "a/b": None, "a/b/c": None}


def test_folders_that_a_killed_process_made_survive_a_power_cut(tmp_path: Path) -> None:
    """It was killed before it synced their names: the one who continues there does, however deep the folder is."""
    disk = RecordedDisk(tmp_path)
    with disk.recording():
        for name in ("data", "data/runs", "data/runs/one"):
            (tmp_path / name).mkdir()
        durable.settle(tmp_path / "data/runs/one")

    assert disk.synced() == {"data": None, "data/runs": None, "data/runs/one": None}


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
