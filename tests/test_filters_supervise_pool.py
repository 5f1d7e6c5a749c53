"""Supervised workers, with tasks that hang, crash, exhaust memory and raise."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from filters.base import FilterError
from filters.supervise import Answer, Pool

TASK = """
import ctypes, os, signal, subprocess, time

def build(setup):
    def answer(item):
        if item == "hang":
            time.sleep(600)
        if item == "spin":
            while True:
                pass
        if item == "segfault":
            ctypes.string_at(0)
        if item == "exit":
            os._exit(3)
        if item == "eat":
            return len(bytearray(8 << 30))
        if item == "raise":
            raise ValueError("no")
        if item == "child":
            return subprocess.Popen(["sleep", "600"]).pid
        if item == "pid":
            return os.getpid()
        if isinstance(item, str) and item.startswith("once "):
            path = item[5:]
            if not os.path.exists(path):
                open(path, "w").close()
                time.sleep(600)
        return [setup, item]
    return answer

def broken(setup):
    raise RuntimeError("not today")

def stuck(setup):
    os._exit(5)
"""


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Pool]]:
    """Makes pools for the task above, and closes them."""
    (tmp_path / "supervised_task.py").write_text(TASK)
    monkeypatch.syspath_prepend(str(tmp_path))
    pools: list[Pool] = []

    def build(task: str = "build", **options: Any) -> Pool:
        pools.append(Pool(f"supervised_task:{task}", "s", **{"seconds": 0.5, "workers": 2, "memory_mib": 1024, **options}))
        return pools[-1]

    yield build
    for pool in pools:
        pool.close()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def zombies() -> set[int]:
    """Ended children of this process that were not waited for."""
    stats = [path.read_text() for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]
    fields = [(stat.split()[0], stat.rpartition(")")[2].split()) for stat in stats]
    return {int(pid) for pid, (state, parent, *_) in fields if state == "Z" and int(parent) == os.getpid()}


def test_answers_come_in_order_from_processes_of_their_own(make: Callable[..., Pool]) -> None:
    """More items than chunks, and a second round on the workers of the first."""
    pool = make(chunk=4)
    items = list(range(100))

    assert pool.map(items) == [Answer("done", ["s", item]) for item in items]
    before = pool.pids()
    (answer,) = pool.map(["pid"])
    assert answer.value in before
    assert answer.value != os.getpid()
    assert pool.map([]) == []


@pytest.mark.slow
def test_every_bad_item_has_its_class_and_costs_no_other_item(make: Callable[..., Pool]) -> None:
    """Hanging, spinning, a signal, an exit, memory, an exception: in one batch, in chunks with good items."""
    pool = make(chunk=8)
    bad = {"hang": "timeout", "spin": "timeout", "segfault": "crash", "exit": "crash", "eat": "crash", "raise": "error"}
    items: list[Any] = list(range(200))
    for number, name in enumerate(bad):
        items[number * 31 + 3] = name
    answers = pool.map(items)

    assert [answer.kind for answer in answers] == [bad.get(item, "done") for item in items]
    assert all(answer.value == ["s", item] for item, answer in zip(items, answers, strict=True) if answer.kind == "done")
    messages = {item: answer.message for item, answer in zip(items, answers, strict=True) if item in bad}
    assert messages["hang"] == "no answer within 0.5 s, twice, the second time alone"
    assert "SIGSEGV" in messages["segfault"]
    assert "exited with 3" in messages["exit"]
    assert "out of memory, 1024 MiB allowed" in messages["eat"]
    assert messages["raise"] == "ValueError: no"


@pytest.mark.slow
def test_an_item_that_was_late_once_is_tried_again_alone(make: Callable[..., Pool], tmp_path: Path) -> None:
    """Its second answer counts."""
    item = f"once {tmp_path / 'been_here'}"

    assert make().map([1, item, 2])[1] == Answer("done", ["s", item])


@pytest.mark.slow
def test_the_deadline_runs_from_dispatch_not_from_queueing(make: Callable[..., Pool]) -> None:
    """One worker, with a queue that takes longer than the deadline of an item."""
    items: list[Any] = ["hang", *range(300)]

    assert [answer.kind for answer in make(workers=1, chunk=300).map(items)] == ["timeout"] + ["done"] * 300


@pytest.mark.slow
def test_no_process_is_left(make: Callable[..., Pool]) -> None:
    """No worker, nothing that a worker started, no zombie."""
    pool = make(workers=1)
    child = pool.map(["child"])[0].value
    workers = pool.pids()
    assert alive(child)
    pool.map(["hang"])
    workers += pool.pids()
    pool.close()

    deadline = time.monotonic() + 5
    while any(map(alive, [child, *workers])) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [pid for pid in [child, *workers] if alive(pid)]


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(make: Callable[..., Pool], tmp_path: Path) -> None:
    """After kill -9 of the process with the pool, while one worker is idle and one is busy."""
    program = (
        "import threading, time\nfrom filters.supervise import Pool\n"
        "pool = Pool('supervised_task:build', seconds=60, workers=2, chunk=1)\n"
        "pool.map([1, 2])\nprint(*pool.pids(), flush=True)\npool.map(['hang'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        time.sleep(0.2)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)

    assert len(pids) >= 2
    assert not [pid for pid in pids if alive(pid)]


@pytest.mark.slow
def test_workers_are_recycled(make: Callable[..., Pool]) -> None:
    """After a number of items, and no item is lost."""
    pool = make(workers=1, recycle_after=10, chunk=5)
    answers = pool.map(["pid"] * 60)

    assert len({answer.value for answer in answers}) >= 4


@pytest.mark.parametrize(
    ("task", "message"),
    [("broken", "RuntimeError: not today"), ("stuck", "exited with 5"), ("missing", "AttributeError")],
)
def test_a_task_that_cannot_be_started_stops_the_run(make: Callable[..., Pool], task: str, message: str) -> None:
    """It says nothing about any sample, so it is no verdict."""
    with pytest.raises(FilterError, match=message):
        make(task).map([1])


@pytest.mark.slow
def test_ten_thousand_items_with_fifty_bad_ones_are_all_accounted_for(make: Callable[..., Pool]) -> None:
    """No hang, an answer for every item, no zombie."""
    names = ["hang", "spin", "segfault", "exit", "eat"]
    items: list[Any] = list(range(10_000))
    for number in range(50):
        items[number * 197 + 11] = names[number % 5]
    before = zombies()
    answers = make().map(items)

    kinds = [answer.kind for answer in answers]
    assert len(kinds) == 10_000
    assert (kinds.count("timeout"), kinds.count("crash"), kinds.count("done")) == (20, 30, 9_950)
    assert zombies() <= before
