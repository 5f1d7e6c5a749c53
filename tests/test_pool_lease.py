"""One process at a time writes a run: across kill -9, machines without a common clock, and stores without file locks."""

import errno
import fcntl
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from thresher import durable
from thresher.errors import StoreError
from thresher.pool import lease
from thresher.pool.lease import Holder, Leases
from thresher.pool.store import Store

HOLD = """
import sys
from thresher.pool.store import Store
with Store(sys.argv[1]).writing("thresher run"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file locks as on some network file systems, and short waits."""

    def none(*_: Any) -> None:
        raise OSError(37, "No locks available")

    for name in ("flock", "lockf"):
        monkeypatch.setattr(fcntl, name, none)
    monkeypatch.setattr(lease, "WAIT_S", 0.05)
    monkeypatch.setattr(lease, "REMOTE_POLL_S", 0.02)
    monkeypatch.setattr(lease, "STALE_S", 0.3)
    monkeypatch.setattr(lease, "LOOK_S", 0.0)


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(tmp_path / "run" if request.param == "disk" else f"memory://{tmp_path.name}/run")


def holder_elsewhere(store: Store, **changes: Any) -> Holder:
    """The lease is another machine's from now on."""
    leases = Leases(store.fs, store.base, store.root)
    holder = Holder("t", "thresher run", "ann", "gpu-7", 17, "", "2026-01-01 00:00:00")
    leases.create(leases.highest() + 1, replace(holder, **changes))
    return holder


def test_blocks_of_one_process_are_nested_and_numbers_only_grow(store: Store) -> None:
    for _ in range(2):
        with store.writing("thresher run"), Store(store.root).writing("thresher publish"):
            store.write_bytes("a", b"1")
        store.write_bytes("a", b"2")  # without a lease nothing is asked for

    assert Leases(store.fs, store.base, store.root).numbers() == [2]


def test_the_holder_is_named_and_its_death_is_noticed_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    words = rf"{tmp_path}: .*process {process.pid}, `thresher run`.*is writing this run"
    with pytest.raises(StoreError, match=words), store.writing("thresher filter"):
        pass
    process.kill()
    started = time.monotonic()
    while True:  # it is gone before it is waited for
        with store.writing("thresher filter"):
            break
    process.communicate()

    assert time.monotonic() - started < 30
    assert f"process {process.pid}" in caplog.text
    assert "taking over" in caplog.text


@pytest.mark.parametrize("how", ["write_bytes", "write_table", "remove"])
def test_what_is_taken_over_while_it_syncs_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """A process is stopped after it looked at the lease and before the rename, for as long as another needs to write the file."""
    monkeypatch.setattr(lease, "LOOK_S", 60.0)
    store, theirs = Store(tmp_path), tmp_path / "a.json"

    def stopped(path: Path) -> None:
        if path.name.startswith(".a.") and not theirs.exists():
            holder_elsewhere(store)
            theirs.write_text("theirs")

    change: dict[str, Callable[[], object]] = {
        "write_bytes": lambda: store.write_bytes("a.json", b"ours"),
        "write_table": lambda: store.write_table("a", pa.table({"x": [1]}), key="k"),
        "remove": lambda: store.remove("a.json"),
    }
    with store.writing("thresher run"):
        store.write_bytes("b", b"")
        monkeypatch.setattr(durable, "sync", stopped)
        if how == "remove":
            stopped(tmp_path / ".a.")
        with pytest.raises(StoreError, match=r"taken over by ann@gpu-7"):
            change[how]()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b", "writer"]
    assert theirs.read_text() == "theirs"


def test_a_silent_holder_on_another_machine_loses_the_lease_and_one_that_renews_keeps_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = holder_elsewhere(store)
    with store.writing("thresher run"):
        assert lease.number_held(store.lease_key) == 2

    leases, ended = Leases(store.fs, store.base, store.root), threading.Event()
    holder_elsewhere(store)
    monkeypatch.setattr(lease, "STALE_S", 60.0)

    def renew() -> None:
        renewed = 0
        while not ended.wait(0.02):
            renewed += 1
            leases.write(3, replace(holder, renewed=renewed))

    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        with pytest.raises(StoreError, match=r"ann@gpu-7 \(process 17.*is writing this run"), store.writing("thresher run"):
            pass
    finally:
        ended.set()
        renewing.join()


def test_a_writer_that_was_stopped_meanwhile_writes_nothing_more(store: Store) -> None:
    """Neither itself nor the processes that it gave the store to."""
    with store.writing("thresher run"):
        store.write_bytes("a", b"1")
        given = pickle.dumps(store)
        holder_elsewhere(store)
        for write in (
            lambda: store.write_bytes("a", b"2"),
            lambda: store.remove("a"),
            lambda: store.move_aside("a", "damaged"),
            lambda: store.put_next("starts", "", ".json", b"{}"),
        ):
            with pytest.raises(StoreError, match=r"taken over by ann@gpu-7.*writes nothing more"):
                write()
    with pytest.raises(StoreError, match="taken over"):
        pickle.loads(given).write_bytes("a", b"3")

    assert store.read_bytes("a") == b"1"
    assert Leases(store.fs, store.base, store.root).read(2) is not None  # its release did not touch the other's lease


def test_a_lease_file_that_cannot_be_read_is_taken_over_in_time(store: Store) -> None:
    holder_elsewhere(store)
    store.fs.pipe_file(f"{store.base}/writer/000001.json", b"{")

    with store.writing("thresher run"):
        assert lease.number_held(store.lease_key) == 2


def test_of_many_that_take_a_lease_one_gets_it(tmp_path: Path) -> None:
    """Each takes the number after the highest; the others try again."""
    store = Store(tmp_path)
    leases = Leases(store.fs, store.base, store.root)
    gone = holder_elsewhere(store)
    taken: list[int] = []
    start = threading.Barrier(16)

    def take() -> None:
        start.wait()
        try:
            leases.create(2, replace(gone, token=os.urandom(4).hex()))
            taken.append(2)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=take) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert taken == [2]


class NoCondition(MemoryFileSystem):  # type: ignore[misc]
    """A client, or a server, that ignores the condition."""

    protocol = "nocondition"
    store: ClassVar[dict[str, Any]] = {}

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        super().pipe_file(path, value, **kwargs)


def test_storage_without_a_conditional_create_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the package of its client, and where that is known by asking the server."""

    def written() -> None:
        with lease.writing(NoCondition(), "/run", "nocondition://run", "thresher run"):
            pass

    with pytest.raises(StoreError, match=r"nocondition://run: cannot be a run directory: its client .* cannot create a file"):
        written()
    monkeypatch.setattr(NoCondition, "__module__", "s3fs.core")
    with pytest.raises(StoreError, match="its server overwrites a file that is only to be created"):
        written()


def test_where_nothing_may_be_written_nothing_is_leased() -> None:
    """A finished run on a read-only disk is opened as before."""
    with Store("/sys/nowhere").writing("thresher run"):
        assert lease.number_held(Store("/sys/nowhere").lease_key) == 0


def test_a_disk_without_hard_links_has_leases_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As exFAT and some mounts of containers, which refuse a link as not permitted."""

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    store = Store(tmp_path / "run")
    for number in (1, 2):
        with store.writing("thresher run"):
            assert lease.number_held(store.lease_key) == number
    holder_elsewhere(store)
    with pytest.raises(FileExistsError):
        Leases(store.fs, store.base, store.root).create(3, Holder("u", "", "", "", 1, "", ""))


def test_a_release_that_could_not_be_written_does_not_lock_the_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk was full when the block ended; the same process takes the lease again."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, store.writing("thresher run"):
        patch.setattr(Leases, "write", full)
    with store.writing("thresher run"):
        assert lease.number_held(store.lease_key) == 2


def test_a_link_to_a_run_directory_is_the_same_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")

    with Store(tmp_path / "run").writing("thresher run"), Store(tmp_path / "link").writing("thresher publish"):
        assert Leases(Store(tmp_path / "run").fs, str(tmp_path / "run"), "").numbers() == [1]


def test_a_writer_that_was_stopped_before_it_took_its_number_does_not_get_it(store: Store) -> None:
    """Meanwhile another took that number, and a third the next one; the smaller one was removed."""
    holder_elsewhere(store)
    holder_elsewhere(store)

    with pytest.raises(FileExistsError):
        Leases(store.fs, store.base, store.root).create(1, Holder("u", "", "", "", 1, "", ""))


def test_an_object_store_that_cannot_be_reached_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: Any, **__: Any) -> None:
        raise RuntimeError("no credentials")

    store = Store(f"memory://{tmp_path.name}/run")
    monkeypatch.setattr(type(store.fs), "ls", lost)
    with pytest.raises(StoreError, match=r"cannot take the lease of .*no credentials; check that"), store.writing("thresher run"):
        pass
